package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// moment is when, at a step of a commit over shards, something breaks.
type moment int

const (
	before moment = iota // the server has not seen the step
	during               // the server has done it, its reply is lost
	after                // its reply has passed
)

func (m moment) String() string { return [...]string{"before", "during", "after"}[m] }

// step is one message of a commit: what it does, on the how many-eth shard.
type step struct {
	what  string
	shard int
}

// stepOf reads what a query of the proxy does for a commit; a part is prepared in the same burst that its row is written in.
func stepOf(sql string) string {
	switch {
	case strings.Contains(sql, "pgmosaic.decide($1::pg_catalog.text, 'part'"):
		return "prepare"
	case strings.Contains(sql, "pgmosaic.decide("):
		return "decide"
	case sql == "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE":
		return "begin behind"
	case sql == "COMMIT":
		return "commit"
	case strings.HasPrefix(sql, "COMMIT PREPARED"):
		return "commit prepared"
	}
	return ""
}

// taps stand between a proxy and its shards. They know the steps of a commit, and break things at one of them.
type taps struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	dead  bool // nothing passes any more, as after a kill -9 of the proxy
	at    step
	when  moment
	armed bool
	hit   func(shard int) bool // what happens; false cuts the one connection only
	comes func(step)           // is told of a step before it is passed on; nil: nobody
	seen  []step
	hold  map[step][]step // the reply to a step waits until these have come
	late  []step          // those that did not
	sent  []string        // every message to a shard for a client, as "shard type text"
}

// wait holds the reply to a step back until what it is to be together with has come.
func (ts *taps) wait(s step) {
	for _, with := range ts.hold[s] {
		came := false
		for range 200 {
			ts.mu.Lock()
			came = slices.Contains(ts.seen, with)
			ts.mu.Unlock()
			if came {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !came {
			ts.mu.Lock()
			ts.late = append(ts.late, with)
			ts.mu.Unlock()
		}
	}
}

func (ts *taps) arm(at step, when moment, hit func(int) bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.dead, ts.at, ts.when, ts.armed, ts.hit, ts.seen = false, at, when, true, hit, nil
}

// die cuts every connection, and lets none be made until the next arm.
func (ts *taps) die() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.dead = true
	for c := range ts.conns {
		_ = c.Close()
	}
}

// reached says whether a step is the one, at this moment. It fires once.
func (ts *taps) reached(s step, when moment) (hit func(int) bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if when == before {
		ts.seen = append(ts.seen, s)
	}
	if !ts.armed || s != ts.at || when != ts.when {
		return nil
	}
	ts.armed = false
	return ts.hit
}

// listen opens the tap of one shard.
func (ts *taps) listen(t testing.TB, shard int, to string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			ts.mu.Lock()
			if err != nil || ts.dead {
				ts.mu.Unlock()
				_ = c.Close()
				if s != nil {
					_ = s.Close()
				}
				continue
			}
			ts.conns[c], ts.conns[s] = true, true
			ts.mu.Unlock()
			wg.Go(func() { ts.pass(shard, c, s) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		ts.die()
		wg.Wait()
	})
	return l.Addr().String()
}

// pass relays a connection, message by message. Steps of a commit go alone: the answer comes before the next message.
func (ts *taps) pass(shard int, client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	answer := make(chan step, 1) // the step whose answer is on its way
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer client.Close()
		var of step
		for {
			typ, msg, err := readMessage(server, false)
			if err != nil {
				return
			}
			select {
			case of = <-answer:
			default:
			}
			if typ == 'Z' && of.what != "" {
				ts.wait(of)
				if hit := ts.reached(of, during); hit != nil && (hit(shard) || true) {
					return
				}
			}
			if _, err := client.Write(msg); err != nil {
				return
			}
			if typ == 'Z' && of.what != "" {
				if hit := ts.reached(of, after); hit != nil {
					hit(shard)
					return
				}
				of = step{}
			}
		}
	})
	first, clients := true, false
	for {
		typ, msg, err := readMessage(client, first)
		if err != nil {
			_ = server.Close()
			return
		}
		if first {
			clients = strings.Contains(string(msg), "user\x00app\x00")
		} else if clients {
			ts.mu.Lock()
			ts.sent = append(ts.sent, fmt.Sprintf("%d %c %s", shard, typ, strings.Trim(string(msg[5:]), "\x00")))
			ts.mu.Unlock()
		}
		first = false
		if typ == 'Q' || typ == 'P' {
			sql := strings.Trim(string(msg[5:]), "\x00")
			s := step{stepOf(sql), shard}
			if typ == 'Q' && strings.HasPrefix(sql, "PREPARE TRANSACTION") {
				s.what = "prepare alone"
			}
			if s.what != "" {
				if hit := ts.reached(s, before); hit != nil {
					hit(shard)
					_ = server.Close()
					return
				}
				ts.mu.Lock()
				comes := ts.comes
				ts.mu.Unlock()
				if comes != nil {
					comes(s)
				}
				answer <- s
			}
		}
		if _, err := server.Write(msg); err != nil {
			return
		}
	}
}

// readMessage reads a message, or the first one, which has no type.
func readMessage(r io.Reader, startup bool) (typ byte, msg []byte, err error) {
	head := 5
	if startup {
		head = 4
	}
	msg = make([]byte, head, 512)
	if _, err = io.ReadFull(r, msg); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(msg[head-4:])) - 4
	if n < 0 || n > 64<<20 {
		return 0, nil, fmt.Errorf("a message of %d bytes", n)
	}
	msg = append(msg, make([]byte, n)...)
	_, err = io.ReadFull(r, msg[head:])
	if !startup {
		typ = msg[0]
	}
	return typ, msg, err
}

// crashWorld is a database of three shards whose keys 0, 1 and 2 modulo 3 are apart, and a proxy of its own that reaches
// them through taps.
func crashWorld(t *testing.T, d *demo, db string, nodes []*cluster.Node) (doc *shardmap.Document, ts *taps) {
	d.adminExec(t, "CREATE DATABASE "+db)
	for i := range 3 {
		phys := fmt.Sprintf("%s_%d", db, i)
		freshDatabase(t, nodes[i], phys)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD c%d IN %s NODE '%s' NAME n%d", i, db, nodes[i].DSN(phys), i))
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), db))
	mustExec(t, c, "create table moves (shard int not null, id int not null, primary key (shard, id))")
	d.adminExec(t, "CREATE GROUP g IN "+db+" KEY (int) BY LIST ((0) ON c0, (1) ON c1, (2) ON c2)")
	d.adminExec(t, "DISTRIBUTE TABLE "+db+".public.moves IN GROUP g KEY (shard)")
	return tap(t, d, db)
}

// only keeps what satisfies a condition.
func only[T any](list []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool { return !keep(x) })
}

// crashConfig is that of a proxy with a map, whose resolver is quick.
func crashConfig(t *testing.T, doc *shardmap.Document) config.Config {
	path := t.TempDir() + "/map.json"
	if err := filestore.New(path).Save(t.Context(), 0, doc); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Store, cfg.Resolve, cfg.Grace = path, config.Duration(100*time.Millisecond), config.Duration(300*time.Millisecond)
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	return cfg
}

// served is a proxy that is a process of its own: this binary.
type served struct {
	addr string
	cmd  *exec.Cmd
	file string
	log  io.Writer // nil: nobody reads it
}

// serveProcess starts the process with a configuration.
func serveProcess(t *testing.T, cfg config.Config) *served {
	p := &served{addr: freeAddress(t), file: t.TempDir() + "/pgmosaic.yaml"}
	cfg.Listen, cfg.HTTP = p.addr, "off"
	text := fmt.Sprintf("listen: %s\nhttp: \"off\"\nstore: %s\nresolver_interval: %s\nresolver_grace: %s\nadmin_users: [admin]\nusers: [{name: app, password: app}, {name: admin, password: admin}]\n", p.addr, cfg.Store, time.Duration(cfg.Resolve), time.Duration(cfg.Grace))
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start(t)
	t.Cleanup(p.kill)
	return p
}

func (p *served) start(t testing.TB) {
	p.cmd = serving(p.file, p.log)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill is kill -9, and returns when the process is gone.
func (p *served) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// mapOf is the map of one database, apart from the others.
func mapOf(d *demo, db string) *shardmap.Document {
	return ofDatabase(d.Catalog.Current().Document, db)
}

// ofDatabase is what a map says of one database, as a map.
func ofDatabase(all *shardmap.Document, db string) *shardmap.Document {
	return &shardmap.Document{
		Version: 1, Install: all.Install,
		Databases:  only(all.Databases, func(x *shardmap.Database) bool { return x.Name == db }),
		Shards:     only(all.Shards, func(x *shardmap.Shard) bool { return x.Database == db }),
		Nodes:      only(all.Nodes, func(x *shardmap.Node) bool { return x.Database == db }),
		Groups:     only(all.Groups, func(x *shardmap.Group) bool { return x.Database == db }),
		Placements: only(all.Placements, func(x *shardmap.Placement) bool { return x.Database == db }),
		Tables:     only(all.Tables, func(x *shardmap.Table) bool { return x.Database == db }),
		Tenants:    only(all.Tenants, func(x *shardmap.Tenant) bool { return x.Database == db }),
		Attempts:   only(all.Attempts, func(x *shardmap.Attempt) bool { return x.Database == db }),
	}
}

// tap gives the map of one database whose nodes are reached through taps.
func tap(t *testing.T, d *demo, db string) (doc *shardmap.Document, ts *taps) {
	doc, ts = mapOf(d, db), &taps{conns: map[net.Conn]bool{}}
	for i, x := range doc.Nodes {
		n := *x
		cfg, err := pgx.ParseConfig(n.DSN)
		if err != nil {
			t.Fatal(err)
		}
		n.DSN = dsnFor(cfg.User, cfg.Password, ts.listen(t, i, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port)))), cfg.Database) + "?sslmode=disable"
		doc.Nodes[i] = &n
	}
	return doc, ts
}

// crash is what happens to a transaction at each step of its commit.
type crash struct {
	nodes   []*cluster.Node
	shards  int
	setUp   []string // run in the session before its transaction
	world   func()   // run once, when the tables are there
	only    bool     // the transaction is made READ ONLY behind its writes
	process bool     // the proxy is a process
	hit     func(ts *taps, proxy *served, shard int) bool
	restore func(proxy *served)

	silence chan struct{} // in place of hit: the connection stays open, and nothing passes until all moments are over
	config  func(*config.Config)
}

// crashes runs one transaction over some shards for every step of its commit and every moment, and checks that it is wholly
// there or wholly not, as the client was told, and that nothing stays prepared or locked.
func crashes(t *testing.T, d *demo, db string, x crash) {
	nodes, shards := x.nodes, x.shards
	doc, ts := crashWorld(t, d, db, nodes)
	defer d.forget(t, db)
	hear := sync.OnceFunc(func() {
		if x.silence != nil {
			close(x.silence)
		}
	})
	defer hear()
	if x.world != nil {
		x.world()
	}
	var proxy *served
	addr := ""
	cfg := crashConfig(t, doc)
	if x.config != nil {
		x.config(&cfg)
	}
	if x.process {
		proxy = serveProcess(t, cfg)
		addr = proxy.addr
	} else {
		addr = startApp(t, cfg).Server.Addr()
	}
	var direct []*pgx.Conn
	reconnect := func() {
		direct = nil
		for i := range 3 {
			direct = append(direct, connectTo(t, nodes[i].DSN(fmt.Sprintf("%s_%d", db, i))))
		}
	}
	reconnect()
	steps := []step{}
	for i := range shards {
		switch {
		case x.only:
			steps = append(steps, step{"prepare alone", i}, step{"commit prepared", i})
		case i > 0:
			steps = append(steps, step{"prepare", i}, step{"commit prepared", i})
		}
	}
	steps = append(steps, step{"decide", 0}, step{"commit", 0})
	if x.only {
		steps = append(steps, step{"begin behind", 0})
	}
	id, committed, lost := 0, 0, 0
	for _, s := range steps {
		for _, when := range []moment{before, during, after} {
			id++
			name := fmt.Sprintf("%s %s on shard %d", when, s.what, s.shard)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			var c *pgx.Conn
			ts.arm(step{}, before, nil)
			eventually(t, name+": the proxy is well again", func() bool {
				var err error
				if c, err = pgx.Connect(ctx, dsnFor("app", "app", addr, db)); err != nil {
					return false
				}
				for i := range shards {
					if _, err := c.Exec(ctx, "delete from moves where shard = $1 and id = -1", i); err != nil {
						_ = c.Close(ctx)
						return false
					}
				}
				return true
			})
			for _, sql := range x.setUp {
				mustExec(t, c, sql)
			}
			mustExec(t, c, "begin isolation level read committed")
			for i := range shards {
				mustExec(t, c, "insert into moves values ($1, $2)", i, id)
			}
			if x.only {
				mustExec(t, c, "set transaction read only")
			}
			fired := make(chan struct{})
			ts.arm(s, when, func(shard int) bool {
				if x.silence != nil {
					close(fired)
					<-x.silence
					return false
				}
				defer close(fired)
				return x.hit(ts, proxy, shard)
			})
			done := make(chan error, 1)
			go func() {
				_, err := c.Exec(ctx, "commit")
				done <- err
			}()
			select {
			case <-fired:
			case <-time.After(time.Minute):
				t.Fatalf("%s: the step did not come; %v were seen", name, ts.seen)
			}
			if x.restore != nil {
				x.restore(proxy)
				reconnect()
			}
			var told error
			acknowledged, known := false, false
			select {
			case told = <-done:
				acknowledged, known = told == nil, pgCode(told) == "40001" || pgCode(told) == "40000"
			case <-time.After(x.patience()): // its proxy is dead
			}
			ts.arm(step{}, before, nil) // what was dead lives again: its resolver races with the other's
			eventually(t, name+": nothing is prepared", func() bool {
				n := 0
				for _, c := range direct {
					n += queryOne[int](t, c, "select count(*) from pg_prepared_xacts where gid like 'pgmosaic:%' and database = current_database()")
				}
				return n == 0
			})
			found := 0
			for i, c := range direct {
				found += queryOne[int](t, c, "select count(*) from moves where shard = $1 and id = $2", i, id)
				mustExec(t, c, "set lock_timeout = '20s'")
				mustExec(t, c, "update moves set id = id where shard = $1 and id = $2", i, id) // no lock is stuck
			}
			switch {
			case found != 0 && found != shards:
				t.Errorf("%s: %d of %d rows are there", name, found, shards)
			case acknowledged && found == 0:
				t.Errorf("%s: the client was told that it is committed, and it is not", name)
			case known && found != 0:
				t.Errorf("%s: the client was told that it is rolled back (%v), and it is not", name, told)
			}
			if found > 0 {
				committed++
			} else {
				lost++
			}
			_ = c.Close(ctx)
			cancel()
		}
	}
	t.Logf("%d moments: %d committed, %d rolled back", id, committed, lost)
	hear() // a node learns only now that some of its connections lead nowhere
	eventually(t, "no decision is left", func() bool {
		n := 0
		for _, c := range direct {
			n += queryOne[int](t, c, "select count(*) from pgmosaic.decision")
		}
		return n == 0
	})
}

// patience is how long an answer is waited for.
func (x *crash) patience() time.Duration {
	if x.silence != nil {
		return 30 * time.Second
	}
	return 12 * time.Second
}

func replyLost(*taps, *served, int) bool { return false }

// The same under row-level security, as a role that SET ROLE took, at REPEATABLE READ by default.
func TestLostRepliesUnderRowSecurity(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	for _, n := range nodes[:2] {
		c := connectTo(t, n.DSN("postgres"))
		mustExec(t, c, "do $$ begin if to_regrole('teller') is null then create role teller; grant teller to app; end if; end $$")
	}
	crashes(t, d, "secured", crash{
		nodes: nodes, shards: 2, hit: replyLost,
		setUp: []string{"set role teller", "set default_transaction_isolation = 'repeatable read'"},
		world: func() {
			c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "secured"))
			for _, sql := range []string{
				"grant select, insert, update on moves to teller", "create policy seen on moves using (id > 0) with check (id > 0)", "create policy swept on moves for delete to app using (true)",
				"alter table moves enable row level security", "alter table moves force row level security",
			} {
				mustExec(t, c, sql)
			}
		},
	})
}

// The reply to each step of a commit is lost in turn, and the step itself.
func TestLostRepliesOfACommit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	for _, shards := range []int{2, 3} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			crashes(t, d, fmt.Sprint("lost", shards), crash{nodes: nodes, shards: shards, setUp: []string{"set synchronous_commit = off"}, hit: replyLost})
		})
	}
}

// The same of a transaction that was made READ ONLY behind its writes: no part has a row, and the decision comes when all are prepared.
func TestLostRepliesOfACommitMadeReadOnly(t *testing.T) {
	t.Parallel()
	d := shop(t)
	crashes(t, d, "readonly", crash{nodes: []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}, shards: 2, only: true, hit: replyLost})
}

// A process stops for long between the parts of a transaction that was made READ ONLY and its decision: nothing of it is open on the decider then.
// The transaction was rolled back meanwhile, and the decision to do so is forgotten. It is not told that it is committed.
func TestDecisionBehindPartsThatAreGone(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	doc, ts := crashWorld(t, d, "behind", nodes)
	defer d.forget(t, "behind")
	c := connectTo(t, dsnFor("app", "app", startApp(t, crashConfig(t, doc)).Server.Addr(), "behind"))
	direct := []*pgx.Conn{connectTo(t, nodes[0].DSN("behind_0")), connectTo(t, nodes[1].DSN("behind_1"))}
	left := func(sql string) (n int) {
		for _, c := range direct {
			n += queryOne[int](t, c, sql)
		}
		return n
	}
	for i, at := range []string{"prepare alone", "begin behind", "decide"} {
		for _, sql := range []string{"begin", "insert into moves values (0, " + itoa(i) + ")", "insert into moves values (1, " + itoa(i) + ")", "set transaction read only"} {
			mustExec(t, c, sql)
		}
		came, stopped := make(chan struct{}), make(chan struct{})
		goOn := sync.OnceFunc(func() { close(stopped) })
		defer goOn()
		ts.mu.Lock()
		ts.comes = func(s step) {
			if s == (step{at, 0}) {
				close(came)
				<-stopped
			}
		}
		ts.mu.Unlock()
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "commit")
			done <- err
		}()
		<-came
		if at != "begin behind" { // it stays as long as the decider's transaction is open
			eventually(t, at+": it is decided", func() bool { return left("select count(*) from pgmosaic.decision where outcome = 'abort'") == 1 })
		}
		eventually(t, at+": the parts are rolled back", func() bool {
			return left("select count(*) from pg_prepared_xacts where gid like 'pgmosaic:%' and database = current_database()") == 0
		})
		if at == "begin behind" {
			eventually(t, at+": that is forgotten", func() bool { return left("select count(*) from pgmosaic.decision") == 0 })
		}
		goOn()
		told := <-done
		ts.mu.Lock()
		ts.comes = nil
		ts.mu.Unlock()
		if there := left("select count(*) from moves where id = " + itoa(i)); there != 0 || pgCode(told) != "40001" {
			t.Errorf("%s: %d rows are there, the client is told %v", at, there, told)
		}
		eventually(t, at+": nothing is prepared", func() bool {
			return left("select count(*) from pg_prepared_xacts where gid like 'pgmosaic:%' and database = current_database()") == 0
		})
		eventually(t, at+": all is forgotten", func() bool { return left("select count(*) from pgmosaic.decision") == 0 })
	}
}

// The proxy is gone at each step of a commit, as after kill -9: its servers see their connections end, and nothing more
// comes of it. Another proxy's resolver finishes what it left.
func TestProxyDeadAtEachStepOfACommit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	crashes(t, d, "dead", crash{nodes: nodes, shards: 2, hit: func(ts *taps, _ *served, _ int) bool { ts.die(); return true }})
}

// The same with a process that is killed, and started again.
func TestProcessKilledAtEachStepOfACommit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	for _, shards := range []int{2, 3} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			crashes(t, d, fmt.Sprint("process", shards), crash{
				nodes: nodes, shards: shards, process: true,
				hit:     func(_ *taps, proxy *served, _ int) bool { proxy.kill(); return true },
				restore: func(proxy *served) { proxy.start(t) },
			})
		})
	}
}

// A primary is killed (pg_ctl stop -m immediate) at each step of a commit, and started again.
func TestServerKilledAtEachStepOfACommit(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 3, Replicas: 0, NoLoad: true})
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s3-a")}
	var killed *cluster.Node
	crashes(t, d, "killed", crash{
		nodes: nodes, shards: 2,
		hit: func(_ *taps, _ *served, shard int) bool {
			killed = nodes[shard]
			if err := killed.StopImmediate(); err != nil {
				t.Error(err)
			}
			return false
		},
		restore: func(*served) {
			if err := killed.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
		},
	})
}

// A part that was prepared is gone when it is to be committed, as after a failover to a standby that lacks the end of the log,
// and so is a decision whose parts have committed: that is damage, and never success.
func TestLostPartsAreDamage(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	doc, ts := crashWorld(t, d, "damaged", nodes)
	defer d.forget(t, "damaged")
	c := connectTo(t, dsnFor("app", "app", startApp(t, crashConfig(t, doc)).Server.Addr(), "damaged"))
	direct := connectTo(t, nodes[1].DSN("damaged_1"))
	for _, sql := range []string{"begin", "insert into moves values (0, 1)", "insert into moves values (1, 1)"} {
		mustExec(t, c, sql)
	}
	apart := connectTo(t, nodes[1].DSN("damaged_1"))
	ts.arm(step{"commit prepared", 1}, before, func(int) bool {
		mustExec(t, apart, "rollback prepared '"+queryOne[string](t, apart, "select gid from pg_prepared_xacts where database = current_database()")+"'")
		return true
	})
	_, err := c.Exec(t.Context(), "commit")
	wantCode(t, err, "08007")
	if !strings.Contains(fmt.Sprint(err), "its part on shard c1 is lost") {
		t.Errorf("the client is told %v", err)
	}
	orphan := "pgmosaic:" + doc.Install + ":c0:0123456789abcdef0123456789abcdef/0"
	mustExec(t, direct, "insert into pgmosaic.decision values ($1, 'part')", orphan)
	eventually(t, "both are shown", func() bool {
		shown := fmt.Sprint(d.adminExec(t, "SHOW TRANSACTIONS WHERE database = 'damaged'"))
		return strings.Contains(shown, "damaged: its part on shard c1 is lost") && strings.Contains(shown, orphan+"  c0 ") && strings.Contains(shown, "damaged: its decision on shard c0 is lost")
	})
	// What another installation decided, or names shards of another map, is not judged.
	strangers := []string{"pgmosaic:00000000-0000-0000-0000-000000000000:c0:00", "pgmosaic:" + doc.Install + ":c0:11"}
	mustExec(t, direct, "insert into pgmosaic.decision values ($1, 'commit', '{c1}'), ($2, 'commit', '{elsewhere}')", strangers[0], strangers[1])
	time.Sleep(1200 * time.Millisecond) // two sweeps
	if n := queryOne[int](t, direct, "select count(*) from pgmosaic.decision where gid = any($1) and outcome = 'commit'", strangers); n != 2 {
		t.Errorf("%d of two decisions of strangers are as they were", n)
	}
	for i, n := range nodes[:2] {
		mustExec(t, connectTo(t, n.DSN(fmt.Sprintf("damaged_%d", i))), "delete from pgmosaic.decision")
	}
}

// A transaction that stays on one shard sends what it would send to PostgreSQL, and one over three shards commits in three
// round trips: each message of a round is on its way before any reply to that round has come.
func TestMessagesOfACommit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	doc, ts := crashWorld(t, d, "traced", nodes)
	defer d.forget(t, "traced")
	c := connectTo(t, dsnFor("app", "app", startApp(t, crashConfig(t, doc)).Server.Addr(), "traced"))
	run := func(shards ...int) []string {
		t.Helper()
		ts.mu.Lock()
		ts.seen, ts.sent = nil, nil
		ts.mu.Unlock()
		simply(t, c, "begin")
		for _, s := range shards {
			simply(t, c, fmt.Sprintf("insert into moves values (%d, %d)", s, 1000+len(shards)))
		}
		simply(t, c, "commit")
		ts.mu.Lock()
		defer ts.mu.Unlock()
		return slices.Clone(ts.sent)
	}
	run(0)
	run(0, 1, 2)
	mustExec(t, c, "delete from moves")
	one := run(1)
	var texts []string
	for _, m := range one {
		if strings.ContainsAny(m[2:3], "PQ") {
			texts = append(texts, strings.Fields(strings.NewReplacer("\x00", " ").Replace(m[4:]))[0])
		}
		if m[0] != '1' {
			t.Errorf("a transaction on shard 1 sent %q", m)
		}
	}
	if got := strings.ToLower(strings.Join(texts, " ")); got != "begin insert commit" {
		t.Errorf("a transaction on one shard sent %q, in all %q", got, one)
	}
	round1, round3 := []step{{"decide", 0}, {"prepare", 1}, {"prepare", 2}}, []step{{"commit prepared", 1}, {"commit prepared", 2}}
	ts.hold = map[step][]step{}
	for _, r := range [][]step{round1, round3} {
		for _, s := range r {
			ts.hold[s] = r
		}
	}
	run(0, 1, 2)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if len(ts.late) > 0 {
		t.Errorf("these were sent only after a reply to their round: %v", ts.late)
	}
	if len(ts.seen) != 6 || ts.seen[3] != (step{"commit", 0}) {
		t.Errorf("the steps were %v", ts.seen)
	}
}

// A commit that was decided while a shard was away is acknowledged, and is there for the first statement that runs on that shard
// when it is back, however long the resolver takes.
func TestDecidedCommitIsFinishedBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 3, Replicas: 0, NoLoad: true})
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s3-a")}
	doc, ts := crashWorld(t, d, "owed", nodes)
	cfg := crashConfig(t, doc)
	cfg.Resolve, cfg.Buffer = config.Duration(time.Hour), config.Duration(30*time.Second)
	a := startApp(t, cfg)
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "owed"))
	other := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "owed"))
	mustExec(t, other, "select * from moves")
	for _, sql := range []string{"begin", "insert into moves values (0, 1)", "insert into moves values (1, 1)"} {
		mustExec(t, c, sql)
	}
	ts.arm(step{"commit prepared", 1}, before, func(int) bool {
		if err := nodes[1].StopImmediate(); err != nil {
			t.Error(err)
		}
		return false
	})
	if _, err := c.Exec(t.Context(), "commit"); err != nil {
		t.Fatalf("a decided commit: %v", err)
	}
	got := make(chan string, 2)
	for _, conn := range []*pgx.Conn{c, other} {
		go func() {
			var n int
			err := conn.QueryRow(t.Context(), "select count(*) from moves where shard = 1").Scan(&n)
			got <- fmt.Sprint(n, err)
		}()
	}
	time.Sleep(200 * time.Millisecond)
	if err := nodes[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s := <-got; s != "1 <nil>" {
			t.Errorf("the first statement on the shard sees %s", s)
		}
	}
	if n := queryOne[int](t, c, "select count(*) from moves"); n != 2 {
		t.Errorf("%d rows", n)
	}
}

// A shard fails over to a standby that lacks the end of the log, with a part of a commit that is being finished: the client is told
// of the damage, and so is who looks.
func TestFailoverThatLosesAPart(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 3, Replicas: 1, NoLoad: true})
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s3-a")}
	standby := d.cluster.Node("s2-b")
	doc, ts := crashWorld(t, d, "torn", nodes)
	doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "torn", Shard: "c1", Name: "n1b", DSN: standby.DSN("torn_1"), Ordinal: 1})
	a := startApp(t, crashConfig(t, doc))
	a.Engine.SettleWithin = time.Minute // a busy machine is slow to promote
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "torn"))
	mustExec(t, c, "insert into moves values (1, 0)")
	eventually(t, "the standby follows", func() bool {
		var n int
		follower, err := pgx.Connect(t.Context(), standby.DSN("torn_1"))
		if err != nil {
			return false
		}
		defer func() { _ = follower.Close(t.Context()) }()
		return follower.QueryRow(t.Context(), "select count(*) from moves").Scan(&n) == nil && n == 1
	})
	if err := standby.StopImmediate(); err != nil { // it gets nothing more
		t.Fatal(err)
	}
	for _, sql := range []string{"begin", "insert into moves values (0, 1)", "insert into moves values (1, 1)"} {
		mustExec(t, c, sql)
	}
	ts.arm(step{"commit prepared", 1}, before, func(int) bool {
		nodes[1].Kill()
		if err := standby.Start(t.Context()); err != nil {
			t.Error(err)
		}
		if err := standby.Promote(t.Context()); err != nil {
			t.Error(err)
		}
		return false
	})
	_, err := c.Exec(t.Context(), "commit")
	wantCode(t, err, "08007")
	if !strings.Contains(fmt.Sprint(err), "its part on shard c1 is lost") {
		t.Errorf("the client is told %v", err)
	}
	console := connectTo(t, dsnFor("admin", "admin", a.Server.Addr(), "pgmosaic"))
	eventually(t, "it is shown", func() bool {
		rows, err := console.Query(t.Context(), "SHOW TRANSACTIONS", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return false
		}
		all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) { return fmt.Sprintf("%s", r.RawValues()), nil })
		return err == nil && strings.Contains(fmt.Sprint(all), "damaged: its part on shard c1 is lost")
	})
	if n := queryOne[int](t, c, "select count(*) from moves where shard = 0"); n != 1 {
		t.Errorf("shard 0 has %d rows", n)
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		t.Fatal("no gid was told")
	}
	gid := pe.Hint[strings.LastIndexByte(pe.Hint, ' ')+1:]
	var damage *txn.DamagedError
	if _, err := a.Engine.Settle(t.Context(), "torn", gid); !errors.As(err, &damage) || damage.Shard != "c1" { // the resolver may have found it first
		t.Errorf("who asks once the damage of %s is known is told %v", gid, err)
	}
}

// Who cannot be prepared decides, whatever was written first; two such parts are refused. best_effort commits one by one and says
// what has been committed.
func TestWhoDecidesACommit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	doc, ts := crashWorld(t, d, "decided", nodes)
	defer d.forget(t, "decided")
	a := startApp(t, crashConfig(t, doc))
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "decided"))
	for i, sql := range []string{"create temp table scratch (n int)", "notify channel_x", "select pg_notify('channel_x', 'y')"} {
		mustExec(t, c, "begin")
		mustExec(t, c, fmt.Sprintf("insert into moves values (1, %d)", i))
		mustExec(t, c, fmt.Sprintf("insert into moves values (2, %d)", i))
		mustExec(t, c, sql)
		if i == 0 {
			mustExec(t, c, "insert into scratch values (1)")
		}
		mustExec(t, c, fmt.Sprintf("insert into moves values (0, %d)", i))
		mustExec(t, c, "commit")
		if n := queryOne[int](t, c, "select count(*) from moves where id = $1", i); n != 3 {
			t.Errorf("%s: %d rows", sql, n)
		}
	}
	mustExec(t, c, "discard all")
	mustExec(t, c, "set pgmosaic.multi_shard_commit = refuse")
	mustExec(t, c, "begin")
	mustExec(t, c, "insert into moves values (0, 100)")
	_, err := c.Exec(t.Context(), "insert into moves values (1, 100)")
	wantCode(t, err, "0A000")
	mustExec(t, c, "rollback")
	mustExec(t, c, "set pgmosaic.multi_shard_commit = best_effort")
	ts.mu.Lock()
	ts.seen = nil
	ts.mu.Unlock()
	mustExec(t, c, "begin; insert into moves values (0, 101), (1, 101), (2, 101); commit")
	ts.mu.Lock()
	for _, s := range ts.seen {
		if s.what != "commit" {
			t.Errorf("best_effort sent %v", s)
		}
	}
	ts.mu.Unlock()
	mustExec(t, c, "begin")
	for i := range 3 {
		mustExec(t, c, fmt.Sprintf("insert into moves values (%d, 102)", i))
	}
	ts.arm(step{"commit", 1}, before, func(int) bool { return false })
	_, err = c.Exec(t.Context(), "commit")
	wantCode(t, err, "40003")
	if !strings.Contains(err.Error(), "committed on shard c0, and not from shard c1 on") {
		t.Error(err)
	}
	if n := queryOne[int](t, c, "select count(*) from moves where id in (101, 102)"); n != 4 {
		t.Errorf("%d rows", n)
	}
}

// Whoever lost the answer to a COMMIT may ask for the outcome when others have finished all of it; and when it is not kept any
// more, nobody says that the transaction was rolled back.
func TestOutcomesAreRemembered(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	install := d.Catalog.Current().Install + "-remembered" // no other resolver's
	var shards []txn.Shard
	var direct []*pgx.Conn
	for i, n := range nodes {
		db := fmt.Sprintf("remembered_%d", i)
		freshDatabase(t, n, db)
		shards = append(shards, txn.Shard{Whose: anybodys, Name: fmt.Sprintf("r%d", i), DSN: n.DSN(db)})
		direct = append(direct, connectTo(t, n.DSN(db)))
		mustExec(t, direct[i], txn.Schema(i, 1))
	}
	var later time.Duration // what time it is here
	r := txn.Resolver{Install: install, Grace: time.Hour, Now: func() time.Time { return time.Now().Add(later) }}
	outcomes := func(gid string) string {
		return queryOne[string](t, direct[0], "select coalesce(string_agg(outcome, ' '), '') from pgmosaic.decision where gid = $1", gid)
	}
	sweep := func() {
		t.Helper()
		if err := r.Sweep(t.Context(), shards); err != nil {
			t.Fatal(err)
		}
	}
	settle := func(gid string, want bool) {
		t.Helper()
		if committed, err := r.Settle(t.Context(), shards, gid); err != nil || committed != want {
			t.Errorf("committed: %t, %v; it should be %t", committed, err, want)
		}
	}

	// Committed, and all of it finished by others.
	gid := txn.GID(install, "r0")
	mustExec(t, direct[0], "insert into pgmosaic.decision values ($1, 'commit', '{r1}')", gid)
	mustExec(t, direct[0], "update pgmosaic.decision set at = now() - interval '2 days'") // its transaction took long
	mustExec(t, direct[1], "insert into pgmosaic.decision values ($1, 'part')", txn.PartGID(gid, 0))
	settle(gid, true)
	sweep()
	sweep()
	if got := outcomes(gid); got != "done" {
		t.Errorf("it is %q after two sweeps", got)
	}
	if n := queryOne[int](t, direct[1], "select count(*) from pgmosaic.decision"); n != 0 {
		t.Errorf("%d rows of parts are left", n)
	}
	settle(gid, true)
	for _, jump := range []string{"7 hours", "10 years", "-7 hours", "-10 years"} { // the node's clock; ours goes on as ever
		mustExec(t, direct[0], "update pgmosaic.decision set at = now() - $1::text::interval", jump)
		sweep()
		if got := outcomes(gid); got != "done" {
			t.Errorf("it is %q when the node's clock has jumped by %s", got, jump)
		}
		settle(gid, true)
	}
	later += 7 * time.Hour
	sweep()
	if got := outcomes(gid); got != "" {
		t.Errorf("it is %q in the end", got)
	}
	if _, err := r.Settle(t.Context(), shards, gid); !errors.Is(err, txn.ErrForgotten) {
		t.Errorf("when it is forgotten: %v", err)
	}
	if got := outcomes(gid); got != "" {
		t.Errorf("who has forgotten it says %q", got)
	}

	// Not decided: it is rolled back, and that is kept as well.
	gid = txn.GID(install, "r0")
	prepare := func() {
		mustExec(t, direct[1], "begin; insert into pgmosaic.decision values ('"+txn.PartGID(gid, 0)+"', 'part'); prepare transaction '"+txn.PartGID(gid, 0)+"'")
	}
	prepare()
	settle(gid, false)
	if n := queryOne[int](t, direct[1], "select count(*) from pg_prepared_xacts where database = current_database()"); n != 0 {
		t.Errorf("%d parts are prepared", n)
	}
	sweep()
	settle(gid, false)

	// So long as anybody is in a transaction that began before it, too, whatever the node's clock says.
	old := connectTo(t, nodes[0].DSN("remembered_0"))
	mustExec(t, old, "begin; select 1")
	gid = txn.GID(install, "r0")
	prepare()
	settle(gid, false)
	mustExec(t, direct[0], "update pgmosaic.decision set at = at - interval '8 hours'") // it had gone back before
	for range 2 {
		sweep()
		later += 7 * time.Hour
	}
	sweep()
	if got := outcomes(gid); got != "abort" {
		t.Errorf("it is %q while its decider may be at it", got)
	}
	if _, err := old.Exec(t.Context(), "insert into pgmosaic.decision values ($1, 'commit', '{r1}')", gid); pgCode(err) != "23505" {
		t.Errorf("who comes late is told %v", err)
	}
	mustExec(t, old, "rollback")
	sweep()
	if got := outcomes(gid); got != "" {
		t.Errorf("it is %q when its decider has gone", got)
	}

	// A part that was seen too long ago decides nothing.
	gid = txn.GID(install, "r0")
	prepare()
	late := txn.Resolver{Install: install}
	if _, err := late.Settle(t.Context(), shards, gid); !errors.Is(err, context.DeadlineExceeded) || outcomes(gid) != "" {
		t.Errorf("%v, %q", err, outcomes(gid))
	}
	mustExec(t, direct[1], "rollback prepared '"+txn.PartGID(gid, 0)+"'")
}

// Outcomes go when nobody may ask for them any more, also where the resolver comes by less often than that.
func TestOutcomesAreForgottenBetweenRareRounds(t *testing.T) {
	t.Parallel()
	d := shop(t)
	install := d.Catalog.Current().Install + "-rare" // no other resolver's
	var shards []txn.Shard
	var direct []*pgx.Conn
	for i, n := range []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")} {
		db := fmt.Sprintf("rare_%d", i)
		freshDatabase(t, n, db)
		shards, direct = append(shards, txn.Shard{Whose: anybodys, Name: fmt.Sprintf("r%d", i), DSN: n.DSN(db)}), append(direct, connectTo(t, n.DSN(db)))
		mustExec(t, direct[i], txn.Schema(i, 1))
	}
	gid, undone := txn.GID(install, "r0"), txn.GID(install, "r0")
	mustExec(t, direct[0], "insert into pgmosaic.decision values ($1, 'commit', '{r1}'), ($2, 'abort', null)", gid, undone)
	mustExec(t, direct[1], "insert into pgmosaic.decision values ($1, 'part')", txn.PartGID(gid, 0))
	r := txn.Resolver{Install: install, Grace: 20 * time.Millisecond, Shards: func() [][]txn.Shard { return [][]txn.Shard{shards} }}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		_ = r.Run(ctx, 100*time.Millisecond, func(err error) { t.Error(err) }, func(txn.ShardError) {})
	}()
	eventually(t, "they are gone", func() bool { return queryOne[int](t, direct[0], "select count(*) from pgmosaic.decision") == 0 })
}

// The role of a node's connection string need not be a superuser's to finish what others prepared: it takes their role. Our tables are its own.
func TestPartsAreFinishedAsTheirOwners(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s1-a")
	su := connectTo(t, node.DSN("shop"))
	gid := txn.PartGID(txn.GID(d.Catalog.Current().Install, "s1"), 0)
	for _, sql := range []string{"create role finisher login password 'f'", "grant app to finisher", "grant postgres to finisher"} {
		mustExec(t, su, sql)
	}
	defer mustExec(t, su, "drop owned by finisher; drop role finisher")
	owner := connectTo(t, strings.Replace(node.DSN("shop"), "postgres:"+d.cluster.Password, "app:app", 1))
	mustExec(t, owner, "begin; create table owned_part (n int); prepare transaction '"+gid+"'")
	s := txn.Shard{Whose: anybodys, Name: "s1", DSN: strings.Replace(node.DSN("shop"), "postgres:"+d.cluster.Password, "finisher:f", 1)}
	r := txn.Resolver{Install: d.Catalog.Current().Install}
	if err := r.FinishOn(t.Context(), s, txn.Base(gid)); err != nil {
		t.Errorf("%v", err)
	}
	if n := queryOne[int](t, su, "select count(*) from owned_part"); n != 0 {
		t.Errorf("%d rows", n)
	}
	mustExec(t, su, "drop table owned_part")
	mustExec(t, owner, "begin; create table owned_part (n int); prepare transaction '"+gid+"'")
	mustExec(t, su, "revoke app from finisher")
	if err := r.FinishOn(t.Context(), s, txn.Base(gid)); err == nil || !strings.Contains(err.Error(), "GRANT app TO the role") {
		t.Errorf("without the right: %v", err)
	}
	mustExec(t, su, "rollback prepared '"+gid+"'")
}
