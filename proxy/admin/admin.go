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
	"log/slog"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication"
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
	Catalog *shardmap.Catalog
	Monitor *replication.Monitor
	Pools   *pool.Manager
	Metrics *metrics.Metrics
	Log     *slog.Logger
	Version string

	Clients       func() []Client
	Using         func(database string, before uint64) []Client // that run statements or transactions by a map of an older version
	Users         func() []User
	Limits        func() Limits
	Addr          func() string
	Listening     func() (conns, channels int)
	Reload        func() error
	Set           func(name, value string) error
	Shutdown      func(waitForClients bool)
	Config        func() [][]any
	PlanCount     func() int
	Plans         func(limit int) [][]any // rows of SHOW PLANS
	Explain       func(ctx context.Context, database, sql string) ([]string, error)
	SchemaChanged func(ctx context.Context, database string)
	Prepared      func(ctx context.Context, database string) ([]txn.Prepared, error)
	Found         func() []txn.Prepared // what the resolver found last
	PauseTimeout  time.Duration         // how long DISTRIBUTE and PAUSE wait for running transactions

	ctx      context.Context
	changing sync.Mutex // one change at a time in this process
	jobs     jobs
	events   events
	checks   sync.Map // of checkOf: Checked
	begun    sync.Map // ids of the attempts that this process has begun
	settling atomic.Bool
	renaming sync.Map // of databases: chan struct{} of one, which Renames holds

	sampling     sync.Mutex // guards older and newer
	older, newer statSample
}

// Init makes the admin ready; ctx bounds what views ask of nodes.
func (a *Admin) Init(ctx context.Context) { a.ctx = ctx }

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
		if !reads && (!ended || a.unfinished() != nil) { // after a panic, which is as bad as a crash, too
			a.settleLater()
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

// statement parses one statement. reads says that it changes nothing.
func (a *Admin) statement(p *parser) (run action, reads bool) {
	switch {
	case p.word("show"):
		return a.parseShow(p), true
	case p.word("help"):
		for p.peek().kind == 'w' {
			p.next()
		}
		p.end()
		return a.help, true
	case p.words("explain", "route"):
		return a.parseExplain(p), true
	case p.words("locate", "key"):
		return a.parseLocate(p), true
	case p.words("verify", "schema"):
		return a.parseVerifySchema(p), true
	case p.word("verify"):
		return a.parseVerify(p), false
	case p.word("create"):
		return a.parseCreate(p), false
	case p.word("alter"):
		return a.parseAlter(p), false
	case p.word("drop"):
		return a.parseDrop(p), false
	case p.words("distribute", "table"):
		return a.parseDistribute(p), false
	case p.words("distribute", "schema"):
		return a.parseDistributeSchema(p), false
	case p.words("undistribute", "schema"):
		db, schema := p.schemaRef()
		dry := p.dryRun()
		return func(ctx context.Context) (*Result, error) { return a.undistributeSchema(ctx, db, schema, dry) }, false
	case p.words("pin", "key"):
		return a.parsePin(p), false
	case p.words("unpin", "key"):
		return a.parseUnpin(p), false
	case p.words("undistribute", "table"):
		db, sch, tbl := p.tableRef()
		dry := p.dryRun()
		return func(ctx context.Context) (*Result, error) { return a.undistribute(ctx, db, sch, tbl, dry) }, false
	case p.word("pause"), p.word("resume"), p.word("reconnect"):
		verb := p.toks[p.at-1].text
		db, shard := "", ""
		if k := p.peek().kind; k == 'w' || k == 'q' {
			db = p.name("database")
			if verb != "reconnect" && p.word("shard") {
				shard = p.name("shard")
			}
		}
		p.end()
		return func(ctx context.Context) (*Result, error) { return a.traffic(ctx, verb, db, shard) }, false
	case p.word("disable"), p.word("enable"), p.word("kill"), p.word("wait_close"):
		verb := p.toks[p.at-1].text
		db := ""
		if k := p.peek().kind; k == 'w' || k == 'q' {
			db = p.name("database")
		} else if verb == "disable" || verb == "enable" {
			p.fail("syntax error at %s: a database was expected", p.near())
		}
		p.end()
		return func(ctx context.Context) (*Result, error) { return a.traffic(ctx, verb, db, "") }, false
	case p.word("reload"):
		p.end()
		return func(context.Context) (*Result, error) {
			if err := a.Reload(); err != nil {
				return nil, &pgsql.Error{Code: pgsql.ConfigFileError, Message: "RELOAD failed, the old configuration stays in force: " + err.Error()}
			}
			return &Result{Tag: "RELOAD"}, nil
		}, false
	case p.word("shutdown"):
		wait := false
		if p.word("wait_for_clients") {
			wait = true
		} else {
			p.word("wait_for_servers") // what SHUTDOWN does here: transactions are let finish
		}
		p.end()
		return func(context.Context) (*Result, error) {
			a.Log.Info("shutdown by the admin console", "wait_for_clients", wait)
			a.Shutdown(wait)
			return &Result{Tag: "SHUTDOWN"}, nil
		}, false
	case p.word("suspend"):
		panic(&pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "SUSPEND is not supported", Hint: "PAUSE holds transactions back; a new process may listen beside this one with so_reuseport."})
	case p.word("kill_client"):
		id := p.next().text
		p.end()
		return func(context.Context) (*Result, error) { return a.killClient(id) }, false
	case p.word("set"):
		name := p.name("parameter")
		if name == "extra_float_digits" || name == "application_name" || name == "client_encoding" || name == "datestyle" || name == "timezone" {
			return func(context.Context) (*Result, error) { return &Result{Tag: "SET"}, nil }, true // drivers say so when they connect
		}
		if !p.punct("=") {
			p.word("to")
		}
		t := p.next()
		if t.kind == 0 || t.kind == 'p' {
			p.at--
			p.fail("syntax error at %s: a value was expected", p.near())
		}
		value := t.text
		if u := p.peek(); t.kind == 'n' && u.kind == 'w' && u.pos == t.pos+len(t.text) { // 10s, 64MB
			value += p.next().text
		}
		p.end()
		return func(context.Context) (*Result, error) {
			if err := a.Set(name, value); err != nil {
				return nil, err
			}
			a.Log.Info("setting changed by the admin console", "setting", name)
			return &Result{Tag: "SET"}, nil
		}, false
	case p.word("begin"), p.word("commit"), p.word("rollback"):
		verb := strings.ToUpper(p.toks[p.at-1].text)
		return func(context.Context) (*Result, error) { return &Result{Tag: verb}, nil }, true
	case p.word("select"):
		return a.parseSelect(p), true
	case p.peek().kind == 0 || p.punct(";"):
		return func(context.Context) (*Result, error) { return &Result{}, nil }, true
	}
	p.fail("syntax error at %s: a statement was expected", p.near())
	return nil, false
}

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

func (p *parser) dryRun() bool {
	dry := p.words("dry", "run")
	p.end()
	return dry
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

// statements is what HELP prints.
var statements = [][]any{
	{"CREATE DATABASE db", "declare a logical database"},
	{"DROP DATABASE db", "forget it; refused while it has shards"},
	{"CREATE SHARD s IN db NODE 'dsn' [NAME n] [ZONE z] [NODE ...] [HOME]", "add a shard; definitions and reference tables are brought from home, in use: at the end, statements that write reference tables or define what all shards have wait for a moment"},
	{"ALTER SHARD s IN db ADD NODE 'dsn' [NAME n] [ZONE z] | DROP NODE n | ALTER NODE n 'dsn'", "change a shard's nodes"},
	{"ALTER SHARD s IN db SET PRIMARY n", "say which of the nodes that claim to be the primary it is"},
	{"ALTER SHARD s IN db ADOPT", "tell the database of its primary, which was restored, copied or upgraded on purpose, that it is this shard's, and the map that its server is"},
	{"DROP SHARD s IN db", "forget a shard that owns nothing"},
	{"CREATE GROUP g IN db KEY (type, ..) BY HASH [ON (s1, s2)]", "a group of tables whose equal keys live together, spread by hash"},
	{"CREATE GROUP g IN db KEY (type, ..) BY RANGE (MINVALUE TO (v) ON s1, (v) TO MAXVALUE ON s2)", "the same, by ranges of keys; each begins where the one before it ends"},
	{"CREATE GROUP g IN db KEY (type) BY LIST (('a', 'b') ON s1, ('c') ON s2 [, DEFAULT ON s1])", "the same, by lists of keys"},
	{"ALTER GROUP g IN db SPLIT AT (v)", "cut a range in two"},
	{"ALTER GROUP g IN db ADD VALUES ('d') ON s", "add keys to a list"},
	{"PIN KEY (value) OF db.group ON s", "send one key to a shard of its own; refused while it has rows elsewhere"},
	{"UNPIN KEY (value) OF db.group", "let the group place the key again"},
	{"DROP GROUP g IN db", "forget a group without tables"},
	{"DISTRIBUTE TABLE db.schema.t IN GROUP g KEY (column, ..) [ALLOW LOCAL UNIQUE]", "move a table's rows to their shards"},
	{"DISTRIBUTE TABLE db.schema.t AS REFERENCE", "copy a table to every shard"},
	{"UNDISTRIBUTE TABLE db.schema.t", "bring a table back to home"},
	{"VERIFY TABLE db.schema.t", "compare the copies of a reference table; find the rows of a sharded one that are on the wrong shard, or on two, and what lets them in"},
	{"DISTRIBUTE SCHEMA db.schema ON s", "move a schema and all its tables to one shard"},
	{"UNDISTRIBUTE SCHEMA db.schema", "bring it back to home"},
	{"ALTER ROUTINE db.schema.f [NOT] SHARD SAFE", "say of a function, or a trigger's, that for a row it touches rows of that row's shard only"},
	{"LOCATE KEY (value) OF db.group", "the shard and slot of a key"},
	{"EXPLAIN ROUTE IN db statement", "where a statement would run"},
	{"VERIFY SCHEMA IN db", "what shards should have in common and have not: one row for each definition that differs from home's"},
	{"SHOW view [WHERE column op value [AND ..]] [ORDER BY column [DESC]] [LIMIT n]", "look at a view"},
	{"SHOW MAP AS SQL", "the statements that would rebuild the map"},
	{"PAUSE [db [SHARD s]]", "hold new transactions back, of one shard if it is named, and wait for the running ones; a session that keeps a server and is in no transaction, with a temporary table for one, is not waited for, and waits for RESUME when it goes on; transactions and statements that are at work on other shards already are let in to the one that is named, so under much of that it may fail with 55006, where PAUSE of the database does not"},
	{"RESUME [db [SHARD s]]", "let them go on, also after KILL"},
	{"DISABLE db", "refuse new clients of a database"},
	{"ENABLE db", "let them in again"},
	{"RECONNECT [db]", "replace the server connections, as they come free"},
	{"WAIT_CLOSE [db]", "wait until the replaced server connections are closed"},
	{"KILL [db]", "close the server connections at once and hold new transactions back"},
	{"KILL_CLIENT id", "end a client's session"},
	{"RELOAD", "read the configuration file again, as a whole or not at all"},
	{"SET key = value", "change a setting until the next RELOAD"},
	{"SHUTDOWN [WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS]", "end the process when its transactions are done, or its clients gone"},
}

func (a *Admin) help(context.Context) (*Result, error) {
	rows := append([][]any(nil), statements...)
	for _, n := range viewNames() {
		rows = append(rows, []any{"SHOW " + strings.ToUpper(n), Views[n].Help})
	}
	return &Result{Columns: []string{"statement", "what it does"}, Rows: rows, Tag: "SHOW"}, nil
}

func (a *Admin) database(name string) (*shardmap.DB, error) {
	d := a.Catalog.Current().Databases[name]
	if d == nil {
		return nil, &pgsql.Error{Code: pgsql.InvalidCatalogName, Message: fmt.Sprintf("database %q does not exist", name), Hint: "SHOW DATABASES lists them; CREATE DATABASE makes one."}
	}
	return d, nil
}

func (a *Admin) parseExplain(p *parser) action {
	p.must("in")
	db := p.name("database")
	if p.peek().kind == 0 {
		p.fail("syntax error at %s: a statement was expected", p.near())
	}
	sql := string([]rune(p.text)[p.peek().pos-1:])
	return func(ctx context.Context) (*Result, error) {
		if _, err := a.database(db); err != nil {
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
		d, err := a.database(db)
		if err != nil {
			return nil, err
		}
		g, err := groupOf(d, group)
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
		if at, ok := g.Place(k); ok {
			shard = d.Shards[at].Name
		}
		return &Result{Columns: []string{"database", "group", "key", "slot", "shard"}, Rows: [][]any{{db, group, strings.Join(key, ", "), slot, shard}}, Tag: "LOCATE"}, nil
	}
}

// changed is the answer to a change of the map.
func changed(tag string, s *shardmap.Snapshot, dry bool) *Result {
	col := "map_version"
	if dry {
		col = "would_be_map_version"
	}
	return &Result{Columns: []string{col}, Rows: [][]any{{int64(s.Version)}}, Tag: tag}
}

// change changes the map, if it says of the database still what d says: the change was decided by that. d may be nil.
func (a *Admin) change(ctx context.Context, tag string, dry bool, d *shardmap.DB, edit func(*shardmap.Tx) error) (*Result, error) {
	s, err := a.Catalog.Change(ctx, dry, func(tx *shardmap.Tx) error {
		if d != nil {
			if err := tx.Unchanged(d); err != nil {
				return err
			}
		}
		return edit(tx)
	})
	if err != nil {
		return nil, err
	}
	if !dry {
		a.Log.Info("map changed", "statement", tag, "version", s.Version)
	}
	return changed(tag, s, dry), nil
}

// done is the answer to a change of the map that was made in parts.
func (a *Admin) done(tag string) *Result {
	s := a.Catalog.Current()
	a.Log.Info("map changed", "statement", tag, "version", s.Version)
	return changed(tag, s, false)
}

func (a *Admin) traffic(ctx context.Context, verb, db, shard string) (*Result, error) {
	var names []string
	for n := range a.Catalog.Current().Databases {
		if db == "" || n == db {
			names = append(names, n)
		}
	}
	if db != "" && len(names) == 0 {
		_, err := a.database(db)
		return nil, err
	}
	if shard != "" {
		if _, ok := a.Catalog.Current().Databases[db].Shard(shard); !ok {
			return nil, noShard(shard, db)
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
			for a.Pools.Old(n) > 0 {
				select {
				case <-ctx.Done():
					return nil, &pgsql.Error{Code: pgsql.QueryCanceled, Message: "canceling statement due to user request"}
				case <-time.After(20 * time.Millisecond):
				}
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
	for _, d := range sortedDBs(a.Catalog.Current()) {
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
			add("CREATE GROUP %s IN %s KEY (%s) BY %s;", pgsql.Plain(g.Name), pgsql.Plain(d.Name), g.TypeList(), placementSQL(g))
			for _, p := range g.Pins {
				add("PIN KEY (%s) OF %s.%s ON %s;", pgsql.Literals(p.Key), pgsql.Plain(d.Name), pgsql.Plain(g.Name), pgsql.Plain(p.Shard))
			}
		}
		for _, t := range sortedTables(d) {
			name := pgsql.Plain(d.Name) + "." + t.String()
			if t.Kind == shardmap.Reference {
				add("DISTRIBUTE TABLE %s AS REFERENCE;", name)
				continue
			}
			add("DISTRIBUTE TABLE %s IN GROUP %s KEY (%s);", name, pgsql.Plain(t.Group.Name), t.KeyList())
		}
		for _, r := range d.ShardSafes() {
			add("ALTER ROUTINE %s.%s SHARD SAFE;", pgsql.Plain(d.Name), r)
		}
		for _, t := range tenants(d) {
			add("DISTRIBUTE SCHEMA %s.%s ON %s;", pgsql.Plain(d.Name), pgsql.Plain(t.Name), pgsql.Plain(d.Shards[t.Shards()[0]].Name))
		}
	}
	return res, nil
}

// placementSQL is what CREATE GROUP says behind BY.
func placementSQL(g *shardmap.GroupInfo) string {
	var parts []string
	switch g.Scheme {
	case shardmap.ByRange:
		for i, r := range g.Ranges {
			from, to := "MINVALUE", "MAXVALUE"
			if i > 0 {
				from = "(" + pgsql.Literals(r.From) + ")"
			}
			if i+1 < len(g.Ranges) {
				to = "(" + pgsql.Literals(g.Ranges[i+1].From) + ")"
			}
			parts = append(parts, from+" TO "+to+" ON "+pgsql.Plain(r.Shard))
		}
		return "RANGE (" + strings.Join(parts, ", ") + ")"
	case shardmap.ByList:
		for _, l := range g.Lists {
			if len(l.Values) > 0 {
				parts = append(parts, "("+pgsql.Literals(l.Values)+") ON "+pgsql.Plain(l.Shard))
			}
			if l.Default {
				parts = append(parts, "DEFAULT ON "+pgsql.Plain(l.Shard))
			}
		}
		return "LIST (" + strings.Join(parts, ", ") + ")"
	}
	for _, r := range g.Runs {
		parts = append(parts, pgsql.Plain(r.Shard))
	}
	return "HASH ON (" + strings.Join(parts, ", ") + ")"
}

// Statements lists what HELP prints: statement and meaning.
func Statements() [][2]string {
	var out [][2]string
	for _, s := range statements {
		out = append(out, [2]string{text(s[0]), text(s[1])})
	}
	return out
}
