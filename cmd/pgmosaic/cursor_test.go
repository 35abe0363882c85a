package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A cursor over several shards moves in all directions, in text and binary, lives as long as its transaction and holds
// no server longer.
func TestCursorsOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	ctx := t.Context()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement} {
		err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "declare c scroll cursor for select customer_id from customers where customer_id <= 10 order by customer_id", mode); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "declare one cursor for select name from customers where customer_id = 7", mode); err != nil { // on a shard
				return err
			}
			for _, f := range []struct {
				sql  string
				want []int64
			}{
				{"fetch 3 from c", []int64{1, 2, 3}},
				{"fetch all from c", []int64{4, 5, 6, 7, 8, 9, 10}},
				{"fetch backward 2 from c", []int64{10, 9}},
				{"fetch absolute 5 from c", []int64{5}},
				{"fetch next from c", []int64{6}},
				{"fetch first from c", []int64{1}},
				{"fetch relative 20 from c", nil},
			} {
				rows, _ := tx.Query(ctx, f.sql, mode)
				got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				if err != nil {
					t.Errorf("%s (%s): %v", f.sql, mode, err)
					return err
				}
				if len(got) != len(f.want) || len(got) > 0 && (got[0] != f.want[0] || got[len(got)-1] != f.want[len(f.want)-1]) {
					t.Errorf("%s (%s): %v, want %v", f.sql, mode, got, f.want)
				}
			}
			if tag, err := tx.Exec(ctx, "move backward all in c", mode); err != nil || tag.String() != "MOVE 10" {
				t.Errorf("move: %s, %v", tag, err)
			}
			var name string
			if err := tx.QueryRow(ctx, "fetch one", mode).Scan(&name); err != nil || name == "" {
				t.Errorf("the cursor on one shard (%s): %q, %v", mode, name, err)
			}
			_, err := tx.Exec(ctx, "close c", mode)
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "declare c cursor for select * from customers"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"savepoint s", "close c", "declare c cursor for select * from customers where customer_id > 3"} { // the name is free again
		if _, err := tx.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	_, err = tx.Exec(ctx, "declare c cursor for select name from customers")
	wantCode(t, err, "42P03")
	if _, err := tx.Exec(ctx, "rollback to s"); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(ctx, "fetch 1 from c") // it was made behind the savepoint
	wantCode(t, err, "34000")
	for _, sql := range []string{"rollback to s", "declare c cursor for select name from customers", "fetch 1 from c"} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	_, err = tx.Exec(ctx, "fetch 1 from nosuch")
	wantCode(t, err, "34000")
	_ = tx.Rollback(ctx)
	_, err = c.Exec(ctx, "declare c cursor for select * from customers")
	wantCode(t, err, "25P01")
	_, err = c.Exec(ctx, "declare c cursor with hold for select * from customers")
	wantCode(t, err, "0A000")
	eventually(t, "home is clean", func() bool { return leftovers(t, d) == 0 })
}

// COPY of a query over several shards gives what the query gives, in every format.
func TestCopyOfAQueryOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	for _, opt := range []string{"", " (format csv, header, quote '|', force_quote *)", " (format binary)", " with delimiter ';' null 'none'"} {
		var out bytes.Buffer
		tag, err := c.PgConn().CopyTo(context.Background(), &out, "copy (select a.customer_id, a.country, null from customers a where customer_id <= 30 order by 1) to stdout"+opt)
		if err != nil || tag.String() != "COPY 30" {
			t.Errorf("%q: %s, %v", opt, tag, err)
		}
		if opt == "" && (strings.Count(out.String(), "\n") != 30 || !strings.HasPrefix(out.String(), "1\t")) {
			t.Errorf("copied\n%s", out.String())
		}
		if strings.Contains(opt, "csv") && !strings.HasPrefix(out.String(), "customer_id,country") {
			t.Errorf("copied\n%s", out.String())
		}
	}
	if _, err := c.PgConn().CopyTo(context.Background(), &bytes.Buffer{}, "copy (select 1 / (customer_id - 5) from customers) to stdout"); err == nil {
		t.Error("a failing COPY succeeded")
	}
	if queryOne[int](t, c, "select 1") != 1 {
		t.Error("the session did not go on")
	}
}

// EXPLAIN of a statement over shards says what each shard is asked, and the shard's own plan for it.
func TestExplainOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	lines := func(sql string) string {
		rows, _ := c.Query(t.Context(), sql)
		l, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return strings.Join(l, "\n")
	}
	for sql, want := range map[string][]string{
		"explain select count(*) from customers":                                                        {"Scatter on s1 s2", "Shard s1:", "Shard s2:", "Aggregate"},
		"explain (analyze, costs off, timing off) select * from customers order by customer_id limit 3": {"Merge: ordered", "actual rows=3", "Shard s2:"},
		"explain " + gathered: {"Gather on s1 (cross-shard-join", "Shard s1, rows of public.customers:", "Seq Scan on"},
		"explain update customers set name = 'x' where customer_id > 5":          {"Write on s1 s2", "Shard s2:", "Update on"},
		"explain select * from customers where customer_id = 5":                  {"Index Scan"},
		"explain (route, analyze) select * from customers":                       {"Scatter on s1 s2", "Shard s1: ", "Shard s2: ", " rows in "},
		"explain (route, analyze) " + gathered:                                   {"Gather on s1", "Shard s1, rows of public.customers: ", "Shard s2, rows of "},
		"explain (analyze, route) select 1 from customers where customer_id = 5": {"Single on ", ": 1 rows in "},
	} {
		got := lines(sql)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q is missing in\n%s", sql, w, got)
			}
		}
	}
	_, err := c.Exec(t.Context(), "explain (route, analyze) update customers set name = 'x' where customer_id = 5")
	wantCode(t, err, "0A000")
	_, err = c.Exec(t.Context(), "explain (format json) select count(*) from customers")
	wantCode(t, err, "0A000")
	_, err = c.Exec(t.Context(), "explain analyze update customers set name = 'x' where customer_id > 5")
	wantCode(t, err, "0A000")
	if n := queryOne[int](t, c, "select count(*) from customers where name = 'x'"); n != 0 {
		t.Errorf("EXPLAIN changed %d rows", n)
	}
}

// WHERE CURRENT OF goes where its cursor is.
func TestCurrentOf(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "current")
	mustExec(t, c, "create table rows_ (id int primary key, name text)")
	d.adminExec(t, "CREATE GROUP g IN current KEY (int) BY LIST ((0) ON current_s0, (1) ON current_s1, (2) ON current_s2)")
	d.adminExec(t, "DISTRIBUTE TABLE current.public.rows_ IN GROUP g KEY (id)")
	mustExec(t, c, "insert into rows_ values (0, 'before'), (1, 'before'), (2, 'before')")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		for k := range 3 {
			mustExec(t, c, "begin")
			mustExec(t, c, fmt.Sprintf("declare here cursor for select * from rows_ where id = %d for update", k))
			mustExec(t, c, "fetch here")
			if tag, err := c.Exec(t.Context(), "update rows_ set name = name || '!' where current of here", mode); err != nil || tag.RowsAffected() != 1 {
				t.Errorf("key %d: %s, %v", k, tag, err)
			}
			mustExec(t, c, "commit")
		}
		_, err := c.Exec(t.Context(), "delete from rows_ where current of nowhere", mode)
		wantCode(t, err, "34000")
	}
	if n := queryOne[int](t, c, "select count(*) from rows_ where name = 'before!!'"); n != 3 {
		t.Errorf("%d rows were updated twice, want 3", n)
	}
}
