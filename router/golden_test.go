package router

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// world is the map and schema of the golden files: customers, orders and items by customer_id, events by a
// text key, countries everywhere, settings at home.
func world(t testing.TB) (*shardmap.DB, *schema.Snapshot) {
	t.Helper()
	doc := &shardmap.Document{Version: 1, Install: "test", Databases: []*shardmap.Database{{Name: "shop", Home: "s0"}}}
	var shards []string
	for i := range 4 {
		name := fmt.Sprintf("s%d", i)
		shards = append(shards, name)
		doc.Shards = append(doc.Shards, &shardmap.Shard{Database: "shop", Name: name, Ordinal: i})
		doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "shop", Shard: name, Name: name + "a"})
	}
	for _, g := range [][2]string{{"customers", "bigint"}, {"events", "text"}, {"days", "date"}, {"cells", "integer,text"}} {
		doc.Groups = append(doc.Groups, &shardmap.Group{Database: "shop", Name: g[0], Scheme: shardmap.ByHash, Keys: strings.Split(g[1], ",")})
		p := &shardmap.Placement{Database: "shop", Group: g[0], Slots: shardmap.SpreadSlots(shards)}
		if g[0] == "customers" {
			p.Pins = []shardmap.Pin{{Key: []string{"424242"}, Shard: "s3"}}
		}
		doc.Placements = append(doc.Placements, p)
	}
	doc.Groups = append(doc.Groups, &shardmap.Group{Database: "shop", Name: "spans", Scheme: shardmap.ByRange, Keys: []string{"date", "integer"}},
		&shardmap.Group{Database: "shop", Name: "regions", Scheme: shardmap.ByList, Keys: []string{"text"}})
	doc.Placements = append(doc.Placements, &shardmap.Placement{
		Database: "shop", Group: "spans", Pins: []shardmap.Pin{{Key: []string{"2026-06-01", "7"}, Shard: "s3"}},
		Ranges: []shardmap.Range{{Shard: "s0"}, {From: []string{"2026-01-01", "0"}, Shard: "s1"}, {From: []string{"2026-01-01", "100"}, Shard: "s2"}, {From: []string{"2027-01-01", "0"}, Shard: "s0"}},
	}, &shardmap.Placement{Database: "shop", Group: "regions", Lists: []shardmap.List{{Values: []string{"eu", "uk"}, Shard: "s1"}, {Values: []string{"us"}, Shard: "s2"}}})
	doc.Tenants = []*shardmap.Tenant{{Database: "shop", Schema: "acme", Shard: "s2"}}
	sch := &schema.Snapshot{
		Version: 1, Tables: map[shardmap.TableName]*schema.Table{}, Funcs: map[string][]*schema.Func{}, Aggs: map[string]bool{}, Given: map[string]bool{"int_array_aggregate": true, "sum": true, "json_agg": true}, BytesOK: false,
		Volatile: map[string]bool{"random": true, "nextval": true, "clock_timestamp": true, "gen_random_uuid": true, "pg_advisory_xact_lock": true, "pg_advisory_lock": true},
	}
	table := func(name string, kind shardmap.Kind, group, key string, cols ...string) {
		n := shardmap.TableName{Schema: "public", Name: name}
		t := &schema.Table{TableName: n, Kind: 'r'}
		for _, c := range cols {
			f := strings.Fields(c)
			oid := map[string]uint32{"int8": 20, "int4": 23, "text": 25, "numeric": 1700, "timestamptz": 1184, "bool": 16, "date": 1082}[f[1]]
			t.Columns = append(t.Columns, schema.Column{Name: f[0], TypeOID: oid, Base: f[1], Determ: true, Collated: f[1] == "text", BytesOK: len(f) > 2 && f[2] == "C", Volatile: len(f) > 2 && f[2] == "volatile", Default: map[bool]string{true: "clock_timestamp()"}[len(f) > 2 && f[2] == "volatile"]})
		}
		sch.Tables[n] = t
		if kind != shardmap.Home {
			doc.Tables = append(doc.Tables, &shardmap.Table{Database: "shop", Schema: "public", Name: name, Kind: kind, Group: group, Key: strings.FieldsFunc(key, func(r rune) bool { return r == ',' })})
		}
	}
	table("customers", shardmap.Sharded, "customers", "customer_id", "customer_id int8", "name text", "country text C", "age int4")
	table("orders", shardmap.Sharded, "customers", "customer_id", "customer_id int8", "order_id int8", "total numeric", "created_at timestamptz")
	table("items", shardmap.Sharded, "customers", "customer_id", "customer_id int8", "order_id int8", "line int4", "price numeric")
	table("events", shardmap.Sharded, "events", "source", "source text", "payload text", "at timestamptz")
	table("days", shardmap.Sharded, "days", "day", "day date", "n int4")
	table("cells", shardmap.Sharded, "cells", "x,y", "x int4", "y text", "v int4")
	table("cell_notes", shardmap.Sharded, "cells", "cx,cy", "cy text", "cx int4", "note text")
	table("readings", shardmap.Sharded, "spans", "day,sensor", "day date", "sensor int4", "v numeric")
	table("sensors_on", shardmap.Sharded, "spans", "day,sensor", "sensor int4", "day date", "name text")
	table("offices", shardmap.Sharded, "regions", "region", "region text", "name text")
	for _, n := range []string{"things", "parts"} {
		name := shardmap.TableName{Schema: "acme", Name: n}
		sch.Tables[name] = &schema.Table{TableName: name, Kind: 'r', Columns: []schema.Column{{Name: "id", TypeOID: 23, Determ: true}, {Name: "name", TypeOID: 25, Determ: true}}}
	}
	for name, d := range map[string]schema.Drawer{
		"orders_n": {Column: "order_id", TableName: shardmap.TableName{Schema: "public", Name: "orders"}, Owns: true, Draws: true}, "customers_k": {Column: "customer_id", TableName: shardmap.TableName{Schema: "public", Name: "customers"}, Owns: true, Draws: true},
		"tail_of_a_name_that_has_sixty_three_bytes_and_is_then_cut_there": {Column: "order_id", TableName: shardmap.TableName{Schema: "public", Name: "orders"}, Draws: true},
		"free": {}, "Odd.n": {Column: "line", TableName: shardmap.TableName{Schema: "public", Name: "items"}, Draws: true}, "acme.things_n": {Column: "id", TableName: shardmap.TableName{Schema: "acme", Name: "things"}, Owns: true, Draws: true},
	} {
		n := shardmap.TableName{Schema: "public", Name: name}
		if acme, is := strings.CutPrefix(name, "acme."); is {
			n = shardmap.TableName{Schema: "acme", Name: acme}
		}
		sch.Tables[n] = &schema.Table{TableName: n, Kind: 'S', Drawers: []schema.Drawer{d}}
	}
	zoo, both := shardmap.TableName{Schema: "acme", Name: "zoo"}, shardmap.TableName{Schema: "acme", Name: "both"}
	sch.Tables[both] = &schema.Table{TableName: both, Kind: 'S', Drawers: []schema.Drawer{{Column: "id", TableName: zoo, Draws: true}, {Column: "name", TableName: zoo, Draws: true}}}
	table("countries", shardmap.Reference, "", "", "code text C", "name text")
	table("stamped", shardmap.Reference, "", "", "id int4", "at timestamptz volatile")
	table("settings", shardmap.Home, "", "", "name text", "value text")
	table("journal", shardmap.Home, "", "", "name text", "value text")
	table("Mixed", shardmap.Sharded, "customers", "Key", "Key int8", "v text")
	sch.Tables[shardmap.TableName{Schema: "public", Name: "big_orders"}] = &schema.Table{
		TableName: shardmap.TableName{Schema: "public", Name: "big_orders"}, Kind: 'v',
		View: "SELECT orders.customer_id, orders.total FROM public.orders WHERE (orders.total > (100)::numeric);", Reads: []shardmap.TableName{{Schema: "public", Name: "orders"}},
	}
	for _, v := range [][3]string{
		{"land", "SELECT countries.code, countries.name FROM public.countries;", "countries"},
		{"some_land", "SELECT land.code FROM public.land WHERE (land.name > 'A'::text);", "land"},
		{"landed", "SELECT settings.name FROM public.settings WHERE (settings.name IN ( SELECT countries.code FROM public.countries));", "settings"},
	} {
		n := shardmap.TableName{Schema: "public", Name: v[0]}
		sch.Tables[n] = &schema.Table{TableName: n, Kind: 'v', View: v[1], Reads: []shardmap.TableName{{Schema: "public", Name: v[2]}}}
	}
	sch.Funcs["settle"] = []*schema.Func{{Schema: "public", Name: "settle", Body: "insert into some_land values ($1)", Lang: "sql", Volatile: true}}
	sch.Tables[shardmap.TableName{Schema: "public", Name: "spent"}] = &schema.Table{TableName: shardmap.TableName{Schema: "public", Name: "spent"}, Kind: 'm', Reads: []shardmap.TableName{{Schema: "public", Name: "orders"}}}
	sch.Funcs["order_count"] = []*schema.Func{{Schema: "public", Name: "order_count", Body: "select count(*) from orders", Lang: "sql"}}
	sch.Funcs["indirect"] = []*schema.Func{{Schema: "public", Name: "indirect", Body: "select order_count()", Lang: "sql"}}
	sch.Funcs["dynamic"] = []*schema.Func{{Schema: "public", Name: "dynamic", Body: "begin execute 'select 1'; end", Lang: "plpgsql", Volatile: true}}
	sch.Funcs["plain"] = []*schema.Func{{Schema: "public", Name: "plain", Body: "select $1 + 1", Lang: "sql", Immutable: true}}
	sch.Funcs["spent_by"] = []*schema.Func{{Schema: "public", Name: "spent_by", Body: "select sum(total) from orders where customer_id = $1", Lang: "sql"}}
	sch.Funcs["audit"] = []*schema.Func{{Schema: "public", Name: "audit", Body: "begin insert into orders values (new.x, 1); return new; end", Lang: "plpgsql", Volatile: true}}
	sch.Tables[shardmap.TableName{Schema: "public", Name: "days"}].Triggers = []string{"audit"}
	sch.Tables[shardmap.TableName{Schema: "public", Name: "journal"}].Triggers = []string{"audit"}
	doc.Routines = []*shardmap.Routine{{Database: "shop", Schema: "public", Name: "spent_by"}, {Database: "shop", Schema: "public", Name: "audit"}}
	public := func(name string) shardmap.TableName { return shardmap.TableName{Schema: "public", Name: name} }
	sch.Indexes = map[shardmap.TableName]shardmap.TableName{public("customers_name"): public("customers"), public("settings_name"): public("settings")}
	snap, err := shardmap.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return snap.Databases["shop"], sch
}

// TestGoldenPlans runs testdata/plan: a statement, its arguments if any, and its plan or refusal.
func TestGoldenPlans(t *testing.T) {
	db, sch := world(t)
	env := Env{Role: "app", SearchPath: []string{"$user", "public"}, Temp: &schema.Temporary{Tables: map[string]*schema.Table{"scratch": {TableName: shardmap.TableName{Schema: schema.TempSchema, Name: "scratch"}, Kind: 'r'}}}}
	used := map[Rule]bool{}
	datadriven.Walk(t, "../testdata/plan", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			stmts, err := sqlparse.Parse(d.Input)
			if err != nil {
				return err.Error() + "\n"
			}
			args, alone := &Args{}, ""
			for _, a := range d.CmdArgs {
				if a.Key == "shard" {
					alone = a.Vals[0]
				}
				if a.Key == "types" {
					for _, v := range a.Vals {
						oid, err := strconv.ParseUint(v, 10, 32)
						if err != nil {
							t.Fatal(err)
						}
						args.Types = append(args.Types, uint32(oid))
					}
				}
				if a.Key == "args" {
					for _, v := range a.Vals {
						if v == "NULL" {
							args.Params = append(args.Params, nil)
						} else {
							args.Params = append(args.Params, []byte(v))
						}
					}
				}
			}
			var out strings.Builder
			for _, s := range stmts {
				tmpl, err := Analyze(s, db, sch, env)
				var p *Plan
				if err == nil {
					p, err = tmpl.Bind(db, args)
				}
				if s, ok := db.Shard(alone); ok && err == nil {
					if no := tmpl.OneShard(db, s.Index, false); no != nil {
						err = no
					} else {
						p = &Plan{Template: tmpl.Forced(), Shards: []int{s.Index}, Narrow: true}
					}
				}
				var re *Error
				switch {
				case errors.As(err, &re):
					used[re.Rule] = true
					fmt.Fprintf(&out, "%s %s: %s\n", re.Code, re.Rule, re.Message)
				case err != nil:
					fmt.Fprintf(&out, "%v\n", err)
				default:
					if p.Gather != nil && p.Gather.Why != nil {
						used[p.Gather.Why.Rule] = true
					}
					out.WriteString(strings.Join(p.Lines(), "\n") + "\n")
				}
			}
			return out.String()
		})
	})
	elsewhere := rulesOfServers(t)
	for _, r := range slices.Concat(Rules, Reasons) {
		if !used[r.Rule] && !elsewhere[r.Rule] {
			t.Errorf("rule %s is shown by no golden file, and named by no test of cmd/pgmosaic", r.Rule)
		}
	}
}

// rulesOfServers are the rules that tests of cmd/pgmosaic name: those that need a server, a session or another kind of map. A test names one
// as an argument of wantRule or in a table, as rule: "name". What is built by a tag alone does not count, as nobody runs it every day.
func rulesOfServers(t *testing.T) map[Rule]bool {
	t.Helper()
	files, err := filepath.Glob("../cmd/pgmosaic/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests are found: %v", err)
	}
	named := map[Rule]bool{}
	note := func(x ast.Expr) {
		if l, ok := x.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if name, err := strconv.Unquote(l.Value); err == nil {
				named[Rule(name)] = true
			}
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(text, []byte("//go:build")) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "wantRule" && len(n.Args) > 2 {
					note(n.Args[2])
				}
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok && id.Name == "rule" {
					note(n.Value)
				}
			}
			return true
		})
	}
	return named
}

// A row that satisfies a predicate has its owner among the plan's targets: checked over many keys of each kind of group.
func TestOwnerIsAmongTheTargets(t *testing.T) {
	db, sch := world(t)
	day := func(i int) string { return fmt.Sprintf("%d-%02d-%02d", 2025+i%3, 1+i/3%12, 1+i/36%28) }
	for _, c := range []struct {
		group string
		key   func(i int) []string
		sql   []string
	}{
		{"customers", func(i int) []string {
			return []string{fmt.Sprint(i*7919 - 5000000 + i%2*(424242-i*7919+5000000))} // every other one is pinned
		}, []string{
			"select * from customers where customer_id = %[1]s", "select * from customers where customer_id in (1, %[1]s, 3)",
			"select * from customers c join orders o using (customer_id) where o.customer_id = %[1]s", "select * from customers where customer_id = %[1]s or name = 'x'",
			"select * from customers where customer_id >= %[1]s", "select * from customers where customer_id = '%[1]s'",
		}},
		{"cells", func(i int) []string { return []string{fmt.Sprint(i), fmt.Sprint("y", i%7)} }, []string{
			"select * from cells where x = %[1]s and y = '%[2]s'", "select * from cells where (x, y) = (%[1]s, '%[2]s')", "select * from cells where y = '%[2]s'",
			"select * from cells where (x, y) in ((1, 'a'), (%[1]s, '%[2]s'))", "select * from cells where x in (0, %[1]s) and y in ('a', '%[2]s', 'b')",
			"select * from cell_notes n join cells c on c.x = n.cx and c.y = n.cy where n.cy = '%[2]s' and c.x = %[1]s",
		}},
		{"spans", func(i int) []string { return []string{day(i), fmt.Sprint(i % 150)} }, []string{
			"select * from readings where day = '%[1]s' and sensor = %[2]s", "select * from readings where day = '%[1]s'", "select * from readings where sensor = %[2]s",
			"select * from readings where day >= '%[1]s'", "select * from readings where day <= '%[1]s'", "select * from readings where day between '%[1]s' and '%[1]s'",
			"select * from readings where '%[1]s' >= day and day > '2020-01-01'", "select * from readings where day = '%[1]s' and sensor >= %[2]s",
			"select * from readings where day = '%[1]s' and sensor <= %[2]s and sensor > -1", "select * from readings where day in ('%[1]s', '2000-01-01') and sensor between %[2]s and 1000",
			"select * from readings r join sensors_on s using (day, sensor) where s.day = '%[1]s' and r.sensor < %[2]s + 1", "select * from readings where day < '2030-01-01' and sensor = %[2]s",
		}},
		{"regions", func(i int) []string { return []string{[]string{"eu", "uk", "us"}[i%3]} }, []string{
			"select * from offices where region = '%[1]s'", "select * from offices where region in ('xx', '%[1]s')", "select * from offices where region >= '%[1]s'",
		}},
	} {
		g := db.Groups[c.group]
		narrowed := map[string]bool{}
		for i := range 1000 {
			vals := c.key(i)
			key, err := g.ParseKey(vals)
			if err != nil {
				t.Fatal(err)
			}
			owner, ok := db.Placement(g).Place(key)
			if !ok {
				t.Fatal(vals)
			}
			for _, sql := range c.sql {
				text := strings.ReplaceAll(sql, "%[1]s", vals[0])
				if len(vals) > 1 {
					text = strings.ReplaceAll(text, "%[2]s", vals[1])
				}
				stmts, err := sqlparse.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				tmpl, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
				if err != nil {
					t.Fatal(err)
				}
				p, err := tmpl.Bind(db, &Args{})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(p.Shards, owner) {
					t.Fatalf("%s: owner %d is not in %v", text, owner, p.Shards)
				}
				narrowed[sql] = narrowed[sql] || len(p.Shards) < len(db.Placement(g).Shards())
			}
		}
		if c.group == "spans" {
			for _, sql := range c.sql {
				if !narrowed[sql] && strings.Contains(sql, "day") && !strings.Contains(sql, "day < '2030") {
					t.Errorf("%s is never narrowed", sql)
				}
			}
		}
	}
}

func BenchmarkRouteByKey(b *testing.B) {
	db, sch := world(b)
	stmts, err := sqlparse.Parse("select * from customers where customer_id = $1")
	if err != nil {
		b.Fatal(err)
	}
	tmpl, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
	if err != nil {
		b.Fatal(err)
	}
	args := &Args{Params: [][]byte{[]byte("123456")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := tmpl.Route(db, args); !ok {
			b.Fatal("no route")
		}
	}
}

// BenchmarkBind binds cached plans of each kind that has one for any values.
func BenchmarkBind(b *testing.B) {
	db, sch := world(b)
	for _, sql := range []string{
		"select count(*) from customers where age > $1", "select * from customers where customer_id = any($1)", "select * from customers where customer_id in ($1, $2, $3)",
		"select * from cells where x = $1 and y = $2", "select * from readings where day between $1 and $2", "select * from orders o join items i using (customer_id) where o.customer_id = $1",
		"select customer_id, rank() over (order by total) from orders where customer_id > $1",
	} {
		stmts, err := sqlparse.Parse(sql)
		if err != nil {
			b.Fatal(err)
		}
		tmpl, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
		if err != nil {
			b.Fatal(err)
		}
		args := &Args{Params: [][]byte{[]byte("1"), []byte("2"), []byte("3")}}
		if strings.Contains(sql, "any") {
			args.Params[0] = []byte("{1,2,3}")
		}
		b.Run(sql, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok := tmpl.Route(db, args); ok {
					continue
				}
				if _, err := tmpl.Bind(db, args); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPlan parses and plans statements that are in no cache: 200 output columns, for one shard and for all.
func BenchmarkPlan(b *testing.B) {
	db, sch := world(b)
	var columns strings.Builder
	for i := range 200 {
		fmt.Fprintf(&columns, "total+%d as c%d, ", i, i)
	}
	for name, from := range map[string]string{"one-shard": "orders where customer_id = 5", "all-shards": "orders where total < 0"} {
		sql := "select " + columns.String() + "1 from " + from
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				stmts, err := sqlparse.Parse(sql)
				if err != nil {
					b.Fatal(err)
				}
				t, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := t.Bind(db, &Args{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parse-only", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := sqlparse.Parse("select " + columns.String() + "1 from orders"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
