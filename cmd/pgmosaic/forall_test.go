package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A trigger that reads all rows which its statement changes reads a part of them where several shards change their own: such statements are refused, and
// those of one shard are not.
func TestTriggersSeeAllRowsOfTheirStatement(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "forall")
	for _, sql := range []string{
		"create table seats (id bigint primary key, who text)", "create table wishes (id bigint primary key, who text)", "insert into wishes select i, 'w' || i from generate_series(101, 120) i",
		"create function few() returns trigger language plpgsql as $$ begin if (select count(*) from changed) > 3 then raise exception 'too many'; end if; return null; end $$",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP ids IN forall KEY (bigint) BY RANGE (MINVALUE TO (10) ON forall_s0, (10) TO (103) ON forall_s1, (103) TO MAXVALUE ON forall_s2)")
	d.adminExec(t, "DISTRIBUTE TABLE forall.public.seats IN GROUP ids KEY (id)")
	d.adminExec(t, "DISTRIBUTE TABLE forall.public.wishes IN GROUP ids KEY (id)")
	for _, x := range []string{"insert on seats referencing new table as changed for each statement", "update on seats referencing old table as changed for each statement", "delete on seats referencing old table as changed for each row"} {
		event, _, _ := strings.Cut(x, " ")
		mustExec(t, c, "create trigger few_"+event+" after "+x+" execute function few()")
	}
	const copied = "copy seats from stdin"
	for _, x := range []struct{ sql, code string }{
		{"insert into seats values (1, 'a'), (2, 'b'), (3, 'c')", ""}, // on one shard
		{"insert into seats values (4, 'a'), (5, 'b'), (6, 'c'), (7, 'd')", "P0001"},
		{"insert into seats values (11, 'a')", ""},
		{"insert into seats values (4, 'a'), (5, 'b'), (12, 'c'), (13, 'd')", "0A000"},
		{"insert into seats select id, who from wishes", "0A000"},
		{"insert into seats select id, who from wishes where id = 101", ""},
		{copied, "0A000"},
		{"update seats set who = 'x'", "0A000"},
		{"update seats set who = 'x' where id in (1, 2)", ""},
		{"update seats set who = 'x' where id in (1, 11)", "0A000"},
		{"merge into seats s using wishes w on s.id = w.id when matched then update set who = 'x'", "0A000"},
		{"delete from seats", "0A000"},
		{"delete from seats where id = 11", ""},
	} {
		var err error
		if x.sql == copied {
			_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("4\ta\n12\tb\n"), copied)
		} else {
			_, err = c.Exec(t.Context(), x.sql, pgx.QueryExecModeSimpleProtocol)
		}
		if (err != nil || x.code != "") && pgCode(err) != x.code {
			t.Errorf("%s: %v, want %q", x.sql, err, x.code)
		}
		if x.code == "0A000" {
			wantRule(t, err, "trigger-body", "0A000")
		}
	}
	d.adminExec(t, "ALTER ROUTINE forall.public.few SHARD SAFE")
	mustExec(t, c, "update seats set who = 'y'")
}
