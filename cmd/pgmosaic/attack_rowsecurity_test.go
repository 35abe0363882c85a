package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// Row security gives each role that a session may take the rows that one PostgreSQL would give it, on one shard, on many and
// from copies; the server that a role was taken on serves the next client as its own.
func TestRowSecurityForEveryRole(t *testing.T) {
	t.Parallel()
	d, owner := schemesWorld(t, "guarded")
	one := d.cluster.Node("s1-a")
	freshDatabase(t, one, "guarded_one")
	for _, n := range []string{"s1-a", "s2-a"} {
		s := connectTo(t, d.cluster.Node(n).DSN("postgres"))
		mustExec(t, s, "create role g_member; create role g_other; create role g_bypass bypassrls; grant g_member, g_other, g_bypass to app")
		defer func() {
			s := connectTo(t, d.cluster.Node(n).DSN("postgres"))
			for _, db := range []string{"guarded_0", "guarded_1", "guarded_2", "guarded_one"} {
				if queryOne[bool](t, s, "select exists (select from pg_database where datname = $1)", db) {
					mustExec(t, connectTo(t, d.cluster.Node(n).DSN(db)), "drop owned by g_member, g_other, g_bypass")
				}
			}
			mustExec(t, s, "drop role g_member, g_other, g_bypass")
		}()
	}
	plain := connectTo(t, strings.Replace(one.DSN("guarded_one"), "postgres:"+d.cluster.Password, "app:app", 1))
	both := func(sql string) {
		t.Helper()
		mustExec(t, plain, sql)
		mustExec(t, owner, sql)
	}
	for _, sql := range []string{
		"create table docs (k int not null, i int not null, who text not null, primary key (k, i))",
		"create table notes (k int not null, i int not null, body text, primary key (k, i))",
		"create table homes (i int primary key, who text not null)",
		"create table refs (i int primary key, who text not null)",
	} {
		both(sql)
	}
	d.adminExec(t, "CREATE GROUP g IN guarded KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE guarded.public.docs IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE guarded.public.notes IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE guarded.public.refs AS REFERENCE")
	for _, sql := range []string{
		"insert into docs values " + listed(60, func(i int) string {
			return fmt.Sprintf("(%d, %d, '%s')", i, i%7, []string{"app", "g_member", "g_other"}[i%3])
		}),
		"insert into notes values " + listed(60, func(i int) string { return fmt.Sprintf("(%d, %d, 'note %d')", i, i%5, i) }),
		"insert into homes select g, (array['app', 'g_member', 'g_other'])[1 + g % 3] from generate_series(1, 12) g",
		"insert into refs values " + listed(12, func(i int) string { return fmt.Sprintf("(%d, '%s')", i, []string{"app", "g_member", "g_other"}[i%3]) }),
		"create view v_owner as select * from docs",
		"create view v_invoker with (security_invoker = true) as select * from docs",
		"create view v_join as select docs.k, docs.who, n.body from docs join notes n on n.i = docs.i",
		"create view v_join_invoker with (security_invoker = true) as select docs.k, docs.who, n.body from docs join notes n on n.i = docs.i",
		"create function counts(int) returns bigint language sql stable security definer as 'select count(*) from homes where i <= $1'",
		"create function counts_invoker(int) returns bigint language sql stable as 'select count(*) from homes where i <= $1'",
		"grant select, insert, update, delete on docs, refs to g_member, g_other, g_bypass",
		"grant select, insert, update, delete on homes to g_member, g_other, g_bypass",
		"grant select on notes to g_member, g_other, g_bypass",
		"grant select on v_owner, v_invoker, v_join, v_join_invoker to g_member, g_other, g_bypass",
	} {
		both(sql)
	}
	for _, table := range []string{"docs", "homes", "refs"} {
		both("create policy mine on " + table + " using (who = current_user) with check (who = current_user)")
		both("alter table " + table + " enable row level security")
	}
	queries := []string{
		"select coalesce(string_agg(k || who, ',' order by k), '') from docs where k = 4", "select coalesce(string_agg(k || who, ',' order by k), '') from docs where k = 5",
		"select count(*) || ' ' || coalesce(min(who), '') || ' ' || coalesce(max(who), '') from docs", "select coalesce(string_agg(k::text, ',' order by k), '') from docs",
		"select count(*)::text from docs a join docs b on a.i = b.i", "select coalesce(sum(a.k * n.k), 0)::text from docs a join notes n on n.i = a.i",
		"select count(*)::text from homes", "select count(*)::text from refs", "select count(*) || ' ' || coalesce(sum(h.i), 0) from homes h join docs on docs.i = h.i",
		"select count(*) || ' ' || coalesce(sum(h.i), 0) from refs h join docs on docs.i = h.i",
		"select count(*)::text from v_owner", "select count(*)::text from v_invoker", "select count(*) || coalesce(min(who), '') from v_join", "select count(*) || coalesce(min(who), '') from v_join_invoker",
		"select count(*)::text from v_owner a join v_invoker b on a.i = b.i", "select counts(12)::text", "select counts_invoker(12)::text",
		"select count(distinct who) || ' ' || count(distinct i) from docs", "select string_agg(who || n, ',' order by who) from (select who, count(*) n from docs group by who) x",
		"select count(*)::text from (select row_number() over (order by k) r from docs) x where r > 3",
		"with x as (select * from docs) select count(*)::text from x join homes using (i)",
	}
	writes := []string{
		"insert into docs values (101, 1, 'app')", "insert into docs values (102, 1, 'g_member'), (103, 1, 'g_member'), (104, 1, 'g_member')", "insert into docs values (105, 1, 'g_other')",
		"update docs set i = i where true", "update docs set who = 'g_other' where k = 4", "delete from docs where k > 90", "update refs set who = who", "update homes set i = i",
		"insert into refs values (50, 'g_other')", "insert into docs select k + 1000, i, who from docs where k < 20", "update docs set k = k + 2000 where k in (4, 5, 6)",
		"insert into docs values (6, 6, 'app') on conflict do nothing", "insert into docs values (6, 6, 'app') on conflict (k, i) do update set who = docs.who", "insert into docs values (4, 4, 'g_member') on conflict (k, i) do update set who = excluded.who",
		"insert into docs values (4, 4, 'g_member') on conflict (k, i) do update set who = 'app' where docs.who <> 'g_other' returning k || who", "insert into docs values (106, 1, 'g_other') on conflict (k, i) do update set who = 'app' returning k || who",
		"insert into homes values (1, 'g_member'), (40, 'g_member') on conflict (i) do update set who = excluded.who returning i || who", "insert into refs values (1, 'g_member') on conflict (i) do update set who = excluded.who", "insert into refs values (2, 'app') on conflict do nothing",
		"merge into docs d using (values (4, 4, 'g_member')) v (k, i, who) on d.k = v.k and d.k = 4 and d.i = v.i when matched then update set who = v.who when not matched then insert values (v.k, v.i, v.who)",
		"merge into docs d using (values (5)) v (k) on d.k = v.k and d.k = 5 when matched and d.who = 'g_other' then delete when matched then do nothing",
		"merge into homes h using (values (1, 'g_member'), (41, 'app')) v (i, who) on h.i = v.i when matched then update set who = v.who when not matched then insert values (v.i, v.who)",
		"merge into homes h using (values (2), (3)) v (i) on h.i = v.i when matched then delete", "merge into refs r using (values (1, 'app'), (51, 'app')) v (i, who) on r.i = v.i when matched then update set who = v.who when not matched then insert values (v.i, v.who)",
		"delete from docs where k = 4 returning k || who", "update docs set i = i where k = 5 returning k || who", "select coalesce(min(who), '') from (select who from docs where k = 4 for update) x",
	}
	toNobody := []string{ // they are refused to all roles
		"select count(*)::text from v_owner", "select count(*) || coalesce(min(who), '') from v_join", "select count(*)::text from v_owner a join v_invoker b on a.i = b.i",
		"insert into docs select k + 1000, i, who from docs where k < 20", "update docs set k = k + 2000 where k in (4, 5, 6)",
		"merge into refs r using (values (1, 'app'), (51, 'app')) v (i, who) on r.i = v.i when matched then update set who = v.who when not matched then insert values (v.i, v.who)",
	}
	answered := map[string]bool{}
	compare := func(plain, c *pgx.Conn, as, sql string, mode pgx.QueryExecMode) {
		t.Helper()
		want, got := says(t, plain, sql, mode), says(t, c, sql, mode)
		if got != want && !(got == "0A000" || strings.HasPrefix(got, "0A")) {
			t.Errorf("as %s: %s (%v)\n  got  %s\n  want %s", as, sql, mode, got, want)
		} else if got != want {
			t.Logf("as %s: refused: %s: %s", as, sql, got)
		}
		answered[sql] = answered[sql] || !strings.HasPrefix(got, "0A")
	}
	const authorize = "select set_config('session_authorization', 'g_other', false)"
	above := superAlone(t, d, "guarded")
	if got := says(t, above, "set session authorization g_other", pgx.QueryExecModeExec); got != "0A000" {
		t.Errorf("SET SESSION AUTHORIZATION: %s", got)
	}
	abovePlain := connectTo(t, strings.Replace(one.DSN("guarded_one"), "postgres:"+d.cluster.Password, "guarded_super:guarded_super", 1))
	for _, force := range []string{"no force", "force"} {
		for _, table := range []string{"docs", "homes", "refs"} {
			both("alter table " + table + " " + force + " row level security")
		}
		for _, take := range []string{"", "set role g_member", "set role g_other", "set role g_bypass", "set local role g_member", authorize, "reset role", "set row_security = off"} {
			dsn, plain, login := owner.Config().ConnString(), plain, "app"
			if take == authorize { // which app may not
				dsn, plain, login = above.Config().ConnString(), abovePlain, "guarded_super"
			}
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
				c := connectTo(t, dsn)
				for _, x := range []*pgx.Conn{c, plain} {
					if strings.Contains(take, "local") {
						mustExec(t, x, "begin")
					}
					if take != "" {
						mustExec(t, x, take)
					}
				}
				as := fmt.Sprintf("%q (%s)", take, force)
				both := func(sql string) {
					mustExec(t, c, sql)
					mustExec(t, plain, sql)
				}
				begin, undo := "begin", "rollback"
				if strings.Contains(take, "local") {
					begin, undo = "savepoint s", "rollback to s"
				}
				for _, sql := range queries {
					if begin != "begin" {
						both(begin)
					}
					compare(plain, c, as, sql, mode)
					if begin != "begin" {
						both(undo)
					}
				}
				for _, sql := range writes {
					both(begin)
					compare(plain, c, as, sql, mode)
					both(undo)
				}
				if begin != "begin" {
					both("rollback")
				}
				mustExec(t, plain, "reset session authorization; reset all; reset role")
				_ = c.Close(t.Context())
				if got := queryOne[string](t, connectTo(t, dsn), "select current_user || ' ' || current_setting('row_security')"); got != login+" on" {
					t.Errorf("after %s the next client is %s", as, got)
				}
			}
		}
	}
	for _, sql := range slices.Concat(queries, writes) {
		if never := slices.Contains(toNobody, sql); never == answered[sql] {
			t.Errorf("some role is answered: %v, want %v: %s", answered[sql], !never, sql)
		}
	}
}

// superAlone connects to a database as a superuser, through a process of its own that lets one in.
func superAlone(t *testing.T, d *demo, name string) *pgx.Conn {
	t.Helper()
	role := name + "_super"
	for _, n := range []string{"s1-a", "s2-a"} {
		node := d.cluster.Node(n)
		mustExec(t, connectTo(t, node.DSN("postgres")), "create role "+role+" superuser login password '"+role+"'")
		t.Cleanup(func() { _ = node.Exec(context.Background(), "postgres", "drop role "+role) })
	}
	cfg := crashConfig(t, mapOf(d, name))
	cfg.Users = append(cfg.Users, config.User{Name: role, Password: config.Secret(role)})
	return connectTo(t, dsnFor(role, role, startApp(t, cfg).Server.Addr(), name))
}

// listed is the values of n rows.
func listed(n int, row func(i int) string) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = row(i + 1)
	}
	return strings.Join(rows, ", ")
}
