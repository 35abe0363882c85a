package router

import (
	"errors"
	"fmt"
	"slices"
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
	for _, g := range [][2]string{{"customers", "bigint"}, {"events", "text"}, {"days", "date"}} {
		doc.Groups = append(doc.Groups, &shardmap.Group{Database: "shop", Name: g[0], KeyType: g[1]})
		for _, r := range shardmap.SpreadSlots(shards) {
			r.Database, r.Group = "shop", g[0]
			doc.Slots = append(doc.Slots, &r)
		}
	}
	sch := &schema.Snapshot{
		Version: 1, Tables: map[shardmap.TableName]*schema.Table{}, Funcs: map[string][]*schema.Func{}, Aggs: map[string]bool{}, BytesOK: false,
		Volatile: map[string]bool{"random": true, "nextval": true, "clock_timestamp": true, "gen_random_uuid": true, "pg_advisory_xact_lock": true, "pg_advisory_lock": true},
	}
	table := func(name string, kind shardmap.Kind, group, key string, cols ...string) {
		n := shardmap.TableName{Schema: "public", Name: name}
		t := &schema.Table{TableName: n, Kind: 'r'}
		for _, c := range cols {
			f := strings.Fields(c)
			oid := map[string]uint32{"int8": 20, "int4": 23, "text": 25, "numeric": 1700, "timestamptz": 1184, "bool": 16, "date": 1082}[f[1]]
			t.Columns = append(t.Columns, schema.Column{Name: f[0], TypeOID: oid, Determ: true, BytesOK: len(f) > 2 && f[2] == "C", Volatile: len(f) > 2 && f[2] == "volatile"})
		}
		sch.Tables[n] = t
		if kind != shardmap.Home {
			doc.Tables = append(doc.Tables, &shardmap.Table{Database: "shop", Schema: "public", Name: name, Kind: kind, Group: group, Key: key})
		}
	}
	table("customers", shardmap.Sharded, "customers", "customer_id", "customer_id int8", "name text", "country text C", "age int4")
	table("orders", shardmap.Sharded, "customers", "customer_id", "customer_id int8", "order_id int8", "total numeric", "created_at timestamptz")
	table("items", shardmap.Sharded, "customers", "customer_id", "customer_id int8", "order_id int8", "line int4", "price numeric")
	table("events", shardmap.Sharded, "events", "source", "source text", "payload text", "at timestamptz")
	table("days", shardmap.Sharded, "days", "day", "day date", "n int4")
	table("countries", shardmap.Reference, "", "", "code text C", "name text")
	table("stamped", shardmap.Reference, "", "", "id int4", "at timestamptz volatile")
	table("settings", shardmap.Home, "", "", "name text", "value text")
	table("Mixed", shardmap.Sharded, "customers", "Key", "Key int8", "v text")
	sch.Tables[shardmap.TableName{Schema: "public", Name: "big_orders"}] = &schema.Table{
		TableName: shardmap.TableName{Schema: "public", Name: "big_orders"}, Kind: 'v',
		View: "SELECT orders.customer_id, orders.total FROM public.orders WHERE (orders.total > (100)::numeric);", Reads: []shardmap.TableName{{Schema: "public", Name: "orders"}},
	}
	sch.Funcs["order_count"] = []*schema.Func{{Schema: "public", Name: "order_count", Body: "select count(*) from orders", Lang: "sql"}}
	sch.Funcs["indirect"] = []*schema.Func{{Schema: "public", Name: "indirect", Body: "select order_count()", Lang: "sql"}}
	sch.Funcs["dynamic"] = []*schema.Func{{Schema: "public", Name: "dynamic", Body: "begin execute 'select 1'; end", Lang: "plpgsql", Volatile: true}}
	sch.Funcs["plain"] = []*schema.Func{{Schema: "public", Name: "plain", Body: "select $1 + 1", Lang: "sql", Immutable: true}}
	snap, err := shardmap.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return snap.Databases["shop"], sch
}

// TestGoldenPlans runs testdata/plan: a statement, its arguments if any, and its plan or refusal.
func TestGoldenPlans(t *testing.T) {
	db, sch := world(t)
	env := Env{Role: "app", SearchPath: []string{"$user", "public"}, Temp: map[string]bool{"scratch": true}}
	used := map[Rule]bool{}
	datadriven.Walk(t, "../testdata/plan", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			stmts, err := sqlparse.Parse(d.Input)
			if err != nil {
				return err.Error() + "\n"
			}
			args := &Args{}
			for _, a := range d.CmdArgs {
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
					p, err = tmpl.Bind(args)
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
	// Rules that need a server, a session or another kind of map have their tests elsewhere.
	elsewhere := map[Rule]bool{
		"group-type": true, "aggregate-type": true, "order-type": true, "order-collation": true, "moving": true, "trigger-body": true,
		"insert-split": true, "encoding": true, "strings": true, "syntax": true, "prepare": true, "no-two-phase": true, "chain": true, "isolation": true, "session-state": true,
		"replication": true, "pipeline-copy": true, "no-shard": true, "gather-right": true, "gather-lock": true, "explain": true, "fanout": true,
	}
	for _, r := range slices.Concat(Rules, Reasons) {
		if !used[r.Rule] && !elsewhere[r.Rule] {
			t.Errorf("no golden file shows a refusal by rule %s", r.Rule)
		}
	}
}

// A row that satisfies a predicate has its owner among the plan's targets: checked over many keys.
func TestOwnerIsAmongTheTargets(t *testing.T) {
	db, sch := world(t)
	g := db.Groups["customers"]
	for i := range 2000 {
		key := fmt.Sprint(i*7919 - 5000000)
		owner, _, ok := Locate(g, key)
		if !ok {
			t.Fatal(key)
		}
		for _, sql := range []string{
			"select * from customers where customer_id = %s", "select * from customers where customer_id in (1, %s, 3)",
			"select * from customers c join orders o using (customer_id) where o.customer_id = %s", "select * from customers where customer_id = %s or name = 'x'",
			"select * from customers where customer_id >= %s", "select * from customers where customer_id = '%s'",
		} {
			stmts, err := sqlparse.Parse(fmt.Sprintf(sql, key))
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
			if err != nil {
				t.Fatal(err)
			}
			p, err := tmpl.Bind(&Args{})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, s := range p.Shards {
				found = found || s == owner
			}
			if !found {
				t.Fatalf("%s: owner %d is not in %v", fmt.Sprintf(sql, key), owner, p.Shards)
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
		if _, ok := tmpl.Route(args); !ok {
			b.Fatal("no route")
		}
	}
}
