package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// assertPlaced reads every row of a table from the shards themselves: each must be where LOCATE KEY says,
// and none twice.
func assertPlaced(t *testing.T, d *demo, table, key, group string) int {
	t.Helper()
	where := map[string]string{}
	for shard, node := range map[string]string{"s1": "s1-a", "s2": "s2-a"} {
		c := connectTo(t, d.cluster.Node(node).DSN("shop"))
		rows, err := c.Query(t.Context(), fmt.Sprintf("select distinct %s::text from %s", key, table))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if other, dup := where[k]; dup {
				t.Fatalf("%s: key %s is on %s and on %s", table, k, other, shard)
			}
			where[k] = shard
		}
	}
	n := 0
	for k, shard := range where {
		if n++; n > 3000 {
			break
		}
		if got := d.adminExec(t, fmt.Sprintf("LOCATE KEY ('%s') OF shop.%s", k, group))[0][4]; got != shard {
			t.Fatalf("%s: key %s is on %s, LOCATE KEY says %v", table, k, shard, got)
		}
	}
	return len(where)
}

func TestRowsAreWhereLocateKeySays(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, table := range []string{"customers", "orders", "order_items"} {
		if n := assertPlaced(t, d, table, "customer_id", "customers"); n < 1500 {
			t.Errorf("only %d keys of %s were found", n, table)
		}
	}
	for _, table := range []string{"countries", "products"} {
		sum := "select count(*) || ' ' || coalesce(md5(string_agg(x::text, ',' order by x::text)), '') from " + table + " x"
		a := queryOne[string](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), sum)
		b := queryOne[string](t, connectTo(t, d.cluster.Node("s2-a").DSN("shop")), sum)
		if a != b || strings.HasPrefix(a, "0 ") {
			t.Errorf("copies of %s differ: %s and %s", table, a, b)
		}
	}
}

func TestMisplacedRowIsRefusedByTheShard(t *testing.T) {
	t.Parallel()
	d := shop(t)
	shard := d.adminExec(t, "LOCATE KEY (1) OF shop.customers")[0][4]
	other := map[any]string{"s1": "s2-a", "s2": "s1-a"}[shard]
	c := connectTo(t, d.cluster.Node(other).DSN("shop"))
	_, err := c.Exec(t.Context(), "insert into customers values (1, 'x', 'x', 'DE', now())")
	wantCode(t, err, "23514")
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != code {
		t.Errorf("error %v, want SQLSTATE %s", err, code)
	}
}

// Rows that a table already holds move to their shards, and come back, whatever the type of the key.
func TestDistributeMovesExistingRows(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	for _, k := range []struct{ typ, value string }{
		{"bigint", "i"},
		{"integer", "i"},
		{"smallint", "i"},
		{"text", "'key ' || i"},
		{"varchar(20)", "'k' || i"},
		{"char(8)", "'c' || i"},
		{"uuid", "md5(i::text)::uuid"},
		{"date", "date '1990-01-01' + i * 37"},
		{"timestamp", "timestamp '2001-02-03 04:05:06.789' + i * interval '1h 1s'"},
		{"timestamptz", "timestamptz '2001-02-03 04:05:06.789+00' + i * interval '1h 1s'"},
		{"numeric", "(i * 1.50)::numeric"},
	} {
		t.Run(k.typ, func(t *testing.T) {
			mustExec(t, c, "create table moved (k "+k.typ+" primary key, v integer not null)")
			defer func() {
				mustExec(t, c, "drop table moved")
				d.adminExec(t, "DROP GROUP moved IN shop")
			}()
			mustExec(t, c, "insert into moved select "+k.value+", i from generate_series(1, 500) i")
			before := queryOne[string](t, c, "select md5(string_agg(k::text || v, ',' order by v)) from moved")
			d.adminExec(t, "CREATE GROUP moved IN shop KEY ("+strings.Split(k.typ, "(")[0]+") BY HASH")
			if rows := d.adminExec(t, "DISTRIBUTE TABLE shop.public.moved IN GROUP moved KEY (k) DRY RUN"); len(rows) != 1 {
				t.Fatal("DRY RUN says nothing")
			}
			if len(d.adminExec(t, "SHOW TABLES WHERE table = 'moved'")) != 0 {
				t.Fatal("DRY RUN changed the map")
			}
			d.adminExec(t, "DISTRIBUTE TABLE shop.public.moved IN GROUP moved KEY (k)")
			if n := assertPlaced(t, d, "moved", "k", "moved"); n != 500 {
				t.Errorf("%d of 500 rows are left", n)
			}
			if n := queryOne[int](t, c, "select count(*) from moved"); n != 500 {
				t.Errorf("count is %d", n)
			}
			d.adminExec(t, "UNDISTRIBUTE TABLE shop.public.moved")
			if after := queryOne[string](t, c, "select md5(string_agg(k::text || v, ',' order by v)) from moved"); after != before {
				t.Error("the rows that came back are not those that left")
			}
			s2 := connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
			if queryOne[bool](t, s2, "select to_regclass('public.moved') is not null") {
				t.Error("the table is still on the other shard")
			}
		})
	}
}

func TestDistributeThatCannotBeDoneChangesNothing(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table stubborn (id bigint primary key, other bigint unique, name text, n serial)")
	defer func() { mustExec(t, c, "drop table stubborn") }()
	mustExec(t, c, "insert into stubborn values (1, null, 'x')")
	version := d.Catalog.Current().Version
	for _, bad := range []struct{ sql, code, hint string }{
		{"DISTRIBUTE TABLE shop.public.nosuch IN GROUP customers KEY (id)", "42P01", "CREATE TABLE"},
		{"DISTRIBUTE TABLE shop.public.stubborn IN GROUP nosuch KEY (id)", "42704", "SHOW GROUPS"},
		{"DISTRIBUTE TABLE nosuch.public.stubborn IN GROUP customers KEY (id)", "3D000", "SHOW DATABASES"},
		{"DISTRIBUTE TABLE shop.public.stubborn IN GROUP customers", "42601", "HELP"},
		{"DISTRIBUTE TABLE shop.public.customers AS REFERENCE", "42710", "UNDISTRIBUTE"},
		{"CREATE GROUP g IN shop KEY (json) BY HASH", "0A000", "Use one of"},
		{"CREATE GROUP g IN shop KEY (bigint) BY HASH ON (s1, s9)", "42704", "SHOW SHARDS"},
		{"CREATE SHARD s3 IN shop NODE 'postgres://127.0.0.1:1/none?connect_timeout=2'", "08001", "pg_hba"},
		{"DROP SHARD s2 IN shop", "55006", "first"},
		{"SHOW REPLICAS WHERE nosuch = 1", "42703", "columns are"},
	} {
		_, err := d.Admin.Exec(t.Context(), bad.sql, false)
		var e interface {
			SQLState() string
			ErrorHint() string
		}
		if !errors.As(err, &e) || e.SQLState() != bad.code || !strings.Contains(e.ErrorHint(), bad.hint) {
			t.Errorf("%s: %v (%+v), want SQLSTATE %s and a hint with %q", bad.sql, err, e, bad.code, bad.hint)
		}
	}
	mustExec(t, c, "alter table stubborn alter n drop default")
	for _, bad := range []struct{ sql, code string }{
		{"DISTRIBUTE TABLE shop.public.stubborn IN GROUP customers KEY (nosuch)", "42703"},
		{"DISTRIBUTE TABLE shop.public.stubborn IN GROUP customers KEY (name)", "42804"},
		{"DISTRIBUTE TABLE shop.public.stubborn IN GROUP customers KEY (other)", "23502"},
		{"DISTRIBUTE TABLE shop.public.stubborn IN GROUP customers KEY (id)", "0A000"}, // unique (other) has no key
	} {
		_, err := d.Admin.Exec(t.Context(), bad.sql, false)
		var e interface{ SQLState() string }
		if !errors.As(err, &e) || e.SQLState() != bad.code {
			t.Errorf("%s: %v, want SQLSTATE %s", bad.sql, err, bad.code)
		}
	}
	if v := d.Catalog.Current().Version; v != version {
		t.Errorf("the map went from version %d to %d", version, v)
	}
	if n := queryOne[int](t, c, "select count(*) from stubborn"); n != 1 {
		t.Errorf("%d rows", n)
	}
	// A table of the same name with rows on the other shard is nobody's to touch.
	s2 := connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	mustExec(t, s2, "create table public.stubborn (id bigint primary key, other bigint, name text, n int)")
	mustExec(t, s2, "insert into public.stubborn values (77)")
	defer func() { _, _ = s2.Exec(context.Background(), "drop table public.stubborn") }()
	if _, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE shop.public.stubborn IN GROUP customers KEY (id) ALLOW LOCAL UNIQUE", false); err == nil {
		t.Error("a table with foreign rows was overwritten")
	}
	if n := queryOne[int](t, s2, "select count(*) from public.stubborn"); n != 1 {
		t.Error("the other shard's own rows are gone")
	}
	if len(d.adminExec(t, "SHOW TABLES WHERE table = 'stubborn'")) != 0 || queryOne[int](t, c, "select count(*) from stubborn") != 1 {
		t.Error("the failed DISTRIBUTE left something behind")
	}
}
