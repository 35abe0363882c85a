package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What runs as a table's owner for long holds nobody else up, where the role of the nodes' connection strings is an ordinary one.
func TestAnOrdinaryRolesStatementsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE patient")
	var nodes []*pgx.Conn
	for i, name := range []string{"s1-a", "s2-a"} {
		node := d.cluster.Node(name)
		c := connectTo(t, node.DSN("postgres"))
		for _, sql := range []string{
			"create role patient_proxy login password 'patient' createrole", "grant pg_monitor, pg_signal_backend to patient_proxy", "grant app to patient_proxy with admin option", "create database patient owner app", "grant create on database patient to patient_proxy",
		} {
			mustExec(t, c, sql)
		}
		t.Cleanup(func() {
			ctx := context.Background()
			c, err := pgx.Connect(ctx, node.DSN("postgres"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(ctx)
			for _, sql := range []string{"drop database if exists patient with (force)", "drop role if exists patient_proxy"} {
				if _, err := c.Exec(ctx, sql); err != nil {
					t.Error(err)
				}
			}
		})
		d.adminExec(t, fmt.Sprintf("CREATE SHARD p%d IN patient NODE 'postgres://patient_proxy:patient@127.0.0.1:%d/patient?sslmode=disable'", i+1, node.Port))
		nodes = append(nodes, connectTo(t, node.DSN("patient")))
	}
	t.Cleanup(func() { d.forget(t, "patient") })
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "patient"))
	for _, sql := range []string{
		"create function waits(int) returns bool language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(77); return true; end $$",
		"create table slow (k int primary key, v int check (waits(v)))", "create table quick (k int primary key, v int)", "insert into slow select g, g from generate_series(1, 50) g", "insert into quick select g, g from generate_series(1, 50) g",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN patient KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE patient.public.quick IN GROUP g KEY (k)")
	mustExec(t, nodes[1], "select pg_advisory_lock(77)")
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE patient.public.slow IN GROUP g KEY (k)", false)
		done <- err
	}()
	eventually(t, "the other shard's CHECK waits", func() bool {
		return queryOne[bool](t, nodes[1], "select exists (select from pg_locks where locktype = 'advisory' and not granted)")
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := d.Admin.Exec(ctx, "VERIFY TABLE patient.public.quick", false); err != nil {
		t.Errorf("VERIFY beside it: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("DISTRIBUTE has ended: %v", err)
	default:
	}
	mustExec(t, nodes[1], "select pg_advisory_unlock(77)")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := queryOne[int](t, c, "select count(*) from slow", pgx.QueryExecModeSimpleProtocol); n != 50 {
		t.Errorf("%d rows", n)
	}
	for i, n := range nodes {
		if left := queryOne[string](t, n, "select coalesce(string_agg(nspname, ','), '') from pg_namespace where nspname ~ '^pgmosaic.' or nspname = 'pgmosaic' and nspacl::text ~ 'app='"); left != "" {
			t.Errorf("%s is left on shard %d", left, i)
		}
	}
}
