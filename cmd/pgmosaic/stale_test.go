package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

var staleFor = flag.Duration("stale.for", 16*time.Second, "how long the test of stale reads reads, faults included")

// counters are rows that only grow, with what every client knows of them.
type counters struct {
	acked []atomic.Int64 // by id: the highest value that any client was told is committed
	mu    []sync.Mutex   // by id: one writer at a time, so that values grow by one
	t     *testing.T

	reads, writes, failed atomic.Int64
	stale                 atomic.Int64
	codes                 sync.Map // of the failures
}

func (k *counters) bad(format string, args ...any) {
	if k.stale.Add(1) < 10 {
		k.t.Errorf(format, args...)
	}
}

// client is one that reads and writes counters over one connection, and knows what it has seen.
type reader struct {
	k    *counters
	c    *pgx.Conn
	dsn  string
	what string
	own  map[int]int64 // what this client itself was told is committed
	seen map[int]int64
	all  bool // it must see what any client was told
}

func (r *reader) connect(ctx context.Context) bool {
	if r.c != nil && !r.c.IsClosed() {
		return true
	}
	c, err := pgx.Connect(ctx, r.dsn)
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		return false
	}
	r.c, r.seen, r.own = c, map[int]int64{}, map[int]int64{}
	return true
}

// write adds one to a counter. Only what is acknowledged counts.
func (r *reader) write(ctx context.Context, rng *rand.Rand, id int) {
	r.k.mu[id].Lock()
	defer r.k.mu[id].Unlock()
	var n int64
	var err error
	if rng.IntN(3) == 0 {
		err = pgx.BeginFunc(ctx, r.c, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, "update counters set n = n + 1 where id = $1 returning n", id).Scan(&n)
		})
	} else {
		err = r.c.QueryRow(ctx, "update counters set n = n + 1 where id = $1 returning n", id).Scan(&n)
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.k.writes.Add(1)
	r.k.acked[id].Store(n)
	r.own[id], r.seen[id] = n, n
}

func (r *reader) fail(err error) {
	r.k.failed.Add(1)
	if pgCode(err) == "XX000" {
		r.k.bad("%s: %v", r.what, err)
	}
	n, _ := r.k.codes.LoadOrStore(pgCode(err), &atomic.Int64{})
	n.(*atomic.Int64).Add(1)
	if r.c.PgConn().TxStatus() != 'I' {
		_ = r.c.Close(context.Background())
	}
	time.Sleep(5 * time.Millisecond)
}

// floor is what a read that begins now must see at least.
func (r *reader) floor(id int) int64 {
	n := max(r.own[id], r.seen[id])
	if r.all {
		n = max(n, r.k.acked[id].Load())
	}
	return n
}

func (r *reader) check(how string, id int, got, floor int64) {
	r.k.reads.Add(1)
	if got < floor {
		r.k.bad("%s, %s: counter %d is %d; it was %d before (own %d, seen %d)", r.what, how, id, got, floor, r.own[id], r.seen[id])
	}
	r.seen[id] = max(r.seen[id], got)
}

// read reads one counter or all of them, in one of the ways there are.
func (r *reader) read(ctx context.Context, rng *rand.Rand, id int) {
	one := func(how string, q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	},
	) error {
		floor := r.floor(id)
		var got int64
		if err := q.QueryRow(ctx, "select n from counters where id = $1", id).Scan(&got); err != nil {
			return err
		}
		r.check(how, id, got, floor)
		return nil
	}
	var err error
	switch rng.IntN(40) {
	case 0: // all shards
		floors := make([]int64, len(r.k.acked))
		for i := range floors {
			floors[i] = r.floor(i)
		}
		rows, _ := r.c.Query(ctx, "select id, n from counters order by id")
		var i int
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&i, &n}, func() error { r.check("scattered", i, n, floors[i]); return nil })
	case 1, 2:
		level := []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead}[rng.IntN(2)]
		err = pgx.BeginTxFunc(ctx, r.c, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: level}, func(tx pgx.Tx) error {
			if level == pgx.RepeatableRead { // one snapshot, taken by the first statement
				floor := r.floor(id)
				for range 2 {
					var got int64
					if err := tx.QueryRow(ctx, "select n from counters where id = $1", id).Scan(&got); err != nil {
						return err
					}
					r.check("in a READ ONLY transaction with one snapshot", id, got, floor)
				}
				return nil
			}
			if err := one("in a READ ONLY transaction", tx); err != nil {
				return err
			}
			return one("in a READ ONLY transaction, again", tx)
		})
	case 4, 5, 6, 7: // a pipeline of reads, each of which must be as fresh as if it were alone
		b := &pgx.Batch{}
		ids := make([]int, 4)
		floors := make([]int64, len(ids))
		for i := range ids {
			ids[i] = rng.IntN(len(r.k.acked))
			floors[i] = r.floor(ids[i])
			b.Queue("select n from counters where id = $1", ids[i])
		}
		res := r.c.SendBatch(ctx, b)
		for i, id := range ids {
			var got int64
			if err = res.QueryRow().Scan(&got); err != nil {
				break
			}
			r.check("in a pipeline", id, got, floors[i])
		}
		err = errors.Join(err, res.Close())
	case 3: // gathered
		floor := r.floor(id)
		var got int64
		if err = r.c.QueryRow(ctx, "select max(a.n) from counters a join settings b on b.value = a.id::text where a.id = $1", id).Scan(&got); err == nil {
			r.check("joined", id, got, floor)
		}
	default:
		err = one("alone", r.c)
	}
	if err != nil {
		r.fail(err)
	}
}

// staleWorld is a demo with counters on two shards, each with a synchronous and an asynchronous replica.
func staleWorld(t *testing.T, ids int) (*demo, *counters) {
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 2, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table counters (id int primary key, n bigint not null)")
	mustExec(t, c, "insert into counters select i, 0 from generate_series(0, $1::int - 1) i", ids)
	d.adminExec(t, "CREATE GROUP counted IN shop KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.counters IN GROUP counted KEY (id)")
	mustExec(t, c, "insert into settings select 'c' || i, i from generate_series(0, $1::int - 1) i", ids)
	for _, s := range []string{"s1", "s2"} {
		synchronous(t, d.cluster.Node(s+"-a"), s+"-b")
	}
	return d, &counters{acked: make([]atomic.Int64, ids), mu: make([]sync.Mutex, ids), t: t}
}

func synchronous(t *testing.T, n *cluster.Node, standby string) {
	t.Helper()
	for _, sql := range []string{"alter system set synchronous_standby_names = '\"" + standby + "\"'", "select pg_reload_conf()"} {
		if err := n.Exec(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
}

// otherProcess is a second proxy over the same shards.
func otherProcess(t *testing.T, d *demo) *app {
	t.Helper()
	doc := *d.Catalog.Current().Document
	doc.Version = 1
	path := t.TempDir() + "/map.json"
	if err := filestore.New(path).Save(t.Context(), 0, &doc); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Store = path
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	return startApp(t, cfg)
}

// replicaReads counts the reads that each node of a kind answered.
func replicaReads(d *demo) (replica, primary int64) {
	for _, s := range []string{"s1", "s2"} {
		for _, n := range []string{"a", "b", "c"} {
			m := d.Metrics.Node("shop", s, s+"-"+n)
			replica += m.Reads[replication.ToReplica].Load()
			for i := range m.Reads {
				if replication.Reason(i) != replication.ToReplica {
					primary += m.Reads[i].Load()
				}
			}
		}
	}
	return replica, primary
}

// Nobody misses a write that its level promises to show, and no session goes back in time, while replicas are paused,
// delayed, killed, restarted at once and rebuilt, while the WAL changes its segment, and while a primary dies and its
// synchronous standby takes over. Here it is short; make test-stale takes minutes.
func TestNoStaleReads(t *testing.T) {
	t.Parallel()
	const ids = 300
	d, k := staleWorld(t, ids)
	base := d.shopDSN() + "?options=-c%20pgmosaic.read_consistency%3D"
	ctx, stop := context.WithCancel(t.Context())
	var quiet atomic.Bool  // nobody writes
	var think atomic.Int64 // how long clients pause at most
	think.Store(int64(20 * time.Millisecond))
	var wg sync.WaitGroup
	for n := range 9 {
		level := []string{"causal", "session", "strong"}[n%3]
		r := &reader{k: k, dsn: base + level, what: level, all: level != "session"}
		if n%2 == 1 {
			r.dsn += "&default_query_exec_mode=simple_protocol"
		}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2026, uint64(n)))
			for ctx.Err() == nil {
				one, done := context.WithTimeout(context.Background(), 20*time.Second)
				if r.connect(one) {
					id := rng.IntN(ids)
					if rng.IntN(40) == 0 && !quiet.Load() {
						r.write(one, rng, id)
					} else {
						r.read(one, rng, id)
					}
				}
				done()
				time.Sleep(time.Duration(rng.Int64N(think.Load())))
			}
			if r.c != nil {
				_ = r.c.Close(context.Background())
			}
		})
	}
	// A session of one process hands its horizon to one of another, which must see what the first has seen.
	other := otherProcess(t, d)
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(9, 9))
		a := &reader{k: k, dsn: base + "session", what: "token"}
		b := &reader{k: k, dsn: other.dsn() + "?options=-c%20pgmosaic.read_consistency%3Dsession", what: "token, other process"}
		for ctx.Err() == nil {
			one, done := context.WithTimeout(context.Background(), 20*time.Second)
			if a.connect(one) && b.connect(one) {
				id := rng.IntN(ids)
				if !quiet.Load() {
					a.write(one, rng, id)
				}
				a.read(one, rng, id)
				var token string
				if err := a.c.QueryRow(one, "show pgmosaic.horizon").Scan(&token); err != nil {
					a.fail(err)
				} else if _, err := b.c.Exec(one, "set pgmosaic.horizon = '"+token+"'"); err != nil {
					b.fail(err)
				} else {
					for i, n := range a.seen {
						b.seen[i] = max(b.seen[i], n)
					}
					b.read(one, rng, id)
				}
			}
			done()
			time.Sleep(100 * time.Millisecond)
		}
		for _, r := range []*reader{a, b} {
			if r.c != nil {
				_ = r.c.Close(context.Background())
			}
		}
	})
	healthy := *staleFor / 5
	for _, n := range []string{"s1-b", "s1-c", "s2-b", "s2-c"} {
		eventually(t, n+" is eligible", func() bool { return replicaRow(t, d, n)["eligible"] == true })
	}
	r0, p0 := replicaReads(d)
	s0 := d.Metrics.Node("shop", "s1", "s1-a").Reads[replication.ByLevel].Load() + d.Metrics.Node("shop", "s2", "s2-a").Reads[replication.ByLevel].Load()
	time.Sleep(healthy)
	r1, p1 := replicaReads(d)
	s1 := d.Metrics.Node("shop", "s1", "s1-a").Reads[replication.ByLevel].Load() + d.Metrics.Node("shop", "s2", "s2-a").Reads[replication.ByLevel].Load()
	byReplica, byPrimary := r1-r0, p1-p0-(s1-s0)
	t.Logf("healthy, with writers: %d reads of replicas, %d of primaries by choice, %d because they were strong", byReplica, byPrimary, s1-s0)
	least := int64(50) // a busy machine's replicas replay late
	if *staleFor >= time.Minute {
		least = 80
	}
	if 100*byReplica < least*(byReplica+byPrimary) {
		t.Errorf("less than %d %% of the reads went to replicas: %d of %d", least, byReplica, byReplica+byPrimary)
	}
	think.Store(int64(4 * time.Millisecond))
	faults(t, d, *staleFor-healthy, &quiet)
	eventually(t, "enough was tried", func() bool { return k.reads.Load() >= 500 && k.writes.Load() >= 100 })
	stop()
	wg.Wait()
	codes := map[any]int64{}
	k.codes.Range(func(code, n any) bool { codes[code] = n.(*atomic.Int64).Load(); return true })
	t.Logf("%d reads, %d writes, %d failed %v, %d stale", k.reads.Load(), k.writes.Load(), k.failed.Load(), codes, k.stale.Load())
	final := connectTo(t, d.shopDSN())
	for id := range ids {
		if n := queryOne[int64](t, final, "select n from counters where id = $1", id); n < k.acked[id].Load() {
			t.Errorf("counter %d is %d, %d was acknowledged", id, n, k.acked[id].Load())
		}
	}
}

// faults does everything to the nodes, once in each round.
func faults(t *testing.T, d *demo, span time.Duration, quiet *atomic.Bool) {
	ctx := t.Context()
	do := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	setDelay := func(n *cluster.Node, delay string) {
		do("delay", errors.Join(n.Set("recovery_min_apply_delay", delay), n.Exec(ctx, "postgres", "select pg_reload_conf()")))
	}
	primary, sync, async := d.cluster.Node("s1-a"), d.cluster.Node("s1-b"), d.cluster.Node("s1-c")
	b2, c2 := d.cluster.Node("s2-b"), d.cluster.Node("s2-c")
	end := time.Now().Add(span)
	for round := 0; round == 0 || time.Now().Before(end); round++ {
		step := max(200*time.Millisecond, min(2*time.Second, span/24))
		pause := func() { time.Sleep(step) }
		do("pause", c2.PauseReplay(ctx))
		pause()
		do("resume", c2.ResumeReplay(ctx))
		setDelay(async, "2s")
		pause()
		do("restart at once", async.StopImmediate())
		do("restart at once", async.Start(ctx))
		pause()
		setDelay(async, "0")
		quiet.Store(true)
		do("switch", primary.Exec(ctx, "postgres", "select pg_switch_wal()"))
		pause()
		quiet.Store(false)
		do("async", d.cluster.Node("s2-a").Exec(ctx, "postgres", "alter system set synchronous_commit = off"))
		do("async", d.cluster.Node("s2-a").Exec(ctx, "postgres", "select pg_reload_conf()"))
		pause()
		b2.Kill()
		pause()
		do("start", b2.Start(ctx))
		do("freeze", c2.Freeze())
		pause()
		do("thaw", c2.Thaw())
		// s2-c is rebuilt while the others serve.
		do("drop", adminErr(d, "ALTER SHARD s2 IN shop DROP NODE \"s2-c\""))
		do("forget", c2.Forget())
		n, err := d.cluster.Replica(ctx, d.cluster.Node("s2-a"), "s2-c", 0)
		if err != nil {
			t.Error(err)
			return
		}
		c2 = n
		do("add", adminErr(d, "ALTER SHARD s2 IN shop ADD NODE '"+c2.DSN("shop")+"' NAME \"s2-c\""))
		pause()
		// s1's primary dies, its synchronous standby takes over, and the dead one comes back as its standby.
		primary.Kill()
		pause()
		do("promote", sync.Promote(ctx))
		do("follow", errors.Join(async.Set("primary_conninfo", conninfo(d, sync, async.Name)), async.Exec(ctx, "postgres", "select pg_reload_conf()")))
		pause()
		old := primary.Name
		do("drop", adminErr(d, "ALTER SHARD s1 IN shop DROP NODE \""+old+"\""))
		do("forget", primary.Forget())
		back, err := d.cluster.Replica(ctx, sync, old, 0)
		if err != nil {
			t.Error(err)
			return
		}
		do("add", adminErr(d, "ALTER SHARD s1 IN shop ADD NODE '"+back.DSN("shop")+"' NAME \""+old+"\""))
		synchronous(t, sync, old)
		primary, sync = sync, back
		pause()
	}
}

// conninfo is how a standby follows a primary.
func conninfo(d *demo, of *cluster.Node, name string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s application_name=%s", of.Port, cluster.Superuser, d.cluster.Password, name)
}

func adminErr(d *demo, sql string) error {
	_, err := d.Admin.Exec(context.Background(), sql, false)
	return err
}

// What a view, a function or a policy reads is not named by the statement, and is fresh all the same. So are rows that an
// admin statement has moved to another shard.
func TestFreshBehindNames(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true})
	w, r := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	for _, sql := range []string{
		"create table facts (id int primary key, n int not null)", "insert into facts values (1, 0)",
		"create view plain as select * from facts", "create view twice as select n * 2 as n from plain",
		"create function f() returns int language sql stable as 'select n from facts where id = 1'",
		"create view through as select f() as n",
		"create table parents (id int primary key, n int)", "create table kin (id int references parents on update cascade on delete cascade, n int)",
		"create table parts (id int, n int) partition by list (id)", "create table parts_1 partition of parts for values in (1)",
		"create table drawn (n int)", "insert into drawn values (0)", "create table draws (id int default 0)",
		`create function "Draw"() returns int language sql as 'update drawn set n = n + 1 returning n'`, `alter table draws alter id set default "Draw"()`,
		"create materialized view kept as select n from facts", "create view where_am_i as select pg_is_in_recovery() as n",
		"create table chained (n int)", "insert into chained values (0)",
		"create function chain() returns trigger language plpgsql as 'begin update chained set n = new.n; return null; end'",
		"create trigger chain after update on facts for each row execute function chain()",
	} {
		mustExec(t, w, sql)
	}
	for _, s := range []string{"s1", "s2"} {
		n := d.cluster.Node(s + "-b")
		if err := n.Set("recovery_min_apply_delay", "300ms"); err != nil {
			t.Fatal(err)
		}
		if err := n.Exec(t.Context(), "postgres", "select pg_reload_conf()"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the replica is eligible", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
	mustExec(t, w, "insert into parents values (1, 0)")
	mustExec(t, w, "insert into kin values (1, 0)")
	mustExec(t, w, "insert into parts values (1, 0)")
	for i := 1; i <= 12; i++ {
		time.Sleep(time.Duration(i%3) * 350 * time.Millisecond) // now and then the replica has caught up
		mustExec(t, w, "update facts set n = $1 where id = 1", i)
		mustExec(t, w, "update parents set id = $1", i+1)
		mustExec(t, w, "update parts_1 set n = $1", i)
		mustExec(t, w, "insert into draws default values")
		mustExec(t, w, "refresh materialized view kept")
		for sql, want := range map[string]int{
			"select n from drawn": i, "select n from kept": i, "select n::int from where_am_i": 0,
			"select n from plain where id = 1": i, "select n from twice": 2 * i, "select f()": i, "select n from through": i, "select id from kin": i + 1,
			"select n from parts": i, "select n from chained": i,
		} {
			if got := queryOne[int](t, r, sql); got != want {
				t.Errorf("%s: %d, want %d", sql, got, want)
			}
		}
	}
	// In a pipeline the key of one statement is not that of another.
	mustExec(t, w, "create table keyed (id int primary key, n int not null)")
	d.adminExec(t, "CREATE GROUP keyed IN shop KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.keyed IN GROUP keyed KEY (id)")
	mustExec(t, w, "insert into keyed values (1, 0), (2, 0), (3, 0), (4, 0)")
	for i := 1; i <= 6; i++ {
		replayed(t, d, "s1-a", "s1-b")
		replayed(t, d, "s2-a", "s2-b")
		p := rawTo(t, d.shopDSN())
		p.SendParse("a", "update keyed set n = n + 1", nil)
		p.SendParse("b", "select n from keyed where id = 2", nil)
		both := []string{"a", "b"}
		if i%2 == 0 {
			both = []string{"b", "a"}
		}
		for _, s := range both {
			p.SendBind("p"+s, s, []byte{0, 0, 0, 0, 0, 0})
		}
		for _, s := range both {
			p.executeLimited("p"+s, 0)
		}
		p.SendSync()
		if got := p.until('Z'); strings.Contains(got, "E[") {
			t.Fatalf("the pipeline: %s", got)
		}
		c := connectTo(t, d.shopDSN()) // one that has seen nothing yet
		for id := 1; id <= 4; id++ {
			if got := queryOne[int](t, c, "select n from keyed where id = $1", id); got != i {
				t.Errorf("after a pipeline: row %d is %d, want %d", id, got, i)
			}
		}
	}
	mustExec(t, w, "create table moved (id int primary key, n int)")
	mustExec(t, w, "insert into moved select i, i from generate_series(1, 500) i")
	d.adminExec(t, "CREATE GROUP moved IN shop KEY (int) BY HASH")
	replayed(t, d, "s1-a", "s1-b")
	replayed(t, d, "s2-a", "s2-b")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.moved IN GROUP moved KEY (id)")
	for _, c := range []*pgx.Conn{r, connectTo(t, d.shopDSN())} {
		if n := queryOne[int](t, c, "select count(*) from moved"); n != 500 {
			t.Errorf("%d of 500 rows after they have moved", n)
		}
	}
}

// boundedClock has a client write a row on home around the proxy, and another read it within a bound, until over, which compares. oldest is
// the age of the oldest that has been seen so far.
func boundedClock(t *testing.T, d *demo) (oldest func() time.Duration, over func()) {
	t.Helper()
	const bound = 500 * time.Millisecond
	limit := bound + time.Duration(d.cfg.Monitor)
	direct, r := connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.shopDSN())
	mustExec(t, direct, "create table clock (n int not null); insert into clock values (0); grant select on clock to app")
	mustExec(t, r, "set pgmosaic.read_consistency = bounded")
	mustExec(t, r, fmt.Sprintf("set pgmosaic.max_staleness = '%dms'", bound.Milliseconds()))
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	acked := []time.Time{time.Now()} // when each version was committed
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := direct.Exec(context.Background(), "update clock set n = n + 1"); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			acked = append(acked, time.Now())
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
		}
	})
	reads, worst := 0, time.Duration(0)
	wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			var n int
			if err := r.QueryRow(context.Background(), "select n from clock").Scan(&n); err != nil {
				t.Errorf("a bounded read: %v", err)
				return
			}
			mu.Lock()
			if n+1 < len(acked) {
				worst = max(worst, began.Sub(acked[n+1]))
			}
			mu.Unlock()
			reads++
			time.Sleep(time.Millisecond)
		}
	})
	oldest = func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return worst
	}
	return oldest, func() {
		t.Helper()
		stop()
		wg.Wait()
		t.Logf("%d bounded reads; the oldest was %s old, the limit is %s", reads, worst, limit)
		if worst > limit {
			t.Errorf("a read showed what had been overwritten %s before, the limit is %s", worst, limit)
		}
	}
}

// A bounded read never shows data that is older than its bound and one probe interval, while its replica is delayed, paused
// and killed: a version that was followed by another that long before the read began must not be seen.
func TestBoundedReadsAreBounded(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true})
	oldest, over := boundedClock(t, d)
	replica := d.cluster.Node("s1-b")
	step := func(err error) {
		if err != nil {
			t.Error(err)
		}
		time.Sleep(1200 * time.Millisecond)
	}
	delay := func(s string) error {
		return errors.Join(replica.Set("recovery_min_apply_delay", s), replica.Exec(context.Background(), "postgres", "select pg_reload_conf()"))
	}
	isRead := func() {
		t.Helper()
		reads := d.Metrics.Node("shop", "s1", "s1-b").Reads[replication.ToReplica].Load
		before := reads()
		eventually(t, "the replica is read", func() bool { return reads() >= before+25 })
	}
	isRead()
	step(delay("300ms"))
	eventually(t, "what is old, and not too old, is read", func() bool { return oldest() >= 200*time.Millisecond })
	step(delay("2s"))
	step(delay("0"))
	isRead()
	step(replica.PauseReplay(context.Background()))
	step(replica.ResumeReplay(context.Background()))
	isRead()
	step(replica.StopImmediate())
	step(replica.Start(context.Background()))
	isRead()
	over()
}

// A standby that was restarted may be behind itself: a session that has read it goes elsewhere until it has caught up.
func TestARestartedReplicaIsBehindItself(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true})
	setup, other := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	mustExec(t, setup, "create table past (n int); insert into past values (0)")
	mustExec(t, other, "set pgmosaic.read_consistency = eventual") // it only makes the pool dial
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "set pgmosaic.read_consistency = session") // it writes nothing itself
	onReplica := func() int64 { return d.Metrics.Node("shop", "s1", "s1-b").Reads[replication.ToReplica].Load() }
	replica := d.cluster.Node("s1-b")
	for _, n := range []string{"s1-a", "s1-b"} { // so that it does not fall behind the table's making
		replayed(t, d, "s1-a", "s1-b")
		if err := d.cluster.Node(n).Exec(t.Context(), "postgres", "checkpoint"); err != nil {
			t.Fatal(err)
		}
	}
	behind := 0
	for i := 1; i <= 3; i++ {
		eventually(t, "the replica is eligible", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
		mustExec(t, setup, "update past set n = $1", i)
		eventually(t, "the session has read it from the replica", func() bool {
			before := onReplica()
			return queryOne[int](t, c, "select n from past") == i && onReplica() > before
		})
		if err := errors.Join(replica.Set("recovery_min_apply_delay", "3s"), replica.StopImmediate(), replica.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
		for n := range 40 {
			if queryOne[int](t, other, "select n from past") < i {
				behind++
			}
			time.Sleep(20 * time.Millisecond)
			if n < 20 { // until the node's samples are younger than the server that the other session has dialled
				continue
			}
			if got := queryOne[int](t, c, "select n from past"); got < i {
				t.Fatalf("round %d: the session saw %d, and before that %d", i, got, i)
			}
		}
		if err := errors.Join(replica.Set("recovery_min_apply_delay", "0"), replica.Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the replica was behind itself in %d reads", behind)
	if behind == 0 {
		t.Error("the replica was never behind itself: nothing was tried")
	}
}

// What the resolver commits for a process that died is seen like any other write.
func TestTheResolversCommitsAreSeen(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true})
	cfg := crashConfig(t, mapOf(d, "shop"))
	a := startApp(t, cfg)
	c, s1, s2 := connectTo(t, a.dsn()), connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	mustExec(t, c, "insert into countries values ('DE', 'Germany')")
	id := 0
	for i := 1; id == 0; i++ {
		if d.adminExec(t, "LOCATE KEY ("+itoa(i)+") OF shop.customers")[0][4] == "s2" {
			id = i
		}
	}
	for i := range 2 {
		for _, n := range []string{"s1-b", "s2-b"} {
			if err := errors.Join(d.cluster.Node(n).Set("recovery_min_apply_delay", "1500ms"), d.cluster.Node(n).Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
				t.Fatal(err)
			}
		}
		replayed(t, d, "s1-a", "s1-b")
		replayed(t, d, "s2-a", "s2-b")
		gid := txn.GID(a.Catalog.Current().Install, "s1")
		mustExec(t, s2, "begin")
		mustExec(t, s2, "insert into customers values ($1, $2, 'x', 'DE', '2026-01-01') on conflict (customer_id) do update set name = $2", id, fmt.Sprint(i))
		mustExec(t, s2, "prepare transaction '"+txn.PartGID(gid, 1)+"'")
		mustExec(t, s1, "insert into pgmosaic.decision (gid, outcome) values ($1, 'commit')", gid)
		eventually(t, "the resolver has committed it", func() bool {
			return queryOne[int](t, s2, "select count(*) from customers where customer_id = $1 and name = $2", id, fmt.Sprint(i)) == 1
		})
		if got := queryOne[string](t, connectTo(t, a.dsn()), "select name from customers where customer_id = $1", id); got != fmt.Sprint(i) {
			t.Errorf("round %d: %q", i, got)
		}
	}
}
