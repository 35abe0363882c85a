package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	views "github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// sources parses what the program is made of, tests left out.
func sources(t *testing.T, see func(path string, set *token.FileSet, f *ast.File)) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(set, path, nil, 0)
		if err == nil {
			see(strings.TrimPrefix(filepath.ToSlash(path), "../../"), set, f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// doors are the files that may connect to a PostgreSQL server, with the reason.
var doors = map[string]string{
	"proxy/nodeconn/nodeconn.go":   "the proxy's own connections",
	"proxy/pool/dial.go":           "clients' servers",
	"proxy/demo/demo.go":           "it speaks to the proxy, as a client does",
	"cmd/benchmark/main.go":        "it speaks to the proxy, as a client does",
	"replication/cluster/node.go":  "it starts and stops local servers",
	"testdata/orm/gorm/main.go":    "a client of the proxy",
	"testdata/orm/migrate/main.go": "a client of the proxy",
}

// What the proxy does on a node on its own account goes over connections that nodeconn has opened: it alone sees to it that no
// object of a user's is met there.
func TestNothingElseConnectsToNodes(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	sources(t, func(path string, _ *token.FileSet, f *ast.File) {
		names := map[string]bool{} // of the libraries that connect, in this file
		for _, i := range f.Imports {
			p, _ := strconv.Unquote(i.Path.Value) // it has been parsed
			base := filepath.Base(strings.TrimSuffix(p, "/v5"))
			if !strings.HasPrefix(p, "github.com/jackc/pgx") && p != "database/sql" {
				continue
			}
			if i.Name != nil {
				base = i.Name.Name
			}
			names[base] = true
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && names[x.Name] && (strings.HasPrefix(s.Sel.Name, "Connect") && !strings.HasSuffix(s.Sel.Name, "Error") || s.Sel.Name == "Open" || strings.HasPrefix(s.Sel.Name, "NewWith")) {
				found[path] = true
				if doors[path] == "" {
					t.Errorf("%s calls %s.%s: connections to nodes are opened by proxy/nodeconn", path, x.Name, s.Sel.Name)
				}
			}
			return true
		})
	})
	for _, path := range []string{"proxy/nodeconn/nodeconn.go", "proxy/pool/dial.go", "proxy/demo/demo.go"} {
		if !found[path] {
			t.Errorf("%s does not connect: the search finds nothing", path)
		}
	}
}

var (
	callName   = regexp.MustCompile(`([a-z_][a-z_0-9]*) *\(`)
	wordIn     = regexp.MustCompile(`[a-z_][a-z_0-9]*`)
	operatorIn = regexp.MustCompile("[-+*/<>=~!@#%^&|`?]+")
)

// sqlNames are the words before a parenthesis and the operators in the program's strings: all functions and operators that its
// SQL names are among them.
func sqlNames(t *testing.T) (functions, operators []string) {
	t.Helper()
	fn, op := map[string]bool{}, map[string]bool{}
	sources(t, func(_ string, _ *token.FileSet, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return true
			}
			s, _ := strconv.Unquote(l.Value) // it has been parsed
			for _, m := range callName.FindAllStringSubmatch(strings.ToLower(s), -1) {
				fn[m[1]] = true
			}
			for _, m := range operatorIn.FindAllString(s, -1) {
				op[m] = true
			}
			return true
		})
	})
	for n := range fn {
		functions = append(functions, n)
	}
	for n := range op {
		operators = append(operators, n)
	}
	slices.Sort(functions)
	slices.Sort(operators)
	return functions, operators
}

// shadowMark is what a shadow writes into the server's log when it runs.
const shadowMark = "A SHADOW RAN: "

// shadowTypes are the types that the proxy's SQL has to do with.
var shadowTypes = []string{
	"name", "text", "oid", "int4", "int8", "int2", "bool", `"char"`, "regclass", "pg_lsn", "timestamptz", "interval", "text[]", "name[]", "int4[]", "int2vector",
}

// operandTypes are more of them, for operators: each meets itself, its array and its element, and oid those that stand for one.
var operandTypes = []string{"bytea", "xid", "xid8", "regproc", "regtype", "regrole", "regnamespace", "numeric", "float8", "jsonb", `"char"[]`, "oid[]", "int2[]", "int8[]", "oidvector"}

// mayMeet says whether the program's SQL has to do with an operator between two types.
func mayMeet(l, r string) bool {
	old := func(typ string) bool { return slices.Contains(shadowTypes, typ) }
	common := func(typ string) bool { return slices.Contains([]string{"name", "text", "int4", "int8"}, typ) }
	switch {
	case l == r, old(l) && old(r) && (common(l) || common(r)):
		return true
	case l == "oid" || r == "oid":
		return strings.HasPrefix(l, "reg") || strings.HasPrefix(r, "reg")
	}
	return l+"[]" == r || r+"[]" == l
}

// shadows are statements that make, in a schema, functions and operators which fit the calls in the program's SQL better than
// PostgreSQL's own, or with same as well as them, and then relations and types that have the names of PostgreSQL's.
func shadows(t *testing.T, c *pgx.Conn, schema string, same bool) (out []string) {
	t.Helper()
	functions, operators := sqlNames(t)
	made := map[string]bool{}
	shadow := func(name, returns string, args []string) string {
		sig := fmt.Sprintf(`%s.%q(%s)`, schema, name, strings.Join(args, ", "))
		if made[sig] {
			return sig
		}
		made[sig] = true
		out = append(out, fmt.Sprintf(`create or replace function %s returns %s language plpgsql as $shadow$ begin raise log '%s%% by %% for %%', %s, current_user, pg_catalog.current_setting('application_name'); %s end $shadow$`,
			sig, returns, shadowMark, "'"+strings.ReplaceAll(sig, "'", "''")+"'", map[bool]string{true: "return;", false: "return null;"}[strings.HasPrefix(returns, "setof")]))
		return sig
	}
	usable := func(typ string) bool {
		return !slices.Contains([]string{"internal", "cstring", "record", `"any"`, "void", "trigger", "event_trigger", "language_handler", "anyenum", "record[]", "cstring[]"}, typ) && !strings.HasPrefix(typ, "any") && !strings.HasPrefix(typ, "fdw") && !strings.HasSuffix(typ, "_handler")
	}
	polymorphic := func(typ string) bool { // of which a user's function may be
		return strings.HasPrefix(typ, "any") && typ != "any" && typ != "anyenum"
	}
	rows, _ := c.Query(t.Context(), `select proname::text, array(select format_type(x, null) from unnest(proargtypes) x)::text[], format_type(prorettype, null), proretset, provariadic <> 0
		from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proname = any($1) and prokind <> 'p'`, functions)
	type proc struct {
		Name          string
		Args          []string
		Returns       string
		Set, Variadic bool
	}
	procs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[proc])
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	for _, p := range procs {
		exists[p.Name+"("+strings.Join(p.Args, ", ")+")"] = true
	}
	for _, p := range procs {
		returns := p.Returns
		if !usable(returns) {
			returns = "text"
		}
		if p.Set {
			returns = "setof " + returns
		}
		whatever := slices.Contains(p.Args, `"any"`) // no user's function takes that: one for the types in use fits better
		if same && !whatever && !slices.ContainsFunc(p.Args, func(a string) bool { return !usable(a) && !polymorphic(a) }) {
			args := slices.Clone(p.Args)
			if p.Variadic {
				args[len(args)-1] = "variadic " + args[len(args)-1]
			}
			if polymorphic(p.Returns) {
				returns = map[bool]string{true: "setof ", false: ""}[p.Set] + p.Returns
			}
			shadow(p.Name, returns, args)
		}
		if same && !whatever {
			continue
		}
		for _, typ := range shadowTypes {
			args := slices.Clone(p.Args)
			for i, a := range args {
				switch {
				case p.Variadic && i == len(args)-1:
					args[i] = "variadic " + strings.TrimSuffix(typ, "[]") + "[]"
				case strings.HasSuffix(a, "array") && strings.HasPrefix(a, "any") || a == "anyarray":
					args[i] = strings.TrimSuffix(typ, "[]") + "[]"
				case a == "text" || a == "name" || strings.HasPrefix(a, "any"):
					args[i] = typ
				}
			}
			if slices.ContainsFunc(args, func(a string) bool { return !usable(a) }) || slices.Equal(args, p.Args) {
				continue
			}
			shadow(p.Name, returns, args)
		}
	}
	rows, _ = c.Query(t.Context(), `select oprname::text, format_type(oprleft, null), format_type(oprright, null), format_type(oprresult, null) from pg_operator where oprnamespace = 'pg_catalog'::regnamespace and oprname = any($1) and oprkind = 'b'`, operators)
	type operator struct{ Name, Left, Right, Returns string }
	ops, err := pgx.CollectRows(rows, pgx.RowToStructByPos[operator])
	if err != nil {
		t.Fatal(err)
	}
	has, result := map[operator]bool{}, map[string]string{}
	for _, o := range ops {
		if usable(o.Returns) {
			result[o.Name] = o.Returns
		}
		has[operator{o.Name, o.Left, o.Right, ""}] = true
	}
	types := slices.Concat(shadowTypes, operandTypes)
	for name := range result {
		for _, l := range types {
			for _, r := range types {
				if !mayMeet(l, r) || has[operator{name, canonical(l), canonical(r), ""}] != same {
					continue
				}
				fn := fmt.Sprintf("op %s", name)
				shadow(fn, result[name], []string{l, r})
				out = append(out, fmt.Sprintf("create operator %s.%s (leftarg = %s, rightarg = %s, function = %s.%q)", schema, name, l, r, schema, fn))
			}
		}
	}
	rows, _ = c.Query(t.Context(), `select oprname::text, '', format_type(oprright, null), format_type(oprresult, null) from pg_operator where oprnamespace = 'pg_catalog'::regnamespace and oprname = any($1) and oprkind = 'l'`, operators)
	prefixes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[operator])
	if err != nil {
		t.Fatal(err)
	}
	clear(result)
	for _, o := range prefixes {
		if usable(o.Returns) {
			result[o.Name] = o.Returns
		}
		has[operator{o.Name, "", o.Right, ""}] = true
	}
	for name := range result {
		for _, r := range types {
			if has[operator{name, "", canonical(r), ""}] == same {
				fn := "prefix " + name
				shadow(fn, result[name], []string{r})
				out = append(out, fmt.Sprintf("create operator %s.%s (rightarg = %s, function = %s.%q)", schema, name, r, schema, fn))
			}
		}
	}
	if same {
		out = append(out, namesakes(t, c, schema)...)
	}
	return out
}

// namesakes are statements that make, in a schema, a view with the name of each relation, and a domain with that of each type, of PostgreSQL's whose name
// is in the program's SQL.
func namesakes(t *testing.T, c *pgx.Conn, schema string) (out []string) {
	t.Helper()
	words := map[string]bool{}
	sources(t, func(_ string, _ *token.FileSet, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				for _, w := range wordIn.FindAllString(strings.ToLower(l.Value), -1) {
					words[w] = true
				}
			}
			return true
		})
	})
	out = append(out, fmt.Sprintf(`create function %s.namesake(what text) returns bool language plpgsql as $shadow$ begin raise log '%s%% by %% for %%', what, current_user, pg_catalog.current_setting('application_name'); return true; end $shadow$`, schema, shadowMark))
	rows, _ := c.Query(t.Context(), `select c.relname::text, '' from pg_class c where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v') and c.relname = any($1)
		and not exists (select from pg_attribute a where a.attrelid = c.oid and a.atttypid = 'anyarray'::regtype)
		union all select quote_ident(typname), 'type' from pg_type where typnamespace = 'pg_catalog'::regnamespace and typtype = 'b' and typelem = 0 and typname = any($1)`, slices.Collect(maps.Keys(words)))
	type named struct{ Name, Kind string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[named])
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		if x.Kind == "type" {
			out = append(out, fmt.Sprintf("create domain %[1]s.%[2]s as pg_catalog.%[2]s check (%[1]s.namesake('the type %[2]s'))", schema, x.Name))
		} else {
			out = append(out, fmt.Sprintf("create view %[1]s.%[2]s as select * from pg_catalog.%[2]s where %[1]s.namesake('the relation %[2]s')", schema, x.Name))
		}
	}
	return out
}

// canonical is a type's name as PostgreSQL prints it.
func canonical(typ string) string {
	for short, long := range map[string]string{"int4": "integer", "int8": "bigint", "int2": "smallint", "bool": "boolean", "float8": "double precision", "timestamptz": "timestamp with time zone"} {
		if strings.TrimSuffix(typ, "[]") == short {
			return long + strings.TrimPrefix(typ, short)
		}
	}
	return typ
}

// makeShadows makes them on a server as a user.
func makeShadows(t *testing.T, dsn string, schemas []string, same bool) {
	t.Helper()
	c := connectTo(t, dsn)
	simply(t, c, "set search_path = pg_catalog; set check_function_bodies = off")
	for _, s := range schemas {
		mustExec(t, c, "create schema if not exists "+s)
		list := shadows(t, c, s, same)
		if len(list) < 300 {
			t.Fatalf("only %d shadows: the search finds too little", len(list))
		}
		t.Logf("%d shadows in schema %s", len(list), s)
		for part := range slices.Chunk(list, 400) {
			if _, err := c.PgConn().Exec(t.Context(), strings.Join(part, "; ")).ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// shadowsRan are the shadows that ran on a demo's servers.
func shadowsRan(t *testing.T, d *demo) []string {
	t.Helper()
	seen := map[string]bool{}
	for _, n := range d.cluster.Nodes() {
		b, err := os.ReadFile(n.Log())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(b), "\n") {
			if _, what, ok := strings.Cut(line, shadowMark); ok {
				seen[what] = true
			}
		}
	}
	var out []string
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// Whatever functions and operators a user makes, in public or in a schema of the name of the nodes' role, the proxy's own
// statements never run one: they run with the rights of that role, often a superuser's.
func TestNoStatementOfTheProxyRunsAUsersCode(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true, Monitor: 100 * time.Millisecond})
	third, err := d.cluster.Primary(t.Context(), "s3-a")
	if err != nil {
		t.Fatal(err)
	}
	root := map[string]*pgx.Conn{}
	for _, sql := range []string{"CREATE ROLE app LOGIN PASSWORD 'app'", "CREATE DATABASE shop OWNER app"} {
		if err := third.Exec(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"s1-a", "s2-a", "s3-a"} {
		node := d.cluster.Node(n)
		root[n] = connectTo(t, node.DSN("shop"))
		mustExec(t, root[n], "grant create on schema public to app")
		makeShadows(t, dsnFor("app", "app", fmt.Sprintf("127.0.0.1:%d", node.Port), "shop"), []string{"public", "postgres"}, false)
	}
	// They do run: without the path that the proxy's connections have, what it once asked would be theirs.
	bare := root["s1-a"]
	if _, err := bare.Exec(t.Context(), "select n.nspname || '.' || n.nspname from pg_namespace n limit 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := bare.Exec(t.Context(), "select - n.nspname from pg_namespace n limit 1"); err != nil {
		t.Fatal(err)
	}
	if ran := shadowsRan(t, d); len(ran) != 2 {
		t.Fatalf("shadows that ran without the proxy: %q", ran)
	}

	defer func() {
		if ran := shadowsRan(t, d); len(ran) != 2 {
			t.Errorf("a user's code ran:\n%s", strings.Join(ran, "\n"))
		}
	}()
	var driven []string
	admin := func(list ...string) {
		t.Helper()
		for _, sql := range list {
			d.adminExec(t, sql)
			driven = append(driven, sql)
		}
	}
	c := connectTo(t, d.shopDSN()+"?default_query_exec_mode=simple_protocol")
	k1, k2 := keysOn(t, d, 1)
	mustExec(t, c, "insert into countries values ('DE', 'Germany')")
	insert := "insert into customers values (%d, 'a', 'x', 'DE', '2026-01-01')"
	for _, sql := range []string{
		"create type mood as enum ('low', 'high')", "create domain short as text", "create schema apart",
		"create table felt (id bigserial primary key, key bigint not null, how mood, word short, unique (id, key))", "create table plain (id int, word text)", "create view feelings as select id, how from felt", "alter table felt force row level security",
		"insert into felt (key, how, word) values (1, 'low', 'a'), (2, 'high', 'b'), (3, null, null), (4, 'low', 'd')", "insert into plain values (1, 'x')",
		fmt.Sprintf(insert, k1), fmt.Sprintf(insert, k2),
		"create table late (id int primary key, word text)", "create function steady(a bigint) returns bigint stable language sql as 'select a operator(pg_catalog.+) 1'", "create table apart.things (id int primary key, word text)", "insert into apart.things values (1, 'x')",
	} {
		simply(t, c, sql)
	}
	for _, n := range []string{"s1-a", "s2-a"} { // the third lacks it
		simply(t, root[n], "create role lonely; grant lonely to app")
	}
	admin(
		"CREATE GROUP felts IN shop KEY (bigint) BY RANGE (MINVALUE TO (3) ON s1, (3) TO MAXVALUE ON s2)", "DISTRIBUTE TABLE shop.public.felt IN GROUP felts KEY (key) ALLOW LOCAL UNIQUE", "DISTRIBUTE TABLE shop.public.plain AS REFERENCE",
		"DISTRIBUTE SCHEMA shop.apart ON s2", "ALTER GROUP felts IN shop SPLIT AT (7)", "PIN KEY (900000) OF shop.customers ON s2", "UNPIN KEY (900000) OF shop.customers", "PIN KEY (900000) OF shop.customers ON s2",
		"CREATE GROUP listed IN shop KEY (text) BY LIST (('a', 'b') ON s1, ('c') ON s2)", "ALTER GROUP listed IN shop ADD VALUES ('d') ON s2", "DROP GROUP listed IN shop", "CREATE GROUP hashed IN shop KEY (bigint) BY HASH", "DROP GROUP hashed IN shop",
		"ALTER SHARD s2 IN shop DROP NODE \"s2-b\"", "ALTER SHARD s2 IN shop ADD NODE '"+d.cluster.Node("s2-b").DSN("shop")+"' NAME \"s2-b\"", "ALTER SHARD s2 IN shop ALTER NODE \"s2-b\" '"+strings.Replace(d.cluster.Node("s2-b").DSN("shop"), "127.0.0.1", "localhost", 1)+"'",
		"ALTER SHARD s2 IN shop SET PRIMARY \"s2-a\"", "ALTER SHARD s1 IN shop ADOPT", "ALTER SHARD s2 IN shop ADOPT",
		"CREATE SHARD s3 IN shop NODE '"+third.DSN("shop")+"' NAME s3a", "ALTER SHARD s3 IN shop ADOPT", "ALTER ROUTINE shop.public.steady SHARD SAFE", "ALTER ROUTINE shop.public.steady NOT SHARD SAFE",
		"LOCATE KEY (4) OF shop.felts", "EXPLAIN ROUTE IN shop select id from felt", "VERIFY SCHEMA IN shop", "CREATE DATABASE more", "DROP DATABASE more",
	)
	eventually(t, "the shards are up", func() bool {
		return !slices.ContainsFunc(d.Catalog.Current().Databases["shop"].Shards, func(s *shardmap.ShardInfo) bool { return !d.Monitor.View("shop", s.Name).Up() })
	})
	for _, n := range []string{"s1-a", "s2-a"} { // as an older version made it
		mustExec(t, root[n], "alter table pgmosaic.identity drop column attempt")
	}
	if err := d.Mover.RunUpgrade(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	// A statement that is cancelled is undone.
	for _, sql := range []string{"begin", "lock table late"} {
		simply(t, c, sql)
	}
	undone, cancelled := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := d.Admin.Exec(undone, "DISTRIBUTE TABLE shop.public.late AS REFERENCE", false)
		ended <- err
	}()
	eventually(t, "it is under way", func() bool { return len(d.Catalog.Current().Document.Attempts) > 0 })
	cancelled()
	if err := <-ended; err == nil {
		t.Error("a statement that was cancelled has succeeded")
	}
	simply(t, c, "rollback")
	eventually(t, "it is undone", func() bool { return len(d.Catalog.Current().Document.Attempts) == 0 })
	other := connectTo(t, d.shopDSN()+"?default_query_exec_mode=simple_protocol")
	mustExec(t, other, "listen heard")
	for _, sql := range []string{
		"insert into felt (key, how) values (2, 'high'), (5, 'low')", "begin; insert into felt (key, how) values (2, 'high'), (5, 'low'); commit", "insert into plain values (2, 'y')", "update plain set word = 'z'",
		"select id, how, word from felt order by id", "select how from felt f, (select id from felt offset 0) g", "explain select id from felt", "explain (route) select id from felt", "alter table felt rename to sensed", "alter table sensed rename to felt",
		"alter table felt add column more int", "create index on felt (how)", "notify heard, 'you'", "copy felt (key, how) from stdin", "set pgmosaic.read_consistency = 'strong'; select id from felt where key = 2; reset all", "do $$ begin end $$",
		"create temporary table t (id int); insert into t values (1); drop table t", "truncate plain", "insert into plain select more, word from felt", "discard all",
	} {
		if strings.HasPrefix(sql, "copy") {
			if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\tlow\n6\thigh\n"), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			continue
		}
		simply(t, c, sql)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if n, err := other.WaitForNotification(ctx); err != nil || n.Payload != "you" {
		t.Fatalf("%v, %v", n, err)
	}
	ringIsBroken(t, connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN()), "update customers set name = 'x' where customer_id = %d", k1, k2)
	left := connectTo(t, d.cluster.Node("s2-a").DSN("shop")) // a part that no process will finish: the resolver does
	gid := "pgmosaic:" + d.Catalog.Current().Install + ":s1:00000000000000000000000000000000"
	simply(t, left, "begin; insert into pgmosaic.decision (gid, outcome) values ('"+gid+"/0', 'part'); prepare transaction '"+gid+"/0'")
	r := d.Resolver()
	r.Grace = time.Second
	eventually(t, "the part is finished", func() bool {
		if err := r.Resolve(t.Context(), d.ShardsOf(d.Catalog.Current().Databases["shop"])); err != nil {
			t.Fatal(err)
		}
		return simply(t, left, "select count(*) from pg_catalog.pg_prepared_xacts") == "0"
	})
	if err := r.Sweep(t.Context(), d.ShardsOf(d.Catalog.Current().Databases["shop"])); err != nil {
		t.Fatal(err)
	}
	// Who holds a turn is looked for when somebody has waited for it long enough.
	simply(t, other, "begin; create function held() returns int language sql as 'select 1'")
	mustExec(t, c, "set lock_timeout = '50ms'")
	if got := says(t, c, "create function late() returns int language sql as 'select 1'", pgx.QueryExecModeSimpleProtocol); got != "55P03" {
		t.Errorf("a definition beside another: %s", got)
	}
	simply(t, other, "rollback")
	simply(t, c, "alter table felt no force row level security")
	simply(t, root["s2-a"], "set session_replication_role = replica; update public.plain set word = 'differs'; reset session_replication_role")
	admin("VERIFY TABLE shop.public.felt", "VERIFY TABLE shop.public.plain", "VERIFY TABLE shop.apart.things", "VERIFY SCHEMA IN shop")
	for name := range views.Views {
		admin("SHOW " + strings.ToUpper(name))
	}
	admin("SHOW MAP AS SQL", "PAUSE shop SHARD s2", "RESUME shop SHARD s2", "RECONNECT shop", "DISABLE shop", "ENABLE shop",
		"UNDISTRIBUTE TABLE shop.public.felt", "UNDISTRIBUTE TABLE shop.public.plain", "UNDISTRIBUTE SCHEMA shop.apart", "DROP SHARD s3 IN shop")
	areDriven(t, driven)
	a := small(t, d, 2, func(cfg *config.Config) {
		cfg.AuthQuery = "select rolname, rolpassword from pg_authid where rolname || '' = $1 || ''"
		cfg.Users = []config.User{{Name: "admin", Password: "admin"}}
	})
	simply(t, connectTo(t, a.dsn()), "select id from felt")
	file := filepath.Join(t.TempDir(), "pgmosaic.yaml")
	if err := os.WriteFile(file, []byte("store: "+d.cfg.Store+"\nadmin_users: [admin]\nusers:\n  - name: admin\n    password: admin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), file, false, os.Stderr); err != nil {
		t.Fatal(err)
	}
	for n, s := range root {
		if queryOne[bool](t, s, "select rolsuper from pg_catalog.pg_roles where rolname operator(pg_catalog.=) 'app'") {
			t.Errorf("app is a superuser on %s", n)
		}
	}
}

// ownAffair are the admin's statements that ask no node anything.
var ownAffair = []string{"WAIT_CLOSE", "KILL", "KILL_CLIENT", "RELOAD", "SET", "SHUTDOWN"}

// areDriven fails a test in which a statement of HELP was not run: each of its alternatives, by the words that it begins with and has.
func areDriven(t *testing.T, driven []string) {
	t.Helper()
	optional, word := regexp.MustCompile(`\[[^][]*\]`), regexp.MustCompile(`\b[A-Z_]{2,}\b`)
	for _, s := range views.Statements() {
		text := s[0]
		for optional.MatchString(text) {
			text = optional.ReplaceAllString(text, "")
		}
		first := ""
		for _, alternative := range strings.Split(text, " | ") {
			words := word.FindAllString(alternative, -1)
			if first == "" {
				first, words = words[0], words[1:]
			}
			fits := "^" + first + `\b`
			for _, w := range words {
				fits += `.*\b` + w + `\b`
			}
			if !slices.Contains(ownAffair, first) && !slices.ContainsFunc(driven, regexp.MustCompile(fits).MatchString) {
				t.Errorf("no statement like %q is run: %s", alternative, fits)
			}
		}
	}
}

// What the proxy asks of a client's own server runs with the client's rights and search_path. It names schemas, so that it is
// PostgreSQL that answers, also where that path puts others' objects, or temporary ones, before PostgreSQL's.
func TestNoQuestionToAClientsServerRunsAUsersCode(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true})
	c := connectTo(t, d.shopDSN()+"?default_query_exec_mode=simple_protocol")
	k1, k2 := keysOn(t, d, 1)
	for _, sql := range []string{"create table plain (id int primary key, word text)", "create table sharded (key bigint primary key, how bigint)", fmt.Sprintf("insert into sharded values (%d, 1), (%d, 2)", k1, k2)} {
		simply(t, c, sql)
	}
	for _, sql := range []string{"DISTRIBUTE TABLE shop.public.plain AS REFERENCE", "DISTRIBUTE TABLE shop.public.sharded IN GROUP customers KEY (key)"} {
		d.adminExec(t, sql)
	}
	for _, n := range []string{"s1-a", "s2-a"} {
		makeShadows(t, dsnFor("app", "app", fmt.Sprintf("127.0.0.1:%d", d.cluster.Node(n).Port), "shop"), []string{"mine"}, true)
	}
	mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "alter role app set search_path = mine, public, pg_catalog")
	mustExec(t, connectTo(t, d.cluster.Node("s2-a").DSN("shop")), "alter role app set search_path = mine, public, pg_catalog")
	simply(t, c, "alter table plain add column more pg_catalog.text") // what new sessions begin with is read anew, too
	d.adminExec(t, "RECONNECT")
	defer func() {
		if ran := shadowsRan(t, d); len(ran) > 0 {
			t.Errorf("a user's code ran:\n%s", strings.Join(ran, "\n"))
		}
	}()
	c = connectTo(t, d.shopDSN()+"?default_query_exec_mode=simple_protocol")
	for _, sql := range []string{
		"select key from sharded order by key", fmt.Sprintf("insert into sharded values (%d, 1), (%d, 2)", k1+1000, k2+2000), fmt.Sprintf("begin; insert into sharded values (%d, 1); insert into sharded values (%d, 2); commit", k1+3000, k2+5000),
		"insert into plain values (1, 'x')", "set pgmosaic.read_consistency = 'strong'", "select key from sharded", "select s.key from sharded s, (select how from sharded offset 0) g", "explain select key from sharded",
		"begin", "do $$ begin set local datestyle to German; set local app.word to 'x'; end $$", fmt.Sprintf("insert into sharded values (%d, 1)", k1+7000), fmt.Sprintf("insert into sharded values (%d, 2)", k2+9000),
		"savepoint a", "do $$ begin set local datestyle to iso; end $$", "select key from sharded", "commit", // see spread
		"insert into plain select 7, 'y'", "do $$ begin end $$", "begin; create table other (id int); select id from other; commit", "alter table other rename to others",
		"create temporary table pg_settings (name text, setting text, source text); create temporary table pg_locks (pid int, locktype text)", "do $$ begin end $$", "select name from pg_temp.pg_settings", "discard all",
	} {
		simply(t, c, sql)
	}
}

// A user who makes the schema pgmosaic before the proxy does, with a default or trigger in it that would run with the rights of
// the proxy's role, is found out.
func TestASchemaOfOursThatAUserMadeIsRefused(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, n := range []string{"s1-a", "s2-a"} {
		freshDatabase(t, d.cluster.Node(n), "squat")
		c := connectTo(t, d.cluster.Node(n).DSN("postgres"))
		t.Cleanup(func() { _, _ = c.Exec(context.Background(), "drop database if exists squat with (force)") })
	}
	simply(t, connectTo(t, dsnFor("app", "app", fmt.Sprintf("127.0.0.1:%d", d.cluster.Node("s2-a").Port), "squat")), `create schema pgmosaic;
		create function pgmosaic.evil() returns timestamptz language plpgsql as $$ begin execute 'alter role app createdb'; return null; end $$;
		create view pgmosaic.identity as select 'a' as installation, 'b' as database, 'c' as shard where pgmosaic.evil() is null;
		create table pgmosaic.decision (gid text primary key, outcome text not null, parts text[], at timestamptz default pgmosaic.evil())`)
	d.adminExec(t, "CREATE DATABASE squat")
	d.adminExec(t, "CREATE SHARD q1 IN squat NODE '"+d.cluster.Node("s1-a").DSN("squat")+"'")
	t.Cleanup(func() {
		for _, sql := range []string{"DROP SHARD q1 IN squat", "DROP DATABASE squat"} {
			if _, err := d.Admin.Exec(context.Background(), sql, false); err != nil {
				t.Error(err)
			}
		}
	})
	_, err := d.Admin.Exec(t.Context(), "CREATE SHARD q2 IN squat NODE '"+d.cluster.Node("s2-a").DSN("squat")+"'", false)
	if err == nil || !strings.Contains(err.Error(), "schema pgmosaic of app") {
		t.Errorf("a user's schema: %v", err)
	}
	if queryOne[bool](t, connectTo(t, d.cluster.Node("s2-a").DSN("squat")), "select rolcreatedb from pg_roles where rolname = 'app'") {
		t.Error("a user's code ran")
	}
}

// Whatever is set for a role, a database, in a connection string's options or by what ran before on it, a connection of the
// proxy's own finds PostgreSQL's functions only, and prints as it always does.
func TestOwnConnectionsAreAlike(t *testing.T) {
	t.Parallel()
	d := shop(t)
	root := connectTo(t, d.cluster.Node("s1-a").DSN("postgres"))
	mustExec(t, root, "drop database if exists odd with (force)")
	mustExec(t, root, "create database odd")
	mustExec(t, root, "create role oddly login superuser password 'oddly'")
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), d.cluster.Node("s1-a").DSN("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		_, err1 := c.Exec(context.Background(), "drop database odd with (force)")
		_, err2 := c.Exec(context.Background(), "drop role oddly")
		if err1 != nil || err2 != nil {
			t.Error(err1, err2)
		}
	})
	for _, set := range []string{
		"search_path = evil, public", "datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'", "timezone = 'Asia/Tokyo'", "standard_conforming_strings = off", "statement_timeout = '1ms'", "lock_timeout = '1ms'", "session_replication_role = replica",
		"synchronous_commit = off", "default_transaction_read_only = on", "default_transaction_isolation = serializable", "idle_in_transaction_session_timeout = '1ms'", "idle_session_timeout = '1s'", "quote_all_identifiers = on", "bytea_output = escape",
	} {
		for _, whose := range []string{"role oddly", "database odd"} {
			mustExec(t, root, "alter "+whose+" set "+set)
		}
	}
	dsn := dsnFor("oddly", "oddly", fmt.Sprintf("127.0.0.1:%d", d.cluster.Node("s1-a").Port), "odd") + "?sslmode=disable"
	want := "pg_catalog, pg_temp|ISO, MDY|postgres|UTC|on|origin|on|off|read committed|0|0|off|hex"
	const ask = `select concat_ws('|', current_setting('search_path'), current_setting('datestyle'), current_setting('intervalstyle'), current_setting('timezone'), current_setting('standard_conforming_strings'),
		current_setting('session_replication_role'), current_setting('synchronous_commit'), current_setting('default_transaction_read_only'), current_setting('default_transaction_isolation'), current_setting('idle_in_transaction_session_timeout'),
		current_setting('idle_session_timeout'), current_setting('quote_all_identifiers'), current_setting('bytea_output'))`
	for _, more := range []string{"", "&search_path=public", "&options=-c%20search_path%3Dpublic%20-c%20datestyle%3DGerman%20-c%20statement_timeout%3D1", "&statement_timeout=1&DateStyle=German"} {
		c, err := nodeconn.Open(t.Context(), dsn+more, nodeconn.Admin, anybodys)
		if err != nil {
			t.Fatal(err)
		}
		if got := queryOne[string](t, c, ask); got != want {
			t.Errorf("%q: %s, want %s", more, got, want)
		}
		if got := queryOne[string](t, c, "select current_setting('statement_timeout') || current_setting('row_security') || current_setting('application_name')"); got != "0offpgmosaic admin" {
			t.Errorf("%q: %s", more, got)
		}
		for _, sql := range []string{"set role app", "reset all", "reset role", "discard all"} {
			mustExec(t, c, sql)
			if got := simply(t, c, "show search_path"); got != "pg_catalog, pg_temp" {
				t.Errorf("%q, after %s: %s", more, sql, got)
			}
		}
		_ = c.Close(t.Context())
	}
	if _, err := nodeconn.Open(t.Context(), "postgres://u:secret@[", nodeconn.Admin, anybodys); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a connection string that cannot be read: %v", err)
	}
}
