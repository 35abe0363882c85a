package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A policy says which rows a statement sees. One that hangs on chance, the moment or the server says another thing on each copy of a
// reference table, so that the same statement would write other rows there.
func TestPoliciesMakeNoCopiesDiffer(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "policed")
	mustExec(t, c, "create table rows (k int primary key, who text, note text)")
	mustExec(t, c, "create function flips(int) returns boolean language sql as 'select random() < 0.5'")
	mustExec(t, c, "create function seen(int) returns boolean language plpgsql as $$ begin return coalesce(current_setting('app.tenant', true), '') = ''; end $$")
	mustExec(t, c, "insert into rows select i, 'policed_' || i % 3, 'a' from generate_series(1, 60) i")
	mustExec(t, c, "alter table rows enable row level security")
	mustExec(t, c, "alter table rows force row level security")
	mustExec(t, c, "create policy all_rows on rows using (true)")
	d.adminExec(t, "DISTRIBUTE TABLE policed.public.rows AS REFERENCE")
	for _, x := range []struct {
		policy string
		fine   bool
	}{
		{"random() < 0.5", false},
		{"who = current_database()", false},
		{"who = current_catalog", false},
		{"k % 2 = extract(microseconds from now())::int % 2", false},
		{"k % 2 = extract(microseconds from current_timestamp)::int % 2", false},
		{"k % 2 = pg_backend_pid() % 2", false},
		{"flips(k)", false},
		{"seen(k)", true},
		{"k < 100 and current_user = 'app' and coalesce(current_setting('app.tenant', true), '') = ''", true},
	} {
		mustExec(t, c, "drop policy if exists narrow on rows")
		mustExec(t, c, "create policy narrow on rows as restrictive using ("+x.policy+")")
		for _, sql := range []string{"update rows set note = note || 'b'", "delete from rows where k = 1", "insert into rows values (1, 'policed_1', 'a') on conflict (k) do update set note = 'c'"} {
			_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			if x.fine && err != nil || !x.fine && pgCode(err) != "0A000" {
				t.Errorf("%s: %s: %v", x.policy, sql, err)
			}
		}
		q := "select string_agg(r::text, E'\n' order by k) from rows r"
		home := queryOne[string](t, d.on(t, "policed", 0), q)
		for i := 1; i < 3; i++ {
			if has := queryOne[string](t, d.on(t, "policed", i), q); has != home {
				t.Fatalf("%s: on shard %d the rows differ", x.policy, i)
			}
		}
	}
}

// What the policy of a table reads of others has to be on the shard of each row that it judges: else rows would be hidden that are one's own, or shown that
// are not.
func TestPoliciesReadWhatIsOnTheShard(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "judged")
	freshDatabase(t, d.cluster.Node("s1-a"), "judged_one")
	one := connectTo(t, strings.Replace(d.cluster.Node("s1-a").DSN("judged_one"), "postgres:"+d.cluster.Password, "app:app", 1))
	for _, sql := range []string{
		"create table docs (id bigint primary key, kind text, note text)", "create table shares (id bigint primary key, doc bigint, who text)", "create table kinds (kind text primary key)", "create table own (id bigint primary key, doc bigint)",
		"insert into docs select i, 'k' || i % 4 from generate_series(1, 40) i", "insert into shares select i, 41 - i, 'w' || i % 3 from generate_series(1, 30) i", "insert into kinds values ('k1'), ('k2')", "insert into own select i, i from generate_series(1, 9) i",
		"alter table docs enable row level security, force row level security", "alter table kinds enable row level security, force row level security", "alter table own enable row level security, force row level security",
		"create policy p on docs using (true)", "create policy p on kinds using (true)", "create policy p on own using (exists (select from shares s where s.doc = own.doc + 20))",
	} {
		mustExec(t, c, sql)
		mustExec(t, one, sql)
	}
	d.adminExec(t, "CREATE GROUP ids IN judged KEY (bigint) BY HASH")
	for _, sql := range []string{"docs IN GROUP ids KEY (id)", "shares IN GROUP ids KEY (id)", "kinds AS REFERENCE"} {
		d.adminExec(t, "DISTRIBUTE TABLE judged.public."+sql)
	}
	for _, x := range []struct {
		table, policy string
		fine          bool
	}{
		{"docs", "exists (select from shares s where s.doc = docs.id)", false},
		{"docs", "not exists (select from shares s where s.doc = docs.id)", false},
		{"docs", "id > (select max(id) from shares)", false},
		{"docs", "kind in (select kind from kinds where exists (select from shares s where s.doc = docs.id))", false},
		{"docs", "kind in (select k.kind from kinds k) and id not in (select doc from shares)", false},
		{"docs", "exists (select from shares s where s.id = docs.id and who = 'w1')", true},
		{"docs", "id in (select id from shares where who = 'w1')", true},
		{"docs", "kind in (select kind from kinds)", true},
		{"docs", "exists (select from pg_roles where rolname = current_user)", true},
		{"kinds", "exists (select from shares s where 'k' || s.id = kinds.kind)", false},
	} {
		for _, w := range []*pgx.Conn{c, one} {
			mustExec(t, w, "create policy narrow on "+x.table+" as restrictive using ("+x.policy+")")
		}
		for _, sql := range []string{
			"select count(*) from " + x.table, "select count(*) from docs d join kinds k using (kind)", "copy (select kind from " + x.table + " order by 1) to stdout",
			"with x as (update " + x.table + " set kind = kind || 'x' where kind = 'k1' returning 1) select count(*) from x", "delete from " + x.table + " where kind = 'k3'", "update " + x.table + " set kind = 'k2' where kind = 'k2'",
		} {
			ask := func(w *pgx.Conn) string {
				tx, err := w.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback(t.Context()) }()
				return fmt.Sprintf("%+v", ask2(t, w, sql, pgx.QueryExecModeSimpleProtocol))
			}
			want, got := ask(one), ask(c)
			if clear := got == fmt.Sprintf("%+v", answer{code: "0A000"}); got != want && !clear {
				t.Errorf("%s: %s: %s, one PostgreSQL says %s", x.policy, sql, got, want)
			} else if clear && x.fine && sql == "select count(*) from "+x.table {
				t.Errorf("%s: %s was refused", x.policy, sql)
			} else if !clear && !x.fine && sql == "select count(*) from "+x.table {
				t.Errorf("%s: %s was not refused", x.policy, sql)
			}
		}
		for _, w := range []*pgx.Conn{c, one} { // what defines is let through
			mustExec(t, w, "drop policy narrow on "+x.table)
		}
	}
	_, err := c.Exec(t.Context(), "select count(*) from own") // home's: it was made when the other table was home's too
	wantRule(t, err, "policy-body", "0A000")
}

// Nor is it read by way of a function, trigger or view: by its words that is a table of home's.
func TestPoliciesOfWhatFunctionsReadAreLookedInto(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "judging")
	for _, sql := range []string{
		"create table shares (id bigint primary key, doc bigint)", "create table own (id bigint primary key)", "create table mine (id bigint)", "create table free (id bigint)", "create table into_own (id bigint)",
		"insert into shares select i, i from generate_series(1, 60) i", "insert into own select i from generate_series(1, 60) i", "insert into mine select i from generate_series(1, 60) i", "insert into free values (1)",
		"create function shared(n bigint) returns boolean stable language plpgsql as 'begin return exists (select from shares where doc = n); end'",
		"create function lone(n bigint) returns boolean stable language plpgsql as 'begin return n in (select id from free); end'",
		"alter table own enable row level security, force row level security", "create policy p on own using (exists (select from shares s where s.doc = own.id))",
		"alter table mine enable row level security, force row level security", "create policy p on mine using (shared(id))",
		"alter table free enable row level security, force row level security", "create policy p on free using (id in (select i.id from into_own i) or lone(id) or true)",
		"create view seen as select * from own", "create view seen_mine as select * from mine",
		"create function of_own() returns bigint stable language sql as 'select count(*) from own'", "create function of_seen() returns bigint stable language sql as 'select count(*) from seen'", "create function of_mine() returns bigint stable language sql as 'select count(*) from mine'",
		"create function of_free() returns bigint stable language sql as 'select count(*) from free'",
		"create function counts() returns trigger language plpgsql as 'begin new.id = (select count(*) from own); return new; end'", "create trigger t before insert on into_own for each row execute function counts()",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP ids IN judging KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE judging.public.shares IN GROUP ids KEY (id)")
	for sql, rule := range map[string]string{
		"select of_own()": "function-body", "select of_seen()": "function-body", "select of_mine()": "function-body", "do $$ begin perform from own; end $$": "function-body", "insert into into_own values (1)": "trigger-body",
		"select count(*) from seen": "policy-body", "select count(*) from mine": "function-body", "select count(*) from seen_mine": "function-body", "create table own_2 as select * from seen": "policy-body",
	} {
		_, err := c.Exec(t.Context(), sql)
		wantRule(t, err, rule, "0A000")
	}
	if n := queryOne[int](t, c, "select of_free()"); n != 1 {
		t.Errorf("%d rows of a table whose policies read home's", n)
	}
}
