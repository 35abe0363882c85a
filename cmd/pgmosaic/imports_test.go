package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pgmosaic/pgmosaic/"

// layers lists, for each package, the packages of ours that it may import, and what it is. Imports run one way: what knows
// more imports what knows less. A package that is not here fails the test.
var layers = []layer{
	{"cmd/pgmosaic", "proxy/access proxy/config proxy/instance proxy/nodeconn proxy/panics proxy/pgsql shardmap shardmap/filestore", "flags and exit codes"},
	{"cmd/pgmosaic-demo", "proxy/demo", "flags and exit codes"},
	{"cmd/benchmark", "replication/cluster", "measures from outside"},
	{"proxy/demo", "proxy/config proxy/instance proxy/pgsql replication/cluster", "servers, a proxy and a shop, for people and for tests"},
	{"proxy/instance", "*", "it builds every object"},
	{"proxy/access", "proxy/auth proxy/config proxy/metrics proxy/nodeconn proxy/session proxy/wire proxy/pgsql", "checks logins"},
	{"proxy/config", "proxy/auth proxy/pgsql", "the file, as data"},
	{"proxy", "proxy/peer proxy/tcp proxy/session proxy/wire proxy/panics proxy/pgsql", "accepts clients; what they do is the session's affair"},
	{"proxy/session", "proxy/auth proxy/loop proxy/wire proxy/panics proxy/pgsql", "speaks protocol, not sharding"},
	{"proxy/copydata", "proxy/pgsql shardmap shardmap/pghash", "pure: rows out of COPY data"},
	{"proxy/exec", "proxy/exec/branch proxy/exec/client proxy/exec/lease proxy/exec/pipeline proxy/exec/planner proxy/exec/fresh proxy/exec/observe proxy/memory proxy/copydata router router/sqlparse shardmap shardmap/pghash shardmap/schema proxy/auth proxy/txn proxy/merge proxy/notify proxy/pgsql proxy/pool proxy/wire proxy/metrics replication proxy/panics", "the query path"},
	{"proxy/exec/planner", "proxy/cond proxy/memory proxy/metrics proxy/panics proxy/pgsql router router/sqlparse shardmap shardmap/schema", "what statements are planned by; knows no server and no transaction"},
	{"proxy/exec/branch", "proxy/metrics proxy/panics proxy/pgsql proxy/pool proxy/txn proxy/wire replication", "what a transaction is made of, and how its state changes; knows no client"},
	{"proxy/exec/pipeline", "", "what the extended protocol is made of: expected answers, and the states of portals"},
	{"proxy/exec/fresh", "proxy/metrics proxy/pgsql proxy/pool replication router shardmap", "which node may answer a read; sends nothing to servers"},
	{"proxy/exec/client", "proxy/pgsql replication router", "what a client wants and was told; knows no server"},
	{"proxy/exec/lease", "proxy/loop proxy/panics proxy/pgsql proxy/pool proxy/wire", "the servers that a session holds; sends them nothing but cancels"},
	{"proxy/exec/observe", "proxy/metrics proxy/pgsql router router/sqlparse", "who is told of requests; answers none"},
	{"proxy/memory", "proxy/pgsql", "a leaf: counts what sessions hold"},
	{"proxy/admin", "router shardmap proxy/pgsql proxy/pool proxy/txn proxy/metrics proxy/panics replication replication/reshard", "grammar and views: moves no data, knows no query path"},
	{"proxy/console", "proxy/admin proxy/memory proxy/pgsql proxy/wire", "the admin database as clients see it"},
	{"proxy/dashboard", "proxy/admin proxy/panics proxy/pgsql", "draws the admin's views and nothing else"},
	{"proxy/pool", "proxy/cond proxy/auth proxy/loop proxy/pgsql proxy/tcp proxy/wire proxy/panics", "connections, not statements"},
	{"proxy/txn", "proxy/nodeconn proxy/panics proxy/pgsql", "writes to no client, knows no pool"},
	{"proxy/peer", "", "processes speak to one another"},
	{"proxy/notify", "proxy/nodeconn proxy/pgsql proxy/panics", "listens, writes to no client"},
	{"proxy/merge", "", "pure"},
	{"proxy/auth", "", "pure but for chance"},
	{"proxy/wire", "proxy/loop proxy/panics proxy/pgsql", "framing"},
	{"proxy/nodeconn", "shardmap proxy/tcp", "the one door to the nodes for the proxy itself"},
	{"proxy/loop", "proxy/panics", "waits for sockets"},
	{"proxy/panics", "proxy/pgsql", "a leaf: whatever runs by itself catches its panics"},
	{"proxy/cond", "", "a leaf: waits until something holds"},
	{"proxy/tcp", "", "a leaf: how long a peer may be silent"},
	{"proxy/pgsql", "", "a leaf: names and values as SQL"},
	{"proxy/metrics", "proxy/panics", "a leaf"},
	{"router", "router/sqlparse shardmap shardmap/pghash shardmap/schema proxy/merge proxy/pgsql", "pure: decides, does nothing"},
	{"router/sqlparse", "proxy/merge proxy/pgsql", "the parser's only importer"},
	{"shardmap", "shardmap/pghash proxy/pgsql", "where the rows are"},
	{"shardmap/pghash", "", "PostgreSQL's hash functions"},
	{"shardmap/schema", "proxy/nodeconn shardmap", "what the catalogs say"},
	{"shardmap/filestore", "shardmap", "keeps the map in a file"},
	{"shardmap/storetest", "shardmap", "what every store must do"},
	{"replication", "proxy/cond proxy/nodeconn shardmap proxy/panics", "how fresh the nodes are"},
	{"replication/reshard", "shardmap shardmap/pghash proxy/nodeconn proxy/pgsql proxy/txn proxy/panics replication", "moves data; speaks no admin SQL, knows no client"},
	{"replication/cluster", "", "local servers"},
}

type layer struct{ name, may, is string }

// confined lists libraries that only some packages may import, with the reason.
var confined = []struct{ prefix, in, why string }{
	{"github.com/pganalyze/pg_query_go", "router/sqlparse", "the parser's tree is known in one place"},
	{"github.com/hashicorp/go-memdb", "shardmap", "the map's tables are the catalog's own affair"},
	{"github.com/jackc/pgproto3", "proxy/wire", "the codec is known in one place"},
	{"github.com/jackc/pgx", "proxy/nodeconn proxy/pool proxy/notify proxy/txn replication replication/reshard replication/cluster shardmap/schema proxy/access proxy/demo proxy/instance cmd/pgmosaic cmd/benchmark", "everything else speaks through these"},
	{"go.opentelemetry.io", "proxy/instance", "the query path hands over plain records"},
	{"github.com/fergusstrange/embedded-postgres", "replication/cluster", "only clusters need a server's binaries"},
	{"net", "proxy proxy/tcp proxy/loop proxy/wire proxy/peer proxy/session proxy/pool proxy/admin proxy/dashboard replication replication/cluster proxy/instance proxy/demo cmd/pgmosaic", "the pure packages use no network"},
	{"os", "cmd/pgmosaic cmd/pgmosaic-demo cmd/benchmark proxy proxy/access proxy/config proxy/demo proxy/instance shardmap/filestore replication/cluster proxy/loop proxy/wire proxy/session", "files, environment and exit belong to the edges"},
	{"flag", "cmd/pgmosaic cmd/benchmark", "flags are read by commands"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Doc        string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Doc", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func TestImportsRunOneWay(t *testing.T) {
	in := func(list, s string) bool {
		for _, w := range strings.Fields(list) {
			if w == s {
				return true
			}
		}
		return false
	}
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		at := slices.IndexFunc(layers, func(l layer) bool { return l.name == name })
		if at < 0 {
			t.Errorf("package %s is not in the table of imports: say where it stands", name)
			continue
		}
		if p.Doc == "" {
			t.Errorf("package %s has no package comment", name)
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok && layers[at].may != "*" && !in(layers[at].may, ours) {
				t.Errorf("%s must not import %s", name, ours)
			}
			for _, c := range confined {
				if (imp == c.prefix || strings.HasPrefix(imp, c.prefix+"/") && strings.Contains(c.prefix, ".")) && !in(c.in, name) {
					t.Errorf("%s must not import %s: %s", name, imp, c.why)
				}
			}
		}
	}
	for _, l := range layers {
		if !seen[l.name] {
			t.Errorf("the table of imports names %s, which does not exist", l.name)
		}
	}
	deps, err := exec.Command("go", "list", "-deps", "github.com/pgmosaic/pgmosaic/cmd/pgmosaic").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(deps)) {
		if strings.HasPrefix(p, "github.com/fergusstrange") || strings.HasPrefix(p, "github.com/lib/pq") || p == module+"replication/cluster" {
			t.Errorf("the proxy's program contains %s, which starts servers", p)
		}
	}
	for _, lib := range []string{"github.com/jackc/pgx/v5", "github.com/jackc/pgproto3/v2", "github.com/pganalyze/pg_query_go/v5", "github.com/hashicorp/go-memdb"} {
		used := false
		for _, p := range packages(t) {
			used = used || in(strings.Join(p.Imports, " "), lib)
		}
		if !used {
			t.Errorf("%s does no work", lib)
		}
	}
}

// Only tests have work panic.
func TestNobodyProvokesPanics(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), "panics.Provoke(") {
			t.Errorf("%s provokes panics", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
