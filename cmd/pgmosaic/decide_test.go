package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

// asApp is the connection string of the application's role on a node.
func (d *demo) asApp(node, database string) string {
	n := d.cluster.Node(node)
	return strings.Replace(n.DSN(database), "postgres:"+d.cluster.Password, "app:app", 1)
}

// Nobody but the proxy decides about its transactions: not with a gid that everybody can see, by whatever way the function is
// reached, nor with a token that was seen.
func TestOnlyTheProxyDecides(t *testing.T) {
	t.Parallel()
	d := shop(t)
	su, app := connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.asApp("s1-a", "shop"))
	rows := func() string {
		t.Helper()
		return queryOne[string](t, su, "select coalesce(string_agg(gid || ' ' || outcome, ',' order by gid), '') from pgmosaic.decision where gid like '%forged%'")
	}
	gid := "pgmosaic:" + d.Catalog.Current().Install + ":s1:forged"
	for _, call := range []string{
		"select pgmosaic.decide('%s', 'commit')", "select pgmosaic.decide('%s', 'commit', null)", "select pgmosaic.decide('%s', 'commit', null, null)",
		`select pgmosaic.decide('%s', 'commit', '{s2}', '\x00')`, "select pgmosaic.decide('%s', 'damaged: forged', null, null)",
		"insert into pgmosaic.decision (gid, outcome) values ('%s', 'commit')", "update pgmosaic.decision set outcome = 'commit' where gid = '%s'",
		"delete from pgmosaic.decision where gid = '%s'", "truncate pgmosaic.decision -- %s", "copy pgmosaic.decision from program 'echo %s'",
		"select * from pgmosaic.secret -- %s", "insert into pgmosaic.secret values (true, '%s', '')", "create table pgmosaic.mine (gid text default '%s')",
		"alter function pgmosaic.decide(text, text, text[], bytea) set search_path = public -- %s",
	} {
		sql := fmt.Sprintf(call, gid)
		if _, err := app.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err == nil {
			t.Errorf("on the node anybody may %s", sql)
		}
	}
	mustExec(t, app, "create or replace function forge() returns int immutable language plpgsql as $$ begin execute 'select pgmosaic.dec' || 'ide(''"+gid+"'', ''commit'')'; return 1; end $$")
	defer mustExec(t, su, "drop function forge()")
	c := connectTo(t, d.shopDSN())
	if _, err := c.Exec(t.Context(), "select forge()"); err == nil {
		t.Error("a function that runs dynamic SQL has decided")
	}
	if got := rows(); got != "" {
		t.Errorf("decided: %s", got)
	}

	// A token holds for one server process, gid, outcome and list of parts, once.
	secret, err := (&txn.Secrets{}).Of(t.Context(), "shop", txn.Shard{Whose: anybodys, Name: "s1", DSN: d.cluster.Node("s1-a").DSN("shop")})
	if err != nil {
		t.Fatal(err)
	}
	call := func(conn *pgx.Conn, gid, outcome string, parts []string, token []byte) string {
		t.Helper()
		_, err := conn.Exec(t.Context(), "select pgmosaic.decide($1, $2, $3, $4)", gid, outcome, parts, token)
		return pgCode(err)
	}
	pid := func(conn *pgx.Conn) uint32 { return conn.PgConn().PID() }
	token := secret.Token(gid, "commit", []string{"s2"}, pid(app))
	other := connectTo(t, d.asApp("s1-a", "shop"))
	for name, got := range map[string]string{
		"another process": call(other, gid, "commit", []string{"s2"}, token), "another outcome": call(app, gid, "part", []string{"s2"}, token),
		"another list": call(app, gid, "commit", []string{"s3"}, token), "no list": call(app, gid, "commit", nil, token), "another gid": call(app, gid+"2", "commit", []string{"s2"}, token),
	} {
		if got != "42501" {
			t.Errorf("with a token for %s: %q", name, got)
		}
	}
	for _, outcome := range []string{"abort", "done", "damaged: forged", "x"} {
		if got := call(app, gid, outcome, nil, secret.Token(gid, outcome, nil, pid(app))); got != "22023" {
			t.Errorf("outcome %s: %q", outcome, got)
		}
	}
	if got := rows(); got != "" {
		t.Errorf("decided: %s", got)
	}
	if got := call(app, gid, "commit", []string{"s2"}, token); got != pgCode(nil) {
		t.Errorf("the right token: %q", got)
	}
	if got := call(app, gid, "commit", []string{"s2"}, token); got != "23505" {
		t.Errorf("the right token again: %q", got)
	}
	mustExec(t, su, "delete from pgmosaic.decision where gid = $1", gid)
	for _, bad := range []string{"'x', 'nothing'", "repeat('x', 201), 'commit'", "'x', 'damaged: ' || repeat('x', 300)"} {
		if _, err := su.Exec(t.Context(), "insert into pgmosaic.decision (gid, outcome) values ("+bad+")"); pgCode(err) != "23514" {
			t.Errorf("the table takes %s: %v", bad, err)
		}
	}
}

// What shows that a call is the proxy's is seen by nobody: neither in the list of what servers do, nor in what a client is told
// when the call fails, whatever it has set.
func TestTokensAreNotSeen(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := keysOn(t, d, 700000)
	su, app := connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.asApp("s1-a", "shop"))
	for _, set := range []string{"", "set statement_timeout = '500ms'"} {
		var heard []string
		cfg, err := pgx.ParseConfig(d.shopDSN())
		if err != nil {
			t.Fatal(err)
		}
		cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { heard = append(heard, fmt.Sprintf("%+v", n)) }
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"set log_parameter_max_length_on_error = -1", "set client_min_messages = debug1", "set debug_print_plan = on", "set plan_cache_mode = force_custom_plan"} {
			mustExec(t, c, sql)
		}
		mustExec(t, su, "begin")
		mustExec(t, su, "lock table pgmosaic.decision in share mode")
		mustExec(t, c, "begin")
		for _, k := range []int{k1, k2} {
			mustExec(t, c, insertCustomer, k, "seen")
		}
		if set != "" {
			mustExec(t, c, set)
		}
		heard = nil
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.WithoutCancel(t.Context()), "commit")
			done <- err
		}()
		query := ""
		eventually(t, "the call waits", func() bool {
			query = queryOne[string](t, app, "select coalesce(string_agg(query, ' '), '') from pg_stat_activity where usename = 'app' and query like '%decide%' and pid <> pg_backend_pid()")
			return query != ""
		})
		if strings.Contains(query, "pgmosaic:") || strings.Contains(query, `\x`) || !strings.Contains(query, "$3") {
			t.Errorf("seen: %s", query)
		}
		if set != "" {
			err := <-done
			wantCode(t, err, "57014")
			var pe *pgconn.PgError
			if errors.As(err, &pe); strings.Contains(pe.Where+pe.Detail+pe.Message, `\x`) || pe.Where != "" {
				t.Errorf("told: %+v", *pe)
			}
			mustExec(t, su, "rollback")
			mustExec(t, c, "rollback")
		} else {
			mustExec(t, su, "rollback")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
		}
		for _, n := range heard {
			if strings.Contains(n, "pgmosaic:") || strings.Contains(n, "bytea") || strings.Contains(n, "decide") {
				t.Errorf("told: %s", n)
			}
		}
		_ = c.Close(t.Context())
	}
}

// What is in the proxy's own schema belongs to the role of the node's connection string, and others may do there what is listed
// here: also where default privileges give more to everybody or to somebody, and where it was made by an older version.
func TestPrivilegesInOurSchema(t *testing.T) {
	t.Parallel()
	d := shop(t)
	n := d.cluster.Node("s1-a")
	freshDatabase(t, n, "privileges")
	su := connectTo(t, n.DSN("privileges"))
	mustExec(t, su, "alter default privileges grant all on tables to public, app")
	mustExec(t, su, "alter default privileges grant all on sequences to app")
	mustExec(t, su, "alter default privileges grant all on functions to app")
	mustExec(t, su, "alter default privileges grant all on schemas to app")
	want := strings.Join([]string{
		"brought app SELECT", "decide(text,text,text[],bytea) PUBLIC EXECUTE", "decide(text,text,text[],bytea) app EXECUTE", "decision app SELECT", "holder app SELECT", "identity PUBLIC SELECT", "identity app SELECT", "ids app SELECT", "made app SELECT",
		"next_id() PUBLIC EXECUTE", "next_id() app EXECUTE", "placed app SELECT", "schema PUBLIC USAGE", "schema app USAGE",
		"take_turn(text,bytea) PUBLIC EXECUTE", "take_turn(text,bytea) app EXECUTE", "take_turn(text,bytea,integer) PUBLIC EXECUTE", "take_turn(text,bytea,integer) app EXECUTE", "turn app SELECT", "written() PUBLIC EXECUTE", "written() app EXECUTE",
	}, "\n")
	const granted = `select coalesce(string_agg(distinct o.what || ' ' || coalesce(x.grantee::regrole::text, '') || ' ' || x.privilege_type, E'\n'), '') from (
		select 'schema', nspowner, nspacl from pg_namespace where nspname = 'pgmosaic'
		union all select relname, relowner, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) from pg_class where relnamespace = 'pgmosaic'::regnamespace and relkind not in ('i', 't', 'c')
		union all select p.oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner)) from pg_proc p where pronamespace = 'pgmosaic'::regnamespace
		union all select typname, typowner, typacl from pg_type where typnamespace = 'pgmosaic'::regnamespace) o (what, owner, acl), aclexplode(o.acl) x where x.grantee <> o.owner`
	check := func(when string) {
		t.Helper()
		got := strings.ReplaceAll(strings.ReplaceAll(queryOne[string](t, su, granted), " - ", " PUBLIC "), "pgmosaic.", "")
		lines := strings.Split(got, "\n")
		slices.Sort(lines)
		got = strings.Join(lines, "\n")
		if got != want {
			t.Errorf("%s others have\n%s\nwant\n%s", when, got, want)
		}
		if owners := queryOne[int](t, su, `select count(*) from (select relowner from pg_class where relnamespace = 'pgmosaic'::regnamespace union select proowner from pg_proc where pronamespace = 'pgmosaic'::regnamespace
			union select nspowner from pg_namespace where nspname = 'pgmosaic') o where relowner <> 'postgres'::regrole`); owners != 0 {
			t.Errorf("%s %d owners are others", when, owners)
		}
		if loose := queryOne[string](t, su, "select coalesce(string_agg(proname, ' '), '') from pg_proc where pronamespace = 'pgmosaic'::regnamespace and (not prosecdef or proconfig is distinct from '{\"search_path=pg_catalog, pg_temp\"}')"); loose != "" {
			t.Errorf("%s these functions run with the caller's search_path: %s", when, loose)
		}
		if !queryOne[bool](t, su, txn.Complete) {
			t.Errorf("%s it is not complete by its own word", when)
		}
	}
	mustExec(t, su, olderSchema)
	if queryOne[bool](t, su, txn.Complete) {
		t.Error("what an older version made is taken for complete")
	}
	mustExec(t, su, txn.Schema(0, 1))
	check("after an upgrade")
	key := queryOne[string](t, su, "select encode(inner_key || outer_key, 'hex') from pgmosaic.secret")
	mustExec(t, su, txn.Schema(0, 1))
	check("a second time")
	if again := queryOne[string](t, su, "select encode(inner_key || outer_key, 'hex') from pgmosaic.secret"); again != key || len(key) != 128 {
		t.Errorf("the secret is %d digits long, and another one the second time: %t", len(key), again != key)
	}
	mustExec(t, su, "drop schema pgmosaic cascade")
	mustExec(t, su, txn.Schema(0, 1))
	check("from nothing")
	mustExec(t, su, "grant insert on pgmosaic.decision to app; grant select on pgmosaic.secret to app; grant create on schema pgmosaic to app")
	if queryOne[bool](t, su, txn.Complete) {
		t.Error("privileges that somebody has granted are not noticed")
	}
	mustExec(t, su, txn.Schema(0, 1))
	check("after grants by hand")

	// A schema that somebody else has made ready is not used.
	for _, trap := range []string{
		"create schema pgmosaic authorization app", "create schema pgmosaic; create table pgmosaic.decision (gid text primary key, outcome text, parts text[], at timestamptz default now()); alter table pgmosaic.decision owner to app",
	} {
		mustExec(t, su, "drop schema pgmosaic cascade")
		mustExec(t, su, trap)
		_, err := su.Exec(t.Context(), txn.Schema(0, 1))
		if pgCode(err) != "42939" || !strings.Contains(fmt.Sprint(err), "holds what belongs to others") {
			t.Errorf("%s: %v", trap, err)
		}
	}
}

// olderSchema is what the version before made on a shard.
const olderSchema = `
CREATE SCHEMA IF NOT EXISTS pgmosaic;
CREATE TABLE IF NOT EXISTS pgmosaic.decision (gid text PRIMARY KEY, outcome text NOT NULL, parts text[], at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS pgmosaic.copy (schema text, name text, PRIMARY KEY (schema, name));
CREATE TABLE IF NOT EXISTS pgmosaic.tenant (schema text PRIMARY KEY);
CREATE OR REPLACE FUNCTION pgmosaic.decide(gid text, outcome text, parts text[] DEFAULT NULL) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
  AS 'INSERT INTO pgmosaic.decision (gid, outcome, parts) VALUES ($1, $2, $3)';
GRANT USAGE ON SCHEMA pgmosaic TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgmosaic.decide(text, text, text[]) TO PUBLIC;
CREATE SEQUENCE IF NOT EXISTS pgmosaic.ids MINVALUE 0 MAXVALUE 4194303 CYCLE;
CREATE OR REPLACE FUNCTION pgmosaic.next_id() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
  AS 'SELECT nextval(''pgmosaic.ids'')';
GRANT EXECUTE ON FUNCTION pgmosaic.next_id() TO PUBLIC`

// Shards of an older version are brought up to date at the start, or by the first commit over them, and what that version has left
// prepared is still resolved.
func TestShardsOfAnOlderVersion(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, late := range []bool{false, true} {
		db := fmt.Sprintf("older_%t", late)
		names := []string{"s1-a", "s2-a"}
		d.adminExec(t, "CREATE DATABASE "+db)
		var direct []*pgx.Conn
		for i, node := range names {
			phys := fmt.Sprintf("%s_%d", db, i)
			freshDatabase(t, d.cluster.Node(node), phys)
			d.adminExec(t, fmt.Sprintf("CREATE SHARD o%d IN %s NODE '%s' NAME %s_n%d", i, db, d.cluster.Node(node).DSN(phys), db, i))
			direct = append(direct, connectTo(t, d.cluster.Node(node).DSN(phys)))
		}
		t.Cleanup(func() { d.forget(t, db) })
		first := connectTo(t, dsnFor("app", "app", d.Server.Addr(), db))
		mustExec(t, first, "create table moves (shard int not null, id int not null, primary key (shard, id))")
		d.adminExec(t, "CREATE GROUP g IN "+db+" KEY (int) BY LIST ((0) ON o0, (1) ON o1)")
		d.adminExec(t, "DISTRIBUTE TABLE "+db+".public.moves IN GROUP g KEY (shard)")
		makeOld := func() {
			for _, c := range direct {
				mustExec(t, c, "drop function pgmosaic.decide(text, text, text[], bytea); drop function pgmosaic.next_id(); drop table pgmosaic.secret; alter table pgmosaic.decision drop constraint decision_form")
				mustExec(t, c, olderSchema)
			}
		}
		if !late {
			makeOld()
		}
		gid := txn.GID(d.Catalog.Current().Install, "o0")
		mustExec(t, direct[1], "begin; insert into moves values (1, 1); insert into pgmosaic.decision values ('"+txn.PartGID(gid, 0)+"', 'part'); prepare transaction '"+txn.PartGID(gid, 0)+"'")
		mustExec(t, direct[0], "insert into moves values (0, 1); insert into pgmosaic.decision values ('"+gid+"', 'commit', '{o1}')")
		a := startApp(t, crashConfig(t, mapOf(d, db)))
		if late {
			eventually(t, "the start is over", func() bool { return a.Monitor.View(db, "o1") != nil && a.Monitor.View(db, "o1").Up() })
			time.Sleep(300 * time.Millisecond) // what a start looks at has been looked at
			eventually(t, "no part is prepared: makeOld would wait for it, and who finishes it for makeOld", func() bool {
				return queryOne[int](t, direct[1], "select count(*) from pg_prepared_xacts where database = current_database()") == 0
			})
			makeOld()
		} else {
			for _, c := range direct {
				eventually(t, "the shard is up to date", func() bool { return queryOne[bool](t, c, txn.Complete) })
			}
		}
		c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), db))
		mustExec(t, c, "begin; insert into moves values (0, 2), (1, 2); commit")
		eventually(t, "what was left is resolved", func() bool { return queryOne[int](t, c, "select count(*) from moves") == 4 })
		for _, c := range direct {
			if !queryOne[bool](t, c, txn.Complete) {
				t.Errorf("late %t: a shard is not up to date", late)
			}
		}
	}
}

// A shard whose name cannot stand in the name of a transaction over shards would decide nothing that a crash has left.
func TestNamesThatNoDecisionCarries(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, name := range []string{"a:b", "a/b", ":", strings.Repeat("long", 30)} {
		d.adminFails(t, `CREATE SHARD "`+name+`" IN shop NODE '`+d.cluster.Node("s1-a").DSN("postgres")+"'", "22023", "cannot be called")
	}
}
