package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A shard joins while clients read and write reference tables and define things: nobody sees an error, and the new shard has what
// the others have, to the last row and definition that somebody was told of.
func TestShardJoinsWhileClientsWrite(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "joined")
	for _, sql := range []string{
		"create table aa (id int primary key, v int, note text)", "create table bb (id int, v int)", "create domain small as int check (value < 1000000)", "create table cc (id small primary key, v int references aa)",
		"create table mm (k int primary key, v int references aa)", "create table zz (id int primary key, v text)", "create table home (a int)",
		"insert into aa select i, i, 'note' from generate_series(1, 2000) i", "insert into bb select i, i from generate_series(1, 500) i", "insert into cc select i, i from generate_series(1, 500) i",
		"insert into mm select i, i from generate_series(1, 500) i", "insert into zz select i, repeat('x', 100) from generate_series(1, 20000) i",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN joined KEY (int) BY HASH")
	for _, n := range []string{"aa", "bb", "cc", "zz"} {
		d.adminExec(t, "DISTRIBUTE TABLE joined.public."+n+" AS REFERENCE")
	}
	d.adminExec(t, "DISTRIBUTE TABLE joined.public.mm IN GROUP g KEY (k)")
	dsn := dsnFor("app", "app", d.Server.Addr(), "joined")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	loop := func(step func(c *pgx.Conn, n int) error) {
		c := connectTo(t, dsn)
		first := make(chan struct{})
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := step(c, n); err != nil {
					t.Errorf("beside CREATE SHARD: %v", err)
					stop()
				}
				if n == 0 {
					close(first)
				}
			}
		})
		<-first
	}
	modes := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}
	for w := range 2 {
		loop(func(c *pgx.Conn, n int) error {
			id, mode := 10000+1000*w+n%50, modes[n%3]
			for _, x := range []struct {
				sql  string
				args []any
			}{
				{"insert into aa values ($1, $2, 'new') on conflict (id) do update set v = excluded.v", []any{id, n}},
				{"insert into bb values ($1, $2)", []any{id, n}},
				{"insert into cc values ($1, $2) on conflict (id) do nothing", []any{id, id}},
				{"update aa set note = $1 where id = $2", []any{fmt.Sprint(n), 1 + n%2000}},
				{"update bb set v = $1 where id = $2", []any{n, 1 + n%500}},
				{"delete from cc where id = $1", []any{id}},
				{"delete from aa where id = $1", []any{id}},
			} {
				if _, err := c.Exec(t.Context(), x.sql, append([]any{mode}, x.args...)...); err != nil {
					return fmt.Errorf("%s: %w", x.sql, err)
				}
			}
			return pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), "insert into zz values ($1, 'tx')", 100000*(w+1)+n)
				if err == nil {
					_, err = tx.Exec(t.Context(), "update aa set v = v + 1 where id = $1", 1+n%100)
				}
				return err
			})
		})
	}
	loop(func(c *pgx.Conn, n int) error { // who only reads does not wait, in transactions neither
		return pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "insert into home values ($1)", n)
			if err == nil {
				_, err = tx.Exec(t.Context(), "select count(*) from aa join mm on aa.id = mm.v")
			}
			return err
		})
	})
	loop(func(c *pgx.Conn, n int) error {
		_, err := c.Exec(t.Context(), fmt.Sprintf("create or replace function defined_%d() returns int language sql immutable as 'select %d'", n%100, n))
		if err == nil && n < 60 {
			_, err = c.Exec(t.Context(), fmt.Sprintf("create type chosen_%d as enum ('a', 'b')", n))
		}
		return err
	})
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "joined_3")
	d.adminExec(t, "CREATE SHARD joined_s3 IN joined NODE '"+node.DSN("joined_3")+"' NAME joined_n3")
	stop()
	wg.Wait()
	for _, n := range []string{"aa", "bb", "cc", "zz"} {
		copies := copiesOf(t, d, "joined", n)
		for i, s := range copies {
			if s != copies[0] {
				t.Errorf("%s on shard %d is not what home has:\n%s", n, i, diffLines(copies[0]+"\n", s+"\n"))
			}
		}
		if rows := d.adminExec(t, "VERIFY TABLE joined.public."+n); len(rows) != 0 {
			t.Errorf("VERIFY TABLE %s: %v", n, rows)
		}
	}
	if rows := d.adminExec(t, "VERIFY SCHEMA IN joined"); len(rows) != 0 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	for i := range 4 {
		if n := queryOne[int](t, d.on(t, "joined", i), "select (select count(*) from pg_trigger where tgname ~ '^pgmosaic' and tgname not in ('pgmosaic_copy', 'pgmosaic_kept')) + (select count(*) from pg_class where relname ~ '^changed_')"); n != 0 {
			t.Errorf("%d things are left on shard %d", n, i)
		}
	}
	for _, n := range []string{"mm", "cc"} { // which refer to another
		d.adminExec(t, "UNDISTRIBUTE TABLE joined.public."+n)
	}
}

// What a shard has as home has it is not said to it again: that would write its catalogs, and have all sessions there plan anew what they have prepared. What it
// lacks it gets.
func TestAShardIsToldOnlyWhatItLacks(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "told")
	home, shard := d.on(t, "told", 0), d.on(t, "told", 1)
	for _, sql := range []string{
		"create schema apart", "grant usage on schema apart to public", "create function apart.f(int) returns int language sql as 'select $1'", "revoke all on function apart.f(int) from public",
		"create table a (k int primary key)", "create table b (k int primary key)", "create table c (k int primary key)",
	} {
		mustExec(t, home, sql)
	}
	written := func() string {
		return queryOne[string](t, shard, "select string_agg(x, ' ' order by x) from (select nspname || ' ' || xmin from pg_namespace where nspname in ('public', 'apart') union all select proname || ' ' || xmin from pg_proc where pronamespace = 'apart'::regnamespace) y (x)")
	}
	d.adminExec(t, "DISTRIBUTE TABLE told.public.a AS REFERENCE")
	was := written()
	d.adminExec(t, "DISTRIBUTE TABLE told.public.b AS REFERENCE")
	if is := written(); is != was {
		t.Errorf("the shard's catalogs were written by %s, and now by %s", was, is)
	}
	mustExec(t, shard, "revoke usage on schema apart from public")
	mustExec(t, shard, "grant execute on function apart.f(int) to public")
	d.adminExec(t, "DISTRIBUTE TABLE told.public.c AS REFERENCE")
	if !queryOne[bool](t, shard, "select has_schema_privilege('public', 'apart', 'usage') and not has_function_privilege('public', 'apart.f(int)', 'execute')") {
		t.Error("the shard was not told who may use what")
	}
}

// Types, routines, aggregates, operators and casts that tables, and statements on them, need are brought in the order in which they
// depend on each other, whichever is older.
func TestShardsGetWhatTablesNeed(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "needing")
	home := connectTo(t, strings.Replace(d.on(t, "needing", 0).Config().ConnString(), "postgres:"+d.cluster.Password, "app:app", 1))
	for _, sql := range []string{ // past the proxy: the other shards have nothing of it
		`create schema "odd.one"`, "create domain late as int", "create type mood as enum ('good', 'bad')", "create type pair as (a int, b late)",
		"create function fine(int) returns boolean language sql immutable as 'select $1 > 0'", "create function first() returns int language sql immutable as 'select 7'",
		"alter domain late set default first()", "alter domain late add constraint fine check (fine(value))",
		"create domain later as late check (fine(value))",
		"create function said(mood) returns int language sql immutable as $$select case $1 when 'good' then 1 else 2 end$$", "create cast (mood as int) with function said(mood) as assignment",
		`create function "odd.one"."same.as"(mood, int) returns boolean language sql immutable as 'select public.said($1) = $2'`, `create operator "odd.one".=== (function = "odd.one"."same.as", leftarg = mood, rightarg = int)`,
		"create function more(int, mood) returns int language sql immutable as 'select $1 + public.said($2)'", "create aggregate total(mood) (sfunc = more, stype = int, initcond = '0')", "create aggregate plain(int) (sfunc = int4pl, stype = int, combinefunc = int4pl, initcond = '0', parallel = safe)",
		"create type span as range (subtype = int)",
		"create function of_pair(p pair default '(1,2)') returns late language sql immutable as 'select ($1).b'",
		`create table keyed (k int primary key, l late, m mood default 'good', n int default first(), p pair default '(1,2)', s span default '[1,3)', o later default 3, check (m operator("odd.one".===) 1 or n > 0), check (m::int < 3), check (fine(n)))`,
		`create index on keyed ((m::int))`, `create index on keyed (k) where m operator("odd.one".===) 2`, "create index on keyed ((of_pair(p)))",
		"create table codes (id later primary key, m mood default 'bad', v int generated always as (first() * 2) stored)",
		"insert into keyed (k) select generate_series(1, 40)", "insert into codes select generate_series(1, 5)",
	} {
		mustExec(t, home, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN needing KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE needing.public.keyed IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE needing.public.codes AS REFERENCE")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "needing_3")
	d.adminExec(t, "CREATE SHARD needing_s3 IN needing NODE '"+node.DSN("needing_3")+"' NAME needing_n3")
	if rows := d.adminExec(t, "VERIFY SCHEMA IN needing"); len(rows) != 0 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	copies := copiesOf(t, d, "needing", "codes")
	for i, s := range copies {
		if s != copies[0] {
			t.Errorf("shard %d holds %s, home %s", i, s, copies[0])
		}
		if n := queryOne[int](t, d.on(t, "needing", i), `select count(*) from codes where m operator("odd.one".===) 2 and m::int = 2`); n != 5 {
			t.Errorf("shard %d: %d rows by an operator and a cast", i, n)
		}
		if n := queryOne[int](t, d.on(t, "needing", i), "select total(m) + plain(v) from codes"); n != 80 {
			t.Errorf("shard %d: the aggregates give %d", i, n)
		}
	}
	mustExec(t, c, "insert into keyed (k) select i from generate_series(100, 120) i")
	if n := queryOne[int](t, c, "select count(*) from keyed where n = 7 and o = 3"); n != 61 {
		t.Errorf("%d rows", n)
	}
}

// A CREATE SHARD of two nodes has died, and cannot be undone as long as one of them is away. Another one makes the shard on the other
// node. When the first is undone the shard's database still says whose it is.
func TestWhatIsUndoneLateIsNotAnothersShard(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "late")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "late_3")
	c := connectTo(t, node.DSN("late_3"))
	mustExec(t, c, txn.Schema(3, 0))
	mustExec(t, c, "insert into pgmosaic.identity (installation, database, shard, attempt) values ($1, 'late', 'late_s3', 'died')", d.Catalog.Current().Install)
	left := shardmap.Attempt{
		ID: "died", Database: "late", Statement: "CREATE SHARD late_s3", Shard: &shardmap.Shard{Database: "late", Name: "late_s3", Ordinal: 3, Marked: true},
		Nodes: []*shardmap.Node{{Database: "late", Shard: "late_s3", Name: "late_n3", DSN: node.DSN("late_3")}, {Database: "late", Shard: "late_s3", Name: "away", DSN: "postgres://app@127.0.0.1:1/late_3", Ordinal: 1}},
	}
	note := func() {
		t.Helper()
		if _, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error { return tx.PutAttempt(left) }); err != nil {
			t.Fatal(err)
		}
	}
	note()
	d.adminExec(t, "CREATE SHARD late_s3 IN late NODE '"+node.DSN("late_3")+"' NAME late_n3")
	left.Nodes = left.Nodes[:1] // the other is back
	note()
	if err := d.Mover.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := queryOne[string](t, c, "select coalesce((select shard from pgmosaic.identity), '')"); got != "late_s3" {
		t.Errorf("the shard's database says that it is %q", got)
	}
}

// A shard joins beside a pg_dump of home, which has a lock on every table until it ends.
func TestShardJoinsBesideADump(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "dumping")
	mustExec(t, c, "create table codes (id int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE dumping.public.codes AS REFERENCE")
	dump := d.on(t, "dumping", 0)
	mustExec(t, dump, "begin")
	mustExec(t, dump, "do $$ declare n text; begin for n in select oid::regclass from pg_class where relnamespace = 'pgmosaic'::regnamespace and relkind = 'r' loop execute 'lock table ' || n || ' in access share mode'; end loop; end $$")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "dumping_3")
	d.adminExec(t, "CREATE SHARD dumping_s3 IN dumping NODE '"+node.DSN("dumping_3")+"' NAME dumping_n3")
	mustExec(t, dump, "commit")
	mustExec(t, c, "insert into codes values (1)")
}
