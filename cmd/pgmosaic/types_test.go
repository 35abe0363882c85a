package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// typedDemo is a demo whose shards give user types different OIDs, with a sharded table that uses them.
func typedDemo(t testing.TB, customers int) (*demo, *pgx.Conn) {
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: customers == 0, Customers: customers, Orders: customers})
	super := connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	for i := range 7 { // moves the second shard's OIDs
		mustExec(t, super, fmt.Sprintf("create type public.filler%d as enum ('x')", i))
	}
	for _, n := range []string{"s1-a", "s2-a"} {
		c := connectTo(t, d.cluster.Node(n).DSN("shop"))
		for _, sql := range []string{
			"create extension if not exists hstore schema public", "create extension if not exists citext schema public",
			"create type mood as enum ('sad', 'ok', 'happy')", "create type spot as (x int, m mood, tags mood[])", "create domain posint as int check (value > 0)",
			"alter type mood owner to app", "alter type spot owner to app", "alter domain posint owner to app",
		} {
			mustExec(t, c, sql)
		}
	}
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table moods (customer_id bigint primary key, m mood, ms mood[], s spot, ss spot[], p posint, h hstore, hs hstore[], ci citext, cis citext[])")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.moods IN GROUP customers KEY (customer_id)")
	return d, c
}

func TestUserTypesHaveHomesOIDsOnEveryShard(t *testing.T) {
	t.Parallel()
	d, c := typedDemo(t, 0)
	var oids [2]uint32
	for i, n := range []string{"s1-a", "s2-a"} {
		oids[i] = queryOne[uint32](t, connectTo(t, d.cluster.Node(n).DSN("shop")), "select 'mood'::regtype::oid")
	}
	if oids[0] == oids[1] {
		t.Fatal("both shards give the type the same OID: the test tests nothing")
	}
	k1, k2 := keysOn(t, d, 1)
	types, err := c.LoadTypes(t.Context(), []string{"mood", "_mood", "spot", "_spot", "posint"})
	if err != nil {
		t.Fatal(err)
	}
	for name, codec := range map[string]pgtype.Codec{"hstore": pgtype.HstoreCodec{}, "citext": pgtype.TextCodec{}} {
		oid := queryOne[uint32](t, c, "select $1::regtype::oid", name)
		array := queryOne[uint32](t, c, "select typarray from pg_type where oid = $1", oid)
		elem := &pgtype.Type{Name: name, OID: oid, Codec: codec}
		types = append(types, elem, &pgtype.Type{Name: "_" + name, OID: array, Codec: &pgtype.ArrayCodec{ElementType: elem}})
	}
	c.TypeMap().RegisterTypes(types)
	type spot struct {
		X    int32
		M    string
		Tags []string
	}
	check := func(t *testing.T, mode pgx.QueryExecMode, k int) {
		t.Helper()
		ctx := t.Context()
		want := spot{7, "sad", []string{"ok", "happy"}}
		if _, err := c.Exec(ctx, "insert into moods values ($1, $2, $3, $4, $5, 3, 'a=>1', array['b=>2'::hstore], 'Ab', array['Cd'::citext]) on conflict (customer_id) do update set m = excluded.m",
			mode, k, "happy", []string{"sad", "ok"}, want, []spot{want, want}); err != nil {
			t.Fatalf("insert of key %d: %v", k, err)
		}
		var m string
		var ms []string
		var s spot
		var ss []spot
		var p int32
		var h pgtype.Hstore
		var hs []pgtype.Hstore
		var ci string
		var cis []string
		if err := c.QueryRow(ctx, "select m, ms, s, ss, p, h, hs, ci, cis from moods where customer_id = $1", mode, k).Scan(&m, &ms, &s, &ss, &p, &h, &hs, &ci, &cis); err != nil {
			t.Fatalf("select of key %d: %v", k, err)
		}
		got := fmt.Sprint(m, ms, s, ss, p, *h["a"], *hs[0]["b"], ci, cis)
		if exp := fmt.Sprint("happy", []string{"sad", "ok"}, want, []spot{want, want}, 3, "1", "2", "Ab", []string{"Cd"}); got != exp {
			t.Errorf("key %d: %s, want %s", k, got, exp)
		}
		var back string
		if err := c.QueryRow(ctx, "update moods set m = $2 where customer_id = $1 returning m", mode, k, "ok").Scan(&back); err != nil || back != "ok" {
			t.Errorf("returning of key %d: %q %v", k, back, err)
		}
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			check(t, mode, k1)
			check(t, mode, k2)
			rows, err := c.Query(t.Context(), "select customer_id, m, ms, s from moods order by customer_id", mode)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() { // merged from both shards
				var k int64
				var m string
				var ms []string
				var s spot
				if err := rows.Scan(&k, &m, &ms, &s); err != nil {
					t.Fatal(err)
				}
				if m != "ok" || len(ms) != 2 || s.M != "sad" {
					t.Errorf("key %d: %s %v %v", k, m, ms, s)
				}
				n++
			}
			if rows.Err() != nil || n != 2 {
				t.Errorf("%d rows, %v", n, rows.Err())
			}
			if _, err := c.Exec(t.Context(), "delete from moods where m = $1 and customer_id in ($2, $3)", mode, "ok", k1, k2); err != nil {
				t.Error(err)
			}
		})
	}
	// Declared parameter types are home's; the server that runs the statement has others.
	res := c.PgConn().ExecParams(context.Background(), "select $1::text, customer_id from moods where customer_id = "+itoa(k2), [][]byte{[]byte("sad")}, []uint32{oids[0]}, nil, nil).Read()
	if res.Err != nil {
		t.Error(res.Err)
	}
}
