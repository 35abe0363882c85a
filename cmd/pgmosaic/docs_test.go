package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// page compares a generated page with the file, or writes it with -rewrite.
func page(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("..", "..", "docs", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != text {
		t.Errorf("docs/%s is not fresh: run make docs (%v)", name, err)
	}
}

func TestDocsOfRefusals(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Refusals\n\nThis page is generated from the rules in `router/errors.go`. A statement that is not proved right is refused with one of these.\n" +
		"The rule's name stands in the error's DETAIL; `SHOW REFUSALS` on the admin database counts them with a sample.\n\n")
	seen := map[router.Rule]bool{}
	table := func(rules []router.RuleInfo) {
		b.WriteString("| rule | SQLSTATE | message | how to succeed |\n|---|---|---|---|\n")
		for _, r := range rules {
			if seen[r.Rule] {
				t.Errorf("rule %s stands twice", r.Rule)
			}
			seen[r.Rule] = true
			if r.Hint == "" || len(r.Code) != 5 || strings.Count(r.Message, "%") > 1 {
				t.Errorf("rule %s: code %q, hint %q", r.Rule, r.Code, r.Hint)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.Rule, r.Code, strings.ReplaceAll(strings.ReplaceAll(r.Message, "%s", "…"), "|", `\|`), strings.ReplaceAll(r.Hint, "|", `\|`))
		}
	}
	table(router.Rules)
	b.WriteString("\n## Why a SELECT over several shards is gathered\n\nThe rows of these do not merge. A SELECT then runs on copies of the rows that it needs, on the home shard, up to `pgmosaic.gather_limit`;\n" +
		"EXPLAIN (ROUTE) names the reason and what is copied, and the last column says how to do without. In a write the reason is an error.\n\n")
	table(router.Reasons)
	page(t, "errors.md", b.String())
}

func TestDocsOfStates(t *testing.T) {
	var b strings.Builder
	b.WriteString("# States\n\nThis page is generated from the tables in the code.\n")
	diagram := func(title, where string, lines []string) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```mermaid\nstateDiagram-v2\n", title, where)
		sort.Strings(lines)
		for _, l := range lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
		b.WriteString("```\n")
	}
	var lines []string
	for from, list := range session.Transitions {
		for _, to := range list {
			lines = append(lines, from.String()+" --> "+to.String())
		}
	}
	diagram("A client's session", "`session.State`: changed only by the session itself.", lines)
	lines = nil
	for from, list := range proxy.Transitions {
		for _, to := range list {
			lines = append(lines, from.String()+" --> "+to.String())
		}
	}
	diagram("The server", "`proxy.State`: changed by Drain and Stop.", lines)
	lines = nil
	for from, list := range pool.Transitions {
		for _, to := range list {
			lines = append(lines, from.String()+" --> "+to.String())
		}
	}
	diagram("A server of a pool", "`pool.State`: changed by whoever has it in hand, the session that leases it or the pool. Another change is a fault: it ends the session.", lines)
	lines = nil
	for from, list := range branch.Statuses {
		for c, to := range list {
			lines = append(lines, from.String()+" --> "+to.String()+": "+c.String())
		}
	}
	diagram("A client's transaction", "`branch.Status`: changed by the session. Another change is a fault: it ends the session.", lines)
	lines = nil
	for from, list := range branch.Phases {
		for e, to := range list {
			if from != branch.Lost {
				lines = append(lines, from.String()+" --> "+to.String()+": "+e.String())
			}
		}
		if from != branch.Lost {
			lines = append(lines, from.String()+" --> "+branch.Lost.String())
		}
	}
	diagram("A branch of a transaction", "`branch.State`: a server that a session has leased for a statement or a transaction; changed by the session. Whether it may have written is kept beside. Another change is a fault: it ends the session.", lines)
	lines = nil
	for from, list := range pipeline.States {
		for e, to := range list {
			lines = append(lines, pipeline.State(from).String()+" --> "+to.String()+": "+e.String())
		}
	}
	portals := lines
	lines = nil
	for from, list := range shardmap.Steps {
		for _, to := range list {
			lines = append(lines, cmp.Or(string(from), "begun")+" --> "+cmp.Or(string(to), "begun"))
		}
	}
	diagram("An attempt to change the map", "`shardmap.Step`: in the map, changed by who is at it and by who takes over from one that was lost. Another change is refused: somebody else has gone further.", lines)
	lines = portals
	diagram("A portal", "`pipeline.State`: a client's portal; changed by the session. Another change is a fault: it ends the session.", lines)
	b.WriteString("\n## What a pipeline expects\n\n`pipeline.Answer`: what a server says to a message, by the types of its own. Notices, parameters and notifications come at any time, and an error ends each.\nAnything else is a fault of the server's: its connection is given up.\n\n| answer | before | last |\n|---|---|---|\n")
	for a, m := range pipeline.Answers {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", pipeline.Answer(a), strings.Join(strings.Split(m.Before, ""), " "), strings.Join(strings.Split(m.Last, ""), " "))
	}
	b.WriteString("\n## A commit that has not gone to its end\n\n`branch.Fate`: what the session finds out about a commit in two phases when a server was lost in it.\n\n| fate | means | COMMIT is told |\n|---|---|---|\n")
	for _, f := range branch.Fates {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.Name, f.Means, cmp.Or(f.Code, "done"))
	}
	b.WriteString("\n## A replica\n\n`replication.Health`: judged with each probe. It leaves at once, and is eligible again after two good samples in a row.\n\n| health | means | may answer |\n|---|---|---|\n")
	for _, h := range replication.Healths {
		var levels []string
		for l, may := range h.Answers {
			if may {
				levels = append(levels, replication.Level(l).String())
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", h.Name, h.Means, cmp.Or(strings.Join(levels, ", "), "nothing"))
	}
	page(t, "states.md", b.String())
}

// looks are the statements of the console that HELP names and that who may only look may use, as its table has them.
func looks(t *testing.T) string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../proxy/admin/statements.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		row, ok := n.(*ast.CompositeLit)
		if !ok || len(row.Elts) != 4 {
			return true
		}
		words, ok := row.Elts[0].(*ast.BasicLit)
		if _, helps := row.Elts[3].(*ast.CompositeLit); !ok || !helps {
			return true
		}
		if may, ok := row.Elts[1].(*ast.Ident); ok && may.Name == "reads" {
			out = append(out, strings.ToUpper(strings.Trim(words.Value, `"`)))
		}
		return true
	})
	if len(out) < 2 {
		t.Fatalf("who may look may use %q", out)
	}
	slices.Reverse(out) // SHOW first
	return strings.Join(out[:len(out)-1], ", ") + " and " + out[len(out)-1]
}

// What the page on security says of those who may look is what they may.
func TestDocsOfWhoMayLook(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "| only " + looks(t) + ", on the console |"; !strings.Contains(string(b), want) {
		t.Errorf("docs/security.md does not say of stats_users: %s", want)
	}
}

func TestDocsOfAdminSQL(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Admin SQL\n\nThis page is generated from what `HELP` prints. Connect to the database `pgmosaic` (or `pgbouncer`: its other name, in rules too) as one of `admin_users`; `stats_users` may use " + looks(t) + ".\n" +
		"`DRY RUN` at the end of a change says what it would do. Names quote as in PostgreSQL.\n\n| statement | what it does |\n|---|---|\n")
	for _, s := range admin.Statements() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(s[0], "|", `\|`), s[1])
	}
	var names []string
	for n := range admin.Views {
		names = append(names, n)
	}
	sort.Strings(names)
	b.WriteString("\n## What can be shown\n\n| view | what it is | columns |\n|---|---|---|\n")
	for _, n := range names {
		v := admin.Views[n]
		fmt.Fprintf(&b, "| `SHOW %s` | %s | %s |\n", strings.ToUpper(n), v.Help, strings.Join(v.Columns, ", "))
	}
	page(t, "admin-sql.md", b.String())
}

// configurationKeys reads the keys and their comments from the structs of proxy/config.
func configurationKeys(t *testing.T) map[string][][2]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../proxy/config/config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][][2]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		st, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range st.Fields.List {
			if field.Tag == nil {
				continue
			}
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`"))
			key, text := tag.Get("yaml"), strings.TrimSpace(field.Comment.Text())
			if key == "-" {
				continue
			}
			if slices.Contains(strings.Fields(tag.Get("is")), "restart") {
				text += "; restart"
			}
			out[spec.Name.Name] = append(out[spec.Name.Name], [2]string{key, text})
		}
		return true
	})
	return out
}

func TestDocsOfConfiguration(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Configuration\n\nThis page is generated from the comments in `proxy/config/config.go`.\n\n" +
		"`pgmosaic serve -c pgmosaic.yaml`. An unknown or misspelt key is an error with its place and the nearest known key. Times are written\n" +
		"`500ms`, `10s`, `2min`; sizes `64MB`. Passwords may be `file:/path` or `env:NAME`. `pgmosaic check -c pgmosaic.yaml` validates the file\n" +
		"and tries every node of the map. Names are PgBouncer's where it has the same setting.\n\n" +
		"`RELOAD` on the admin console, or SIGHUP, reads the file again: all of it is taken into use, or with any mistake nothing. No client is\n" +
		"dropped. What says \"restart\" waits for the next start. `SET key = value` changes a plain setting until the next RELOAD.\n" +
		"SIGTERM and SIGINT let transactions finish for `drain_timeout`; a second signal, or SIGQUIT, does not wait. One that comes before the process\n" +
		"is ready ends the start, and the next start goes on with `init_sql`. In all these cases, and after `SHUTDOWN`, the exit status is 0; it is 1 where the process\n" +
		"cannot start, or something does not end in time. SIGUSR1 and SIGUSR2, PgBouncer's PAUSE and RESUME, do nothing.\n\n" +
		"The log goes to the standard error. It holds nobody up: lines that cannot be written, since the disk is full or nobody reads the pipe, are counted\n" +
		"(`pgmosaic_log_lines_lost`), and the log says how many are missing as soon as it can.\n")
	keys := configurationKeys(t)
	def := map[string]string{}
	cfg := config.Default()
	for _, s := range cfg.Settings() {
		def[s.Name] = s.Value
	}
	for _, part := range []struct{ title, name string }{{"", "Config"}, {"Each of `users`", "User"}, {"Each of `auth_rules`", "Rule"}, {"Each of `peers`", "Peer"}} {
		if part.title != "" {
			fmt.Fprintf(&b, "\n## %s\n", part.title)
		}
		b.WriteString("\n| key | default | what it does |\n|---|---|---|\n")
		if len(keys[part.name]) == 0 {
			t.Fatalf("type %s has no keys", part.name)
		}
		for _, k := range keys[part.name] {
			d := def[k[0]]
			if part.name != "Config" || d == "[]" {
				d = ""
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k[0], d, strings.ReplaceAll(k[1], "|", `\|`))
		}
	}
	page(t, "configuration.md", b.String())
}
