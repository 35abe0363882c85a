package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// docs/security.md says of each right of the proxy's role what does not work without it: that does not, with the refusal that it names, and all
// else does.
func TestEachRightOfTheProxysRoleIsForWhatTheDocumentSays(t *testing.T) {
	t.Parallel()
	d, shards := modestWorld(t, "rights")
	const role = "rights_proxy"
	home, second := connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), connectTo(t, d.cluster.Node("s2-a").DSN("postgres"))
	servers := []*pgx.Conn{home, second}
	third := fmt.Sprintf("CREATE SHARD rights_s3 IN rights NODE 'postgres://%s:modest@127.0.0.1:%d/rights_3?sslmode=disable'", role, d.cluster.Node("s2-a").Port)
	forget := func() {
		mustExec(t, second, "drop database if exists rights_3 with (force)")
		mustExec(t, second, "drop role if exists rights_late")
	}
	mustExec(t, home, "create role rights_late login password 'late'")
	t.Cleanup(func() {
		for _, at := range []string{"s1-a", "s2-a"} {
			ctx := context.Background()
			c, err := pgx.Connect(ctx, d.cluster.Node(at).DSN("postgres"))
			for _, sql := range []string{"drop database if exists rights_3 with (force)", "drop database if exists rights with (force)", "drop role if exists rights_late"} {
				if err == nil {
					_, err = c.Exec(ctx, sql)
				}
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	mustExec(t, shards[0], "grant select on pg_authid to "+role)
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "rights"))
	for _, sql := range []string{
		"create table orders (id bigint primary key, n int)", "insert into orders select g, 1 from generate_series(1, 100) g",
		"create table plain (id bigint primary key)", "create function tens(int) returns int immutable language sql as 'select $1 / 10'", "create table own (id bigint primary key, n int)", "create index on own (public.tens(n))",
		"create schema apart", "create table apart.things (a int primary key)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN rights KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE rights.public.orders IN GROUP g KEY (id)")
	var keys [2]string // of orders, of the one shard and the other
	for i := 1; keys[0] == "" || keys[1] == ""; i++ {
		keys[map[any]int{"rights_s1": 0, "rights_s2": 1}[d.adminExec(t, "LOCATE KEY ("+itoa(i)+") OF rights.g")[0][4]]] = itoa(i)
	}
	part := 0
	console := connectTo(t, d.adminDSN()+"?default_query_exec_mode=simple_protocol")
	admin := func(list ...string) (err error) {
		for _, sql := range list {
			if err == nil {
				_, err = console.Exec(t.Context(), sql)
			}
		}
		return err
	}
	var prepareThird func(*pgx.Conn)
	newShard := func(late bool) error {
		forget()
		mustExec(t, second, "create database rights_3 owner app")
		prepareThird(second)
		if !late {
			mustExec(t, second, "create role rights_late")
		}
		err := admin(third, "DROP SHARD rights_s3 IN rights")
		forget()
		mustExec(t, second, "create role rights_late") // DISTRIBUTE brings roles, too
		return err
	}
	features := []struct {
		name string
		try  func() error
	}{
		{"commits over shards", func() error {
			_, err := c.Exec(t.Context(), "set lock_timeout = '5s'; update orders set n = n + 1", pgx.QueryExecModeSimpleProtocol)
			return err
		}},
		{"parts whose session is lost", func() error {
			r := d.Resolver()
			r.Grace = 300 * time.Millisecond // which also bounds its questions
			part++
			gid := fmt.Sprintf("pgmosaic:%s:rights_s1:%032x", r.Install, part)
			at := connectTo(t, d.asApp("s2-a", "rights"))
			for _, sql := range []string{"begin", "update orders set n = n where id = " + keys[1], "prepare transaction '" + gid + "'"} {
				mustExec(t, at, sql)
			}
			time.Sleep(r.Grace)
			err := r.Resolve(t.Context(), d.ShardsOf(d.Catalog.Current().Databases["rights"]))
			if err != nil {
				mustExec(t, at, "rollback prepared '"+gid+"'")
			}
			return err
		}},
		{"tables", func() error {
			return admin("DISTRIBUTE TABLE rights.public.plain IN GROUP g KEY (id)", "UNDISTRIBUTE TABLE rights.public.plain")
		}},
		{"tables that run code", func() error {
			return admin("DISTRIBUTE TABLE rights.public.own IN GROUP g KEY (id)", "UNDISTRIBUTE TABLE rights.public.own")
		}},
		{"a schema", func() error {
			err := admin("DISTRIBUTE SCHEMA rights.apart ON rights_s2", "UNDISTRIBUTE SCHEMA rights.apart")
			mustExec(t, shards[1], "drop schema if exists apart cascade")
			return err
		}},
		{"a shard whose server has the roles", func() error { return newShard(false) }},
		{"a shard whose server lacks a role", func() error { return newShard(true) }},
		{"deadlocks over shards", func() error {
			a, b := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "rights")), connectTo(t, dsnFor("app", "app", d.Server.Addr(), "rights"))
			defer a.Close(t.Context())
			const update = "update orders set n = n where id = "
			for x, k := range map[*pgx.Conn]string{a: keys[0], b: keys[1]} {
				for _, sql := range []string{"begin", "set local lock_timeout = '6s'", update + k} {
					mustExec(t, x, sql)
				}
			}
			other := make(chan error)
			go func() { _, err := a.Exec(t.Context(), update+keys[1]); other <- err }()
			_, err := b.Exec(t.Context(), update+keys[0])
			err = errors.Join(err, b.Close(t.Context()), <-other)
			var pe *pgconn.PgError
			if errors.As(err, &pe) && pe.Code == "40P01" {
				return nil
			}
			return err
		}},
	}
	sql := func(list ...string) func(cs ...*pgx.Conn) {
		return func(cs ...*pgx.Conn) {
			for _, c := range cs {
				for _, sql := range list {
					mustExec(t, c, strings.ReplaceAll(sql, "ROLE", role))
				}
			}
		}
	}
	grantThird := true
	prepareThird = func(c *pgx.Conn) {
		if grantThird {
			mustExec(t, c, "grant create on database rights_3 to "+role)
		} else {
			mustExec(t, c, "alter database rights_3 owner to postgres") // who is a member of its owner may do what that may
		}
	}
	notMember := map[string][2]string{
		"parts whose session is lost": {"42501", "GRANT app TO"}, "tables": {"42501", "permission denied for table"}, "tables that run code": {"42501", "permission denied for table"}, "a schema": {"42501", "permission denied"},
		"a shard whose server has the roles": {"42501", "app"}, "a shard whose server lacks a role": {"42501", "app"},
	}
	create := []string{"grant create on database rights to ROLE", "alter database rights owner to app"}
	noCreate := []string{"revoke create on database rights from ROLE", "alter database rights owner to postgres", "grant create on schema public to app"}
	unseen := maps.Clone(notMember)
	unseen["deadlocks over shards"] = [2]string{"55P03"}
	for _, x := range []struct {
		right      string
		take, give func(...*pgx.Conn)
		at         []*pgx.Conn
		fails      map[string][2]string // by feature: the SQLSTATE, and what is said
	}{
		{"pg_monitor and pg_signal_backend", sql("revoke pg_monitor, pg_signal_backend from ROLE"), sql("grant pg_monitor, pg_signal_backend to ROLE"), servers, nil},
		{"member of the roles that write", sql("revoke app from ROLE"), sql("grant app to ROLE with admin option"), servers, notMember},
		{"both", sql("revoke app, pg_monitor from ROLE"), sql("grant pg_monitor to ROLE", "grant app to ROLE with admin option"), servers, unseen},
		{"CREATE on a new shard's database", func(...*pgx.Conn) { grantThird = false }, func(...*pgx.Conn) { grantThird = true }, nil, map[string][2]string{
			"a shard whose server has the roles": {"42501", "permission denied for"}, "a shard whose server lacks a role": {"42501", "permission denied for"},
		}},
		{"CREATE on home's database", sql(noCreate...), sql(create...), shards[:1], map[string][2]string{
			"a shard whose server has the roles": {"42501", "permission denied for database"}, "a shard whose server lacks a role": {"42501", "permission denied for database"},
		}},
		{"CREATE on a shard's database", sql(noCreate...), sql(create...), shards[1:], map[string][2]string{
			"tables": {"42501", "permission denied for database"}, "tables that run code": {"42501", "permission denied for database"}, "a schema": {"42501", "permission denied for database"},
		}},
		{"CREATEROLE", sql("alter role ROLE nocreaterole"), sql("alter role ROLE createrole"), servers, map[string][2]string{"a shard whose server lacks a role": {"42501", "permission denied to create role"}}},
		{"SELECT on pg_authid", sql("revoke select on pg_authid from ROLE"), sql("grant select on pg_authid to ROLE"), shards[:1], map[string][2]string{"a shard whose server lacks a role": {"42501", "GRANT SELECT ON pg_authid TO"}}},
	} {
		x.take(x.at...)
		for _, f := range features {
			err := f.try()
			want := x.fails[f.name]
			said := fmt.Sprint(err)
			var pe *pgconn.PgError
			if errors.As(err, &pe) {
				said += " " + pe.Hint
			}
			if err == nil && want[0] != "" || err != nil && (pgCode(err) != want[0] || !strings.Contains(said, want[1])) {
				t.Errorf("without %s, %s: %s, want %q", x.right, f.name, said, want)
			}
		}
		x.give(x.at...)
	}
}
