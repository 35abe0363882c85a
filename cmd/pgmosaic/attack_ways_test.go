//go:build attack

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Every way to write a reference table answers as on one PostgreSQL, and leaves the copies alike.
func TestAttackWaysToWriteReferenceTables(t *testing.T) {
	d, c := schemesWorld(t, "ways")
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, "ways_one")
	one := connectTo(t, d.asApp("s1-a", "ways_one"))
	both := func(sql string) {
		t.Helper()
		mustExec(t, one, sql)
		mustExec(t, c, sql)
	}
	tables := []string{"refs", "kids", "grands", "later", "parted", "bare"}
	for _, sql := range []string{
		"create table refs (k int primary key, v text, n int not null default 0)",
		"create table kids (k int primary key, r int references refs on update cascade on delete cascade, v text)",
		"create table grands (k int primary key, c int references kids on delete set null)",
		"create table later (k int primary key, r int references refs deferrable initially deferred)",
		"create table parted (k int, v text, primary key (k)) partition by range (k)", "create table parted_1 partition of parted for values from (0) to (100)",
		"create table bare (k int, v text)", "create view shown as select k, v from refs", "create table home (k int, v text)", "insert into home select g, 'h' || g from generate_series(1, 5) g",
	} {
		both(sql)
	}
	for _, n := range tables {
		d.adminExec(t, "DISTRIBUTE TABLE ways.public."+n+" AS REFERENCE")
	}
	big := strings.Repeat("x", 1<<20)
	answered := map[string]int{} // statements, by their first word
	for i, sql := range []string{
		"insert into refs values (1, 'a'), (2, 'b'), (3, 'c') -- at the end", "insert into refs values (4, 'd') /* a comment */", "insert into refs values (5, 'e');", "insert into refs values (6, 'f'); -- more\n", "insert into refs values (7, 'g') --",
		"insert into refs values (8, '" + big + "')", "insert into refs (k, v) values (9, e'\\'\\n/* pgmosaic:')", "insert into refs values (10, '/* no comment') -- /* nor this",
		"insert into refs values (1, 'a2') on conflict (k) do update set v = excluded.v, n = refs.n + 1", "insert into refs values (1, 'a2') on conflict do nothing",
		"merge into refs r using (values (1, 'm'), (11, 'new')) x (k, v) on r.k = x.k when matched then update set v = x.v when not matched then insert (k, v) values (x.k, x.v)",
		"with x as (update refs set n = n + 1 where k < 3 returning k) insert into bare select k, 'cte' from x", "with x as (insert into bare values (1, 'w') returning k) select * from x", "with x as (delete from bare where v = 'w' returning *) select count(*) from x",
		"insert into kids select k, k, 'kid' from refs where k < 8", "insert into grands select k, k from kids", "update refs set k = 100 where k = 1", "delete from refs where k = 2", "delete from kids where k = 4",
		"insert into shown values (20, 'through a view')", "update shown set v = 'viewed' where k = 20", "delete from shown where k = 20",
		"begin; insert into later values (1, 500); insert into refs values (500, 'late'); commit", "begin; insert into later values (2, 501); commit", "begin; set constraints all immediate; insert into later values (3, 502); rollback",
		"begin; insert into refs values (30, 'x'); savepoint a; insert into refs values (31, 'y'); rollback to a; insert into refs values (32, 'z'); release a; commit",
		"begin; savepoint a; update refs set n = n + 1; release a; savepoint b; delete from refs where k = 32; rollback to b; commit",
		"insert into parted values (1, 'p'), (2, 'q')", "insert into parted_1 values (3, 'direct')", "create table parted_2 partition of parted for values from (100) to (200)", "insert into parted values (101, 'r')", "insert into parted_2 values (102, 's')", "update parted set k = 103 where k = 1", "delete from parted_2 where k = 102",
		"create table loose (k int not null, v text)", "truncate bare", "truncate refs cascade", "truncate refs, kids, grands, later", "insert into refs select g, 'g' || g from generate_series(1, 20) g",
		"explain (analyze, costs off, timing off, summary off) insert into refs values (40, 'explained')", "delete from refs where k = 40",
		"prepare w (int, text) as insert into refs values ($1, $2)", "execute w(41, 'executed')", "deallocate w", "prepare u as update refs set n = n + 1 where k = 41", "execute u", "execute u", "deallocate u",
		"insert into refs select 50 + k, v from home", "update refs set v = h.v from home h where h.k = refs.k", "delete from refs using home h where h.k = refs.k and h.k = 5",
		"set standard_conforming_strings = off", `insert into refs values (60, 'it\'s off')`, `insert into refs values (61, 'a\\b') -- it\'s`, "reset standard_conforming_strings",
		"create table fresh partition of parted for values from (200) to (300)", "copy (insert into refs values (65, 'copied') returning k) to stdout", "table refs limit 0",
		"alter table parted detach partition parted_2", "insert into parted_2 values (999, 'alone')", "select count(*) from parted_2",
		"create rule instead as on insert to home do instead insert into bare values (new.k, new.v)", "insert into home values (9, 'ruled')", "drop rule instead on home",
		"begin isolation level repeatable read; insert into refs values (70, 'rr'); update refs set n = n + 1 where k = 70; commit", "begin isolation level serializable; insert into refs values (71, 'ser'); commit",
		"select v from refs where k = 41 for update", "alter table refs add column extra text default 'e'", "update refs set extra = 'f' where k = 41", "alter table refs drop column extra",
		"update refs set v = 'q' where k = 1; update refs set v = 'w' where k = 2; insert into kids values (77, 1, 'x')",
		"alter table kids disable trigger all; alter table kids enable trigger all",
	} {
		modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol}
		for _, mode := range modes {
			got := says(t, c, sql, mode)
			if got == "0A000" { // the proxy's own refusal changes nothing
				t.Logf("%d refused: %.100s", i, sql)
				if c.PgConn().TxStatus() != 'I' {
					mustExec(t, c, "rollback")
				}
				continue
			}
			answered[strings.Fields(sql)[0]]++
			want := says(t, one, sql, mode)
			if want != got && !strings.HasPrefix(sql, "explain") {
				t.Errorf("%d %.120s: %.200s, one PostgreSQL says %.200s", i, sql, got, want)
				if _, err := c.Exec(t.Context(), "select 1", pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Log(err)
				}
			}
			for _, x := range []*pgx.Conn{one, c} {
				if x.PgConn().TxStatus() != 'I' {
					mustExec(t, x, "rollback")
				}
			}
		}
		alikeOn(t, d, "ways", fmt.Sprintf("%d %.120s", i, sql), one, tables...)
		if t.Failed() && strings.Contains(sql, "deallocate") {
			_ = says(t, c, "deallocate all", pgx.QueryExecModeSimpleProtocol)
		}
	}
	for word, least := range map[string]int{"insert": 20, "update": 4, "delete": 4, "begin;": 5, "truncate": 2, "execute": 3, "alter": 3} { // a MERGE and a WITH that writes are refused
		if answered[word] < least {
			t.Errorf("%d of the statements with %s were answered, not %d: too much is refused", answered[word], word, least)
		}
	}
	for _, n := range []string{"grands", "kids", "later"} { // which refer to others
		d.adminExec(t, "UNDISTRIBUTE TABLE ways.public."+n)
	}
}
