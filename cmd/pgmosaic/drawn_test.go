package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// drawers are clients of one role, of a proxy of their own, and a schema for them whose table h has a serial column. What they say one after the other, one
// server does, until one of them keeps it.
func drawers(t *testing.T, schema string, clients int) []*pgx.Conn {
	t.Helper()
	d := shop(t)
	a := small(t, d, 6, nil)
	c := connectTo(t, a.dsn())
	mustExec(t, c, fmt.Sprintf("create schema %[1]s; create table %[1]s.h (id bigserial, v text)", schema))
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), d.cluster.Node("s1-a").DSN("shop"))
		if err == nil {
			_, err = c.Exec(context.Background(), "drop schema "+schema+" cascade")
			_ = c.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	var all []*pgx.Conn
	for range clients {
		all = append(all, connectTo(t, a.dsn()))
	}
	mustExec(t, c, "discard all")
	_ = c.Close(t.Context())
	return all
}

// toldValue is the value that a query of one gives, or the SQLSTATE of its error.
func toldValue(t *testing.T, c *pgx.Conn, sql string, mode pgx.QueryExecMode) string {
	t.Helper()
	var v int64
	if err := c.QueryRow(t.Context(), sql, mode).Scan(&v); err != nil {
		return pgCode(err)
	}
	return fmt.Sprint(v)
}

var bothProtocols = []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}

// currval and lastval are a server's, which many clients use: no client is told what another has drawn.
func TestNobodyIsToldWhatAnotherClientHasDrawn(t *testing.T) {
	t.Parallel()
	for i, mode := range bothProtocols {
		in := fmt.Sprintf("drawn_others_%d", i)
		all := drawers(t, in, 3)
		a, b, c := all[0], all[1], all[2]
		insert := "insert into " + in + ".h (v) values ('x') returning id"
		server := toldValue(t, a, "select pg_backend_pid()", mode)
		if one, two := toldValue(t, a, insert, mode), toldValue(t, b, insert, mode); one != "1" || two != "2" {
			t.Fatalf("%s, %s", one, two)
		}
		if other := toldValue(t, c, "select pg_backend_pid()", mode); other != server {
			t.Fatalf("server %s, not %s", other, server)
		}
		if got := toldValue(t, c, "select lastval()", mode); got != "55000" {
			t.Errorf("%s: a client that has drawn nothing is told %s", mode, got)
		}
		toldValue(t, a, insert, mode)
		toldValue(t, b, insert, mode)
		if got := toldValue(t, a, "select currval('"+in+".h_id_seq')", mode); got != "55000" { // PostgreSQL: 3
			t.Errorf("%s: it is told %s, which the other has drawn", mode, got)
		}
	}
}

// Nor what was drawn where no statement says so.
func TestNobodyIsToldWhatCodeHasDrawnForAnotherClient(t *testing.T) {
	t.Parallel()
	all := drawers(t, "drawn_by_code", 2)
	a, b := all[0], all[1]
	const mode = pgx.QueryExecModeSimpleProtocol
	mustExec(t, a, `set search_path to drawn_by_code;
		create function draws() returns bigint language plpgsql as $$begin insert into drawn_by_code.h (v) values ('f'); return 1; end$$;
		create function asks() returns bigint language sql as 'select lastval()';
		create table log (id bigserial, v text);
		create function logs() returns trigger language plpgsql as $$begin insert into drawn_by_code.log (v) values ('l'); return null; end$$;
		create table plain (k int); create trigger logs after insert on plain for each row execute function logs();
		create domain drawn as bigint default nextval('drawn_by_code.h_id_seq'); create table of_domain (k int, n drawn);
		create view seen as select * from h; reset search_path`)
	for _, sql := range []string{
		"select drawn_by_code.draws()", "insert into drawn_by_code.plain values (1)", "do $$begin perform nextval('drawn_by_code.h_id_seq'); end$$", "select setval('drawn_by_code.h_id_seq', 1000)",
		"insert into drawn_by_code.seen (v) values ('x')", "insert into drawn_by_code.of_domain values (1)", "update drawn_by_code.h set (id, v) = (default, 'y')", "with n as (insert into drawn_by_code.h (v) values ('w')) select 1",
		"merge into drawn_by_code.h using (select 1) x on false when not matched then insert (v) values ('m')", "alter table drawn_by_code.plain add column n bigserial", "explain analyze insert into drawn_by_code.h (v) values ('e')",
		"create table drawn_by_code.made as select nextval('drawn_by_code.h_id_seq')",
	} {
		for _, ask := range []string{"select drawn_by_code.asks()", "select lastval()"} {
			mustExec(t, b, strings.Replace(sql, "add column n", fmt.Sprintf("add column n%d", len(ask)), 1))
			if strings.HasPrefix(sql, "create") {
				mustExec(t, b, "drop table drawn_by_code.made")
			}
			if got := toldValue(t, a, ask, mode); got != "55000" {
				t.Errorf("behind %s, %s tells another client %s", sql, ask, got)
			}
			mustExec(t, a, "discard all") // it keeps no server
		}
	}
	if _, err := b.PgConn().CopyFrom(t.Context(), strings.NewReader("x\n"), "copy drawn_by_code.h (v) from stdin"); err != nil {
		t.Fatal(err)
	}
	if got := toldValue(t, a, "select lastval()", mode); got != "55000" {
		t.Errorf("behind COPY another client is told %s", got)
	}
}

// Who draws in a transaction knows what it was until its end, whoever has drawn on the server before; and so does who draws by itself, with nobody between.
func TestAClientKnowsWhatItHasDrawn(t *testing.T) {
	t.Parallel()
	for i, mode := range bothProtocols {
		in := fmt.Sprintf("drawn_own_%d", i)
		all := drawers(t, in, 3)
		a, b, c := all[0], all[1], all[2]
		insert, ask := "insert into "+in+".h (v) values ('x') returning id", "select currval('"+in+".h_id_seq')"
		same := func(what string, want string) {
			t.Helper()
			for _, sql := range []string{ask, "select lastval()"} {
				if got := toldValue(t, a, sql, mode); got != want {
					t.Errorf("%s, %s: %s is %s, want %s", mode, what, sql, got, want)
				}
			}
		}
		same("by itself", toldValue(t, a, insert, mode))
		mustExec(t, a, "discard all") // it keeps no server
		for _, first := range []string{"", "select count(*) from " + in + ".h"} {
			toldValue(t, b, insert, mode)
			mustExec(t, a, "begin isolation level repeatable read")
			if first != "" {
				toldValue(t, a, first, mode)
			}
			id := toldValue(t, a, insert, mode)
			mustExec(t, a, "savepoint s")
			same("in a transaction", id)
			same("behind nextval", toldValue(t, a, "select nextval('"+in+".h_id_seq')", mode))
			mustExec(t, a, "commit")
			mustExec(t, a, "discard all")
		}
		toldValue(t, b, insert, mode)
		same("where clients ask", toldValue(t, a, insert, mode))
		toldValue(t, b, insert, mode)
		same("while it keeps its server", toldValue(t, a, insert, mode))
		mustExec(t, a, "discard sequences")
		if got := toldValue(t, a, ask, mode); got != "55000" {
			t.Errorf("%s: behind DISCARD SEQUENCES it is %s", mode, got)
		}
		same("behind that", toldValue(t, a, insert, mode))
		toldValue(t, c, insert, mode)
		mustExec(t, c, "discard sequences")
		if got := toldValue(t, c, ask, mode); got != "55000" {
			t.Errorf("%s: behind DISCARD SEQUENCES without a server of its own it is %s", mode, got)
		}
	}
}

// A session that has drawn on two servers is not told on the first what it drew there: on the second it drew again.
func TestNobodyIsToldWhatItHasDrawnBefore(t *testing.T) {
	t.Parallel()
	all := drawers(t, "drawn_before", 3)
	a, b, c := all[0], all[1], all[2]
	const mode = pgx.QueryExecModeSimpleProtocol
	const insert = "insert into drawn_before.h (v) values ('x') returning id"
	server := toldValue(t, a, "select pg_backend_pid()", mode)
	old := toldValue(t, a, insert, mode)
	mustExec(t, b, "begin")
	if got := toldValue(t, b, "select pg_backend_pid()", mode); got != server {
		t.Fatalf("server %s, not %s", got, server)
	}
	now := toldValue(t, a, insert, mode)
	mustExec(t, c, "begin") // on the second
	if got := toldValue(t, c, "select pg_backend_pid()", mode); got == server {
		t.Fatalf("server %s", got)
	}
	mustExec(t, b, "commit")
	if got := toldValue(t, a, "select currval('drawn_before.h_id_seq')", mode); got != "55000" {
		t.Errorf("it is told %s of %s and %s", got, old, now)
	}
	if got := toldValue(t, a, "select pg_backend_pid()", mode); got != server {
		t.Errorf("it was asked on server %s, not on %s", got, server)
	}
}

// Who asks is asked on the server on which it has drawn, if that is free, whichever was used last.
func TestAClientIsToldWhereItHasDrawn(t *testing.T) {
	t.Parallel()
	all := drawers(t, "drawn_where", 3)
	a, b, c := all[0], all[1], all[2]
	for _, mode := range bothProtocols {
		id := toldValue(t, a, "insert into drawn_where.h (v) values ('x') returning id", mode)
		for _, x := range []*pgx.Conn{b, c} {
			mustExec(t, x, "begin")
			toldValue(t, x, "select 1", mode)
		}
		mustExec(t, b, "commit")
		mustExec(t, c, "commit") // its server is another one
		if got := toldValue(t, a, "select lastval()", mode); got != id {
			t.Errorf("%s: it is told %s, and has drawn %s", mode, got, id)
		}
		mustExec(t, a, "discard all") // it keeps no server
	}
}

// A pipeline draws, and asks, on a server that others have drawn on.
func TestPipelinesKnowWhatTheyHaveDrawn(t *testing.T) {
	t.Parallel()
	all := drawers(t, "drawn_piped", 3)
	b := all[2]
	for i, begin := range []bool{true, false} {
		a := all[i]
		mustExec(t, b, "insert into drawn_piped.h (v) values ('b')")
		if begin {
			mustExec(t, a, "begin")
		}
		p := &pgx.Batch{}
		p.Queue("select count(*) from drawn_piped.h")
		p.Queue("insert into drawn_piped.h (v) values ('a') returning id")
		p.Queue("select lastval()")
		res := a.SendBatch(t.Context(), p)
		var n, id, last int64
		err := res.QueryRow().Scan(&n)
		if err == nil {
			err = res.QueryRow().Scan(&id)
		}
		if err == nil {
			err = res.QueryRow().Scan(&last)
		}
		_ = res.Close()
		if err != nil || last != id || n == 0 {
			t.Errorf("%v: %d rows, %d, and then %d, %v", begin, n, id, last, err)
		}
		if begin {
			mustExec(t, a, "commit")
		}
	}
}

// A key that the proxy draws on home, before its row goes to another shard, is known there as one that the client has drawn.
func TestAKeyThatIsDrawnOnHomeIsItsClients(t *testing.T) {
	t.Parallel()
	d, a := schemesWorld(t, "drawnkeys")
	b := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "drawnkeys"))
	mustExec(t, a, "create table people (id bigserial primary key, v text)")
	d.adminExec(t, "CREATE GROUP g IN drawnkeys KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE drawnkeys.public.people IN GROUP g KEY (id)")
	const insert, ask = "insert into people (v) values ('x') returning id", "select currval('people_id_seq')"
	for _, mode := range bothProtocols {
		for range 6 { // to several shards
			toldValue(t, b, insert, mode)
			mustExec(t, a, "begin")
			id := toldValue(t, a, insert, mode)
			if got := toldValue(t, a, ask, mode); got != id {
				t.Errorf("%s: it is told %s, and has drawn %s", mode, got, id)
			}
			mustExec(t, a, "commit")
			mustExec(t, a, "discard all")
			id = toldValue(t, a, insert, mode)
			toldValue(t, b, insert, mode)
			if got := toldValue(t, a, ask, mode); got != id && got != "55000" {
				t.Errorf("%s: it is told %s, and has drawn %s", mode, got, id)
			}
			mustExec(t, a, "discard all")
		}
	}
}

// What a server is told amid a client's pipeline or transaction leaves the client's unnamed portal alone.
func TestUnnamedPortalOutlivesWhatAServerIsTold(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	node := d.cluster.Node("s1-a").DSN("shop")
	direct := connectTo(t, node)
	mustExec(t, direct, "create sequence aside_seq; grant all on sequence aside_seq to public")
	defer mustExec(t, direct, "drop sequence aside_seq")
	for _, sql := range []string{"select nextval('aside_seq') > 0", "select count(*) > 0 from pg_prepared_statements", "select count(*) = 2 from pg_cursors"} {
		for _, begin := range []bool{false, true} {
			var told [2]string
			for i, dsn := range []string{node, a.dsn()} {
				c := connectTo(t, dsn)
				mustExec(t, c, "select nextval('aside_seq')") // another client has drawn there
				r := rawTo(t, dsn)
				if begin {
					r.SendQuery("begin")
					r.until('Z')
				}
				r.SendParse("", "select generate_series(1, 3)", nil)
				r.SendBindParts("", nil, nil, nil)
				r.executeLimited("", 1)
				for range 2 {
					r.SendParse("n", sql, nil)
					r.Send(&wire.Bind{PreparedStatement: "n", DestinationPortal: "p"})
					r.executeLimited("p", 0)
					r.SendFrame('C', []byte("Pp\x00"))
					r.SendFrame('C', []byte("Sn\x00"))
				}
				r.executeLimited("", 0)
				r.SendSync()
				told[i] = r.until('Z')
				_ = r.Close()
				_ = c.Close(t.Context())
			}
			if told[1] != told[0] {
				t.Errorf("%s, begin %t:\ngot  %s\nwant %s", sql, begin, told[1], told[0])
			}
		}
	}
}
