package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// ownDefaults are the defaults of columns of partitions but for the sequence's.
const ownDefaults = `select coalesce(string_agg(adrelid::regclass || ' ' || attname || ' ' || pg_get_expr(adbin, adrelid), ', ' order by 1), '') from pg_attrdef join pg_attribute on attrelid = adrelid and attnum = adnum where attname = 'v'`

// A partitioned table is distributed as a whole: its partitions are on every shard, each with the shard's rows.
func TestPartitionedTables(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "parted")
	for _, sql := range []string{
		"create table events (k int not null, at date not null, v text, n bigserial, primary key (k, at)) partition by range (at)",
		"create table events_1 partition of events for values from ('2026-01-01') to ('2026-02-01')",
		"create table events_2 partition of events for values from ('2026-02-01') to ('2026-03-01') partition by hash (k)",
		"create table events_2a partition of events_2 for values with (modulus 2, remainder 0)",
		"create table events_2b partition of events_2 for values with (modulus 2, remainder 1)",
		"create table events_rest partition of events default",
		"alter table events_1 alter column v set default 'one'", "create index events_v on events (v)", "create index events_1_n on events_1 (n)",
		"insert into events (k, at, v) select i, date '2026-01-01' + i, 'v' || i from generate_series(1, 90) i",
		"create unique index only_v on events_1 (v)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN parted KEY (int) BY HASH")
	if _, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE parted.public.events IN GROUP g KEY (k)", false); err == nil || !strings.Contains(err.Error(), "unique index public.only_v") {
		t.Errorf("a partition's unique index: %v", err)
	}
	mustExec(t, c, "drop index only_v")
	_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE parted.public.events_1 IN GROUP g KEY (k)", false)
	if err == nil || !strings.Contains(err.Error(), "it is a partition") {
		t.Errorf("a partition by itself: %v", err)
	}
	d.adminExec(t, "DISTRIBUTE TABLE parted.public.events IN GROUP g KEY (k)")
	counts := func(want map[string]int) {
		t.Helper()
		for table, n := range want {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
				var got int
				if err := c.QueryRow(t.Context(), "select count(*) from "+table, mode).Scan(&got); err != nil || got != n {
					t.Errorf("%s has %d rows (%v), want %d", table, got, err, n)
				}
			}
		}
	}
	counts(map[string]int{"events": 90, "events_1": 30, "events_2": 28, "events_rest": 32})
	for i := range 3 {
		on := d.on(t, "parted", i)
		if n := queryOne[int](t, on, "select count(*) from events"); n < 15 || n > 50 {
			t.Errorf("shard %d has %d rows", i, n)
		}
		if s := queryOne[string](t, on, "select string_agg(relid::text || '<' || coalesce(parentrelid::text, ''), ' ' order by relid::text) from pg_partition_tree('events')"); s != "events< events_1<events events_2<events events_2a<events_2 events_2b<events_2 events_rest<events" {
			t.Errorf("shard %d: %s", i, s)
		}
		if s := queryOne[string](t, on, ownDefaults); s != "events_1 v 'one'::text" {
			t.Errorf("shard %d: defaults of partitions: %s", i, s)
		}
		if s := queryOne[string](t, on, "select string_agg(indexname, ' ' order by indexname) from pg_indexes where tablename = 'events_1'"); s != "events_1_n events_1_pkey events_1_v_idx" {
			t.Errorf("shard %d has the indexes %s", i, s)
		}
	}
	// By key, through the table and through a partition; rows that go where they belong, and a key that changes.
	for _, sql := range []string{"select v from events where k = 7", "select v from events_1 where k = 7"} {
		if got := queryOne[string](t, c, sql); got != "v7" {
			t.Errorf("%s: %s", sql, got)
		}
		if plan := queryOne[string](t, c, "explain (route) "+sql); !strings.Contains(strings.ToLower(plan), "single") {
			t.Errorf("%s: %s", sql, plan)
		}
	}
	mustExec(t, c, "insert into events (k, at, v) values (100, '2026-01-05', 'a'), (101, '2026-02-05', 'b'), (102, '2027-01-01', 'c')")
	mustExec(t, c, "insert into events_1 (k, at, v) values (103, '2026-01-06', 'd'), (104, '2026-01-07', 'e')")
	_, err = c.Exec(t.Context(), "insert into events_1 (k, at) values (105, '2026-02-06')")
	wantCode(t, err, "23514")
	mustExec(t, c, "update events set k = 200 where k = 100")
	mustExec(t, c, "update events set at = '2026-02-07' where k = 200")
	mustExec(t, c, "delete from events_1 where k = 104")
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("300\t2026-01-08\n301\t2026-02-08\n302\t2029-01-08\n"), "copy events (k, at) from stdin"); err != nil {
		t.Error(err)
	}
	counts(map[string]int{"events": 97, "events_1": 32, "events_2": 31, "events_2a join events_2b using (v)": 0, "events_rest": 34})
	// Partitions come and go.
	mustExec(t, c, "delete from events_rest where at >= '2027-01-01'")
	mustExec(t, c, "create table events_4 partition of events for values from ('2027-01-01') to ('2028-01-01')")
	mustExec(t, c, "insert into events (k, at, v) select i, '2027-05-05', 'late' from generate_series(1, 20) i")
	counts(map[string]int{"events_4": 20})
	mustExec(t, c, "begin; create table events_5 partition of events for values from ('2028-01-01') to ('2029-01-01'); insert into events_5 (k, at) values (1, '2028-02-02'), (2, '2028-02-02'), (3, '2028-02-02'); rollback")
	mustExec(t, c, "begin; create table events_5 partition of events for values from ('2028-01-01') to ('2029-01-01'); insert into events_5 (k, at) values (1, '2028-02-02'), (2, '2028-02-02'), (3, '2028-02-02'); commit")
	counts(map[string]int{"events_5": 3})
	mustExec(t, c, "alter table events_5 rename to events_later")
	mustExec(t, c, "create index later_v on events_later (v)")
	mustExec(t, c, "truncate events_4")
	counts(map[string]int{"events_later": 3, "events_4": 0, "events where v = 'late'": 0})
	mustExec(t, c, "drop table events_4")
	_, err = c.Exec(t.Context(), "select from events_4")
	wantCode(t, err, "42P01")
	for sql, code := range map[string]string{
		"alter table events detach partition events_1": "0A000", "alter table events attach partition loose for values from ('2030-01-01') to ('2031-01-01')": "0A000",
		"create table child () inherits (events_1)": "0A000", "create table events_9 partition of events (primary key (n)) for values from ('2030-01-01') to ('2031-01-01')": "0A000",
		"create table events_1x partition of events for values from ('2026-01-01') to ('2026-01-05')": "42P17", "alter table events_1 drop column k": "0A000", "create unique index u on events_1 (v)": "0A000",
		"alter table events_1 drop constraint pgmosaic_slot": "0A000",
	} {
		_, err := c.Exec(t.Context(), sql)
		wantCode(t, err, code)
	}
	// A new shard has them, and at home all rows are together again.
	freshDatabase(t, d.cluster.Node("s2-a"), "parted_late")
	d.adminExec(t, "CREATE SHARD parted_late IN parted NODE '"+d.cluster.Node("s2-a").DSN("parted_late")+"'")
	late := connectTo(t, d.cluster.Node("s2-a").DSN("parted_late"))
	if s := queryOne[string](t, late, "select string_agg(relid::text, ' ' order by relid::text) from pg_partition_tree('events')"); s != "events events_1 events_2 events_2a events_2b events_later events_rest" {
		t.Errorf("the new shard: %s", s)
	}
	if s := queryOne[string](t, late, ownDefaults); s != "events_1 v 'one'::text" {
		t.Errorf("the new shard: defaults of partitions: %s", s)
	}
	want := queryOne[string](t, c, "select count(*) || ' ' || sum(k) from events")
	d.adminExec(t, "UNDISTRIBUTE TABLE parted.public.events")
	if got := queryOne[string](t, c, "select count(*) || ' ' || sum(k) from events"); got != want {
		t.Errorf("at home: %s, want %s", got, want)
	}
	if n := queryOne[int](t, d.on(t, "parted", 1), "select count(*) from pg_class where relname like 'events%'"); n != 0 {
		t.Errorf("%d relations are left on a shard", n)
	}
	if n := queryOne[int](t, d.on(t, "parted", 0), "select count(*) from events"); fmt.Sprint(n) != strings.Fields(want)[0] {
		t.Errorf("home has %d rows", n)
	}
	d.adminExec(t, "DROP SHARD parted_late IN parted")
}
