package main

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A shard joins while clients read and write reference tables and define things: nobody sees an error, and the new shard has what
// the others have, to the last row and definition that somebody was told of.
func TestShardJoinsWhileClientsWrite(t *testing.T) {
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
	dsn := dsnFor("app", "app", d.server.Addr(), "joined")
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
				{"insert into aa values ($1, $2, 'new') on conflict (id) do update set v = excluded.v", []any{id, n}}, {"insert into bb values ($1, $2)", []any{id, n}}, {"insert into cc values ($1, $2) on conflict (id) do nothing", []any{id, id}},
				{"update aa set note = $1 where id = $2", []any{fmt.Sprint(n), 1 + n%2000}}, {"update bb set v = $1 where id = $2", []any{n, 1 + n%500}}, {"delete from cc where id = $1", []any{id}}, {"delete from aa where id = $1", []any{id}},
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
		if n := queryOne[int](t, d.on(t, "joined", i), "select (select count(*) from pg_trigger where tgname ~ '^pgmosaic') + (select count(*) from pg_class where relname ~ '^changed_')"); n != 0 {
			t.Errorf("%d things are left on shard %d", n, i)
		}
	}
	for _, n := range []string{"mm", "cc"} { // which refer to another
		d.adminExec(t, "UNDISTRIBUTE TABLE joined.public."+n)
	}
}
