package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A shard joins while another process, which has a copy of the map from before, writes what all shards have in common: what it is told is
// done is on the new shard as well, and from then on it is refused.
func TestShardJoinsBesideAProcessWithTheOlderMap(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "beside")
	for _, sql := range []string{"create table codes (id int primary key, v int)", "create table bare (id int, v int)", "create table keyed (k int primary key, v int)", "insert into codes select i, i from generate_series(1, 500) i"} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN beside KEY (int) BY HASH")
	for _, sql := range []string{"DISTRIBUTE TABLE beside.public.codes AS REFERENCE", "DISTRIBUTE TABLE beside.public.bare AS REFERENCE", "DISTRIBUTE TABLE beside.public.keyed IN GROUP g KEY (k)"} {
		d.adminExec(t, sql)
	}
	other, err := stranger(t, mapOf(d, "beside"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other reaches the shards", func() bool { ok, _ := other.Ready(); return ok })
	dsn := dsnFor("app", "app", other.Server.Addr(), "beside")
	older := func(err error) bool {
		var pe *pgconn.PgError
		return errors.As(err, &pe) && pe.Code == "40001" && strings.Contains(pe.Message, "older map")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for w, tx := range [][2]string{{"", ""}, {"begin", "commit"}} {
		c := connectTo(t, dsn)
		first := make(chan struct{})
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				err := func() error {
					for _, sql := range []string{
						tx[0], "select count(*) from keyed", fmt.Sprintf("insert into codes values (%d, 1) on conflict (id) do update set v = codes.v + 1", 1000*(w+1)+n%50),
						fmt.Sprintf("insert into bare values (%d, %d)", w, n), tx[1],
					} {
						if _, err := c.Exec(t.Context(), sql); err != nil {
							return err
						}
					}
					return nil
				}()
				if n == 0 {
					close(first)
				}
				if older(err) {
					return
				}
				var pe *pgconn.PgError
				if err != nil && (!errors.As(err, &pe) || pe.Code != "40001") {
					t.Errorf("writer %d of the other process: %v", w, err)
					return
				}
				if err != nil && tx[0] != "" {
					mustExec(t, c, "rollback")
				}
			}
		})
		<-first
	}
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "beside_3")
	d.adminExec(t, "CREATE SHARD beside_s3 IN beside NODE '"+node.DSN("beside_3")+"' NAME beside_n3")
	c2 := connectTo(t, dsn)
	for _, sql := range []string{"insert into codes values (1, 1)", "delete from codes", "truncate bare", "create table more (a int)", "create function f() returns int language sql as 'select 1'", "copy codes from stdin"} {
		var err error
		if strings.HasPrefix(sql, "copy") {
			_, err = c2.PgConn().CopyFrom(t.Context(), strings.NewReader("5000\t1\n"), sql)
		} else {
			_, err = c2.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		}
		if !older(err) && !strings.HasPrefix(sql, "create table") {
			t.Errorf("%s, by the older map: %v", sql, err)
		}
	}
	stop()
	writers.Wait()
	for _, n := range []string{"codes", "bare"} {
		copies := copiesOf(t, d, "beside", n)
		for i, s := range copies {
			if s != copies[0] {
				t.Errorf("%s on shard %d is not what home has:\n%s", n, i, diffLines(copies[0]+"\n", s+"\n"))
			}
		}
	}
	if rows := d.adminExec(t, "VERIFY SCHEMA IN beside"); len(rows) != 0 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	mustExec(t, c2, "insert into keyed values (1, 1)") // what the new shard has no part in
	mustExec(t, c, "insert into codes values (7000, 1)")
	for i := range 4 {
		if n := queryOne[int](t, d.on(t, "beside", i), "select count(*) from codes where id = 7000"); n != 1 {
			t.Errorf("shard %d has a row of the process with the newer map %d times", i, n)
		}
	}
	// That process says that home's server is the shard's, as each does after pg_upgrade: it still lacks the shard.
	if _, err := other.Admin.Exec(t.Context(), "ALTER SHARD beside_s0 IN beside ADOPT", false); err != nil {
		t.Error(err)
	}
	if _, err := c2.Exec(t.Context(), "insert into codes values (7001, 1)"); !older(err) {
		t.Errorf("by the older map, after ADOPT: %v", err)
	}
	mustExec(t, c, "insert into codes values (7002, 1)")
	// That process adds another one to what it knows: refused, before anything is made.
	freshDatabase(t, node, "beside_4")
	_, err = other.Admin.Exec(t.Context(), "CREATE SHARD beside_s4 IN beside NODE '"+node.DSN("beside_4")+"' NAME beside_n4", false)
	wantState(t, "CREATE SHARD by the older map", err, "55000")
}
