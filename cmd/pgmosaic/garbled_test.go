package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// garbler stands before a node. Of a server that was asked for something "garbled" it takes the body of each message of a type away.
type garbler struct {
	net.Listener
	typ atomic.Uint32
}

func garble(t *testing.T, node string) *garbler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &garbler{Listener: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", node)
			if err != nil {
				_ = c.Close()
				continue
			}
			said := &heardBy{Writer: s}
			go func() { _, _ = io.Copy(said, c); _ = s.Close() }()
			go func() { g.pass(c, s, said); _ = c.Close(); _ = s.Close() }()
		}
	}()
	return g
}

// heardBy notes what a server is asked for.
type heardBy struct {
	io.Writer
	garbled atomic.Bool
}

func (a *heardBy) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("garbled")) {
		a.garbled.Store(true)
	}
	return a.Writer.Write(b)
}

// pass takes messages to the client.
func (g *garbler) pass(to, from net.Conn, said *heardBy) {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		if said.garbled.Load() && uint32(head[0]) == g.typ.Load() {
			binary.BigEndian.PutUint32(head[1:], 4)
			body = nil
		}
		if _, err := to.Write(append(head, body...)); err != nil {
			return
		}
	}
}

// A server that sends a message without its body is told of, by its node's name, and used no more; the session lives.
func TestServersThatBreakTheProtocol(t *testing.T) {
	t.Parallel()
	d, _ := temporaryWorld(t, "broken")
	doc := mapOf(d, "broken")
	var all []*garbler
	for i, n := range doc.Nodes {
		cfg, err := pgx.ParseConfig(n.DSN)
		if err != nil {
			t.Fatal(err)
		}
		g := garble(t, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))))
		all = append(all, g)
		moved := *n
		moved.DSN = dsnFor(cfg.User, cfg.Password, g.Addr().String(), cfg.Database) + "?sslmode=disable"
		doc.Nodes[i] = &moved
	}
	a := startApp(t, crashConfig(t, doc))
	home := a.Catalog.Current().Databases["broken"].Home.Name
	eventually(t, "home has answered", func() bool { return a.Monitor.View("broken", home).Up() }) // else a session begins with another's schema
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "broken"))
	mustExec(t, c, "select 1")
	for sql, read := range map[string]string{ // what is not read is passed on as it came, or not wanted any more
		"select 1 as garbled": "Z", "select k as garbled from parts": "ZC", "select k as garbled from parts order by k limit 3": "ZD", "select sum(k) as garbled from parts": "ZCD",
		"insert into parts values (1000, 1), (1001, 1), (1002, 1), (1003, 1) returning k as garbled": "ZCD", "insert into codes values ('garbled') returning code as garbled": "ZCD",
		"select p.k as garbled from parts p join parts q on p.i = q.k + 1": "ZC",
	} {
		for _, typ := range read {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
				for _, g := range all {
					g.typ.Store(uint32(typ))
				}
				rows, err := c.Query(t.Context(), sql, mode)
				if err == nil {
					rows.Close()
					err = rows.Err()
				}
				for _, g := range all {
					g.typ.Store(0)
				}
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Code != "08P01" || !strings.Contains(pe.Message, "node broken_n") {
					t.Errorf("%s, %c, mode %v: %v", sql, typ, mode, err)
				}
				if c.IsClosed() {
					c = connectTo(t, dsnFor("app", "app", a.Server.Addr(), "broken"))
				}
				if got := says(t, c, "select count(*) from parts where k > 999", pgx.QueryExecModeExec); got != "0" {
					t.Errorf("%s, %c: %s rows are there", sql, typ, got)
				}
			}
		}
	}
}
