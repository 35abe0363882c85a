package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// collated makes a database over some shards whose LC_COLLATE is C, and connects to it and to home's own.
func collated(t *testing.T, d *demo, database string, width int, options string) (c, one *pgx.Conn) {
	t.Helper()
	d.adminExec(t, "CREATE DATABASE "+database)
	t.Cleanup(func() { d.forget(t, database) })
	for i := range width {
		node := d.cluster.Node([]string{"s1-a", "s2-a"}[i%2])
		name := fmt.Sprintf("%s_%d", database, i)
		super := connectTo(t, node.DSN("postgres"))
		mustExec(t, super, "drop database if exists "+name+" with (force)")
		mustExec(t, super, "create database "+name+" owner app template template0 lc_collate 'C' lc_ctype 'C' encoding 'UTF8' "+options)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD %s_s%d IN %[1]s NODE '%[3]s' NAME %[1]s_n%[2]d", database, i, node.DSN(name)))
	}
	return connectTo(t, dsnFor("app", "app", d.Server.Addr(), database)), connectTo(t, d.cluster.Node("s1-a").DSN(database+"_0"))
}

// Where ICU sorts a database's text, its LC_COLLATE says nothing of the order.
func TestADatabaseOfICUIsNotSortedByBytes(t *testing.T) {
	t.Parallel()
	d := shop(t)
	if queryOne[int](t, connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), "select current_setting('server_version_num')::int") < 150000 {
		t.Fatal("no database has ICU's order before PostgreSQL 15: install 15 or later")
	}
	c, one := collated(t, d, "icuwise", 2, "locale_provider icu icu_locale 'en-US'")
	mustExec(t, c, "create table words (id bigint primary key, name text)")
	mustExec(t, one, "create table public.oracle (id bigint primary key, name text)")
	d.adminExec(t, "CREATE GROUP g IN icuwise KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE icuwise.public.words IN GROUP g KEY (id)")
	for conn, table := range map[*pgx.Conn]string{c: "words", one: "oracle"} {
		mustExec(t, conn, "insert into "+table+" select i, chr(case when i % 2 > 0 then 96 else 64 end + i % 13) from generate_series(1, 40) i")
	}
	for _, sql := range []string{"select min(name), max(name) from %s", "select name from %s order by name || 'x' limit 9", "select id from %s order by name, id limit 9"} {
		want, got := ask2(t, one, fmt.Sprintf(sql, "oracle"), pgx.QueryExecModeExec), ask2(t, c, fmt.Sprintf(sql, "words"), pgx.QueryExecModeExec)
		if why := differs(sql, want, got); why != "" {
			t.Errorf("%s: %s", sql, why)
		}
	}
}

// In a database that sorts by bytes, text that a statement gives another collation, somewhere inside, is sorted and grouped by that.
func TestCollationsInsideOfExpressionsAreFollowed(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c, one := collated(t, d, "bytewise", 3, "")
	mustExec(t, c, `create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
	mustExec(t, c, `create domain spoken as text collate "und-x-icu"`)
	mustExec(t, c, "create table words (id bigint primary key, name text)")
	mustExec(t, one, "create table public.oracle (id bigint primary key, name text)")
	mustExec(t, c, "create schema odd")
	mustExec(t, c, `create collation odd."C" (provider = icu, locale = 'und')`)
	mustExec(t, c, `create type spot as (n int, city text collate "und-x-icu", near text collate nocase)`)
	mustExec(t, c, "create function say(text) returns spoken language sql immutable as 'select $1'")
	const columns = ` (id bigint primary key, w spoken, tags text[] collate "und-x-icu", a spot, o text collate odd."C")`
	mustExec(t, c, "create table said"+columns)
	mustExec(t, one, "create table public.said_oracle"+columns)
	d.adminExec(t, "CREATE GROUP g IN bytewise KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE bytewise.public.words IN GROUP g KEY (id)")
	for conn, table := range map[*pgx.Conn]string{c: "words", one: "oracle"} {
		mustExec(t, conn, "insert into "+table+" select i, case when i % 2 > 0 then chr(96 + i % 13) else chr(64 + i % 13) end from generate_series(1, 40) i")
	}
	for conn, table := range map[*pgx.Conn]string{c: "said", one: "said_oracle"} {
		mustExec(t, conn, "insert into "+table+` select i, x, array[x], row(i, x, case when i % 3 > 0 then 'b' else 'B' end)::spot, x
			from (select i, case when i % 2 > 0 then chr(96 + i % 13) else chr(64 + i % 13) end as x from generate_series(1, 40) i) s`)
	}
	d.adminExec(t, "DISTRIBUTE TABLE bytewise.public.said IN GROUP g KEY (id)")
	for _, sql := range []string{
		"select min(name), max(name) from %s",
		`select min(name collate "und-x-icu"), max(name collate "und-x-icu") from %s`,
		"select min(name::spoken), max(name::spoken) from %s",
		`select id from %s order by lower(name collate "und-x-icu") || name, id limit 9`,
		`select name from %s order by coalesce(name collate "und-x-icu", '') limit 7`,
		"select id from %s order by (name::spoken) || '', id limit 9",
		`select s.n || '' from (select name collate "und-x-icu" as n from %s) s order by s.n || '' limit 9`,
		`select name || ('x' collate "und-x-icu"), count(*) from %s group by 1 order by 1 limit 9`,
		`select upper(name), count(*) from %s group by 1 order by upper(name) collate "C" desc limit 3`,
		"select name from %s order by name || 'x' limit 3",
		`select id from %s order by name::name collate "und-x-icu", id limit 9`,
		"select id from %s order by name::name, id limit 9",
	} {
		want, got := ask2(t, one, fmt.Sprintf(sql, "oracle"), pgx.QueryExecModeExec), ask2(t, c, fmt.Sprintf(sql, "words"), pgx.QueryExecModeExec)
		if why := differs(sql, want, got); why != "" {
			t.Errorf("%s: %s", sql, why)
		}
	}
	for _, sql := range []string{
		"select min(w), max(w) from %s", "select min(tags[1]), max(tags[1]) from %s", "select min((a).city), max((a).city) from %s", "select max(w::text) from %s", "select max(coalesce(w, 'x')) from %s",
		"select max(x) from (select w::text as x from %s) s", "select max(x) from %s, unnest(tags) x", "select max(say(id::text || (a).n)) from %s", "select max(say(chr(60 + id::int))) from %s",
		"select w from %s order by upper(w), id limit 7", "select id from %s order by tags[1], id limit 7", "select id, tags[1] || 'x' from %s order by 2, 1 limit 5", "select id from %s order by (a).city, id limit 7",
		"select id from %s order by w::text, id limit 3", "select id from %s order by array_to_string(tags, ','), id limit 3", "select tags[1], count(*) from %s group by tags[1] order by 1",
		"select upper(w), count(*) from %s group by upper(w) order by 1", "select id from %s order by say(chr(60 + id::int)), id limit 7", "select min(o), max(o) from %s", "select id from %s order by o, id limit 5",
		`select id from %s order by w collate odd."C", id limit 5`, `select id from %s order by w collate pg_catalog."C", id limit 5`, `select id from %s order by w collate "C", id limit 5`,
		`select min(w collate "C"), max(w collate "C") from %s`, `select count(distinct (a).near) from %s`, `select count(*) from (select (a).near from %s group by 1) s`, `select max(n) from (select (a).near, count(*) as n from %s group by 1) s`,
	} {
		want, got := ask2(t, one, fmt.Sprintf(sql, "said_oracle"), pgx.QueryExecModeExec), ask2(t, c, fmt.Sprintf(sql, "said"), pgx.QueryExecModeExec)
		if why := differs(sql, want, got); why != "" {
			t.Errorf("%s: %s", sql, why)
		}
	}
	for _, table := range []string{"said", "said_oracle"} { // which of equal texts a group shows is any
		conn := map[string]*pgx.Conn{"said": c, "said_oracle": one}[table]
		if rows := ask2(t, conn, "select (a).near, count(*) from "+table+" group by (a).near", pgx.QueryExecModeExec).rows; len(rows) != 1 {
			t.Errorf("%s: groups %v, want one", table, rows)
		}
	}
	counts := func(conn *pgx.Conn, table string) (out []string) { // which of equal texts a group shows is any
		for _, row := range ask2(t, conn, "select name collate nocase, count(*) from "+table+" group by 1", pgx.QueryExecModeExec).rows {
			out = append(out, strings.ToLower(row))
		}
		slices.Sort(out)
		return out
	}
	if got, want := counts(c, "words"), counts(one, "oracle"); !slices.Equal(got, want) {
		t.Errorf("groups %v, want %v", got, want)
	}
	for sql, want := range map[string]string{"select max(name) from words": "Scatter", `select max(name collate "und-x-icu") from words`: "Gather"} {
		if got := simply(t, c, "explain (route) "+sql); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}
