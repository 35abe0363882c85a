package exec

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/exec/fresh"
	"github.com/pgmosaic/pgmosaic/proxy/exec/lease"
	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
	"github.com/pgmosaic/pgmosaic/proxy/exec/planner"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// Handler runs the statements of one session. Its goroutine owns all of it but what mu guards.
type Handler struct {
	e      *Engine
	client *wire.Conn
	pid    uint32
	db     string
	role   string
	count  *metrics.Database

	planner    planner.Session // what it plans by
	shards     fresh.Shards    // what it knows of those that it has used
	firstPath  []string        // the search path that the session began with
	firstModes modes           // its transactions' then

	login    *pool.Settings // what the startup packet asked for
	settings *pool.Settings
	begun
	own      client.Settings
	ownLogin client.Settings // what the session began with
	tx       transaction
	pinned   *participant    // a server that outlives the transaction, on home
	listen   *notify.Session // nil until the first LISTEN
	calls
	hearing func(wire.Message) error // said, as a value

	signals    bool            // the statement may signal other clients
	terminates bool            // and end them
	told       client.Told     // parameters
	now        time.Time       // when the present request began
	settled    time.Time       // when a server's work was last settled
	spare      *participant    // for the next statement
	unsettled  []*participant  // what they do is counted: writes that are on their way, statements of a replica
	key        uint64          // of the present statement: see router.Template.Route
	request    observe.Request // the present one, for who observes it
	args       *router.Args    // of the statement that runs, in the simple protocol
	size       int             // of the present request, in bytes
	attempt    branch.Attempt  // whether it may be run again

	temporaries
	drawn    drawing // from sequences
	checkPin bool    // what ties the pinned server may have ended

	ext extended

	held lease.Servers
}

// temporaries are what a session knows of its temporary objects.
type temporaries struct {
	temps        uint64 // grows with every change of them
	tempsMark    string // which they are
	tempsOld     bool   // they may be others by now
	tempsAltered bool   // or be what they were not
	hadTemps     bool   // the server that the session keeps has had some
}

// Client is what the handler knows of its client.
type Client struct {
	*wire.Conn
	PID  uint32                 // as the client knows itself
	Wake func()                 // has Deliver called soon
	Over func()                 // is told that a transaction has ended
	Lost func(why *pgsql.Error) // ends the session
	Keys auth.Keys              // what it proved to know
}

// calls are what the handler calls of its session: see Client.
type calls struct {
	dismiss func(*pgsql.Error)
	wake    func()
	over    func()
}

// Open makes the handler of a session and reads what to tell the client.
func (e *Engine) Open(ctx context.Context, database, role string, params map[string]string, c Client) (*Handler, map[string]string, error) {
	if e.Catalog.Current().Databases[database] == nil {
		return nil, nil, planner.NoDatabase(database) // and nothing is kept under its name
	}
	e.Pools.Learn(database, role, c.Keys)
	h := &Handler{
		e: e, client: c.Conn, pid: c.PID, calls: calls{c.Lost, c.Wake, c.Over}, db: database, role: role, count: e.Metrics.Database(database),
		own: client.Settings{Level: e.Level, MaxLag: e.MaxStaleness, GatherLimit: e.GatherLimit, NoFallback: !e.Fallback, Commit: e.Commit},
	}
	h.planner = e.Planner.Open(database, router.Env{Role: role}, h.count)
	h.request = e.Observer.Open(observe.Client{Database: database, Role: role, PID: c.PID, Count: h.count})
	h.held.Open(c.PID, e.Log, func(d time.Duration) {
		h.request.Waited += d
		h.count.WaitNanos.Add(int64(d))
	})
	h.ext.memory, h.ext.texts = &e.Memory, &e.texts
	h.shards = e.fresh.Open(database, role)
	h.drawn = anew(h.drawn)
	h.now = time.Now()
	set, token := map[string]string{}, ""
	for n, v := range params {
		n = strings.ToLower(n)
		if n == client.Horizon {
			token = v
			continue
		}
		if strings.HasPrefix(n, "pgmosaic.") {
			if err := h.own.Set(n, v); err != nil {
				return nil, nil, err
			}
			continue
		}
		set[n] = pgsql.SettingValue(n, v)
	}
	if err := h.mayName(&h.own); err != nil {
		return nil, nil, err
	}
	h.ownLogin = h.own
	h.login = pool.SettingsOf(set)
	h.settings = h.login
	if err := h.refresh(ctx); err != nil {
		return nil, nil, err
	}
	if err := h.takeHorizon(token); err != nil {
		return nil, nil, err
	}
	if len(h.planner.DB.Shards) > 1 {
		for n, v := range params {
			if err := refuseSetting(sqlparse.Var{Name: strings.ToLower(n), Plain: v}); err != nil {
				return nil, nil, err
			}
		}
	}
	w, err := h.greet(ctx)
	if err != nil {
		return nil, nil, err
	}
	h.count.Logins.Add(1)
	h.login, h.settings, h.begun = w.login, w.login, begun{defaults: w.defaults, with: w.with, logins: w.logins, looked: w.logins, as: w.as}
	h.firstPath, h.told, h.firstModes = w.searchPath, client.Begin(w.params), w.modes
	h.planner.Env.SearchPath, h.planner.Env.Role = w.searchPath, roleOf(h)
	h.planner.Moved()
	return h, w.params, nil
}

// greet finds the parameters that a session like this one is told, asking a server for each new kind: one of home, whose word
// counts, or while that is away, of another shard, whose roles and their settings are the same.
func (h *Handler) greet(ctx context.Context) (*welcome, error) {
	key, logins := welcomeKey{h.db, h.role, h.settings.Key()}, h.e.logins.times.Load()
	h.e.mu.Lock()
	w, with, since := h.e.welcome.of[key], h.e.welcome.with[key.whose()], h.e.welcome.cleared
	h.e.mu.Unlock()
	teller := h.e.served(h.planner.DB)
	if w != nil && (w.by == h.planner.DB.Home.Name || teller != h.planner.DB.Home) {
		return w, nil
	}
	var rows [][][]byte
	var params map[string]string
	var login, defaults *pool.Settings
	for try := 1; ; try++ {
		s, err := h.lease(ctx, teller.Index)
		if err != nil {
			return nil, err
		}
		login, rows, err = h.introduce(s, introduceSQL(with))
		params, defaults = maps.Clone(s.Params), s.Defaults()
		h.free(s)
		var se *pool.ServerError
		if err == nil {
			break
		}
		if errors.As(err, &se) || try == 3 {
			return nil, err
		}
	}
	w = &welcome{by: teller.Name, params: map[string]string{}, login: login, defaults: defaults, with: with, logins: logins}
	maps.Copy(w.params, params)
	if len(rows) == 1 && len(rows[0]) >= 4 {
		w.searchPath, w.modes, w.as = strings.Split(string(rows[0][0]), "\n"), modes{string(rows[0][1]), string(rows[0][2])}, string(rows[0][3])
		if len(rows[0]) > 4 {
			w.with = string(rows[0][4])
		}
	}
	h.e.mu.Lock()
	h.e.welcome.keep(key, w, since)
	h.e.mu.Unlock()
	return w, nil
}

// introduceSQL asks for the search_path, a name a line, and the isolation of transactions, and whether they are READ ONLY, who it is, and what the server began with, unless that is known. It
// runs with the client's own path.
func introduceSQL(with string) string {
	if with == "" {
		return pathSQL + ", (" + beganSQL + ")"
	}
	return pathSQL
}

const pathSQL = `select pg_catalog.array_to_string(array(select trim(both '"' from trim(x)) from pg_catalog.unnest(pg_catalog.string_to_array(pg_catalog.current_setting('search_path'), ',')) x), e'\n'),
 pg_catalog.current_setting('default_transaction_isolation'), pg_catalog.current_setting('default_transaction_read_only'), current_user`

// introduce gives a server what the startup packet asks for, as if it were fresh, and asks it what it makes of a session. login
// is the packet as the server has understood it: a value may be half of one, and leave the rest to the role's own settings.
func (h *Handler) introduce(s *pool.Server, sql string) (login *pool.Settings, rows [][][]byte, err error) {
	login, fresh := h.login, h.login
	for _, n := range h.login.Names() {
		if _, ok := s.Reported(n); ok {
			fresh = fresh.Without(n)
		}
	}
	for _, set := range []*pool.Settings{fresh, login} {
		if err == nil && s.Adapt(set) {
			if err = s.Flush(); err == nil {
				err = s.Settle(set)
			}
		}
	}
	if err == nil {
		rows, err = s.Rows(sql)
	}
	if err == nil {
		for _, n := range h.login.Names() {
			login = reported(s, login, n)
		}
		s.SetSettings(login)
	}
	var se *pool.ServerError
	if err != nil && !errors.As(err, &se) {
		s.Dirty = true
		s.Pool.Suspect()
		err = &pgsql.Failure{Code: pgsql.ConnectionFailure, Message: "the connection to shard " + s.Pool.Shard + " (node " + s.Pool.Node + ") was lost", Cause: err}
	}
	return login, rows, err
}

// refresh takes the newest map and schema into use. It must not be called inside a transaction.
func (h *Handler) refresh(ctx context.Context) error {
	snap := h.e.Catalog.Current()
	if snap != h.planner.Map {
		if err := h.planner.TakeMap(snap); err != nil {
			return err
		}
		h.shards = h.shards.By(snap, h.planner.DB.Shards)
		if err := repin(h); err != nil {
			return err
		}
	}
	return takeSchema(ctx, h)
}

// takeSchema takes the newest schema into use, with the map at hand.
func takeSchema(ctx context.Context, h *Handler) error {
	err := h.planner.TakeSchema(ctx, h.client.Leave)
	if errors.Is(err, planner.ErrHomeBack) { // the client was told the other's OIDs
		h.dismiss(planner.ErrHomeBack)
	}
	return err
}

// current is refresh for the hot path: two pointer compares.
func (h *Handler) current(ctx context.Context) error {
	if h.tx.Failed() || h.bound() {
		return nil
	}
	if p := h.pinned; p != nil && p.Server.Parked() {
		if err := h.held.Unpark(ctx, h.client.Task(), p.Server); err != nil {
			return err
		}
	}
	if sch := h.planner.Schema; sch != nil && len(sch.Doubts) > 0 {
		h.planner.Resolve(ctx, h.client.Leave, func(shard string) time.Time {
			if v := h.e.Monitor.View(h.db, shard); v != nil && v.Serves() {
				return v.Since
			}
			return time.Time{}
		})
	}
	for {
		h.planner.Use()
		if h.planner.InUse(h.e.Catalog.Current()) {
			return nil
		}
		was := h.planner.Map
		if err := h.refresh(ctx); err != nil || h.planner.Map == was {
			return err
		}
	}
}

// bound says that the session goes on by the map that it has: it has servers by it, or portals that run there or wait here for their Execute.
func (h *Handler) bound() bool {
	return keepsMapFor(h, func(pt *portal) bool { return pt.waits() || pt != nil && pt.part != nil })
}

// keepsMap says that a newer map would be another than what the session is at was bound by: it has servers by the map that it has, or
// portals that wait here for their Execute.
func keepsMap(h *Handler) bool { return keepsMapFor(h, (*portal).waits) }

func keepsMapFor(h *Handler, keeps func(*portal) bool) bool {
	x := &h.ext
	if len(h.tx.parts) > 0 || x.cur != nil || keeps(x.anonymous) {
		return true
	}
	for _, pt := range x.portals {
		if keeps(pt) {
			return true
		}
	}
	return false
}

// Using is the version of the map by which the session runs statements now: see planner.Session.Using. Any goroutine may call it.
func (h *Handler) Using() uint64 { return h.planner.Using() }

// TxStatus implements session.Handler.
func (h *Handler) TxStatus() byte { return h.tx.Status().Byte() }

// Pinned says why the session keeps a server, for SHOW CLIENTS; empty if it does not. Any goroutine may call it.
func (h *Handler) Pinned() (cause string, since time.Time) { return h.held.Kept() }

// Waiting says since when the session has waited for a server; zero if it does not. Any goroutine may call it.
func (h *Handler) Waiting() time.Time { return h.held.Waiting() }

// Link is the process of the server that the session holds, 0 for none. Any goroutine may call it.
func (h *Handler) Link() uint32 { return h.held.Link() }

// meaning is what the same text may mean something else under: another search path, an older schema, whose
// types may be gone, and temporary tables, which are each session's own.
func (h *Handler) meaning() string {
	m := itoa(h.planner.Schema.Version) + "\x00" + strings.Join(h.planner.Env.SearchPath, "\x01") + "\x00" + h.told.Formats()
	if h.planner.Env.Temp != nil || h.pinned != nil {
		m += "\x00" + itoa(uint64(h.pid)) + "\x00" + itoa(h.temps)
	}
	return m
}

// Rest implements session.Handler.
func (h *Handler) Rest() {
	x := &h.ext
	h.request.Rest(time.Now())
	h.spare = nil
	h.planner.Rest()
	h.args = nil
	x.ops, x.changes, x.bound = nil, nil, nil
	if len(x.post) == 0 { // else a pipeline is open, at whose end it is due
		x.post = nil
	}
	if x.anonymous == nil {
		x.own = nil
	}
	h.held.Rest()
}

// PreparedCount is the number of the session's prepared statements. Any goroutine may call it.
func (h *Handler) PreparedCount() int { return int(h.ext.count.Load()) }

// Servers counts the servers that the session holds. Any goroutine may call it.
func (h *Handler) Servers() int { return h.held.Count() }

// Cancel implements session.Handler: it asks every server in use to stop.
func (h *Handler) Cancel() { h.held.Cancel()() }

// CancelBecause is Cancel with a reason. The client is told, in place of the server's words, unless the session
// ends anyway: then it is told by others. What runs now is settled at once; send does it, and must be called.
func (h *Handler) CancelBecause(why *pgsql.Error, ends bool) (send func()) {
	return h.held.CancelBecause(why, ends)
}

// Cut implements session.Canceller. A commit that is cut off is finished as one whose server was lost.
func (h *Handler) Cut() { h.held.Cut() }

// Close implements session.Handler: whatever is open is rolled back.
func (h *Handler) Close() {
	defer leave(h) // these whatever fails
	defer h.planner.Done()
	defer h.ext.closePortals()
	in, out := h.client.Traffic()
	h.count.Received.Add(in)
	h.count.Sent.Add(out)
	h.request.Flush(time.Now())
	h.unlistenAll()
	h.ext.forget()
	if p := h.ext.cur; p != nil && h.tx.Idle() { // a pipeline without its Sync: its transaction ends with its server
		h.ext.cur = nil
		p.Lose()
		h.finish(p)
	}
	h.abandon()
	if h.pinned != nil {
		h.pinned.Lose()
		h.free(h.pinned.Server)
		h.pinned = nil
	}
	freeLost(h)
}

// Abandon implements session.Handler: what is open ends with its servers, and what the others wait for is settled.
func (h *Handler) Abandon() {
	for _, s := range h.held.All() {
		s.Dirty = true
		s.Running(true) // whatever it does, it is told to stop
	}
	_ = panics.Catch(panics.Session, func() error { h.Close(); return nil }, nil)
	now := time.Now()
	for _, p := range slices.Clone(h.unsettled) {
		h.acknowledge(p, now)
		h.unload(p)
	}
	for _, s := range h.held.All() {
		h.free(s)
	}
}

// Statement is the present statement without its literals, or the last one.
func (h *Handler) Statement() string { return h.request.Statement(false) }

// free gives a server back.
func (h *Handler) free(s *pool.Server) { h.held.Free(s, h.settled) }

// Fail implements session.Handler: a message could not be taken.
func (h *Handler) Fail(ctx context.Context, err error, ready bool) error {
	if h.ext.skipping {
		return nil
	}
	h.now = time.Now()
	if !ready {
		return h.failBatch(ctx, err)
	}
	if e := h.joinPipeline(ctx); e != nil {
		err = e
	}
	if err := h.report(endPipeline(ctx, h, true, err), ""); err != nil {
		return err
	}
	h.held.End()
	h.sendReady()
	return nil
}

// errRelayed means that the client has already been told.
var errRelayed = errors.New("the server's error was relayed")

// clientError means that the client's connection has failed.
type clientError struct{ error }

func (e clientError) Unwrap() error { return e.error }

// worded gives an error of our own that has no SQLSTATE the words for a client.
func worded(err error) error {
	if errors.Is(err, errReplan) {
		return errMapChanged
	}
	var coded interface{ SQLState() string }
	var network interface{ Timeout() bool }
	if errors.As(err, &coded) || !errors.As(err, &network) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return &pgsql.Failure{Code: pgsql.ConnectionFailure, Message: "the connection to a server was lost", Cause: err}
}

// report writes an error to the client unless it has been told, and fails the transaction.
func (h *Handler) report(err error, sql string) error {
	var gone clientError
	if errors.As(err, &gone) {
		return err
	}
	h.count.Errors.Add(1)
	if h.held.Ending() { // what stopped the statement, or its wait for a server, ends the session, and that tells why
		return clientError{&wire.PeerError{Err: io.EOF}}
	}
	if !errors.Is(err, errRelayed) {
		err = worded(err)
		var se *pool.ServerError
		if errors.As(err, &se) {
			h.held.Because(se.Response)
		}
		var re *router.Error
		if errors.As(err, &re) && re.Rule != "" {
			h.e.Metrics.Refused(string(re.Rule), h.e.Observer.Sample(sql), time.Now())
		}
		h.client.Send(wire.ErrorFor("ERROR", err))
		h.request.FailedBy(err)
	}
	if h.tx.Active() {
		h.tx.Fail()
		h.unsay()
		h.ext.killPortals(len(h.tx.saves))
		h.letGo()
	}
	return nil
}
