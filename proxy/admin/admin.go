// Package admin is the operator's side: the admin SQL, and the views that SHOW, the dashboard and the
// metrics are made of.
//
// The rule: a change is validated whole before anything is touched, says the new map version when it is
// done, and leaves nothing half done: what a crash interrupts is finished or undone at the next start.
package admin

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication/reshard"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Client is one client connection, for SHOW CLIENTS.
type Client struct {
	ID                          uint32
	User, Database, State, Addr string
	Port                        int
	LocalAddr                   string
	LocalPort                   int
	Connected, Request, Waiting time.Time
	TLS                         bool
	Application, Pin, Tx        string
	PinSince                    time.Time
	Servers, Prepared           int
	Link                        uint32
	In, Out                     int64
	Kill                        func()
}

// Admin runs admin SQL. Its fields are set once, before use; it may be used by any goroutine.
type Admin struct {
	*reshard.Mover // what changes the map and moves data

	Pools   *pool.Manager
	Metrics *metrics.Metrics
	Version string

	Clients   func() []Client
	Users     func() []User
	Limits    func() Limits
	Addr      func() string
	Listening func() (conns, channels int)
	Reload    func() error
	Set       func(name, value string) error
	Shutdown  func(waitForClients bool)
	Config    func() []Setting
	PlanCount func() int
	Plans     func(limit int) []Plan
	Explain   func(ctx context.Context, database, sql string) ([]string, error)
	Prepared  func(ctx context.Context, database string) ([]txn.Prepared, error)
	Found     func() []txn.Prepared // what the resolver found last

	ctx    context.Context
	events events

	sampling     sync.Mutex // guards older and newer
	older, newer statSample
}

// Init makes the admin ready; ctx bounds what views ask of nodes.
func (a *Admin) Init(ctx context.Context) {
	a.ctx = ctx
	a.Mover.Init(ctx)
}

// Run keeps the averages of SHOW STATS, until ctx ends.
func (a *Admin) Run(ctx context.Context) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			a.sampleStats(now)
		}
	}
}

// Exec runs one statement. Errors carry SQLSTATE, hint and, for syntax, a position. readOnly allows SHOW
// and its kin only.
func (a *Admin) Exec(ctx context.Context, sql string, readOnly bool) (res *Result, err error) {
	toks, err := lex(sql)
	if err != nil {
		return nil, err
	}
	p := &parser{toks: toks, text: sql}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*pgsql.Error)
			if !ok {
				panic(r)
			}
			res, err = nil, e
		}
	}()
	run, reads := a.statement(p)
	if readOnly && !reads {
		return nil, &pgsql.Error{Code: pgsql.InsufficientPrivilege, Message: "permission denied: this user may only SHOW", Hint: "Log in as one of admin_users."}
	}
	ended := false
	defer func() {
		if !reads && (!ended || a.Unfinished() != nil) { // after a panic, which is as bad as a crash, too
			a.SettleLater()
		}
	}()
	panics.Point("admin")
	if !reads {
		a.Catalog.CatchUp(ctx) // another process may have changed the map just now, or have left a statement half done
	}
	res, err = run(ctx)
	ended = true
	for _, first := range []error{shardmap.ErrConflict, shardmap.ErrChanged, shardmap.ErrEnded} {
		if errors.Is(err, first) {
			err = &pgsql.Error{Code: pgsql.SerializationFailure, Message: first.Error(), Hint: "Look at the map and run the statement again."}
		}
	}
	return res, err
}

type action func(ctx context.Context) (*Result, error)

// parseSelect answers the questions that drivers and people ask to see whether anybody is there.
func (a *Admin) parseSelect(p *parser) action {
	switch {
	case p.peek().text == "1":
		p.next()
		p.end()
		return func(context.Context) (*Result, error) {
			return &Result{Columns: []string{"?column?"}, Rows: [][]any{{1}}, Tag: "SELECT 1"}, nil
		}
	case p.word("version"):
		return func(context.Context) (*Result, error) {
			return &Result{Columns: []string{"version"}, Rows: [][]any{{"pgmosaic " + a.Version}}, Tag: "SELECT 1"}, nil
		}
	}
	panic(&pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "the admin console understands SHOW and the statements of HELP, not SELECT", Hint: "Use SHOW ... WHERE ... ORDER BY ... LIMIT."})
}

func (a *Admin) parseShow(p *parser) action {
	if p.words("map", "as", "sql") {
		p.end()
		return func(context.Context) (*Result, error) { return a.mapAsSQL() }
	}
	at := p.peek()
	name := p.name("view")
	if name == "map" && p.word("history") {
		name = "map history"
	}
	if name == "help" {
		p.end()
		return a.help
	}
	v := Views[name]
	if v == nil {
		p.at--
		panic(&pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("there is nothing called %q to show", name), Hint: "SHOW " + strings.ToUpper(strings.Join(viewNames(), " | ")) + " | MAP AS SQL.", Pos: at.pos})
	}
	f := p.filter()
	p.end()
	return func(context.Context) (*Result, error) {
		rows, err := f.apply(v.Columns, v.Rows(a))
		return &Result{Columns: v.Columns, Rows: rows, Tag: "SHOW"}, err
	}
}

func viewNames() []string {
	var out []string
	for n := range Views {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

func (a *Admin) parseExplain(p *parser) action {
	p.must("in")
	db := p.name("database")
	if p.peek().kind == 0 {
		p.fail("syntax error at %s: a statement was expected", p.near())
	}
	sql := string([]rune(p.text)[p.peek().pos-1:])
	return func(ctx context.Context) (*Result, error) {
		if _, err := a.Database(db); err != nil {
			return nil, err
		}
		lines, err := a.Explain(ctx, db, sql)
		if err != nil {
			return nil, err
		}
		res := &Result{Columns: []string{"route"}, Tag: "EXPLAIN"}
		for _, l := range lines {
			res.Rows = append(res.Rows, []any{l})
		}
		return res, nil
	}
}

func (a *Admin) parseLocate(p *parser) action {
	key, db, group := p.keyRef()
	p.end()
	return func(context.Context) (*Result, error) {
		d, err := a.Database(db)
		if err != nil {
			return nil, err
		}
		g, err := reshard.GroupOf(d, group)
		if err != nil {
			return nil, err
		}
		k, err := g.ParseKey(key)
		if err != nil {
			return nil, err
		}
		var slot, shard any
		if g.Scheme == shardmap.ByHash {
			slot = g.Slot(k)
		}
		if at, ok := d.Placement(g).Place(k); ok {
			shard = d.Shards[at].Name
		}
		return &Result{Columns: []string{"database", "group", "key", "slot", "shard"}, Rows: [][]any{{db, group, strings.Join(key, ", "), slot, shard}}, Tag: "LOCATE"}, nil
	}
}

// answer tells of a change of the map.
func answer(tag string, dry bool) func(*shardmap.Snapshot, error) (*Result, error) {
	return func(s *shardmap.Snapshot, err error) (*Result, error) {
		if err != nil {
			return nil, err
		}
		col := "map_version"
		if dry {
			col = "would_be_map_version"
		}
		return &Result{Columns: []string{col}, Rows: [][]any{{int64(s.Version)}}, Tag: tag}, nil
	}
}

func (a *Admin) traffic(ctx context.Context, verb, db, shard string) (*Result, error) {
	var names []string
	for n := range a.Catalog.Current().Databases {
		if db == "" || n == db {
			names = append(names, n)
		}
	}
	if db != "" && len(names) == 0 {
		_, err := a.Database(db)
		return nil, err
	}
	if shard != "" {
		if _, ok := a.Catalog.Current().Databases[db].Shard(shard); !ok {
			return nil, reshard.NoShard(shard, db)
		}
	}
	var undo []func() // all databases are paused, or none
	for _, n := range names {
		switch verb {
		case "pause":
			ctx, cancel := context.WithTimeout(ctx, a.PauseTimeout)
			back, err := a.Pools.Pause(ctx, n, shard)
			cancel()
			undo = append(undo, back)
			if err != nil {
				for _, back := range undo[:len(undo)-1] {
					back()
				}
				return nil, &pgsql.Error{Code: pgsql.ObjectInUse, Message: err.Error(), Hint: "SHOW CLIENTS shows who is in a transaction."}
			}
		case "resume":
			a.Pools.Resume(n, shard)
		case "disable", "enable":
			a.Pools.Disable(n, verb == "disable")
		case "kill":
			a.Pools.Hold(n)
			a.Pools.Kill(n)
		case "wait_close":
			if a.Pools.AwaitOld(ctx, n) != nil {
				return nil, &pgsql.Error{Code: pgsql.QueryCanceled, Message: "canceling statement due to user request"}
			}
		default:
			a.Pools.Reconnect(n)
		}
	}
	return &Result{Tag: strings.ToUpper(verb)}, nil
}

func (a *Admin) killClient(id string) (*Result, error) {
	for _, c := range a.Clients() {
		if fmt.Sprint(c.ID) == id {
			c.Kill()
			return &Result{Tag: "KILL_CLIENT"}, nil
		}
	}
	return nil, &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("there is no client %q", id), Hint: "SHOW CLIENTS lists their ids."}
}

// mapAsSQL prints statements that rebuild the map on empty proxies.
func (a *Admin) mapAsSQL() (*Result, error) {
	res := &Result{Columns: []string{"statement"}, Tag: "SHOW"}
	add := func(format string, args ...any) { res.Rows = append(res.Rows, []any{fmt.Sprintf(format, args...)}) }
	for _, d := range a.Catalog.Current().SortedDatabases() {
		add("CREATE DATABASE %s;", pgsql.Plain(d.Name))
		for _, s := range d.Shards {
			var b strings.Builder
			for _, n := range s.Nodes {
				fmt.Fprintf(&b, " NODE %s NAME %s", pgsql.Literal(maskDSN(n.DSN)), pgsql.Plain(n.Name))
				if n.Zone != "" {
					fmt.Fprintf(&b, " ZONE %s", pgsql.Plain(n.Zone))
				}
			}
			home := ""
			if s == d.Home {
				home = " HOME"
			}
			add("CREATE SHARD %s IN %s%s%s;", pgsql.Plain(s.Name), pgsql.Plain(d.Name), b.String(), home)
		}
		for _, g := range sortedGroups(d) {
			add("CREATE GROUP %s IN %s KEY (%s) BY %s;", pgsql.Plain(g.Name), pgsql.Plain(d.Name), g.TypeList(), placementSQL(d.Placement(g)))
			for _, p := range d.Placement(g).Pins {
				add("PIN KEY (%s) OF %s.%s ON %s;", pgsql.Literals(p.Key), pgsql.Plain(d.Name), pgsql.Plain(g.Name), pgsql.Plain(p.Shard))
			}
		}
		for _, t := range d.SortedTables() {
			name := pgsql.Plain(d.Name) + "." + t.String()
			if t.Kind == shardmap.Reference {
				add("DISTRIBUTE TABLE %s AS REFERENCE;", name)
				continue
			}
			unique := ""
			if t.LocalUnique {
				unique = " ALLOW LOCAL UNIQUE"
			}
			add("DISTRIBUTE TABLE %s IN GROUP %s KEY (%s)%s;", name, pgsql.Plain(t.Group.Name), t.KeyList(), unique)
		}
		for _, r := range d.ShardSafes() {
			add("ALTER ROUTINE %s.%s SHARD SAFE;", pgsql.Plain(d.Name), r)
		}
		for _, t := range d.Tenants() {
			add("DISTRIBUTE SCHEMA %s.%s ON %s;", pgsql.Plain(d.Name), pgsql.Plain(t.Name), pgsql.Plain(d.Shards[d.Placement(t).Shards()[0]].Name))
		}
	}
	return res, nil
}

// placementSQL is what CREATE GROUP says behind BY.
func placementSQL(p *shardmap.PlacementInfo) string {
	var parts []string
	switch p.Group.Scheme {
	case shardmap.ByRange:
		for i, r := range p.Ranges {
			from, to := "MINVALUE", "MAXVALUE"
			if i > 0 {
				from = "(" + pgsql.Literals(r.From) + ")"
			}
			if i+1 < len(p.Ranges) {
				to = "(" + pgsql.Literals(p.Ranges[i+1].From) + ")"
			}
			parts = append(parts, from+" TO "+to+" ON "+pgsql.Plain(r.Shard))
		}
		return "RANGE (" + strings.Join(parts, ", ") + ")"
	case shardmap.ByList:
		for _, l := range p.Lists {
			if len(l.Values) > 0 {
				parts = append(parts, "("+pgsql.Literals(l.Values)+") ON "+pgsql.Plain(l.Shard))
			}
			if l.Default {
				parts = append(parts, "DEFAULT ON "+pgsql.Plain(l.Shard))
			}
		}
		return "LIST (" + strings.Join(parts, ", ") + ")"
	case shardmap.ByHash, shardmap.ByTenant: // slots
	}
	for _, r := range p.Slots {
		parts = append(parts, pgsql.Plain(r.Shard))
	}
	return "HASH ON (" + strings.Join(parts, ", ") + ")"
}
