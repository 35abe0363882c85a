package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

var (
	likenessN       = flag.Int("likeness.n", 6, "random interleavings in TestSessionsLikePostgreSQL, for each kind of login")
	likenessUnnamed = flag.Bool("likeness.unnamed", false, "code that sets something may run in each statement of TestSessionsLikePostgreSQL")
	likenessSeed    = flag.Uint64("likeness.seed", 1, "the first one's seed; with -likeness.n 1 it alone")
	likenessScript  = flag.String("likeness.script", "", "the scripts of TestSessionsLikePostgreSQLByHand whose names begin so, without the others")
)

// act is one step of an interleaving: what one client does.
type act struct {
	client int
	kind   byte // q: a simple query; p, b, c: Parse, Bind with Execute, Close of a named statement; k: Close of a portal; x: Parse to Execute unnamed; n: a new session
	name   string
	text   string
	args   []string
}

func (a act) String() string {
	return fmt.Sprintf("%d: %c %s %s %q", a.client, a.kind, a.name, a.text, a.args)
}

// watched are the parameters that a client is told, which must say the same.
var watched = []string{"DateStyle", "IntervalStyle", "TimeZone", "session_authorization", "is_superuser", "application_name"}

// twin is a client's connection: to the proxy, or to a PostgreSQL of its own.
type twin struct {
	dsn   string
	db    string            // behind it
	asks  map[string]string // of each session
	conn  *wire.Conn
	told  map[string]string
	tx    byte                   // I, T or E
	named map[string]constantsBy // prepared statements
	ended bool
}

// constantsBy are a statement and the formats by which PostgreSQL has read its constants.
type constantsBy struct{ text, formats string }

func (w *twin) open(ctx context.Context, options map[string]string) error {
	cfg, err := pgconn.ParseConfig(w.dsn)
	if err != nil {
		return err
	}
	maps.Copy(cfg.RuntimeParams, w.asks)
	maps.Copy(cfg.RuntimeParams, options)
	pc, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	if err := pc.SyncConn(ctx); err != nil {
		return err
	}
	h, err := pc.Hijack()
	if err != nil {
		return err
	}
	w.conn, w.told, w.ended, w.tx, w.named = wire.New(h.Conn, 1<<30), h.ParameterStatuses, false, 'I', map[string]constantsBy{}
	return w.conn.SetDeadline(time.Now().Add(time.Minute))
}

var digits = regexp.MustCompile(`\d{4,}`)

// answer is all that comes up to ReadyForQuery, and what the client knows of its parameters then.
func (w *twin) answer() string {
	if w.ended {
		return "ended"
	}
	if err := w.conn.Flush(); err != nil {
		return err.Error()
	}
	var b strings.Builder
	for {
		m, err := w.conn.Next()
		if err != nil {
			w.ended = true
			return b.String() + " " + err.Error()
		}
		body := m.Body()
		switch m.Type {
		case 'S':
			name, rest, _ := wire.CString(body)
			value, _, _ := wire.CString(rest)
			w.told[string(name)] = string(value)
		case 'E', 'N':
			e := wire.ParseError(body)
			fmt.Fprintf(&b, " %c[%s %s]", m.Type, e.Code, digits.ReplaceAllString(e.Message, "N")) // the two have other OIDs
		case 'D':
			vals, err := wire.RowValues(nil, body)
			fmt.Fprintf(&b, " D%q", vals)
			if err != nil {
				b.WriteString(err.Error())
			}
		case 'T', 't':
			fmt.Fprintf(&b, " %c%d", m.Type, int(body[0])<<8+int(body[1]))
		case 'C':
			b.WriteString(" C<" + strings.TrimRight(string(body), "\x00") + ">")
		case 'Z':
			fmt.Fprintf(&b, " Z%c", body[0])
			w.tx = body[0]
			for _, n := range watched {
				b.WriteString(" " + n + "=" + w.told[n])
			}
			return b.String()
		default:
			fmt.Fprintf(&b, " %c", m.Type)
		}
	}
}

// does has one side do what an act says, and returns the answer.
func (w *twin) does(ctx context.Context, a act) string {
	if a.kind == 'n' {
		w.conn.SendFrame('X', nil)
		_ = w.conn.Flush()
		_ = w.conn.Close()
		options := map[string]string{}
		if a.name != "" {
			options[a.name] = a.text
		}
		if err := w.open(ctx, options); err != nil {
			var pe *pgconn.PgError
			w.ended = true
			if errors.As(err, &pe) {
				return "login: " + pe.Code
			}
			return "login: " + err.Error()
		}
		return w.begin()
	}
	if w.ended {
		return "ended"
	}
	text := strings.ReplaceAll(a.text, "{db}", w.db)
	args := make([][]byte, len(a.args))
	for i, v := range a.args {
		args[i] = []byte(v)
	}
	switch a.kind {
	case 'q':
		w.conn.SendQuery(text)
	case 'p':
		w.conn.SendParse(a.name, a.text, nil)
		w.conn.SendDescribe('S', a.name)
		w.conn.SendSync()
	case 'b':
		w.conn.Send(&wire.Bind{PreparedStatement: a.name, Parameters: args})
		w.conn.SendExecute()
		w.conn.SendSync()
	case 'c':
		w.conn.SendClose('S', a.name)
		w.conn.SendSync()
	case 'k':
		w.conn.SendClose('P', a.name)
		w.conn.SendSync()
	case 'x':
		w.conn.SendParse("", a.text, nil)
		w.conn.Send(&wire.Bind{Parameters: args})
		w.conn.SendDescribe('P', "")
		w.conn.SendExecute()
		w.conn.SendSync()
	}
	return w.answer()
}

// formats are what constants are read by.
func (w *twin) formats() string {
	return w.told["DateStyle"] + " " + w.told["IntervalStyle"] + " " + w.told["TimeZone"]
}

// readsAnew has PostgreSQL prepare a statement about the table of all clients again, if the formats are others than those by which it has read
// the statement's constants: the proxy reads them by the formats of the moment. See differences.md.
func (w *twin) readsAnew(name string) {
	s, ok := w.named[name]
	if now := w.formats(); ok && !w.ended && w.tx != 'E' && s.formats != now && strings.Contains(s.text, "public.s ") {
		w.conn.SendQuery("select 1 from pg_prepared_statements where name = '" + name + "'") // it may have been deallocated
		if strings.Contains(w.answer(), "C<SELECT 1>") {
			w.conn.SendClose('S', name)
			w.conn.SendParse(name, s.text, nil)
			w.conn.SendSync()
			w.answer()
			w.named[name] = constantsBy{s.text, now}
		}
	}
}

// begin gives a new session a place of its own, where other clients' names are not seen.
func (w *twin) begin() string {
	w.conn.SendQuery("select 1")
	return w.answer()
}

// likenessSetup makes what the statements of an interleaving use, one schema for each client.
const likenessSetup = `
drop schema if exists c%[1]d cascade; create schema c%[1]d; grant all on schema c%[1]d to public;
create table c%[1]d.t (k int, d date); grant all on c%[1]d.t to public;
create table c%[1]d.w (k int); grant all on c%[1]d.w to public;
create table c%[1]d.n (id serial, k int); create sequence c%[1]d.q; grant all on c%[1]d.n to public; grant all on all sequences in schema c%[1]d to public;
create function c%[1]d.last() returns bigint language sql as 'select lastval()';
create function c%[1]d.tell() returns trigger language plpgsql as $$begin raise notice 'committed %%', new.k; return null; end$$;
create constraint trigger late after insert on c%[1]d.w deferrable initially deferred for each row execute function c%[1]d.tell();
create function c%[1]d.f(n text, v text, l bool) returns text language plpgsql as $$begin return set_config(n, v, l); end$$;
create function c%[1]d.keeps() returns text language plpgsql set datestyle to 'German' set role to u9 as $$begin return current_user || ' ' || '2026-02-01'::date; end$$;
create view c%[1]d.v as select c%[1]d.f('app.a', 'view', false) as x;
`

// likenessQuiet has a function that sets what it is told run where no statement names it, so that each statement may have set something.
const likenessQuiet = `create domain c%[1]d.quiet as text check (c%[1]d.f('app.zz', value, true) is not null);`

// likenessTable has ten keys for each client, six of which have rows. It is sharded where there are two shards.
const likenessTable = `create table public.s (k int primary key, d date, z timestamptz, v text default current_user, w text default current_setting('datestyle'), i interval default '26 hours')`

const likenessRows = `insert into public.s select g, '2026-01-02', '2026-01-02 03:04+00', 'first', 'first' from generate_series(0, 99) g where g %% 10 < 6 and g < 10 * %d`

// sameDay has constants that are the same day whatever DateStyle is: what is prepared reads them by that of the moment.
var sameDay = strings.NewReplacer("01/02/2026", "2026-01-02", "05.06.2026", "2026-05-06", "7-8-2026", "2026-07-08")

// overShards is a statement on the rows of one client: of one key, of keys on several shards, of all of them, or of copies on home.
func overShards(rng *rand.Rand, client int) string {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	key := func() string { return fmt.Sprint(10*client + rng.IntN(10)) }
	all := fmt.Sprintf("k between %d and %d", 10*client, 10*client+9)
	day := func() string { return "'" + pick("01/02/2026", "2026-03-04", "05.06.2026", "7-8-2026") + "'" }
	const tells = "session_user, current_user, current_setting('role') r, current_setting('datestyle') ds, '01/02/2026'::date c, '2026-01-02 03:04'::timestamptz cz, current_setting('work_mem') m, " +
		"coalesce(current_setting('app.a', true), '') a, current_setting('transaction_read_only') ro, current_setting('search_path') sp, 0.1::float8 / 3 f"
	switch rng.IntN(14) {
	case 0, 1:
		return "select k, d, z, i, v, w, " + tells + " from public.s where k = " + key()
	case 2, 3, 4:
		return "select k, d, z, i, v, w, " + tells + " from public.s where " + all + " order by k"
	case 5:
		return "select min(d), max(d), min(z), max(z), max(i), count(*), min(v), sum(k) from public.s where " + all
	case 6:
		return "select d, count(*) from public.s where " + all + " and d = " + day() + " group by d order by d"
	case 7:
		return "select a.d, b.z, b.i, a.k, b.k, current_user from public.s a join public.s b on a.d = b.d where a." + all + " and b." + all + " order by a.k, b.k limit 4"
	case 8, 9:
		return "insert into public.s (k, d, z) values (" + key() + ", " + day() + ", " + day() + ")" + pick("", ", ("+key()+", "+day()+", "+day()+")")
	case 10:
		return "update public.s set d = " + day() + ", v = current_user, w = current_setting('datestyle') where k = " + key()
	case 11:
		return "update public.s set d = " + day() + ", z = " + day() + ", v = current_user where " + all
	case 12:
		return "delete from public.s where k in (" + key() + ", " + key() + ")"
	}
	return "update public.s set i = '3 days' where k = " + key() + " returning k, d, z, i, v, w"
}

// interleaving is a script of so many acts of so many clients; over shards half of what they do is.
func interleaving(rng *rand.Rand, clients, acts int, super bool, shards int) []act {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	var out []act
	for len(out) < acts {
		client := rng.IntN(clients)
		schema := fmt.Sprintf("c%d.", client)
		role := func() string { return pick("u8", "u9", "none", "none") }
		who := func() string { return pick("u7", "u8", "u9", "default") }
		local := func() string { return pick("", "", "", "local ") }
		set := func() string {
			switch rng.IntN(16) {
			case 0, 1, 2, 3:
				return "set " + local() + "datestyle to " + pick("iso", "dmy", "mdy", "ymd", "german", "sql", "'SQL, DMY'", "'ISO, YMD'", "postgres", "default")
			case 4:
				return "set " + local() + "intervalstyle to " + pick("iso_8601", "postgres_verbose", "sql_standard", "default")
			case 5, 6:
				return "set " + local() + "time zone " + pick("'Europe/Berlin'", "'UTC'", "5", "-2.5", "local", "default", "interval '+02:30' hour to minute", "'EST5EDT'")
			case 7:
				return "set " + local() + pick("work_mem to '1MB'", "work_mem to 999", "work_mem to default", "application_name to 'x y'", "application_name to default", "extra_float_digits to 0", "bytea_output to escape")
			case 8:
				return "set " + local() + "search_path to " + pick(`"$user", public`, "public", "c0, c1", "default")
			case 9:
				return "set " + local() + pick("app.a to 'one'", "app.a to 'two'", "app.b to 3")
			case 10, 11:
				if shards > 1 { // where one may not be another's session
					return "set " + local() + "role " + role()
				}
				if super {
					return "set " + local() + "session authorization " + who()
				}
				return "set " + local() + "session authorization " + pick("default", "app")
			case 12:
				if shards > 1 {
					return "reset " + pick("role", "datestyle", "timezone", "all", "work_mem", "search_path", "intervalstyle")
				}
				return "reset " + pick("role", "session authorization", "datestyle", "timezone", "all", "work_mem", "search_path", "intervalstyle")
			case 13:
				return "set session characteristics as transaction " + pick("read only", "read write", "isolation level repeatable read", "isolation level read committed", "deferrable", "not deferrable")
			}
			return "set " + local() + "role " + role()
		}
		call := func() string {
			n := pick("role", "datestyle", "work_mem", "timezone", "app.a", "session_authorization", "intervalstyle")
			if shards > 1 && n == "session_authorization" {
				n = "role"
			}
			v := map[string][]string{
				"role": {"u8", "u9", "none"}, "datestyle": {"dmy", "german", "iso", "SQL, MDY"}, "work_mem": {"2MB", "777"}, "timezone": {"UTC", "Asia/Tokyo"},
				"app.a": {"x", ""}, "session_authorization": {"u7", "u8"}, "intervalstyle": {"iso_8601", "postgres"},
			}[n]
			by := pick("set_config", schema+"f")
			if shards > 1 && n == "app.a" { // what a function sets by a computed name is its server's alone
				by = "set_config"
			}
			return fmt.Sprintf("select %s('%s', '%s', %s)", by, n, pick(v...), pick("false", "false", "true"))
		}
		one := func() string {
			if shards > 1 && rng.IntN(3) == 0 {
				return overShards(rng, client)
			}
			switch rng.IntN(36) {
			case 0, 1, 2, 3, 4, 5:
				return set()
			case 30, 31, 32:
				return pick("insert into "+schema+"n (k) values (1) returning id", "insert into "+schema+"n (k) values (2), (3)", "select nextval('"+schema+"q')", "select setval('"+schema+"q', 100)")
			case 33, 34, 35:
				return pick("select lastval()", "select currval('"+schema+"n_id_seq')", "select currval('"+schema+"q')", "select lastval()", "select "+schema+"last()", "discard sequences")
			case 6, 7:
				return call()
			case 8, 9:
				return "do $$begin " + set() + "; end$$"
			case 10, 11:
				return "begin" + pick("", "", "", " read only", " isolation level repeatable read", " isolation level serializable, read only, deferrable")
			case 12, 13:
				return pick("commit", "commit", "rollback", "rollback", "commit and chain", "rollback and chain")
			case 14:
				return "savepoint " + pick("a", "b")
			case 15:
				return pick("rollback to ", "rollback to ", "release ") + pick("a", "b")
			case 16:
				return "set transaction " + pick("read only", "read only", "read write", "isolation level repeatable read", "deferrable")
			case 17:
				return "insert into " + schema + "t values (" + pick("1", "2") + ", '" + pick("01/02/2026", "2026-03-04", "05.06.2026") + "')"
			case 18:
				return "insert into " + schema + "w values (1)"
			case 19:
				return "select count(*), min(d), max(d) from " + schema + "t"
			case 20:
				return "do $$begin raise " + pick("notice", "warning", "exception") + " 'said'; end$$"
			case 21:
				return "select " + schema + "keeps()"
			case 22:
				view := "select * from " + schema + "v"
				if shards > 1 {
					view = "select 1"
				}
				return pick("select 1/0", view, "select count(*) from pg_prepared_statements where name !~ '^pgmosaic'")
			case 23:
				return pick("prepare p as select '2026-02-01'::date::text", "execute p", "deallocate p", "deallocate all")
			case 24:
				if rng.IntN(4) == 0 {
					return pick("discard all", "discard all", "discard plans")
				}
			case 25:
				return pick("show ", "show ") + pick("datestyle", "timezone", "role", "session_authorization", "work_mem", "search_path", "transaction_read_only", "transaction_isolation", "default_transaction_read_only", "transaction_deferrable")
			}
			return "select session_user, current_user, current_setting('role') r, '01/02/2026'::date d, '2026-01-02 03:04'::timestamptz z, '1 day 2 hours'::interval i, current_setting('work_mem') m, " +
				"coalesce(current_setting('app.a', true), '') a, current_setting('transaction_read_only') ro, current_setting('default_transaction_isolation') iso, current_setting('search_path') sp, 0.1::float8 / 3 f"
		}
		a := act{client: client, kind: 'q'}
		switch rng.IntN(16) {
		case 0:
			a.text = one() + "; " + one()
			if rng.IntN(3) == 0 {
				a.text += "; " + one()
			}
		case 1, 2:
			a.kind, a.text = 'x', one()
		case 3:
			a.kind, a.name, a.text = 'p', pick("s1", "s2"), pick("select $1::"+schema+"mood::text", "select * from "+schema+"made", "insert into "+schema+"made values ($1)", "select * from "+schema+"t", "select $1::date::text")
			if shards > 1 && rng.IntN(2) == 0 {
				a.text = sameDay.Replace(overShards(rng, client))
			}
		case 4, 5:
			a.kind, a.name = 'b', pick("s1", "s2")
			if rng.IntN(2) == 0 {
				a.args = []string{pick("happy", "1", "01/02/2026")}
			}
		case 6:
			a.kind, a.name = 'c', pick("s1", "s2")
		case 7:
			n := rng.IntN(6)
			if shards > 1 { // definitions that run on every shard wait for each other's transactions
				n = max(n, 2)
			}
			switch n {
			case 0:
				a.text = "create type " + schema + "mood as enum ('happy')"
			case 1:
				a.text = "drop type " + schema + "mood"
			case 2:
				a.text = "create table " + schema + "made (m " + pick("text", "int", schema+"mood") + ")"
			case 3:
				a.text = "drop table " + schema + "made"
			case 4:
				a.text = "alter table " + schema + "made add column x int"
			case 5:
				a.text = "alter table " + schema + "made drop column x"
			}
		case 8:
			if rng.IntN(3) > 0 {
				a.text = one()
				break
			}
			a.kind = 'n'
			switch rng.IntN(8) {
			case 0, 1:
				a.name, a.text = "DateStyle", pick("ISO", "DMY", "german", "SQL, DMY")
			case 2:
				a.name, a.text = "options", pick("-c datestyle=dmy -c work_mem=3MB", "-c timezone=UTC", "-c intervalstyle=iso_8601", `-c search_path=c0,\ public`)
			case 3:
				a.name, a.text = "TimeZone", pick("Asia/Tokyo", "5")
			}
		default:
			a.text = one()
		}
		out = append(out, a)
	}
	return out
}

// likeness plays interleavings against the proxy and against PostgreSQL.
type likeness struct {
	t       *testing.T
	d       *demo
	user    string
	pass    string
	servers int
	clients int
	shards  int    // 1 or 2
	store   string // of the map of two, which is made once
	done    int    // statements that were compared
	refused int    // scripts that ended at what is refused over shards
	cut     string // where the last one ended, if it was not played to its end though nothing differs
}

const likenessDB, likenessTwo, likenessTwin = "likeness", "likeness_two", "likeness_twin"

// places are the databases that a script finds fresh: those of the proxy's shards first, then PostgreSQL's own.
func (l *likeness) places() []string {
	one, two := l.d.cluster.Node("s1-a"), l.d.cluster.Node("s2-a")
	if l.shards > 1 {
		return []string{one.DSN(likenessTwo), two.DSN(likenessTwo), one.DSN(likenessTwin)}
	}
	return []string{one.DSN(likenessDB), one.DSN(likenessTwin)}
}

// refresh makes what a script finds.
func (l *likeness) refresh(ctx context.Context) {
	l.t.Helper()
	var all strings.Builder
	for i := range l.clients {
		fmt.Fprintf(&all, likenessSetup, i)
		if *likenessUnnamed {
			fmt.Fprintf(&all, likenessQuiet, i)
		}
	}
	for _, dsn := range l.places() {
		c, err := pgx.Connect(ctx, dsn)
		if err != nil {
			l.t.Fatal(err)
		}
		if _, err := c.Exec(ctx, all.String()); err != nil {
			l.t.Fatal(err)
		}
		_ = c.Close(ctx)
	}
}

// start starts a proxy, over one shard or two.
func (l *likeness) start() *app {
	l.t.Helper()
	return small(l.t, l.d, l.servers, func(cfg *config.Config) {
		cfg.Users = append(cfg.Users, config.User{Name: "postgres", Password: config.Secret(l.d.cluster.Password)})
		if l.shards == 1 {
			cfg.Direct.Setup = []string{"CREATE DATABASE " + likenessDB, fmt.Sprintf("CREATE SHARD s1 IN "+likenessDB+" NODE '%s'", l.d.cluster.Node("s1-a").DSN(likenessDB))}
			return
		}
		cfg.Store = l.store
		cfg.Direct.Setup = []string{"CREATE DATABASE " + likenessTwo}
		for i, dsn := range l.places()[:2] {
			cfg.Direct.Setup = append(cfg.Direct.Setup, fmt.Sprintf("CREATE SHARD s%d IN %s NODE '%s'", i+1, likenessTwo, dsn))
		}
		cfg.Direct.Setup = append(cfg.Direct.Setup, "CREATE GROUP g IN "+likenessTwo+" KEY (int) BY HASH", "DISTRIBUTE TABLE "+likenessTwo+".public.s IN GROUP g KEY (k)")
	})
}

// play runs a script on a proxy of its own, and says where the answers differ first; empty if they do not.
func (l *likeness) play(ctx context.Context, script []act) (at int, differs string) {
	l.t.Helper()
	l.refresh(ctx)
	l.cut = ""
	a := l.start()
	defer a.stop(time.Second)
	asks := map[string]string{}
	behind := map[int]string{1: likenessDB, 2: likenessTwo}[l.shards]
	if l.shards > 1 {
		asks["pgmosaic.multi_shard_isolation"] = "per_shard" // PostgreSQL takes any name with a dot
		for _, dsn := range []string{l.places()[2], dsnFor("app", "app", a.Server.Addr(), behind)} {
			c := connectTo(l.t, dsn)
			mustExec(l.t, c, "delete from public.s")
			mustExec(l.t, c, fmt.Sprintf(likenessRows, l.clients))
			_ = c.Close(ctx)
		}
	}
	direct := strings.Replace(l.d.cluster.Node("s1-a").DSN(likenessTwin), "postgres:"+l.d.cluster.Password, l.user+":"+l.pass, 1)
	pairs := make([][2]*twin, l.clients)
	defer func() {
		for _, p := range pairs {
			for _, w := range p {
				if w != nil && w.conn != nil {
					_ = w.conn.Close()
				}
			}
		}
	}()
	for i := range pairs {
		for side, dsn := range []string{direct, dsnFor(l.user, l.pass, a.Server.Addr(), behind)} {
			pairs[i][side] = &twin{dsn: dsn, db: []string{likenessTwin, behind}[side], asks: asks}
			if err := pairs[i][side].open(ctx, nil); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	for i, x := range script {
		p := pairs[x.client]
		if x.kind == 'b' && l.shards > 1 {
			p[0].readsAnew(x.name)
		}
		want, got := p[0].does(ctx, x), p[1].does(ctx, x)
		l.done++
		if x.kind == 'p' && strings.HasPrefix(want, " 1") {
			p[0].named[x.name] = constantsBy{x.text, p[0].formats()}
		}
		refused := l.shards > 1 && strings.Contains(got, "E[0A000 ") && !strings.Contains(want, "E[0A000 ")
		if refused || elsewhere(want, got) || l.shards > 1 && strings.Contains(x.text, "pg_prepared_statements") && strings.Contains(got, "E[42P01 ") { // see differences.md
			l.cut = fmt.Sprintf("%s\n  PostgreSQL %s\n  pgmosaic   %s", x, want, got)
			if refused {
				l.t.Logf("refused: %s", l.cut)
				l.refused++
			}
			return -1, ""
		}
		if forgotten(want, got) {
			if p[0].tx == 'I' && p[1].tx == 'I' && !strings.Contains(x.text, ";") {
				continue
			}
			l.cut = fmt.Sprintf("%s\n  PostgreSQL %s\n  pgmosaic   %s", x, want, got)
			return -1, ""
		}
		if want != got && !absent(want, got) {
			return i, fmt.Sprintf("PostgreSQL %s\n  pgmosaic   %s", want, got)
		}
	}
	return -1, ""
}

// forgotten says whether it is not known, and said so, what a session has drawn from a sequence: see differences.md.
func forgotten(want, got string) bool {
	return strings.Contains(got, " is not yet defined in this session]") && !strings.Contains(want, "E[")
}

// absent says whether both refuse a statement about what was rolled back: PostgreSQL finds that it is not there only when it plans
// the statement anew, behind the parameters.
func absent(want, got string) bool {
	_, then, failed := strings.Cut(want, "] Z")
	_, thenToo, failedToo := strings.Cut(got, "] Z")
	return failed && failedToo && then == thenToo && strings.Contains(want, "E[") && (strings.Contains(got, "E[42P01 ") || strings.Contains(got, "E[42704 "))
}

// elsewhere says whether a transaction has asked nothing of a server yet, where on PostgreSQL its PREPARE has: it may still
// choose its isolation. What follows differs.
func elsewhere(want, got string) bool {
	return want != got && strings.Contains(want, "must be called before any query]")
}

// shrink takes out of a script what is not needed to have it differ.
func (l *likeness) shrink(ctx context.Context, script []act, at int) []act {
	script = script[:at+1]
	for size := max(1, len(script)/2); ; size /= 2 {
		for from := 0; from < len(script)-1; {
			to := min(from+size, len(script)-1)
			less := slices.Concat(script[:from], script[to:])
			if at, _ := l.play(ctx, less); at >= 0 {
				script = less[:at+1]
			} else {
				from = to
			}
		}
		if size <= 1 {
			return script
		}
	}
}

// likenessWorld makes the databases and roles of interleavings.
func likenessWorld(t *testing.T) *demo {
	d := shop(t)
	one, two := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	for _, db := range []string{likenessDB, likenessTwo, likenessTwin} {
		freshDatabase(t, one, db)
		mustExec(t, connectTo(t, strings.Replace(one.DSN(db), "postgres:"+d.cluster.Password, "app:app", 1)), likenessTable)
	}
	freshDatabase(t, two, likenessTwo)
	for _, n := range []*cluster.Node{one, two} {
		c := connectTo(t, n.DSN("postgres"))
		for _, sql := range []string{"create role u7", "create role u8", "create role u9", "grant u8, u9 to app"} {
			mustExec(t, c, sql)
		}
	}
	for _, db := range []string{likenessTwo, likenessTwin} {
		mustExec(t, connectTo(t, one.DSN(db)), "grant all on public.s to u8, u9; grant select on public.s to u7")
	}
	t.Cleanup(func() {
		for _, n := range []*cluster.Node{one, two} {
			c, err := pgx.Connect(context.Background(), n.DSN("postgres"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.Background())
			for _, sql := range []string{
				"drop database if exists " + likenessDB + " with (force)", "drop database if exists " + likenessTwo + " with (force)",
				"drop database if exists " + likenessTwin + " with (force)", "drop role u7, u8, u9",
			} {
				if _, err := c.Exec(context.Background(), sql); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return d
}

// By hand: what sessions share servers with, in the order in which it has gone wrong.
var likenessByHand = []struct{ name, script string }{
	{"session_authorization set beside a function", `
		0 set session authorization u8
		0 do $$begin set work_mem = 1000; end$$
		1 select session_user, current_user
		0 select session_user, current_user, current_setting('work_mem')`},
	{"session_authorization set in a DO block", `
		0 do $$begin set session authorization u8; end$$
		1 select session_user, current_user
		0 select session_user, current_user`},
	{"session_authorization set by a function", `
		0 select c0.f('session_authorization', 'u8', false)
		1 select session_user, current_user
		0 select session_user, current_user`},
	{"both in one message", `
		0 set session authorization u8; set role u9
		0 select session_user, current_user
		1 select session_user, current_user
		0 show role
		0 select session_user, current_user`},
	{"the role by set_config behind the other", `
		0 set session authorization u8
		0 select set_config('role', 'u9', false)
		1 select 1
		0 select session_user, current_user`},
	{"a new session_authorization rolled back", `
		0 set session authorization u8
		0 set role u9
		0 begin
		0 set session authorization u7
		0 rollback
		0 select session_user, current_user
		0 reset session authorization
		0 select session_user, current_user`},
	{"reset, and rolled back", `
		0 set role u9
		0 set session authorization u8
		0 reset session authorization
		0 begin
		0 set session authorization u7; set role u7
		0 rollback
		0 select session_user, current_user`},
	{"RESET ALL leaves alone who one is", `
		0 set session authorization u8; set role u9; set work_mem = '1MB'
		0 reset all
		0 select session_user, current_user, current_setting('work_mem')
		1 select session_user, current_user
		0 select session_user, current_user`},
	{"what only a superuser may set, beside another role", `
		0 set log_min_duration_statement = 12345
		0 set role u8
		1 set log_min_duration_statement = 54321
		1 set session authorization u9
		0 show log_min_duration_statement
		1 show log_min_duration_statement
		0 select session_user, current_user`},
	{"half of DateStyle in the startup packet", `
		n 0 DateStyle ISO
		1 set datestyle to 'SQL, DMY'
		0 select '01/02/2026'::date
		0 insert into c0.t values (1, '01/02/2026')
		0 select * from c0.t`},
	{"half of DateStyle by SET", `
		0 set datestyle to iso
		1 set datestyle to 'SQL, DMY'
		0 select '01/02/2026'::date`},
	{"the other half of DateStyle", `
		0 set datestyle to dmy
		1 set datestyle to german
		0 select '01/02/2026'::date`},
	{"half of DateStyle in a function", `
		0 select c0.f('datestyle', 'dmy', false)
		1 set datestyle to german
		0 select '01/02/2026'::date
		1 select '01/02/2026'::date`},
	{"half of DateStyle for a transaction, and half for the session", `
		0 begin
		0 set local datestyle to german
		0 set datestyle to dmy
		0 commit
		1 set datestyle to 'SQL, YMD'
		0 select '01/02/2026'::date`},
	{"zones as intervals, numbers and defaults", `
		n 0 TimeZone Asia/Tokyo
		0 set time zone interval '+02:30' hour to minute
		1 set time zone -5
		0 select '2026-01-02 03:04'::timestamptz
		0 set local time zone interval '+01:00' hour to minute
		0 begin; set local time zone interval '+01:00' hour to minute; select '2026-01-02 03:04'::timestamptz; rollback
		0 set time zone local
		0 select '2026-01-02 03:04'::timestamptz
		0 begin
		0 select 1
		0 set time zone 'UTC'
		0 reset timezone
		0 show timezone`},
	{"a setting behind a savepoint that is undone", `
		0 begin
		0 savepoint a
		0 set work_mem = '9MB'
		0 select 1
		0 rollback to a
		0 show work_mem`},
	{"SET over SET LOCAL", `
		0 begin
		0 set local work_mem = '1MB'
		0 set work_mem = '2MB'
		0 show work_mem
		0 commit
		0 show work_mem`},
	{"a failed transaction unsays what it told", `
		0 begin
		0 set datestyle to german
		0 select 1/0
		0 rollback
		0 select '01/02/2026'::date`},
	{"types that are rolled back", `
		0 begin
		0 create type c0.mood as enum ('happy')
		0 create table c0.made (m c0.mood[])
		0 p s1 insert into c0.made values ($1::c0.mood[])
		0 b s1 {happy}
		0 rollback
		0 deallocate all
		0 begin
		0 create type c0.mood as enum ('happy')
		0 create table c0.made (m c0.mood[])
		0 p s2 insert into c0.made values ($1::c0.mood[])
		0 b s2 {happy}
		0 commit`},
	{"types that a savepoint takes back", `
		0 begin
		0 savepoint a
		0 create type c0.mood as enum ('happy')
		0 p s1 select $1::c0.mood::text
		0 b s1 happy
		0 rollback to a
		0 deallocate all
		0 create type c0.mood as enum ('happy')
		0 p s2 select $1::c0.mood::text
		0 b s2 happy
		0 rollback`},
	{"types made out of sight, and rolled back", `
		0 begin
		0 do $$begin create type c0.mood as enum ('happy'); end$$
		0 p s1 select $1::c0.mood::text
		0 b s1 happy
		0 rollback
		0 deallocate all
		0 begin
		0 do $$begin create type c0.mood as enum ('happy'); end$$
		0 p s2 select $1::c0.mood::text
		0 b s2 happy
		0 rollback`},
	{"READ ONLY behind a savepoint", `
		0 begin
		0 savepoint x
		0 set transaction read only
		0 rollback to x
		0 insert into c0.w values (1)
		0 savepoint x
		0 set transaction read only
		0 insert into c0.w values (1)
		0 rollback to x
		0 set transaction read only
		0 release x
		0 insert into c0.w values (2)
		0 commit`},
	{"constants of statements that others have prepared", `
		0 set datestyle to dmy
		0 prepare p as select '01/02/2026'::date
		0 execute p
		1 prepare p as select '01/02/2026'::date
		1 execute p
		0 p s1 select '02/03/2026'::date::timestamptz, '1 2'::interval, $1::int
		0 b s1 1
		1 set time zone 'Asia/Tokyo'
		1 p s1 select '02/03/2026'::date::timestamptz, '1 2'::interval, $1::int
		1 b s1 1
		0 b s1 1
		1 set intervalstyle to sql_standard
		1 p s2 select '-1 2'::interval, $1::int
		1 b s2 1
		0 p s2 select '-1 2'::interval, $1::int
		0 b s2 1`},
	{"what a server is led through that joins late", `
		0 select set_config('role', 'u9', false)
		0 x begin
		0 reset role
		0 select set_config('session_authorization', 'u7', true)
		0 rollback`},
	{"BEGIN behind SET TRANSACTION in one string", `
		0 set transaction isolation level repeatable read; begin isolation level serializable, read only
		0 show transaction_isolation
		0 rollback`},
	{"modes behind a savepoint", `
		0 begin read only
		0 savepoint a
		0 set transaction isolation level repeatable read
		0 rollback to a
		0 begin isolation level repeatable read
		0 rollback to a
		0 set transaction read write
		0 rollback`},
	{"modes of transactions to come", `
		0 set session characteristics as transaction deferrable, read only
		1 show transaction_deferrable
		0 show transaction_deferrable
		0 begin not deferrable
		0 show transaction_deferrable
		0 commit and chain
		0 show transaction_deferrable
		0 rollback
		0 set session characteristics as transaction not deferrable, read write
		0 show transaction_deferrable`},
	{"AND CHAIN keeps the modes", `
		0 begin
		0 set transaction read only, isolation level repeatable read
		0 commit and chain
		0 select current_setting('transaction_read_only'), current_setting('transaction_isolation')
		0 select 1/0
		0 rollback and chain
		0 select current_setting('transaction_read_only'), current_setting('transaction_isolation')
		0 rollback`},
	{"notices at COMMIT", `
		0 begin
		0 insert into c0.w values (1)
		0 commit
		0 insert into c0.w values (2); select 3
		0 x insert into c0.w values (4)`},
	{"a portal that DECLARE has made is closed by the protocol", `
		0 begin
		0 declare c cursor for select 1
		0 k c
		0 fetch c
		0 rollback
		0 begin; declare h cursor with hold for select 1; commit
		0 k h
		0 fetch h`},
	{"the startup packet's value again by a function's RESET", `
		n 0 TimeZone 5
		0 do $$begin set time zone default; end$$
		1 select 1
		0 select '2026-01-02 03:04'::timestamptz`},
	{"the startup packet's value again by a function's RESET in a transaction", `
		n 0 TimeZone 5
		0 begin
		0 do $$begin set time zone default; end$$
		0 select '2026-01-02 03:04'::timestamptz
		0 commit
		0 select '2026-01-02 03:04'::timestamptz
		1 select '2026-01-02 03:04'::timestamptz`},
	{"a function's RESET in a transaction that is rolled back", `
		n 0 TimeZone 5
		0 set time zone 'Asia/Tokyo'
		0 begin isolation level serializable, read only, deferrable
		0 savepoint a
		0 do $$begin set time zone default; end$$
		0 select '2026-01-02 03:04'::timestamptz
		0 rollback to a
		0 select '2026-01-02 03:04'::timestamptz
		0 x do $$begin reset timezone; end$$
		0 x select '2026-01-02 03:04'::timestamptz
		0 rollback
		0 select '2026-01-02 03:04'::timestamptz`},
	{"a function's SET LOCAL to DEFAULT", `
		n 0 DateStyle German
		0 set datestyle to 'SQL, DMY'
		0 begin
		0 do $$begin set local datestyle to default; end$$
		0 select '2026-01-02'::date
		0 do $$begin set datestyle to iso; end$$
		0 select '2026-01-02'::date
		0 commit
		0 select '2026-01-02'::date`},
	{"DISCARD ALL tells", `
		0 set datestyle to ymd; set application_name to 'x y'
		0 discard all
		0 select '2026-01-02'::date`},
	{"what nobody can list outlives DISCARD TEMP", `
		0 select c0.f('app.' || 'a', 'one', false)
		0 discard temp
		1 select 1
		0 select current_setting('app.a')`},
	{"what roles begin with is changed", `
		0 select '01/02/2026'::date
		1 alter role u7 set work_mem = '3MB'
		1 alter database {db} set datestyle to 'SQL, DMY'
		0 select '01/02/2026'::date, current_setting('work_mem')
		0 begin
		0 select '01/02/2026'::date
		0 set datestyle to iso
		0 reset datestyle
		0 commit
		0 select '01/02/2026'::date
		n 1 application_name x
		1 select '01/02/2026'::date, current_setting('work_mem')
		1 begin; alter database {db} set search_path to c0; commit
		1 select count(*) from t
		n 0 application_name x
		0 select count(*) from t
		0 alter database {db} reset all
		1 select '01/02/2026'::date
		n 1 application_name x
		1 select '01/02/2026'::date`},
	{"RESET ALL of what nobody can list", `
		0 select c0.f('app.' || 'a', 'one', false)
		0 reset all
		0 select current_setting('app.a')
		0 select c0.f('app.' || 'a', 'two', false)
		0 x reset app.a
		0 select current_setting('app.a')`},
	{"a view that sets", `
		0 select * from c0.v
		1 select coalesce(current_setting('app.a', true), '')
		0 select current_setting('app.a')`},
}

// By hand, over two shards: the keys 0 to 9 are on both.
var likenessOverShards = []struct{ name, script string }{
	{"what a function sets", `
		0 select c0.f('datestyle', 'german', false)
		0 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k
		1 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k
		0 do $$begin set role u8; end$$
		0 select k, current_user from public.s where k between 0 and 5 order by k
		1 select k, current_user from public.s where k between 0 and 5 order by k`},
	{"what is set in a transaction", `
		0 begin
		0 select count(*) from public.s where k between 0 and 9
		0 set datestyle to german; set local role u8
		0 savepoint a
		0 set datestyle to sql
		0 update public.s set d = '03/04/2026', v = current_user where k between 0 and 5
		0 rollback to a
		0 update public.s set d = '03.04.2026', v = current_user where k between 0 and 5
		0 commit
		0 select k, d, v, current_setting('datestyle'), current_user from public.s where k between 0 and 5 order by k
		1 select k, d, v, current_setting('datestyle'), current_user from public.s where k between 0 and 5 order by k`},
	{"a custom parameter, and a function's RESET ALL", `
		0 set app.a to 'one'
		0 do $$begin reset all; end$$
		0 select k, coalesce(current_setting('app.a', true), '-') from public.s where k between 0 and 5 order by k
		0 set app.a to 'two'
		0 begin
		0 select count(*) from public.s where k between 0 and 5
		0 do $$begin reset all; end$$
		0 select k, coalesce(current_setting('app.a', true), '-') from public.s where k between 0 and 5 order by k
		0 commit
		0 select k, coalesce(current_setting('app.a', true), '-') from public.s where k between 0 and 5 order by k`},
	{"what a function sets in a transaction, then on to another shard", `
		0 begin
		0 do $$begin set datestyle to 'SQL, DMY'; end$$
		0 update public.s set d = '01/02/2026' where k = 0
		0 update public.s set d = '01/02/2026' where k = 1
		0 update public.s set d = '01/02/2026' where k = 2
		0 update public.s set d = '01/02/2026' where k = 3
		0 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k
		0 commit
		0 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k
		1 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k`},
	{"what a function sets on servers that are there already", `
		0 begin
		0 select count(*) from public.s where k between 0 and 9
		0 select c0.f('datestyle', 'German', true)
		0 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k
		0 do $$begin set local role u8; end$$
		0 select k, current_user from public.s where k between 0 and 5 order by k
		0 x do $$begin set session authorization u7; end$$
		0 x select k, current_user, session_user, current_setting('role') from public.s where k between 0 and 5 order by k
		0 do $$begin reset session authorization; set role u9; set intervalstyle to sql_standard; end$$
		0 select k, current_user, '-1 2'::interval from public.s where k between 0 and 5 order by k
		0 commit
		0 select k, d, current_user, '-1 2'::interval from public.s where k between 0 and 5 order by k
		1 select k, d, current_user, '-1 2'::interval from public.s where k between 0 and 5 order by k`},
	{"what a function resets", `
		n 0 TimeZone 5
		0 set datestyle to German; set role u8
		0 begin
		0 select k, d from public.s where k between 0 and 5 order by k
		0 do $$begin reset datestyle; reset role; set time zone default; end$$
		0 select k, d, current_user, '2026-01-02 03:04'::timestamptz from public.s where k between 0 and 5 order by k
		0 rollback
		0 select k, d, current_user, '2026-01-02 03:04'::timestamptz from public.s where k between 0 and 5 order by k
		0 begin
		0 do $$begin reset datestyle; reset role; set time zone default; end$$
		0 select k, d, current_user, '2026-01-02 03:04'::timestamptz from public.s where k between 0 and 5 order by k
		0 commit
		0 select k, d, current_user, '2026-01-02 03:04'::timestamptz from public.s where k between 0 and 5 order by k
		1 select k, d, current_user, '2026-01-02 03:04'::timestamptz from public.s where k between 0 and 5 order by k`},
	{"what a function sets before a savepoint and behind it", `
		0 begin
		0 do $$begin set datestyle to German; end$$
		0 savepoint a
		0 select k, d from public.s where k between 0 and 5 order by k
		0 rollback to a
		0 select k, d from public.s where k between 0 and 5 order by k
		0 do $$begin set local datestyle to 'SQL, DMY'; set role u8; end$$
		0 select k, d, current_user from public.s where k between 0 and 5 order by k
		0 rollback to a
		0 select k, d, current_user from public.s where k between 0 and 5 order by k
		0 do $$begin set datestyle to 'SQL, MDY'; end$$
		0 rollback to a
		0 select k, d, current_user from public.s where k between 0 and 5 order by k
		0 savepoint b
		0 do $$begin set datestyle to 'Postgres, DMY'; end$$
		0 select 1/0
		0 rollback to b
		0 select k, d, current_user from public.s where k between 0 and 5 order by k
		0 do $$begin set datestyle to 'SQL, DMY'; end$$
		0 release b
		0 select k, d, current_user from public.s where k between 0 and 5 order by k
		0 commit
		0 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k
		1 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k`},
	{"what functions set on one shard after the other", `
		0 begin
		0 select c0.f('datestyle', 'German', false), k from public.s where k = 0
		0 select c0.f('datestyle', 'SQL, DMY', false), k from public.s where k = 1
		0 select c0.f('app.a', 'x', false), k from public.s where k = 2
		0 select c0.f('intervalstyle', 'sql_standard', true), k from public.s where k = 3
		0 select k, d, '-1 2'::interval, current_setting('app.a') from public.s where k between 0 and 5 order by k
		0 select c0.f('datestyle', 'Postgres, DMY', false), k from public.s where k between 0 and 5 order by k
		0 select k, d, '-1 2'::interval, current_setting('app.a') from public.s where k between 0 and 5 order by k
		0 set datestyle to YMD
		0 select k, d, current_setting('datestyle') from public.s where k between 0 and 5 order by k
		0 commit
		0 select k, d, '-1 2'::interval, current_setting('app.a'), current_setting('datestyle') from public.s where k between 0 and 5 order by k
		1 select k, d, '-1 2'::interval, current_setting('datestyle') from public.s where k between 0 and 5 order by k`},
	{"what a function sets in a string of statements, and in what is prepared", `
		0 do $$begin set datestyle to German; end$$; select k, d from public.s where k between 0 and 5 order by k
		1 select k, d from public.s where k between 0 and 5 order by k
		1 p s1 select d, current_user, current_setting('datestyle') from public.s where k = $1
		1 b s1 1
		1 b s1 3
		1 begin
		1 do $$begin set local datestyle to 'SQL, DMY'; set local role u8; end$$
		1 b s1 0
		1 b s1 1
		1 b s1 2
		1 b s1 3
		1 commit
		1 b s1 1
		1 b s1 3`},
	{"app: what is written as another role", `
		0 begin
		0 set local role u8
		0 update public.s set v = current_user where k between 0 and 5
		0 commit
		0 select k, v, current_user from public.s where k between 0 and 5 order by k
		0 begin
		0 do $$begin set local role u9; end$$
		0 update public.s set v = current_user where k = 0
		0 update public.s set v = current_user where k = 1
		0 update public.s set v = current_user where k = 2
		0 update public.s set v = current_user where k = 3
		0 commit
		0 select k, v, current_user from public.s where k between 0 and 5 order by k
		0 begin
		0 do $$begin set role u8; end$$
		0 update public.s set v = current_user where k between 0 and 5
		0 commit
		0 select k, v, current_user from public.s where k between 0 and 5 order by k
		0 begin
		0 do $$begin reset role; end$$
		0 update public.s set v = current_user where k between 0 and 5
		0 commit
		0 select k, v, current_user from public.s where k between 0 and 5 order by k
		1 select k, v, current_user from public.s where k between 0 and 5 order by k`},
	{"what is written as another user", `
		0 begin
		0 do $$begin set session authorization u8; end$$
		0 update public.s set v = current_user where k = 0
		0 update public.s set v = current_user where k = 1
		0 update public.s set v = current_user where k = 2
		0 update public.s set v = current_user where k = 3
		0 commit
		0 select k, v, current_user, session_user from public.s where k between 0 and 5 order by k
		1 select k, v, current_user, session_user from public.s where k between 0 and 5 order by k`},
	{"constants of what is prepared, read by the formats of the moment", `
		0 p s1 select k, '2026-01-02 03:04'::timestamptz from public.s where k between 0 and 5 order by k
		0 p s2 insert into public.s (k, z) values ($1::int, '2026-01-02 03:04')
		0 b s1
		0 set time zone 'EST5EDT'
		0 b s1
		0 b s2 6
		0 select k, z from public.s where k = 6
		0 begin
		0 do $$begin set local time zone 'Asia/Tokyo'; end$$
		0 b s1
		0 b s2 7
		0 select k, z from public.s where k = 7
		0 rollback
		0 deallocate s1
		0 b s1`},
	{"what fails before it has columns", `
		0 select k, '01/02/2026'::date from public.s where k between 0 and 5 order by k
		0 select min(v), '01/02/2026'::date from public.s where k between 0 and 9
		0 set datestyle to ymd
		0 select k, '01/02/2026'::date from public.s where k between 0 and 5 order by k
		0 select min(v), '01/02/2026'::date from public.s where k between 0 and 9
		0 select k, 1 / (k - k) from public.s where k between 0 and 5 order by k
		0 select k, 1 / (k - k) from public.s where k between 0 and 5 order by k
		0 begin
		0 select k, '01/02/2026'::date from public.s where k between 0 and 5 order by k
		0 rollback`},
	{"READ ONLY behind writes, in one message", `
		0 delete from public.s where k in (5, 1); set transaction read only
		0 select count(*) from public.s where k between 0 and 9
		0 update public.s set v = 'a' where k between 0 and 5; set transaction_read_only to on
		0 update public.s set v = 'b' where k between 0 and 5; select set_config('transaction_read_only', 'on', false)
		0 update public.s set v = 'c' where k between 0 and 5; do $$begin set transaction read only; end$$
		0 select k, v from public.s where k between 0 and 9 order by k
		0 update public.s set v = 'd' where k between 0 and 5; set transaction read only; update public.s set v = 'e' where k = 0
		0 select k, v from public.s where k between 0 and 9 order by k
		1 update public.s set v = 'f' where k between 10 and 15; begin read only; select current_setting('transaction_read_only'); commit
		1 select k, v from public.s where k between 10 and 19 order by k`},
	{"READ ONLY behind writes", `
		0 begin
		0 update public.s set v = 'a' where k between 0 and 5
		0 set transaction read only
		0 select k, v, current_setting('transaction_read_only') from public.s where k between 0 and 9 order by k
		0 select min(d), max(d), min(v), sum(k), current_setting('transaction_read_only') from public.s where k between 0 and 9
		0 commit
		0 begin
		0 update public.s set v = 'b' where k between 0 and 5
		0 set transaction_read_only to on
		0 select min(d), max(d), min(v), sum(k), current_setting('transaction_read_only') from public.s where k between 0 and 9
		0 commit
		0 begin
		0 update public.s set v = 'c' where k between 0 and 5
		0 x select set_config('transaction_read_only', 'on', true)
		0 select min(d), max(d), min(v), sum(k), current_setting('transaction_read_only') from public.s where k between 0 and 9
		0 commit
		0 begin
		0 update public.s set v = 'd' where k between 0 and 5
		0 select c0.f('transaction_read_only', 'on', false)
		0 commit
		0 begin
		0 update public.s set v = 'e' where k between 0 and 5
		0 do $$begin set transaction read only; end$$
		0 select k, v, current_setting('transaction_read_only') from public.s where k between 0 and 9 order by k
		0 commit
		1 select k, v from public.s where k between 0 and 9 order by k
		0 begin
		0 update public.s set v = 'f' where k between 0 and 5
		0 begin read only
		0 commit
		0 begin
		0 savepoint a
		0 update public.s set v = 'g' where k between 0 and 5
		0 set transaction read only
		0 release a
		0 update public.s set v = 'h' where k between 0 and 1
		0 commit
		0 begin
		0 savepoint a
		0 set transaction read only
		0 select k, v from public.s where k between 0 and 9 order by k
		0 rollback to a
		0 update public.s set w = 'i' where k between 0 and 5
		0 commit
		1 select k, v, w from public.s where k between 0 and 9 order by k
		0 begin
		0 update public.s set v = 'j' where k between 0 and 5
		0 set transaction read only
		0 update public.s set v = 'k' where k between 0 and 5
		0 commit
		1 select k, v, w from public.s where k between 0 and 9 order by k`},
	{"what the next transactions are, set in one", `
		0 begin
		0 set default_transaction_read_only to on
		0 update public.s set v = 'a' where k between 0 and 5
		0 commit
		0 select k, v, current_setting('transaction_read_only') from public.s where k between 0 and 9 order by k
		0 update public.s set v = 'b' where k between 0 and 5
		0 begin read write
		0 update public.s set v = 'c' where k between 0 and 5
		0 set session characteristics as transaction isolation level serializable, read only
		0 commit
		0 begin
		0 select k, v, current_setting('transaction_read_only') from public.s where k between 0 and 9 order by k
		0 set session characteristics as transaction isolation level read committed, read write
		0 show transaction_isolation
		0 commit and chain
		0 show transaction_isolation
		0 show transaction_read_only
		0 commit
		0 begin
		0 set session characteristics as transaction read only
		0 commit and chain
		0 show transaction_read_only
		0 commit
		0 show transaction_read_only`},
	{"modes that were set by name, or by code, and a chain", `
		0 begin
		0 set transaction_read_only to on
		0 commit and chain
		0 show transaction_read_only
		0 rollback and chain
		0 show transaction_read_only
		0 commit
		0 begin
		0 select k from public.s where k between 0 and 9 order by k
		0 select set_config('transaction_read_only', 'on', false)
		0 commit and chain
		0 show transaction_read_only
		0 commit
		0 begin
		0 select k from public.s where k between 0 and 9 order by k
		0 do $$begin set transaction read only; end$$
		0 commit and chain
		0 show transaction_read_only
		0 commit
		0 begin isolation level repeatable read, read only
		0 set transaction_isolation to 'repeatable read'
		0 commit and chain
		0 show transaction_read_only
		0 show transaction_isolation
		0 commit
		0 begin
		0 set transaction_isolation to serializable
		0 set transaction_deferrable to on
		0 commit and chain
		0 show transaction_isolation
		0 show transaction_deferrable
		0 commit
		0 begin
		0 savepoint a
		0 set transaction_read_only to on
		0 release a
		0 commit and chain
		0 show transaction_read_only
		0 select 1/0
		0 rollback and chain
		0 show transaction_read_only
		0 rollback`},
	{"READ ONLY and functions that could write", `
		0 begin read only
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 0
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 1
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 2
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 3
		0 notify x
		0 commit
		0 set default_transaction_read_only to on
		0 begin
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 0
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 1
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 2
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 3
		0 notify x
		0 commit
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 0; select k, c0.f('app.a', 'x', true) from public.s where k = 1; select k, c0.f('app.a', 'x', true) from public.s where k = 2
		0 reset default_transaction_read_only
		0 begin
		0 set transaction_read_only to on
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 0
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 1
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 2
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 3
		0 commit`},
	{"READ ONLY by what the database's sessions begin with", `
		0 alter database {db} set default_transaction_read_only = on
		n 0 application_name x
		0 begin
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 0
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 1
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 2
		0 select k, c0.f('app.a', 'x', true) from public.s where k = 3
		0 commit
		0 select min(d), min(v), current_setting('transaction_read_only') from public.s where k between 0 and 9
		0 update public.s set v = 'a' where k between 0 and 5
		0 begin read write
		0 update public.s set v = 'b' where k between 0 and 5
		0 commit
		1 select k, v from public.s where k between 0 and 9 order by k
		0 set default_transaction_read_only to off
		0 alter database {db} reset all`},
	{"a gather where code has run that may have set something", `
		0 begin isolation level serializable, read only, deferrable
		0 select c0.f('app.a', 'x', true)
		0 select min(d), max(d), min(z), max(z), max(i), count(*), min(v), sum(k), current_setting('transaction_read_only') from public.s where k between 0 and 9
		0 commit
		0 begin read only
		0 select c0.f('datestyle', 'German', true)
		0 select min(d), max(d), min(z), max(z), max(i), count(*), min(v), sum(k), current_setting('transaction_read_only') from public.s where k between 0 and 9
		0 commit
		0 set transaction_read_only to on
		0 select min(d), min(v), current_setting('transaction_read_only') from public.s where k between 0 and 9
		0 select set_config('transaction_read_only', 'on', false)
		0 select min(d), min(v), current_setting('transaction_read_only') from public.s where k between 0 and 9`},
	{"what a function sets and a cursor reads", `
		0 begin
		0 declare c0 cursor for select d, current_user from public.s where k = 0
		0 declare c1 cursor for select d, current_user from public.s where k = 1
		0 declare c2 cursor for select d, current_user from public.s where k = 2
		0 declare c3 cursor for select d, current_user from public.s where k = 3
		0 do $$begin set datestyle to German; end$$
		0 fetch c0
		0 fetch c1
		0 fetch c2
		0 fetch c3
		0 rollback`},
}

// handScript reads one of them: a client, then a simple query, or the letter of another kind of act with its name and text.
func handScript(text string) (out []act) {
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		w := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if w[0] == "n" {
			out = append(out, act{client: int(w[1][0] - '0'), kind: 'n', name: w[2], text: w[3]})
			continue
		}
		a := act{client: int(w[0][0] - '0'), kind: 'q', text: strings.Join(w[1:], " ")}
		switch {
		case w[1] == "p":
			a = act{client: a.client, kind: 'p', name: w[2], text: w[3]}
		case w[1] == "b":
			a = act{client: a.client, kind: 'b', name: w[2], args: w[3:]}
		case w[1] == "k":
			a = act{client: a.client, kind: 'k', name: w[2]}
		case w[1] == "x":
			a = act{client: a.client, kind: 'x', text: strings.Join(w[2:], " ")}
		}
		out = append(out, a)
	}
	return out
}

func TestSessionsLikePostgreSQLByHand(t *testing.T) {
	t.Parallel()
	d := likenessWorld(t)
	l := &likeness{t: t, d: d, user: "postgres", pass: d.cluster.Password, servers: 2, clients: 2, shards: 1}
	play := func(name, text string) {
		if !strings.HasPrefix(name, *likenessScript) {
			return
		}
		script := handScript(text)
		if at, differs := l.play(t.Context(), script); at >= 0 {
			t.Errorf("over %d shards, %s, %v\n  %s", l.shards, name, script[at], differs)
		} else if l.cut != "" {
			t.Errorf("over %d shards, %s, was not played behind %s", l.shards, name, l.cut)
		}
	}
	for _, x := range likenessByHand {
		play(x.name, x.script)
	}
	l.shards, l.store = 2, t.TempDir()+"/map.json"
	for _, x := range likenessOverShards {
		l.user, l.pass = "postgres", d.cluster.Password
		if strings.HasPrefix(x.name, "app:") {
			l.user, l.pass = "app", "app"
		}
		play(x.name, x.script)
	}
}

// Whatever other clients do on the same servers, each session is answered as it would be alone on one PostgreSQL: statement by
// statement, with all that it is told. As an ordinary role, and as a superuser, who may be anybody; over one shard, and over two, each of
// whose servers must be what the session is.
func TestSessionsLikePostgreSQL(t *testing.T) {
	t.Parallel()
	d := likenessWorld(t)
	store := t.TempDir() + "/map.json"
	for _, x := range []struct{ user, pass string }{{"app", "app"}, {"postgres", d.cluster.Password}} {
		t.Run(x.user, func(t *testing.T) {
			l := &likeness{t: t, d: d, user: x.user, pass: x.pass, servers: 4, clients: 4, store: store}
			wrong, drawn := 0, 0
			for n := range *likenessN {
				seed := *likenessSeed + uint64(n)
				l.shards = 2 - int(seed%2) // by the seed, so that one can be played alone
				script := interleaving(rand.New(rand.NewPCG(seed, 0)), l.clients, 150, x.user == "postgres", l.shards)
				drawn += len(script)
				at, differs := l.play(t.Context(), script)
				if at < 0 {
					continue
				}
				wrong++
				least := l.shrink(t.Context(), script, at)
				_, again := l.play(t.Context(), least)
				var text strings.Builder
				for _, s := range least {
					text.WriteString("\n  " + s.String())
				}
				if again == "" {
					again = differs
				}
				t.Errorf("seed %d, over %d shards:%s\n  %s", seed, l.shards, text.String(), again)
				if wrong >= 4 {
					break
				}
			}
			t.Logf("%d of %d statements were compared; over shards, %d scripts ended at what is refused", l.done, drawn, l.refused)
			if wrong == 0 && l.done < drawn*3/4 {
				t.Errorf("%d of %d statements were compared: too many scripts end at what is refused", l.done, drawn)
			}
		})
	}
}
