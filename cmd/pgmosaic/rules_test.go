package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// wantRule wants a refusal by a rule. TestGoldenPlans counts its calls, and the tables that say rule: "..", as proof that the rule is shown.
func wantRule(t testing.TB, err error, rule, code string) {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Detail != "pgmosaic rule: "+rule || pe.Code != code {
		if pe != nil {
			err = fmt.Errorf("%w, detail %q", err, pe.Detail)
		}
		t.Errorf("error %v, want rule %s and SQLSTATE %s", err, rule, code)
	}
}

// Rules that need a server or a session: the golden files of testdata/plan cannot show them.
func TestRulesOfRefusal(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := keysOn(t, d, 1) // of both shards
	keys := strings.NewReplacer("$1", itoa(k1), "$2", itoa(k2))
	for _, x := range []struct {
		rule, code string
		before     []string
		sql        string
	}{
		{rule: "order-type", code: "0A000", sql: "select * from customers order by (customer_id || ' days')::interval for update"}, // copies would not be locked
		{rule: "order-collation", code: "0A000", sql: `select * from customers order by name collate "und-x-icu" for update`},
		{rule: "insert-split", code: "0A000", sql: "insert into customers values ($1, (select 'a'), 'x', 'DE', '2026-01-01'), ($2, 'b', 'x', 'DE', '2026-01-01')"},
		{rule: "encoding", code: "0A000", sql: "set client_encoding = 'LATIN1'"},
		{rule: "strings", code: "0A000", sql: "set standard_conforming_strings = off"},
		{rule: "explain", code: "0A000", sql: "explain (format json) select count(*) from customers"},
		{rule: "explain", code: "0A000", sql: "explain analyze update customers set name = name where customer_id < 0"},
		{rule: "prepare", code: "0A000", before: []string{"prepare p (bigint) as select * from customers where customer_id = $1"}, sql: "execute p (1 + 1)"},
		{rule: "prepare", code: "0A000", before: []string{"prepare p as select count(*) from customers"}, sql: "explain execute p"},
		{
			rule: "two-bound", code: "0A000",
			before: []string{"begin read only", "set pgmosaic.shard = s1", "select pg_notify('rules', '')", "set pgmosaic.shard = s2", "select pg_notify('rules', '')"},
			sql:    "commit",
		},
		{
			rule: "no-two-phase", code: "0A000",
			before: []string{"set pgmosaic.multi_shard_commit = refuse", "begin", "update customers set name = name where customer_id = $1"},
			sql:    "update customers set name = name where customer_id = $2",
		},
		{
			rule: "isolation", code: "0A000",
			before: []string{"begin isolation level repeatable read", "select * from customers where customer_id = $1"},
			sql:    "select * from customers where customer_id = $2",
		},
		{
			rule: "isolation", code: "0A000",
			before: []string{"begin", "select * from customers where customer_id in ($1, $2)"},
			sql:    "set transaction isolation level serializable",
		},
		{rule: "session-state", code: "0A000", sql: "set session authorization app"},
		{rule: "fanout", code: "0A000", before: []string{"set pgmosaic.fanout = single"}, sql: "update customers set name = name where customer_id < 0"},
		{rule: "gather-lock", code: "0A000", before: []string{"begin", "truncate settings"}, sql: gathered},
		{rule: "gather-lock", code: "0A000", before: []string{"begin", "truncate settings"}, sql: "insert into customers select customer_id + 1, name, email, country, created_at from customers"},
	} {
		t.Run(x.rule+"/"+x.sql, func(t *testing.T) {
			c := connectTo(t, d.shopDSN())
			for _, sql := range x.before {
				if !strings.HasPrefix(sql, "prepare") {
					sql = keys.Replace(sql)
				}
				mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
			}
			_, err := c.Exec(t.Context(), keys.Replace(x.sql), pgx.QueryExecModeSimpleProtocol)
			wantRule(t, err, x.rule, x.code)
		})
	}
}

// Reasons for which the rows of several shards do not merge by their types, which a server tells: the rows are gathered.
func TestReasonsByType(t *testing.T) {
	t.Parallel()
	c := connectTo(t, shop(t).shopDSN())
	for _, x := range []struct{ rule, sql string }{
		{rule: "group-type", sql: "select (customer_id || ' days')::interval, count(*) from customers group by 1"},
		{rule: "aggregate-type", sql: "select max((customer_id || ' days')::interval) from customers"},
		{rule: "order-type", sql: "select * from customers order by (customer_id || ' days')::interval"},
		{rule: "order-collation", sql: `select * from customers order by name collate "und-x-icu"`},
	} {
		mustExec(t, c, x.sql)
		rows, err := c.Query(t.Context(), "explain (route) "+x.sql, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Errorf("%s: %v", x.sql, err)
		} else if !strings.HasPrefix(lines[0], "Gather on s1 ("+x.rule+": ") {
			t.Errorf("%s: %q, want rule %s", x.sql, lines[0], x.rule)
		}
	}
}

// A database of the map that has no shard takes nobody in.
func TestDatabaseWithoutShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE shardless")
	t.Cleanup(func() { d.forget(t, "shardless") })
	c, err := pgx.Connect(t.Context(), dsnFor("app", "app", d.Server.Addr(), "shardless"))
	if err == nil {
		_ = c.Close(t.Context())
	}
	wantRule(t, err, "no-shard", "3D000")
}

// What all shards have in common does not change while one of them joins. A transaction that has a server does not wait for the end.
func TestJoiningShardIsNotOvertaken(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "overtaken")
	mustExec(t, c, "create table codes (code text primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE overtaken.public.codes AS REFERENCE")
	if _, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error {
		return tx.PutAttempt(shardmap.Attempt{ID: "joins", Database: "overtaken", Statement: "CREATE SHARD overtaken_s3", Step: shardmap.Joining})
	}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error { return tx.EndAttempt("joins") }); err != nil {
			t.Error(err)
		}
	}()
	mustExec(t, c, "begin; select from pg_class limit 0", pgx.QueryExecModeSimpleProtocol)
	_, err := c.Exec(t.Context(), "insert into codes values ('DE')")
	wantRule(t, err, "joining", "55006")
	mustExec(t, c, "rollback")
}

// Refuse panics where there is no such rule, and its message lacks what a call does not give: each call names a constant, each constant is in
// the catalogue, and something raises it.
func TestRulesAreConstants(t *testing.T) {
	t.Parallel()
	constants, raised, calls := map[string]*router.RuleInfo{}, map[string]bool{}, map[string]*ast.CallExpr{}
	sources(t, func(path string, set *token.FileSet, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if unqualified(n.Type) != "Rule" || len(n.Values) == 0 {
					return true
				}
				value, err := strconv.Unquote(n.Values[0].(*ast.BasicLit).Value)
				constants[n.Names[0].Name] = router.InfoOf(router.Rule(value))
				if err != nil || constants[n.Names[0].Name] == nil {
					t.Errorf("%s: %s is not in the catalogue", path, n.Names[0].Name)
				}
			case *ast.CallExpr:
				if unqualified(n.Fun) == "Refuse" {
					calls[set.Position(n.Pos()).String()] = n
				}
			}
			return true
		})
	})
	for at, call := range calls {
		rule := unqualified(call.Args[0])
		info := constants[rule]
		if info == nil {
			t.Errorf("%s: Refuse takes one of the constants RuleX", at)
		} else if want := strings.Count(info.Message, "%s"); len(call.Args)-1 != want {
			t.Errorf("%s: the message of %s takes %d arguments", at, rule, want)
		}
		raised[rule] = true
	}
	for name := range constants {
		if !raised[name] {
			t.Errorf("nothing raises %s: take it off", name)
		}
	}
}

// A SQLSTATE is called by its name: the codes themselves stand in proxy/pgsql.
func TestSQLSTATEsHaveNames(t *testing.T) {
	t.Parallel()
	code := regexp.MustCompile(`^"[0-9A-Z]*[0-9][0-9A-Z]*"$`)
	sources(t, func(path string, set *token.FileSet, f *ast.File) {
		if strings.HasPrefix(path, "proxy/pgsql/") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && len(l.Value) == 7 && code.MatchString(l.Value) {
				t.Errorf("%s: %s has a name in proxy/pgsql, or gets one there", set.Position(l.Pos()), l.Value)
			}
			return true
		})
	})
}

// unqualified is Name of Name and of package.Name; otherwise nothing.
func unqualified(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	}
	return ""
}
