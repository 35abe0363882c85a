package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// namesOf are the names on a server of all that hangs on the tables that every shard has, and of types.
const namesOf = `select coalesce(string_agg(x, E'\n' order by x), '') from (
	select 'index ' || t.relname || ' ' || i.relname from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid where t.relnamespace = 'public'::regnamespace and t.relname !~ '^home'
	union all select 'constraint ' || coalesce(t.relname, '') || coalesce(d.typname, '') || ' ' || conname from pg_constraint c left join pg_class t on t.oid = c.conrelid left join pg_type d on d.oid = c.contypid
		where c.connamespace = 'public'::regnamespace and conname <> 'pgmosaic_slot' and coalesce(t.relname, '') !~ '^home'
	union all select 'statistics ' || stxrelid::regclass || ' ' || stxname from pg_statistic_ext where stxrelid::regclass::text !~ '^home'
	union all select 'type ' || typname || ' ' || typtype::text from pg_type where typnamespace = 'public'::regnamespace and typtype in ('d', 'e', 'r', 'm')) q (x)`

// PostgreSQL chooses names by what is there, which differs between shards. The names of home hold: what is dropped by its name is
// dropped everywhere.
func TestHomeChoosesNames(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "named")
	shards := make([]*pgx.Conn, 3)
	for i := range shards {
		shards[i] = connectTo(t, d.cluster.Node([]string{"s1-a", "s2-a"}[i%2]).DSN(fmt.Sprintf("named_%d", i)))
	}
	same := func(what string) string {
		t.Helper()
		home := queryOne[string](t, shards[0], namesOf)
		for i, s := range shards[1:] {
			if got := queryOne[string](t, s, namesOf); got != home {
				t.Errorf("%s: shard %d has\n%s\nhome has\n%s", what, i+1, got, home)
			}
		}
		return home
	}
	for _, sql := range []string{
		"create table tree (k int, v int, primary key (k)) partition by hash (k)", "create table tree_1 partition of tree for values with (modulus 2, remainder 0)", "create table tree_2 partition of tree for values with (modulus 2, remainder 1)",
		// What home alone has, and would be in the way of names there.
		`create table home1 (a int, b int, c int, d int, e int, f int, constraint parts_k_i_key unique (a), constraint codes_code_check check (a > 0), constraint parts_i_check check (a > 1), constraint parts_check check (b > 0), constraint positive1_check check (a > 3))`,
		`create index parts_i_idx on home1 (a)`, `create index "parts_I_idx" on home1 (a)`, `create index tree_v_idx on home1 (a)`, `create index tree_1_v_idx on home1 (a)`, "create index parts_expr_idx on home1 (a)", "create index parts_i_k_idx on home1 (a)",
		"create unique index parts_k_i_idx on home1 (b)", "create index codes_label_key on home1 (a)", "create statistics parts_k_i_stat on a, b from home1", "create index codes_label_excl on home1 (a)", "create index late_v_idx on home1 (a)",
		"create domain home_d as int constraint positive_check check (value > 5)", "create table home_ref (code text constraint parts_code_fkey references codes)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE named.public.tree IN GROUP g KEY (k)")
	n := 0
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		for _, end := range []string{"", "commit", "rollback"} {
			for _, sql := range []string{
				"create index on parts (i)", "create index on parts (i)", "create unique index on parts (k, i)", "create index on parts ((i + 1))", "create index on parts (i, k)", "create index concurrently on parts (i)", "create index on tree (v)",
				"alter table parts add unique (k, i)", "alter table parts add check (i <> 777), add check (i <> 778), add check (k + i <> 779)", "alter table codes add column label%d text check (code <> 'no')", "alter table codes add unique (label0)",
				"alter table parts add column code%d text references codes", "alter table tree add check (v <> 5)", "create domain positive%d as int check (value > 0)", "create type span%d as range (subtype = int)",
				"alter domain positive0 add check (value <> 5)", "alter table codes add primary key using index no_such_index",
			} {
				if end != "" && strings.Contains(sql, "concurrently") || strings.Contains(sql, "no_such") {
					continue
				}
				if strings.Contains(sql, "%d") {
					sql = fmt.Sprintf(sql, n)
				}
				if n == 0 && (strings.Contains(sql, "label0)") || strings.Contains(sql, "positive0 add")) {
					continue
				}
				if end != "" {
					mustExec(t, c, "begin; savepoint s")
				}
				if got := says(t, c, sql, mode); len(got) == 5 {
					t.Errorf("%s: %s", sql, got)
				}
				if end != "" {
					mustExec(t, c, end)
				}
				same(sql + " " + end)
			}
			n++
		}
	}
	had := same("all")
	for _, want := range []string{"index parts parts_i_idx1", "index parts parts_k_i_key1", "index tree_1 tree_1_v_idx1", "constraint parts parts_i_check1", "constraint positive1 positive1_check1"} {
		if !strings.Contains(had, want) {
			t.Errorf("%s is missing in\n%s", want, had)
		}
	}
	for _, sql := range []string{"drop index parts_k_i_idx1", "drop index parts_i_idx1", "alter table parts drop constraint parts_k_i_key1", "alter table parts drop constraint parts_i_check1", "drop index tree_v_idx1"} {
		mustExec(t, c, sql)
		same(sql)
	}
	// Types whose array type has another name cannot be told apart by name: they are refused.
	mustExec(t, c, `create table "_wanted" (a int)`)
	if _, err := c.Exec(t.Context(), "create domain wanted as int"); pgCode(err) != "42710" || !strings.Contains(err.Error(), "array type") {
		t.Errorf("an array type whose name is taken on home: %v", err)
	}
	same("no domain")
	// A name that a shard has for something else is refused, and nothing is changed.
	mustExec(t, shards[1], "create table in_the_way (a int); create index parts_taken on in_the_way (a)")
	_, err := c.Exec(t.Context(), "create index parts_taken on parts (i)")
	wantCode(t, err, "42P07")
	mustExec(t, shards[1], "drop table in_the_way")
	same("what was in the way is gone")
	// Names of a table that exists are copied as they are.
	for _, sql := range []string{"create table later (k int primary key, v int)", "create index late_v on later (v)", "alter table later add check (v > 0)", "alter index later_pkey rename to odd_pkey"} {
		mustExec(t, c, sql)
	}
	mustExec(t, shards[2], "create table in_the_way (a int); create index late_v on in_the_way (a)")
	if err := func() error {
		_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE named.public.later IN GROUP g KEY (k)", false)
		return err
	}(); err == nil || !strings.Contains(err.Error(), "late_v") {
		t.Errorf("DISTRIBUTE over a name that is taken: %v", err)
	}
	mustExec(t, shards[2], "drop table in_the_way")
	d.adminExec(t, "DISTRIBUTE TABLE named.public.later IN GROUP g KEY (k)")
	same("distributed")
	for _, sql := range strings.Split(queryOne[string](t, shards[0], "select string_agg(format('alter table %s drop constraint %I', conrelid::regclass, conname), ';') from pg_constraint where contype = 'f' and confrelid = 'codes'::regclass"), ";") {
		mustExec(t, c, sql)
	}
}
