package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// meanwhile are statements of the owner of a table with the columns k (its key) and v that are done while it moves, before it is said to.
// Whatever becomes of the move, kept is what the database must answer afterwards. With a code, the move must be refused with it.
var meanwhile = []struct{ name, group, before, sql, kept, code string }{
	{
		"unlisted", "l", "create table priv.unlisted (k text primary key, v int); insert into priv.unlisted values ('a', 1), ('b', 2)",
		"insert into priv.unlisted values ('z', 3)", "select count(*) from priv.unlisted where k = 'z'", "23514",
	},
	{
		"nulled", "g", "create table priv.nulled (k int, v int primary key); insert into priv.nulled select i, i from generate_series(1, 50) i",
		"insert into priv.nulled values (null, 0)", "select count(*) from priv.nulled where k is null", "23502",
	},
	{
		"referred", "g", "create table priv.referred (k int primary key, v int); insert into priv.referred select i, i from generate_series(1, 50) i; create table priv.child (r int); insert into priv.child values (1), (2), (3), (4), (5)",
		"alter table priv.child add foreign key (r) references priv.referred on delete cascade", "select (count(*) = 5)::int from priv.child", "",
	},
	{
		"ruled", "g", "create table priv.ruled (k int primary key, v int); insert into priv.ruled select i, i from generate_series(1, 50) i",
		"create rule r as on delete to priv.ruled do also select code.go()", "select (count(*) = 50)::int from priv.ruled", "",
	},
	{
		"inherited", "g", "create table priv.inherited (k int primary key, v int); insert into priv.inherited select i, i from generate_series(1, 50) i",
		"create table priv.heir () inherits (priv.inherited); insert into priv.heir select i, i from generate_series(100, 150) i; create trigger t before delete on priv.heir for each row execute function code.t()",
		"select (count(*) >= 50)::int from priv.inherited", "",
	},
	{
		"retyped", "g", "create type code.two as enum ('1', '2'); create function code.low(code.two) returns int language plpgsql as $$ begin perform code.go(); return 1; end $$; create cast (code.two as int) with function code.low(code.two) as assignment; " +
			"create table priv.retyped (k int primary key, v int); insert into priv.retyped values (1, 1)",
		"alter table priv.retyped alter k type code.two using '1'; insert into priv.retyped values ('2', 2)", "select (count(*) >= 1)::int from priv.retyped", "",
	},
}

// The owner of a table gains nothing, and loses no row, by what it does to the table while it moves.
func TestWhatIsDoneToATableWhileItMoves(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "meanwhile")
	d.adminExec(t, "CREATE GROUP g IN meanwhile KEY (int) BY HASH")
	d.adminExec(t, "CREATE GROUP l IN meanwhile KEY (text) BY LIST (('a') ON meanwhile_s1, ('b') ON meanwhile_s2)")
	home := connectTo(t, asRole(d, d.on(t, "meanwhile", 0), "app"))
	mustExec(t, home, "create schema priv; create schema code; "+climb)
	d.adminExec(t, "ALTER ROUTINE meanwhile.code.put SHARD SAFE") // which names a table of home's
	super := d.on(t, "meanwhile", 0)
	mustExec(t, d.on(t, "meanwhile", 2), "create schema priv authorization app") // what home has is tried there first
	for _, x := range meanwhile {
		mustExec(t, home, x.before)
		if queryOne[bool](t, super, "select rolsuper from pg_roles where rolname = 'app'") {
			t.Fatalf("%s: app is a superuser by its own statements", x.name)
		}
		hold, err := d.on(t, "meanwhile", 2).Begin(t.Context()) // a table of that name, not yet committed: the last copy waits for it
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), "create table priv."+x.name+" (id int)"); err != nil {
			t.Fatal(err)
		}
		done, did := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), fmt.Sprintf("DISTRIBUTE TABLE meanwhile.priv.%s IN GROUP %s KEY (k) ALLOW LOCAL UNIQUE", x.name, x.group), false)
			done <- err
		}()
		copied := d.on(t, "meanwhile", 1)
		eventually(t, "a copy is made", func() bool { return queryOne[bool](t, copied, "select to_regclass('priv."+x.name+"') is not null") })
		go func() {
			_, err := home.Exec(t.Context(), x.sql)
			did <- err
		}()
		eventually(t, "the statement is done or waits", func() bool {
			return len(did) > 0 || queryOne[bool](t, super, "select exists (select from pg_locks where not granted and pid = $1)", int(home.PgConn().PID()))
		})
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-did; err != nil {
			t.Logf("%s: the owner's statement: %v", x.name, err)
		}
		err = <-done
		t.Logf("%s: DISTRIBUTE: %v", x.name, err)
		if e := (interface{ SQLState() string })(nil); x.code != "" && (!errors.As(err, &e) || e.SQLState() != x.code) {
			t.Errorf("%s: DISTRIBUTE: %v, want %s", x.name, err, x.code)
		}
		c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "meanwhile"))
		if n := queryOne[int](t, c, x.kept); n != 1 {
			t.Errorf("%s: %s is %d", x.name, x.kept, n)
		}
		if queryOne[bool](t, super, "select rolsuper from pg_roles where rolname = 'app'") {
			t.Errorf("%s: app is a superuser", x.name)
			mustExec(t, super, "alter role app nosuperuser")
		}
	}
}

// asRole is the address of the server that a connection is to, for another role.
func asRole(d *demo, c *pgx.Conn, role string) string {
	return strings.Replace(c.Config().ConnString(), "postgres:"+d.cluster.Password, role+":"+role, 1)
}

// Whose code a table has cannot give up the lock by which other processes know that somebody is at the table: they would undo what goes on.
// Nor can it have the table's name mean another one.
func TestATablesOwnerCannotGiveUpTheLockOfAMove(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "released")
	d.adminExec(t, "CREATE GROUP g IN released KEY (int) BY HASH")
	home := connectTo(t, asRole(d, d.on(t, "released", 0), "app"))
	mustExec(t, home, `create schema priv; create function priv.f(int) returns int language plpgsql immutable as $$ begin perform pg_advisory_unlock_all(); return $1; end $$;
		create table priv.t (id int primary key, v int); create statistics priv.s on (v + priv.f(7)), v from priv.t; insert into priv.t select i, i from generate_series(1, 50) i`)
	mustExec(t, d.on(t, "released", 2), "create schema priv authorization app") // what home has is tried there first
	hold, err := d.on(t, "released", 2).Begin(t.Context())                      // a table of that name, not yet committed: the last copy waits for it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "create table priv.t (id int)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE released.priv.t IN GROUP g KEY (id)", false)
		done <- err
	}()
	copied := d.on(t, "released", 1)
	eventually(t, "a copy is made", func() bool { return queryOne[bool](t, copied, "select to_regclass('priv.t') is not null") })
	writer, err := copied.Begin(t.Context()) // keeps the copies from being held against writers, after home's rows are deleted
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Exec(t.Context(), "lock table priv.t in row exclusive mode"); err != nil {
		t.Fatal(err)
	}
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	watch := d.on(t, "released", 1)
	eventually(t, "the move waits for the writer", func() bool {
		return queryOne[bool](t, watch, "select exists (select from pg_locks where not granted and mode = 'ShareLock' and relation = 'priv.t'::regclass)")
	})
	attempts := d.Catalog.Current().Document.Attempts
	if len(attempts) != 1 {
		t.Fatalf("attempts: %v", attempts)
	}
	if queryOne[bool](t, d.on(t, "released", 0), "select not exists (select from pgmosaic.holder h join pg_stat_activity s on s.pid = h.pid and s.backend_start = h.started where h.attempt = $1)", attempts[0].ID) {
		t.Error("another process can take the attempt for one that nobody is at")
	}
	if _, err := home.Exec(t.Context(), "set lock_timeout = '50ms'; alter schema priv rename to other"); pgCode(err) != "55P03" {
		t.Errorf("the schema whose table moves can get another name: %v", err)
	}
	if err := writer.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
