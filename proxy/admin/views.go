package admin

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Result is what a statement returns: columns and rows, or only a tag.
type Result struct {
	Columns []string
	Rows    [][]any
	Tag     string
}

// View is a table that SHOW prints, the dashboard draws and metrics may read: one source for all of them.
type View struct {
	Name    string
	Help    string
	Columns []string
	Rows    func(*Admin) [][]any
}

// Views lists what can be shown, by name.
var Views = map[string]*View{}

func view(name, help string, rows func(*Admin) [][]any, columns ...string) {
	Views[name] = &View{name, help, columns, rows}
}

func init() {
	view("shards", "shards with their primaries", showShards, "database", "shard", "home", "nodes", "primary", "state", "slots", "groups", "paused")
	view("nodes", "nodes as declared, with their observed role", showNodes, "database", "shard", "node", "dsn", "zone", "role", "state", "reason")
	view("replicas", "every node with its lag and why it may or may not be read", showReplicas, "database", "shard", "node", "zone", "role", "state", "eligible", "reason",
		"replay_lsn", "primary_lsn", "lag_bytes", "lag_ms", "timeline", "in_flight", "reads", "last_seen_ms")
	view("groups", "groups of co-located tables", showGroups, "database", "group", "key_type", "scheme", "shards", "tables")
	view("tables", "declared tables", showTables, "database", "schema", "table", "kind", "group", "key", "state")
	view("slots", "which shard owns which slots", showSlots, "database", "group", "from", "to", "shard")
	view("keys", "which shard owns which ranges, lists and pinned keys", showKeys, "database", "group", "kind", "key", "shard")
	view("tenants", "schemas that live on one shard", showTenants, "database", "schema", "shard", "state")
	view("map", "the version and size of the shard map in force, why the store's is another, and the fingerprint that processes with the same map share", showMap, "version", "install", "databases", "shards", "nodes", "groups", "tables", "trouble", "fingerprint")
	view("map history", "versions that can be gone back to", showHistory, "version")
	view("transactions", "prepared parts of commits over shards, and commits that have lost one", showTransactions, "database", "shard", "gid", "owner", "decider", "age_ms", "state")
	view("jobs", "statements that move rows: those that run, and the last that have ended", showJobs, "id", "database", "statement", "state", "rows", "expected_rows", "started", "ended", "ms")
	view("plans", "cached plans, the busiest first, without the literals of their statements", showPlans, "database", "route", "hits", "exact", "bytes", "map_version", "schema_version", "statement")
	view("events", "what happened by itself: failovers, replicas that left the reads and came back, maps that cannot be used", showEvents, "at", "level", "database", "shard", "node", "event", "reason")
	view("refusals", "statements refused, by rule", showRefusals, "rule", "sqlstate", "count", "last", "sample", "hint")
}

func b01(b bool) int {
	if b {
		return 1
	}
	return 0
}

func sortedGroups(d *shardmap.DB) []*shardmap.GroupInfo {
	out := make([]*shardmap.GroupInfo, 0, len(d.Groups))
	for _, g := range d.Groups {
		out = append(out, g)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func showShards(a *Admin) [][]any {
	var out [][]any
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, s := range d.Shards {
			primary, state := any(nil), "unknown"
			if v := a.Monitor.View(d.Name, s.Name); v != nil {
				switch {
				case v.Fenced != "":
					state = "fenced"
				case v.Primary < 0:
					state = "no primary"
				case v.Up():
					state = "up"
				default:
					state = "primary down"
				}
				if v.Primary >= 0 {
					primary = v.Nodes[v.Primary].Name
				}
			}
			slots, groups := 0, 0
			for _, g := range d.Groups {
				n := 0
				for _, r := range d.Placement(g).Slots {
					if r.Shard == s.Name {
						n += r.To - r.From + 1
					}
				}
				slots += n
				if slices.Contains(d.Placement(g).Shards(), s.Index) {
					groups++
				}
			}
			out = append(out, []any{d.Name, s.Name, s == d.Home, len(s.Nodes), primary, state, slots, groups, a.Pools.Paused(d.Name, s.Name)})
		}
	}
	return out
}

var passwordPair = regexp.MustCompile(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)`)

// maskDSN hides the password of a connection string.
func maskDSN(dsn string) string {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		if _, has := u.User.Password(); has {
			u.User = url.UserPassword(u.User.Username(), "xxxxx")
		}
		q := u.Query()
		if q.Has("password") {
			q.Set("password", "xxxxx")
			u.RawQuery = q.Encode()
		}
		return u.String()
	}
	return passwordPair.ReplaceAllString(dsn, "${1}xxxxx")
}

func (a *Admin) eachNode(f func(d *shardmap.DB, s *shardmap.ShardInfo, n *shardmap.Node, nv *replication.NodeView, v *replication.View)) {
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, s := range d.Shards {
			v := a.Monitor.View(d.Name, s.Name)
			for i, n := range s.Nodes {
				var nv *replication.NodeView
				if v != nil && i < len(v.Nodes) {
					nv = &v.Nodes[i]
				}
				f(d, s, n, nv, v)
			}
		}
	}
}

func nodeState(nv *replication.NodeView) string {
	switch {
	case nv == nil || nv.Sample.Sent.IsZero():
		return "unknown"
	case nv.Stranger():
		return "stranger"
	case nv.Sample.Err != nil:
		return "unreachable"
	case nv.Primary:
		return "up"
	}
	return nv.Verdict.Health.String()
}

func showNodes(a *Admin) (out [][]any) {
	a.eachNode(func(d *shardmap.DB, s *shardmap.ShardInfo, n *shardmap.Node, nv *replication.NodeView, _ *replication.View) {
		role, reason := "unknown", ""
		if nv != nil {
			role = nv.Role()
			if nv.Sample.Err != nil {
				reason = nv.Verdict.Reason
			}
		}
		out = append(out, []any{d.Name, s.Name, n.Name, maskDSN(n.DSN), n.Zone, role, nodeState(nv), reason})
	})
	return out
}

func showReplicas(a *Admin) (out [][]any) {
	now := time.Now()
	a.eachNode(func(d *shardmap.DB, s *shardmap.ShardInfo, n *shardmap.Node, nv *replication.NodeView, _ *replication.View) {
		row := []any{d.Name, s.Name, n.Name, n.Zone, "unknown", nodeState(nv), false, nil, nil, nil, nil, nil, nil, a.inFlight(d.Name, n.Name), a.reads(d.Name, s.Name, n.Name), nil}
		if nv != nil {
			row[4] = nv.Role()
			row[6] = nv.Verdict.Health == replication.Eligible
			row[7] = nv.Verdict.Reason
			row[9] = nv.PrimaryLSN.String()
			row[12] = int64(nv.Sample.Timeline)
			if nv.Primary {
				row[10], row[11] = int64(0), int64(0)
			} else {
				row[8] = nv.Sample.LSN.String()
				row[10] = nv.LagBytes
				if nv.LagKnown || nv.Lag > 0 {
					row[11] = nv.Lag.Milliseconds()
				}
			}
			if !nv.LastSeen.IsZero() {
				row[15] = now.Sub(nv.LastSeen).Milliseconds()
			}
		}
		out = append(out, row)
	})
	return out
}

func (a *Admin) inFlight(db, node string) int {
	n := 0
	for _, p := range a.Pools.All() {
		if p.Database == db && p.Node == node {
			n += p.Stats().Active
		}
	}
	return n
}

func (a *Admin) reads(db, shard, node string) int64 {
	var n int64
	m := a.Metrics.Node(db, shard, node)
	for i := range m.Reads {
		n += m.Reads[i].Load()
	}
	return n
}

func showGroups(a *Admin) [][]any {
	var out [][]any
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, g := range sortedGroups(d) {
			tables := 0
			for _, t := range d.Tables {
				if t.Group == g {
					tables++
				}
			}
			out = append(out, []any{d.Name, g.Name, g.TypeList(), string(g.Scheme), len(d.Placement(g).Shards()), tables})
		}
	}
	return out
}

func showTables(a *Admin) [][]any {
	var out [][]any
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, t := range d.SortedTables() {
			group, key, state := any(nil), any(nil), "serving"
			if t.Group != nil {
				group, key = t.Group.Name, t.KeyList()
			}
			if t.Moving {
				state = "moving"
			}
			out = append(out, []any{d.Name, t.Schema, t.Name, string(t.Kind), group, key, state})
		}
	}
	return out
}

func showSlots(a *Admin) [][]any {
	var out [][]any
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, g := range sortedGroups(d) {
			for _, r := range d.Placement(g).Slots {
				out = append(out, []any{d.Name, g.Name, r.From, r.To, r.Shard})
			}
		}
	}
	return out
}

func showKeys(a *Admin) [][]any {
	var out [][]any
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, g := range sortedGroups(d) {
			add := func(kind, key, shard string) { out = append(out, []any{d.Name, g.Name, kind, key, shard}) }
			places := d.Placement(g)
			for _, p := range places.Pins {
				add("pin", strings.Join(p.Key, ", "), p.Shard)
			}
			for i, r := range places.Ranges {
				from, to := "MINVALUE", "MAXVALUE"
				if i > 0 {
					from = "(" + strings.Join(r.From, ", ") + ")"
				}
				if i+1 < len(places.Ranges) {
					to = "(" + strings.Join(places.Ranges[i+1].From, ", ") + ")"
				}
				add("range", from+" TO "+to, r.Shard)
			}
			for _, l := range places.Lists {
				for _, v := range l.Values {
					add("list", v, l.Shard)
				}
				if l.Default {
					add("list", "DEFAULT", l.Shard)
				}
			}
		}
	}
	return out
}

func showTenants(a *Admin) [][]any {
	var out [][]any
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, t := range d.Tenants() {
			state := "serving"
			if t.Moving {
				state = "moving"
			}
			out = append(out, []any{d.Name, t.Name, d.Shards[d.Placement(t).Shards()[0]].Name, state})
		}
	}
	return out
}

func showMap(a *Admin) [][]any {
	s := a.Catalog.Current()
	d := s.Document
	trouble := ""
	if err := a.Catalog.Trouble(); err != nil {
		trouble = err.Error()
	}
	return [][]any{{int64(s.Version), s.Install, len(d.Databases), len(d.Shards), len(d.Nodes), len(d.Groups), len(d.Tables), trouble, fmt.Sprintf("%012x", s.Fingerprint())}}
}

func showHistory(a *Admin) [][]any {
	versions, _ := a.Catalog.History(a.ctx) // an unreadable folder has no history
	var out [][]any
	for _, v := range versions {
		out = append(out, []any{int64(v)})
	}
	return out
}

func showTransactions(a *Admin) [][]any {
	var out [][]any
	for _, d := range a.Catalog.Current().SortedDatabases() {
		parts, _ := a.Prepared(a.ctx, d.Name) // what could not be asked is missing; SHOW SHARDS says why
		for _, p := range parts {
			out = append(out, []any{d.Name, p.Shard, p.GID, p.Owner, p.Decider, p.Age.Milliseconds(), cmp.Or(p.Damage, "prepared")})
		}
	}
	return out
}

// maxPlans bounds what SHOW PLANS prints.
const maxPlans = 2000

func showPlans(a *Admin) [][]any { return a.Plans(maxPlans) }

func showRefusals(a *Admin) [][]any {
	var out [][]any
	for _, r := range a.Metrics.Refusals() {
		code, hint := "", ""
		if info := router.InfoOf(router.Rule(r.Rule)); info != nil {
			code, hint = info.Code, info.Hint
		}
		out = append(out, []any{r.Rule, code, r.Count, r.Last.Format(time.DateTime), r.Sample, hint})
	}
	return out
}

// filter applies WHERE, ORDER BY and LIMIT of a SHOW.
type filter struct {
	where []condition
	order []ordering
	limit int // -1 for none
}

type condition struct {
	column, op, value string
	pos               int
}

type ordering struct {
	column string
	desc   bool
	pos    int
}

func (p *parser) filter() filter {
	f := filter{limit: -1}
	if p.word("where") {
		for {
			t := p.peek()
			c := condition{column: p.name("column"), pos: t.pos}
			op := p.next()
			switch op.text {
			case "=", "<>", "!=", "<", ">", "<=", ">=", "like":
				c.op = op.text
			default:
				p.at--
				p.fail("syntax error at %s: an operator was expected", p.near())
			}
			c.value = p.next().text
			f.where = append(f.where, c)
			if !p.word("and") {
				break
			}
		}
	}
	if p.words("order", "by") {
		for {
			t := p.peek()
			o := ordering{column: p.name("column"), pos: t.pos}
			if p.word("desc") {
				o.desc = true
			} else {
				p.word("asc")
			}
			f.order = append(f.order, o)
			if !p.punct(",") {
				break
			}
		}
	}
	if p.word("limit") {
		n, err := strconv.Atoi(p.peek().text)
		if err != nil || n < 0 {
			p.fail("syntax error at %s: a number was expected", p.near())
		}
		p.next()
		f.limit = n
	}
	return f
}

func (f filter) apply(columns []string, rows [][]any) ([][]any, error) {
	find := func(name string, pos int) (int, error) {
		for i, c := range columns {
			if c == name {
				return i, nil
			}
		}
		return 0, &pgsql.Error{Code: pgsql.UndefinedColumn, Message: fmt.Sprintf("column %q does not exist", name), Hint: "The columns are: " + strings.Join(columns, ", ") + ".", Pos: pos}
	}
	for _, c := range f.where {
		i, err := find(c.column, c.pos)
		if err != nil {
			return nil, err
		}
		var keep [][]any
		for _, r := range rows {
			if c.holds(r[i]) {
				keep = append(keep, r)
			}
		}
		rows = keep
	}
	for k := len(f.order) - 1; k >= 0; k-- {
		o := f.order[k]
		i, err := find(o.column, o.pos)
		if err != nil {
			return nil, err
		}
		sort.SliceStable(rows, func(a, b int) bool {
			c := compareCells(Text(rows[a][i]), Text(rows[b][i]))
			return o.desc && c > 0 || !o.desc && c < 0
		})
	}
	if f.limit >= 0 && len(rows) > f.limit {
		rows = rows[:f.limit]
	}
	return rows, nil
}

func (c condition) holds(v any) bool {
	if v == nil {
		return false
	}
	s := Text(v)
	if b, ok := v.(bool); ok {
		s = strconv.FormatBool(b)
		if long, ok := map[string]string{"t": "true", "f": "false", "yes": "true", "no": "false"}[c.value]; ok {
			c.value = long
		}
	}
	if c.op == "like" {
		pattern := "(?s)^" + strings.NewReplacer("%", ".*", "_", ".").Replace(regexp.QuoteMeta(c.value)) + "$"
		ok, err := regexp.MatchString(pattern, s)
		return err == nil && ok
	}
	d := compareCells(s, c.value)
	switch c.op {
	case "=":
		return d == 0
	case "<>", "!=":
		return d != 0
	case "<":
		return d < 0
	case ">":
		return d > 0
	case "<=":
		return d <= 0
	}
	return d >= 0
}

// compareCells compares numbers as numbers, the rest as text.
func compareCells(a, b string) int {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	if err1 == nil && err2 == nil {
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return strings.Compare(a, b)
}

// Text prints a cell as PostgreSQL would.
func Text(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case bool:
		if x {
			return "t"
		}
		return "f"
	case time.Time:
		return x.Format(time.DateTime)
	}
	return fmt.Sprint(v)
}

func showJobs(a *Admin) (out [][]any) {
	for _, j := range a.Jobs() {
		end, ended, expected := time.Now(), any(nil), any(nil)
		if !j.Ended.IsZero() {
			end, ended = j.Ended, j.Ended.Format(time.DateTime)
		}
		if j.Expected > 0 {
			expected = j.Expected
		}
		out = append(out, []any{j.ID, j.Database, j.Statement, j.State, j.Rows, expected, j.Started.Format(time.DateTime), ended, end.Sub(j.Started).Milliseconds()})
	}
	return out
}
