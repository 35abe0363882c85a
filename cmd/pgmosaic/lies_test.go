package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// What an immutable function reads of its server without calling anything by name differs on copies as well: PostgreSQL's keywords for the
// time and for who is asking, the words that are read as times, calls with a comment in them. And a domain of a generated column varies nothing.
func TestQuietLiesMakeNoCopiesDiffer(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "quietly")
	for _, sql := range []string{
		"create function keyword(int) returns timestamptz immutable language sql as 'select current_timestamp'", "create function local(int) returns text immutable language sql as 'select localtimestamp::text'",
		"create function read(int) returns timestamptz immutable language sql as $$ select 'now'::timestamptz $$", "create function remark(int) returns timestamptz immutable language sql as 'select clock_timestamp/* now */()'",
		"create function lined(int) returns timestamptz immutable language plpgsql as E'begin return clock_timestamp -- x\n(); end'", "create function atomic(int) returns timestamptz immutable language sql return current_timestamp",
		"create function place(int) returns text immutable language sql as 'select current_catalog::text'",
		"create function fine(int) returns boolean immutable language sql as 'select $1 > 0'", "create domain positive as int check (fine(value))",
		"create type mood as enum ('sad', 'fine')", "create function hashed(mood) returns int immutable language sql as 'select hashenum($1)'",
		"create table plain (k int primary key, note text)", "create table judged (k int primary key, g int generated always as ((k + 1)::positive) stored)",
		"create table clocked (k int primary key, at timestamptz)", "insert into plain values (1, 'a')", "insert into clocked values (1)",
	} {
		mustExec(t, c, sql)
	}
	for _, n := range []string{"plain", "judged", "clocked"} {
		d.adminExec(t, "DISTRIBUTE TABLE quietly.public."+n+" AS REFERENCE")
	}
	shards := []*pgx.Conn{d.on(t, "quietly", 0), d.on(t, "quietly", 1), d.on(t, "quietly", 2)}
	for _, sql := range []string{
		"update clocked set at = keyword(k)", "update plain set note = local(k)", "update clocked set at = read(k)", "update clocked set at = remark(k)", "update clocked set at = lined(k)", "update clocked set at = atomic(k)",
		"update plain set note = place(k)", "insert into plain values (2, local(2))",
		"update plain set note = hashenum('sad'::mood)", "update plain set note = hashed('sad')", "update plain set note = array_send(array['sad'::mood])::text", "insert into plain values (4, hash_array(array['sad'::mood])), (5, hashed('fine'))", "insert into clocked values (2, read(2)), (3, remark(3))",
	} {
		_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		for _, n := range []string{"plain", "clocked"} {
			q := "select coalesce(string_agg(x::text, E'\n' order by x::text), '') from " + n + " x"
			home := queryOne[string](t, shards[0], q)
			for i, s := range shards[1:] {
				if has := queryOne[string](t, s, q); has != home {
					t.Errorf("%s (%v): on shard %d %s differs\n%s", sql, err, i+1, n, diffLines(home+"\n", has+"\n"))
				}
			}
		}
	}
	mustExec(t, c, "insert into judged values (1), (2)")
	mustExec(t, c, "update judged set k = 3 where k = 1")
}
