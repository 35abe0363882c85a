package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// keysOf is a shard's secret, as its owner reads it.
func keysOf(t testing.TB, su *pgx.Conn) string {
	t.Helper()
	return queryOne[string](t, su, "select encode(inner_key || outer_key, 'hex') from pgmosaic.secret")
}

// strangers are logins whom PostgreSQL lets read, or also write, all tables, and one to whom somebody has given all of ours; who is asked for
// is in the schema's database as one of them.
func strangers(t *testing.T, n *cluster.Node) map[string]string {
	t.Helper()
	su := connectTo(t, n.DSN("postgres"))
	out := map[string]string{}
	for name, member := range map[string]string{"all_reader": "pg_read_all_data", "all_writer": "pg_write_all_data", "all_both": "pg_read_all_data, pg_write_all_data", "all_granted": ""} {
		mustExec(t, su, "drop role if exists "+name)
		mustExec(t, su, "create role "+name+" login password 'all'")
		if member != "" {
			mustExec(t, su, "grant "+member+" to "+name)
		}
		out[name] = fmt.Sprintf("postgres://%s:all@127.0.0.1:%d/", name, n.Port)
	}
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), n.DSN("postgres"))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background())
		for name := range out {
			if _, err := c.Exec(context.Background(), "drop role if exists "+name); err != nil {
				t.Error(err)
			}
		}
	})
	return out
}

// Who may read or write all tables of a database, by PostgreSQL's own roles or by grants, neither reads what shows that a call is the
// proxy's, nor writes any table of ours.
func TestWhoReadsAndWritesAllTablesDoesNotReachOurs(t *testing.T) {
	t.Parallel()
	d := shop(t)
	n := d.cluster.Node("s2-a")
	freshDatabase(t, n, "all_data")
	su := connectTo(t, n.DSN("all_data"))
	logins := strangers(t, n)
	defer freshDatabase(t, n, "all_data")
	mustExec(t, su, txn.Schema(0, 1))
	for _, row := range []string{
		"decision values ('pgmosaic:x:s1:1', 'commit', '{s2}')", "made values ('pg_class'::regclass, 'd', 'a')", "brought values (1, 2, 'a', '')", "placed (schema, distribution, attempt, at) values ('s', 'd', 'a', 'home')",
		"holder values ('a', 1, now())", "identity (installation, database, shard) values ('i', 'd', 's')", "turn values ('definitions')",
	} {
		mustExec(t, su, "insert into pgmosaic."+row)
	}
	mustExec(t, su, "grant select, insert, update, delete on all tables in schema pgmosaic to all_granted")
	mustExec(t, su, "analyze")
	tables := queryOne[[]string](t, su, "select array_agg(relname::text order by relname) from pg_class where relnamespace = 'pgmosaic'::regnamespace and relkind = 'r'")
	contents := func(table string) string {
		t.Helper()
		return queryOne[string](t, su, "select coalesce(string_agg(x::text, ', ' order by x::text), '') from pgmosaic."+table+" x")
	}
	columns := map[string]string{}
	for _, table := range tables {
		columns[table] = queryOne[string](t, su, "select attname::text from pg_attribute where attrelid = ('pgmosaic.' || $1)::regclass and attnum = 1", table)
		if contents(table) == "" {
			t.Errorf("pgmosaic.%s is empty: the test shows nothing", table)
		}
	}
	secret := keysOf(t, su)
	inner, outer := secret[:64], secret[64:]
	for name, at := range logins {
		c := connectTo(t, at+"all_data")
		for _, sql := range []string{
			"select s::text from pgmosaic.secret s", "select encode(inner_key || outer_key, 'hex') from pgmosaic.secret", "select string_agg(x::text, ' ') from pg_stats x where schemaname = 'pgmosaic'",
			"select string_agg(x::text, ' ') from pg_statistic x where starelid = to_regclass('pgmosaic.secret')", "select s::text from pgmosaic.secret s for update", "update pgmosaic.secret set one = one returning inner_key::text",
			"delete from pgmosaic.secret returning inner_key::text", "select table_to_xml('pgmosaic.secret', true, true, '')::text",
		} {
			var got *string
			_ = c.QueryRow(t.Context(), sql).Scan(&got) // an error is right, and so is nothing
			if got != nil && (strings.Contains(*got, inner) || strings.Contains(*got, outer)) {
				t.Errorf("%s: %s: %s", name, sql, *got)
			}
		}
		var out strings.Builder
		_, _ = c.PgConn().CopyTo(t.Context(), &out, "copy pgmosaic.secret to stdout")
		if strings.Contains(out.String(), inner) {
			t.Errorf("%s: COPY gives %s", name, out.String())
		}
		for _, table := range tables {
			before := contents(table)
			for _, sql := range []string{
				"delete from pgmosaic.%s", "update pgmosaic.%s set %[2]s = %[2]s", "insert into pgmosaic.%s select (x).* from (select null::pgmosaic.%[1]s as x) y", "truncate pgmosaic.%s", "with x as (delete from pgmosaic.%s returning 1) select count(*) from x",
				"merge into pgmosaic.%s using (select 1) x on true when matched then delete",
			} {
				tx, err := c.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				sql = fmt.Sprintf(sql+" -- %[2]s", table, columns[table])
				tag, err := tx.Exec(t.Context(), sql)
				var violated bool
				if code := pgCode(err); strings.HasPrefix(code, "23") { // it had the right to
					violated = true
				}
				if err == nil && tag.RowsAffected() > 0 && !strings.HasPrefix(sql, "with") || violated {
					t.Errorf("%s may %s: %v %v", name, sql, tag, err)
				}
				_ = tx.Commit(t.Context())
				if contents(table) != before {
					t.Fatalf("%s has written pgmosaic.%s: %s", name, table, sql)
				}
			}
			if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(""), "copy pgmosaic."+table+" from stdin"); err == nil {
				t.Errorf("%s may COPY into pgmosaic.%s", name, table)
			}
		}
		for _, sql := range []string{ // forged: what rows could be made to say
			"insert into pgmosaic.decision values ('pgmosaic:x:s1:2', 'commit', '{s2}')", "insert into pgmosaic.made values ('pg_proc'::regclass, 'd', 'a')", "insert into pgmosaic.secret values (true, '', '') on conflict (one) do update set inner_key = ''",
			"insert into pgmosaic.identity (installation, database, shard) values ('i', 'd', 's') on conflict (one) do update set shard = 'other'", "insert into pgmosaic.turn values ('table x')",
		} {
			if _, err := c.Exec(t.Context(), sql); pgCode(err) != "42501" {
				t.Errorf("%s: %s: %v", name, sql, err)
			}
		}
		if strings.HasSuffix(name, "both") || strings.HasSuffix(name, "granted") { // nor is a turn held by the lock of its row
			tx, err := c.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = tx.Exec(t.Context(), "select from pgmosaic.turn for update")
			if _, err := su.Exec(t.Context(), "select from pgmosaic.turn for update nowait"); err != nil {
				t.Errorf("%s holds a turn: %v", name, err)
			}
			_ = tx.Rollback(t.Context())
		}
		_ = c.Close(t.Context())
	}
	mustExec(t, su, "revoke all on all tables in schema pgmosaic from all_granted")
	mustExec(t, su, "grant select on pgmosaic.decision to all_granted")
	if n := queryOne[int](t, connectTo(t, logins["all_granted"]+"all_data"), "select count(*) from pgmosaic.decision"); n != 1 {
		t.Errorf("who was given it by name reads %d decisions", n)
	}
}

// What pg_dump takes as such a role has no secret in it: it is refused, or leaves the rows out, or leaves the schema out.
func TestDumpsOfReadersHaveNoSecret(t *testing.T) {
	t.Parallel()
	d := shop(t)
	n := d.cluster.Node("s2-a")
	freshDatabase(t, n, "all_dumped")
	su := connectTo(t, n.DSN("all_dumped"))
	mustExec(t, su, "drop role if exists dump_reader; create role dump_reader login password 'all'; grant pg_read_all_data to dump_reader", pgx.QueryExecModeSimpleProtocol)
	defer mustExec(t, su, "drop role dump_reader")
	mustExec(t, su, "create table kept (a int); insert into kept values (42)", pgx.QueryExecModeSimpleProtocol)
	mustExec(t, su, txn.Schema(0, 1))
	inner := keysOf(t, su)[:64]
	for _, x := range []struct {
		args    []string
		refused string
	}{{nil, "row-level security policy for table"}, {[]string{"--exclude-schema=pgmosaic"}, ""}, {[]string{"--enable-row-security"}, ""}} {
		out, err := exec.CommandContext(t.Context(), client(t, "pg_dump"), append(x.args, fmt.Sprintf("postgres://dump_reader:all@127.0.0.1:%d/all_dumped", n.Port))...).CombinedOutput()
		if strings.Contains(string(out), inner) {
			t.Errorf("pg_dump %v gives the secret", x.args)
		}
		if x.refused != "" && (err == nil || !strings.Contains(string(out), x.refused)) || x.refused == "" && (err != nil || !strings.Contains(string(out), "42")) {
			t.Errorf("pg_dump %v: %v\n%.2000s", x.args, err, out)
		}
	}
}

// opened is what the version before had made: anybody who may read all tables reads the secret.
const opened = `DO $$ DECLARE x record; BEGIN
  FOR x IN SELECT c.oid::regclass AS name FROM pg_class c WHERE relnamespace = 'pgmosaic'::regnamespace AND relkind = 'r' LOOP
    EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', x.name);
  END LOOP;
  FOR x IN SELECT polname, polrelid::regclass AS name FROM pg_policy p JOIN pg_class c ON c.oid = polrelid WHERE relnamespace = 'pgmosaic'::regnamespace LOOP
    EXECUTE format('DROP POLICY %I ON %s', x.polname, x.name);
  END LOOP;
  DROP TRIGGER IF EXISTS pgmosaic_kept ON pgmosaic.identity;
  DROP FUNCTION IF EXISTS pgmosaic.kept();
END $$`

// An installation of the version before is closed at the start, and its secret, which somebody may have read, is another one then. Who
// reads a table of ours meanwhile holds nobody up, and keeps only that one open, until the next look; a process that knew the old secret loses one
// transaction.
func TestOlderInstallationsAreClosed(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "closing")
	mustExec(t, c, "begin; update parts set i = i + 1; commit", pgx.QueryExecModeSimpleProtocol) // the process knows the secrets
	var own, dump []*pgx.Conn
	var before []string
	for i := range 2 {
		own, dump = append(own, d.on(t, "closing", i)), append(dump, d.on(t, "closing", i))
		mustExec(t, own[i], opened)
		before = append(before, keysOf(t, own[i]))
		if queryOne[bool](t, own[i], txn.Complete) {
			t.Error("what the version before has made is taken for closed")
		}
	}
	mustExec(t, dump[0], "begin; select from pgmosaic.secret; select from pgmosaic.decision", pgx.QueryExecModeSimpleProtocol)
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { done <- d.Mover.RunUpgrade(ctx, 50*time.Millisecond) }()
	eventually(t, "the shard that nobody reads is closed", func() bool { return queryOne[bool](t, own[1], txn.Complete) })
	eventually(t, "all but two tables are", func() bool {
		return queryOne[string](t, own[0], "select coalesce(string_agg(relname::text, ' ' order by relname), '') from pg_class where relnamespace = 'pgmosaic'::regnamespace and relkind = 'r' and not relrowsecurity") == "decision identity secret"
	})
	select {
	case err := <-done:
		t.Fatalf("it has given up: %v", err)
	default:
	}
	mustExec(t, dump[0], "commit")
	eventually(t, "both shards are closed", func() bool { return queryOne[bool](t, own[0], txn.Complete) && queryOne[bool](t, own[1], txn.Complete) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i, c := range own {
		now := keysOf(t, c)
		if now == before[i] {
			t.Errorf("shard %d: the secret that could be read holds still", i)
		}
		mustExec(t, c, txn.Schema(i, 2))
		if keysOf(t, c) != now {
			t.Errorf("shard %d: another secret each time", i)
		}
	}
	k := queryOne[int](t, c, "select sum(i) from parts")
	_, err := c.Exec(t.Context(), "begin; update parts set i = i + 1; commit", pgx.QueryExecModeSimpleProtocol)
	if pgCode(err) != "40001" {
		t.Errorf("a process that knows the old secret: %v", err)
	}
	_, _ = c.Exec(t.Context(), "rollback")
	if got := queryOne[int](t, c, "select sum(i) from parts"); got != k {
		t.Errorf("the sum is %d, and was %d", got, k)
	}
	eventually(t, "it asks for the new ones", func() bool {
		_, err := c.Exec(t.Context(), "begin; update parts set i = i + 1; commit", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			_, _ = c.Exec(t.Context(), "rollback")
		}
		return err == nil
	})
	// docs/security.md: a new secret by hand, where a dump has got lost.
	mustExec(t, own[0], "update pgmosaic.secret set inner_key = sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), outer_key = sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))")
	eventually(t, "it asks again", func() bool {
		_, err := c.Exec(t.Context(), "begin; update parts set i = i + 1; commit", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			_, _ = c.Exec(t.Context(), "rollback")
		}
		return err == nil
	})
}

// A replica has what its primary has: there, too, only the owner reads.
func TestReplicasKeepTheSecretToo(t *testing.T) {
	t.Parallel()
	d := shop(t)
	su := connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	mustExec(t, su, "drop role if exists replica_reader; create role replica_reader login password 'all'; grant pg_read_all_data to replica_reader", pgx.QueryExecModeSimpleProtocol)
	defer mustExec(t, su, "drop role replica_reader")
	var c *pgx.Conn
	eventually(t, "the replica knows the role", func() (ok bool) {
		var err error
		c, err = pgx.Connect(t.Context(), fmt.Sprintf("postgres://replica_reader:all@127.0.0.1:%d/shop", d.cluster.Node("s2-b").Port))
		return err == nil
	})
	defer c.Close(t.Context())
	if n := queryOne[int](t, c, "select count(*) from pgmosaic.secret"); n != 0 {
		t.Errorf("%d rows of the secret", n)
	}
	if key := keysOf(t, connectTo(t, d.cluster.Node("s2-b").DSN("shop"))); key != keysOf(t, su) || len(key) != hex.EncodedLen(64) {
		t.Error("the owner reads another thing there")
	}
}
