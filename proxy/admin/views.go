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

func init() {
	table("shards", "shards with their primaries", showShards)
	table("nodes", "nodes as declared, with their observed role", showNodes)
	table("replicas", "every node with its lag and why it may or may not be read", showReplicas)
	table("groups", "groups of co-located tables", showGroups)
	table("tables", "declared tables", showTables)
	table("slots", "which shard owns which slots", showSlots)
	table("keys", "which shard owns which ranges, lists and pinned keys", showKeys)
	table("tenants", "schemas that live on one shard", showTenants)
	table("map", "the version and size of the shard map in force, why the store's is another, and the fingerprint that processes with the same map share", showMap)
	table("map history", "versions that can be gone back to", showHistory)
	table("transactions", "prepared parts of commits over shards, and commits that have lost one", showTransactions)
	table("jobs", "statements that move rows: those that run, and the last that have ended", showJobs)
	table("plans", "cached plans, the busiest first, without the literals of their statements", showPlans)
	table("events", "what happened by itself: failovers, replicas that left the reads and came back, maps that cannot be used", showEvents)
	table("refusals", "statements refused, by rule", showRefusals)
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

type shardRow struct {
	Database, Shard string
	Home            bool
	Nodes           int
	Primary         any // its node's name
	State           string
	Slots, Groups   int
	Paused          bool
}

func showShards(a *Admin) (out []shardRow) {
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
			out = append(out, shardRow{
				Database: d.Name, Shard: s.Name, Home: s == d.Home, Nodes: len(s.Nodes), Primary: primary, State: state, Slots: slots, Groups: groups, Paused: a.Pools.Paused(d.Name, s.Name),
			})
		}
	}
	return out
}

// passwordPair is a password in a connection string of key words: sslpassword, too. A value without quotes goes on behind an escaped space.
var passwordPair = regexp.MustCompile(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|(?:\\.|\S)+)`)

// urlPair is a password among the parameters of a URL. A key with a percent sign may be any.
var urlPair = regexp.MustCompile(`(?i)([^?&=]*(?:password|%)[^?&=]*=)[^&]*`)

// maskDSN hides the password of a connection string.
func maskDSN(dsn string) string {
	u, err := url.Parse(dsn)
	var q url.Values
	if err == nil {
		q, err = url.ParseQuery(u.RawQuery)
	}
	scheme, rest, _ := strings.Cut(dsn, "://")
	switch {
	case err != nil && (scheme == "postgres" || scheme == "postgresql"): // several hosts of IPv6 are no URL to others than PostgreSQL
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			if user, _, has := strings.Cut(rest[:at], ":"); has {
				rest = user + ":xxxxx" + rest[at:]
			}
		}
		return scheme + "://" + urlPair.ReplaceAllString(rest, "${1}xxxxx")
	case err != nil && rest != "" && !strings.ContainsAny(scheme, " ="): // nobody can connect with it
		return scheme + "://xxxxx"
	case err != nil || u.Scheme == "":
		return passwordPair.ReplaceAllString(dsn, "${1}xxxxx")
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), "xxxxx")
	}
	for key := range q {
		if strings.Contains(strings.ToLower(key), "password") {
			q.Set(key, "xxxxx")
			u.RawQuery = q.Encode()
		}
	}
	return u.String()
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

type nodeRow struct{ Database, Shard, Node, DSN, Zone, Role, State, Reason string }

func showNodes(a *Admin) (out []nodeRow) {
	a.eachNode(func(d *shardmap.DB, s *shardmap.ShardInfo, n *shardmap.Node, nv *replication.NodeView, _ *replication.View) {
		role, reason := "unknown", ""
		if nv != nil {
			role = nv.Role()
			if nv.Sample.Err != nil {
				reason = nv.Verdict.Reason
			}
		}
		out = append(out, nodeRow{Database: d.Name, Shard: s.Name, Node: n.Name, DSN: maskDSN(n.DSN), Zone: n.Zone, Role: role, State: nodeState(nv), Reason: reason})
	})
	return out
}

// replicaRow is NULL where nothing is known of a node.
type replicaRow struct {
	Database, Shard, Node, Zone, Role, State string
	Eligible                                 bool
	Reason, ReplayLSN, PrimaryLSN            any
	LagBytes, LagMs, Timeline                any
	InFlight                                 int
	Reads                                    int64
	LastSeenMs                               any
}

func showReplicas(a *Admin) (out []replicaRow) {
	now := time.Now()
	a.eachNode(func(d *shardmap.DB, s *shardmap.ShardInfo, n *shardmap.Node, nv *replication.NodeView, _ *replication.View) {
		row := replicaRow{
			Database: d.Name, Shard: s.Name, Node: n.Name, Zone: n.Zone, Role: "unknown", State: nodeState(nv), InFlight: a.inFlight(d.Name, n.Name), Reads: a.reads(d.Name, s.Name, n.Name),
		}
		if nv != nil {
			row.Role, row.Eligible, row.Reason = nv.Role(), nv.Verdict.Health == replication.Eligible, nv.Verdict.Reason
			row.PrimaryLSN, row.Timeline = nv.PrimaryLSN.String(), int64(nv.Sample.Timeline)
			if nv.Primary {
				row.LagBytes, row.LagMs = int64(0), int64(0)
			} else {
				row.ReplayLSN, row.LagBytes = nv.Sample.LSN.String(), nv.LagBytes
				if nv.LagKnown || nv.Lag > 0 {
					row.LagMs = nv.Lag.Milliseconds()
				}
			}
			if !nv.LastSeen.IsZero() {
				row.LastSeenMs = now.Sub(nv.LastSeen).Milliseconds()
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

type groupRow struct {
	Database, Group, KeyType, Scheme string
	Shards, Tables                   int
}

func showGroups(a *Admin) (out []groupRow) {
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, g := range sortedGroups(d) {
			tables := 0
			for _, t := range d.Tables {
				if t.Group == g {
					tables++
				}
			}
			out = append(out, groupRow{Database: d.Name, Group: g.Name, KeyType: g.TypeList(), Scheme: string(g.Scheme), Shards: len(d.Placement(g).Shards()), Tables: tables})
		}
	}
	return out
}

type tableRow struct {
	Database, Schema, Table, Kind string
	Group, Key                    any
	State                         string
}

func showTables(a *Admin) (out []tableRow) {
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, t := range d.SortedTables() {
			row := tableRow{Database: d.Name, Schema: t.Schema, Table: t.Name, Kind: string(t.Kind), State: "serving"}
			if t.Group != nil {
				row.Group, row.Key = t.Group.Name, t.KeyList()
			}
			if t.Moving {
				row.State = "moving"
			}
			out = append(out, row)
		}
	}
	return out
}

type slotRow struct {
	Database, Group string
	From, To        int
	Shard           string
}

func showSlots(a *Admin) (out []slotRow) {
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, g := range sortedGroups(d) {
			for _, r := range d.Placement(g).Slots {
				out = append(out, slotRow{Database: d.Name, Group: g.Name, From: r.From, To: r.To, Shard: r.Shard})
			}
		}
	}
	return out
}

type keyRow struct{ Database, Group, Kind, Key, Shard string }

func showKeys(a *Admin) (out []keyRow) {
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, g := range sortedGroups(d) {
			add := func(kind, key, shard string) {
				out = append(out, keyRow{Database: d.Name, Group: g.Name, Kind: kind, Key: key, Shard: shard})
			}
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

type tenantRow struct{ Database, Schema, Shard, State string }

func showTenants(a *Admin) (out []tenantRow) {
	for _, d := range a.Catalog.Current().SortedDatabases() {
		for _, t := range d.Tenants() {
			state := "serving"
			if t.Moving {
				state = "moving"
			}
			out = append(out, tenantRow{Database: d.Name, Schema: t.Name, Shard: d.Shards[d.Placement(t).Shards()[0]].Name, State: state})
		}
	}
	return out
}

type mapRow struct {
	Version                                  int64
	Install                                  string
	Databases, Shards, Nodes, Groups, Tables int
	Trouble, Fingerprint                     string
}

func showMap(a *Admin) []mapRow {
	s := a.Catalog.Current()
	d := s.Document
	trouble := ""
	if err := a.Catalog.Trouble(); err != nil {
		trouble = err.Error()
	}
	return []mapRow{{
		Version: int64(s.Version), Install: s.Install, Databases: len(d.Databases), Shards: len(d.Shards), Nodes: len(d.Nodes), Groups: len(d.Groups), Tables: len(d.Tables),
		Trouble: trouble, Fingerprint: fmt.Sprintf("%012x", s.Fingerprint()),
	}}
}

type historyRow struct{ Version int64 }

func showHistory(a *Admin) (out []historyRow) {
	versions, _ := a.Catalog.History(a.ctx) // an unreadable folder has no history
	for _, v := range versions {
		out = append(out, historyRow{int64(v)})
	}
	return out
}

type transactionRow struct {
	Database, Shard, GID, Owner, Decider string
	AgeMs                                int64
	State                                string
}

func showTransactions(a *Admin) (out []transactionRow) {
	for _, d := range a.Catalog.Current().SortedDatabases() {
		parts, _ := a.Prepared(a.ctx, d.Name) // what could not be asked is missing; SHOW SHARDS says why
		for _, p := range parts {
			out = append(out, transactionRow{Database: d.Name, Shard: p.Shard, GID: p.GID, Owner: p.Owner, Decider: p.Decider, AgeMs: p.Age.Milliseconds(), State: cmp.Or(p.Damage, "prepared")})
		}
	}
	return out
}

// maxPlans bounds what SHOW PLANS prints.
const maxPlans = 2000

func showPlans(a *Admin) []Plan { return a.Plans(maxPlans) }

// Plan is a cached plan, as SHOW PLANS has it.
type Plan struct {
	Database, Route           string
	Hits                      int64
	Exact                     bool
	Bytes                     int64
	MapVersion, SchemaVersion int64
	Statement                 string
}

type refusalRow struct {
	Rule, Sqlstate string
	Count          int64
	Last           string
	Sample, Hint   string
}

func showRefusals(a *Admin) (out []refusalRow) {
	for _, r := range a.Metrics.Refusals() {
		code, hint := "", ""
		if info := router.InfoOf(router.Rule(r.Rule)); info != nil {
			code, hint = info.Code, info.Hint
		}
		out = append(out, refusalRow{Rule: r.Rule, Sqlstate: code, Count: r.Count, Last: r.Last.Format(time.DateTime), Sample: r.Sample, Hint: hint})
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

type jobRow struct {
	ID                         int
	Database, Statement, State string
	Rows                       int64
	ExpectedRows               any
	Started                    string
	Ended                      any
	Ms                         int64
}

func showJobs(a *Admin) (out []jobRow) {
	for _, j := range a.Jobs() {
		row, end := jobRow{ID: j.ID, Database: j.Database, Statement: j.Statement, State: j.State, Rows: j.Rows, Started: j.Started.Format(time.DateTime)}, time.Now()
		if !j.Ended.IsZero() {
			end, row.Ended = j.Ended, j.Ended.Format(time.DateTime)
		}
		if j.Expected > 0 {
			row.ExpectedRows = j.Expected
		}
		row.Ms = end.Sub(j.Started).Milliseconds()
		out = append(out, row)
	}
	return out
}
