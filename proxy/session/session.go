// Package session speaks the server's side of the PostgreSQL protocol with one client.
//
// A Session runs on one goroutine until its login is done, and then as a task of the loops. It knows logins and messages, not SQL
// and not shards: what a statement does is its Handler's affair.
package session

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/loop"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// State is where a session is.
type State uint32

// The states of a session. Only the session itself changes them.
const (
	Startup State = iota
	Authenticating
	Ready
	Busy
	Closed
)

func (s State) String() string {
	return [...]string{"startup", "authenticating", "ready", "busy", "closed"}[s]
}

// Transitions lists the allowed changes of state: docs/states.md is printed from it.
var Transitions = map[State][]State{
	Startup:        {Authenticating, Closed},
	Authenticating: {Ready, Closed},
	Ready:          {Busy, Closed},
	Busy:           {Ready, Closed},
}

// Handler runs a client's statements. The session calls all of it but Cancel. Errors of SQL
// are written to the client by the handler; an error that it returns ends the session.
type Handler interface {
	// Query runs a simple query string and writes its whole answer, ReadyForQuery included.
	Query(ctx context.Context, sql []byte) error
	// Batch runs messages of the extended protocol. With sync set the batch ends with a Sync, and the
	// answer with ReadyForQuery; else all that can be answered is. The messages are valid until more is read from the client.
	// waited is how long the first of them waited for the last.
	Batch(ctx context.Context, msgs []wire.Message, sync bool, waited time.Duration) error
	// Fail reports that a message could not be taken; ready says that the answer ends with ReadyForQuery, as a
	// simple query's does, and not at the next Sync.
	Fail(ctx context.Context, err error, ready bool) error
	// Function runs a FunctionCall and writes its whole answer, ReadyForQuery included.
	Function(ctx context.Context, m wire.Message) error
	// Deliver writes what came for the client while it was idle. It is called outside of requests, after
	// Client.Wake.
	Deliver() error
	// TxStatus is I, T or E.
	TxStatus() byte
	// Rest gives up memory that only work needs. The session is idle and will be for a while.
	Rest()
	// Cancel stops what the session is doing. Any goroutine may call it.
	Cancel()
	// Close gives back whatever the session holds. It is called once.
	Close()
	// Abandon is Close for a session whose work has panicked: what it holds is not to be trusted, and no server that it has used
	// may serve another client.
	Abandon()
}

// Login is who asks for what.
type Login struct {
	User, Database string
	Params         map[string]string
	Remote         netip.AddrPort      // not valid for a Unix socket
	Local          netip.AddrPort      // likewise
	TLS            bool                //
	Peer           []*x509.Certificate // the client's verified chain, its own certificate first
	Keys           auth.Keys           // what the client proved to know, for servers with the same verifier
}

// Backend checks logins and makes handlers. All sessions share it.
type Backend interface {
	// Admin says whether a login is an administrator's, for whom there is room beyond the limit.
	Admin(l Login) bool
	// Admit refuses a login, or has it wait, before its password is asked for: because too many have failed.
	Admit(ctx context.Context, l Login) error
	// Rule is how a login is checked.
	Rule(l Login) auth.Rule
	// Credential is what the password is checked against. Users that do not exist have one, too.
	Credential(ctx context.Context, l Login) (auth.Credential, error)
	// Check says whether a password fits, as Tried does. It takes time on purpose, so it may wait for others.
	Check(ctx context.Context, l Login, c auth.Credential, password string) (bool, error)
	// Tried is told of a login whether its password, or the proof of it, is right, and refuses it if too many have failed, also since it was asked for.
	Tried(l Login, right bool) error
	// Failed is told of a login that failed for another reason than its password.
	Failed(l Login)
	// Open makes the handler of a session and the parameters to report. It is called after the login.
	Open(ctx context.Context, l Login, client Client) (Handler, map[string]string, error)
}

// Client is what a handler knows of its client.
type Client struct {
	*wire.Conn
	PID uint32 // as the client knows it
	// Wake has Deliver called soon. Any goroutine may call it.
	Wake func()
	// Over is told, in the midst of a request, that a transaction has ended: what the request does behind it is younger.
	Over func()
}

// Config is what all sessions share.
type Config struct {
	Backend Backend
	TLS     func() *tls.Config // for a new connection; nil, or nil returned: SSLRequest is answered N
	// Proxied says whether connections from an address begin with a PROXY protocol header, which then says who the client is;
	// nil: none do.
	Proxied      func(from netip.Addr) bool
	LoginTimeout time.Duration // client_login_timeout, 60 s
	// Room refuses one client too many, before its password is asked for, and again when it has logged in and takes its place;
	// nil: there is room.
	Room         func(s *Session, admin, loggedIn bool) error
	MaxStatement int // max_statement_size, 64 MB
	// Memory counts the bytes that clients' long messages take, and fewer than none when they are given back; an error refuses them. Nil: nobody
	// counts.
	Memory func(bytes int64) error
	Log    *slog.Logger
}

// Key is what a client cancels with.
type Key struct{ PID, Secret uint32 }

// Session is one client connection.
type Session struct {
	cfg   Config
	key   Key
	login Login // written under mu

	conn       *wire.Conn
	handler    Handler
	batch      []wire.Message
	unfinished time.Time    // when a statement began whose Execute has not come, in a pipeline without its Sync
	binding    auth.Binding // of the TLS connection
	failed     bool         // its work has panicked

	state    atomic.Uint32
	tx       atomic.Uint32 // TxStatus, as of the last request
	doomed   atomic.Pointer[pgsql.Error]
	draining atomic.Bool
	news     atomic.Bool // Deliver has something to write
	resting  atomic.Bool // the session was woken in order to rest
	since    time.Time
	requests atomic.Uint64 // counts requests; Watch notes when it saw them
	txs      atomic.Uint64 // counts transactions
	began    atomic.Int64  // what runs: the transaction, or a request outside of one; in nanoseconds of Unix time

	mu     sync.Mutex // guards the rest
	opened Handler    // what Cancel reaches
	woken  bool       // a read deadline in the past is set
	seen   seen       // what Watch saw
}

// New makes a session for a connection, which it takes over.
func New(nc net.Conn, key Key, cfg Config) *Session {
	s := &Session{cfg: cfg, key: key, conn: wire.New(loop.Adopt(nc), cfg.MaxStatement), since: time.Now()}
	s.login.Remote, _ = netip.ParseAddrPort(nc.RemoteAddr().String()) // not valid for a Unix socket
	s.login.Local, _ = netip.ParseAddrPort(nc.LocalAddr().String())
	s.conn.Frugal()
	s.conn.Memory.Use(cfg.Memory)
	s.conn.SetTask(loop.NewTask())
	s.tx.Store('I')
	return s
}

// Info is one moment of a session, for SHOW CLIENTS.
type Info struct {
	PID         uint32
	Login       Login
	State       State
	Connected   time.Time
	Request     time.Time
	TLS         bool
	In, Out     int64
	Application string
	Handler     Handler
	Tx          byte // I, T, E
}

// From is where the client is, for the log.
func (i *Info) From() string {
	if !i.Login.Remote.IsValid() {
		return "unix"
	}
	return netip.AddrPortFrom(i.Login.Remote.Addr().Unmap(), i.Login.Remote.Port()).String()
}

// Info may be called by any goroutine.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, out := s.conn.Traffic()
	return Info{
		PID: s.key.PID, Login: s.login, State: State(s.state.Load()), Connected: s.since, Request: s.seen.requestAt,
		TLS: s.login.TLS, In: in, Out: out, Application: s.login.Params["application_name"], Handler: s.opened,
		Tx: byte(s.tx.Load()),
	}
}

// TxSince is when the session's transaction began, by the clock on the wall: which of two is the older must be right to less than the
// period of Watch. A request outside a transaction is one of its own. Any goroutine may call it.
func (s *Session) TxSince() time.Time { return time.Unix(0, s.began.Load()) }

// over is Client.Over.
func (s *Session) over() {
	s.txs.Add(1)
	s.began.Store(time.Now().UnixNano())
}

// Cancel stops what the session is doing, if the secret is right.
func (s *Session) Cancel(secret uint32) {
	if subtle.ConstantTimeEq(int32(secret), int32(s.key.Secret)) == 1 {
		s.mu.Lock()
		h := s.opened
		s.mu.Unlock()
		if h != nil {
			h.Cancel()
		}
	}
}

// Drain ends the session as soon as it is ready and outside a transaction.
func (s *Session) Drain() {
	s.draining.Store(true)
	s.wake()
}

// Wake has the handler's Deliver called soon. Any goroutine may call it.
func (s *Session) Wake() {
	if !s.news.Swap(true) {
		s.wake()
	}
}

// wake ends a wait for the next request. One that has begun is let alone.
func (s *Session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if State(s.state.Load()) == Ready && !s.woken {
		s.woken = true
		_ = wire.Socket(s.conn).SetReadDeadline(time.Unix(1, 0))
	}
}

// busy notes that a request has come, or that the wait for it was ended.
func (s *Session) busy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to(Busy)
	if s.woken {
		s.woken = false
		_ = wire.Socket(s.conn).SetReadDeadline(time.Time{})
	}
}

// terminateGrace is how long a client that is told to go may take to read why.
const terminateGrace = 5 * time.Second

// Terminate ends the session: what runs is cancelled, and the client is told why. Any goroutine may call it.
func (s *Session) Terminate(why *pgsql.Error) {
	if !s.doomed.CompareAndSwap(nil, why) {
		return
	}
	nc := wire.Socket(s.conn)
	_ = nc.SetReadDeadline(time.Unix(1, 0))
	_ = nc.SetWriteDeadline(time.Now().Add(terminateGrace))
	s.stop(why)
}

// stop cancels what runs, because the session ends.
func (s *Session) stop(why *pgsql.Error) {
	s.mu.Lock()
	h, state := s.opened, State(s.state.Load())
	s.mu.Unlock()
	if h == nil || state != Busy {
		return
	}
	if c, ok := h.(Canceller); ok {
		c.CancelBecause(why, true)()
	} else {
		h.Cancel()
	}
}

// Kill closes the connection under the session.
func (s *Session) Kill() { s.conn.Cut() }

func (s *Session) to(next State) {
	cur := State(s.state.Load())
	for _, ok := range Transitions[cur] {
		if ok == next {
			s.state.Store(uint32(next))
			return
		}
	}
	panic(fmt.Sprintf("session: %s to %s is no transition", cur, next))
}

// CancelRequest is what Serve returns for a connection that only carries a request to cancel another.
type CancelRequest struct{ Key }

func (CancelRequest) Error() string { return "cancel request" }

// Run runs the session to its end and closes the connection. done is called once, with an error that says, if
// there is one, why the session ended other than by the client's leave. Run returns before: after the login the session is a
// coroutine of the loops, and where it rests, nothing but its memory.
func (s *Session) Run(ctx context.Context, done func(error)) {
	s.last(done, func() {
		if err := s.attempt(func() error { return s.start(ctx) }); err != nil {
			s.end(ignoreEOF(err), done)
			return
		}
		s.rest(ctx, done)
	})
}

// attempt runs a part of the session's work. After a panic nothing that it was about is to be trusted.
func (s *Session) attempt(f func() error) error {
	err := panics.Catch(panics.Session, f, s.about)
	if panics.Is(err) {
		s.failed = true
		if s.conn.TruncateToWhole() {
			_ = s.fatal(err)
		}
	}
	return err
}

// last runs what is not caught by attempt: after a panic there the connection is closed, and nothing else is known.
func (s *Session) last(done func(error), f func()) {
	err := panics.Catch(panics.Session, func() error { f(); return nil }, s.about)
	if err != nil {
		s.Kill()
		s.conn.Memory.Use(nil)
		done(err)
	}
}

// about says whose work it was, and which statement, without its literals.
func (s *Session) about() []any {
	attrs := []any{"client", s.key.PID, "user", s.login.User, "database", s.login.Database}
	if h, ok := s.handler.(interface{ Statement() string }); ok {
		attrs = append(attrs, "statement", h.Statement())
	}
	return attrs
}

// rest flushes what is to be said and has the session go on with the next request. What calls it must end: its stack has
// grown with its work, and would be kept as long as the session lives.
func (s *Session) rest(ctx context.Context, done func(error)) {
	if err := s.conn.Flush(); err != nil {
		s.end(err, done)
		return
	}
	s.conn.OnInput(func() { s.work(ctx, done) })
}

// errRest ends the loop of a session that is to rest.
var errRest = errors.New("the session rests")

func (s *Session) work(ctx context.Context, done func(error)) {
	s.last(done, func() { s.goOn(ctx, done) })
}

func (s *Session) goOn(ctx context.Context, done func(error)) {
	err := s.attempt(func() error { return s.loop(ctx) })
	switch {
	case s.failed:
		s.end(err, done)
	case errors.Is(err, errRest):
		s.rest(ctx, done)
	case s.doomed.Load() != nil:
		s.end(s.fatal(s.doomed.Load()), done)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		s.end(nil, done)
	default:
		s.end(err, done)
	}
}

func (s *Session) end(err error, done func(error)) {
	s.conn.Leave()
	if s.handler != nil {
		if !s.failed {
			s.failed = panics.Is(panics.Catch(panics.Session, func() error { s.handler.Close(); return nil }, s.about))
		}
		if s.failed {
			s.handler.Abandon()
		}
	}
	s.mu.Lock()
	s.opened = nil
	s.mu.Unlock()
	s.to(Closed)
	s.conn.Memory.Use(nil)
	var asks CancelRequest
	if errors.As(err, &asks) { // its sender waits until the connection is closed: what it sends from then on is not to be cancelled
		done(err)
		_ = s.conn.Close()
		return
	}
	_ = s.conn.Close()
	done(err)
}

// fatal tells the client why the session ends.
func (s *Session) fatal(err error) error {
	r := wire.ErrorFor("FATAL", err)
	r.Severity, r.SeverityUnlocalized = "FATAL", "FATAL"
	s.conn.Send(r)
	_ = s.conn.NetConn().SetWriteDeadline(time.Now().Add(terminateGrace))
	_ = s.conn.Flush()
	return err
}

var errDrained = &pgsql.Error{Code: pgsql.AdminShutdown, Message: "terminating connection due to administrator command", Hint: "The proxy is shutting down: connect again."}

// loop reads requests until the client leaves.
func (s *Session) loop(ctx context.Context) error {
	for {
		if s.news.Load() && s.handler.TxStatus() == 'I' {
			s.news.Store(false)
			if err := s.handler.Deliver(); err != nil {
				return err
			}
		}
		if err := s.conn.Flush(); err != nil {
			return err
		}
		if s.draining.Load() && s.handler.TxStatus() == 'I' && s.conn.Pending() == 0 {
			return s.fatal(errDrained)
		}
		s.conn.Release()
		s.conn.Return()
		m, err := s.conn.Next()
		s.busy()
		if err != nil {
			if s.doomed.Load() == nil && errors.Is(err, os.ErrDeadlineExceeded) { // woken
				s.to(Ready)
				if s.resting.Swap(false) && s.conn.Pending() == 0 && !s.news.Load() && !s.draining.Load() {
					s.batch = nil
					s.handler.Rest()
					return errRest
				}
				continue
			}
			if err := s.oversize(ctx, err, m.Type); err != nil {
				return err
			}
			s.to(Ready)
			continue
		}
		if m.Type == 'X' || s.doomed.Load() != nil { // terminated between the wait and now: nobody has cancelled this request
			return nil
		}
		s.requests.Add(1)
		panics.Point("loop")
		if s.tx.Load() == 'I' {
			s.began.Store(time.Now().UnixNano())
		}
		if err := s.serveRequest(ctx, m); err != nil {
			return err
		}
		s.settled()
		if s.doomed.Load() != nil {
			return nil
		}
		s.to(Ready)
	}
}

// settled notes what a request has left behind, for those who look at the session from outside.
func (s *Session) settled() {
	tx := s.handler.TxStatus()
	if was := s.tx.Load(); byte(was) != tx {
		if was == 'I' {
			s.txs.Add(1)
		}
		s.tx.Store(uint32(tx))
	}
}

// unread says whether an error has left its message unread, and what the client is told of it.
func unread(err error) (reply error, yes bool) {
	var refused *wire.RefusedError
	switch {
	case errors.As(err, &refused):
		return refused.Err, true
	case errors.Is(err, wire.ErrTooLarge):
		return &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: err.Error(), Hint: "Raise max_statement_size, or send smaller statements."}, true
	}
	return err, false
}

// oversize skips a message that is too long, or for which there is no memory, and says so: the session goes on. Other errors end it.
func (s *Session) oversize(ctx context.Context, err error, typ byte) error {
	reply, ok := unread(err)
	if !ok {
		return s.broken(err)
	}
	s.conn.Release() // what came before it has been answered: else all of it would be kept behind that
	if e := s.conn.Skip(); e != nil {
		return s.broken(e)
	}
	if typ == 'd' { // left over from a COPY that failed
		return nil
	}
	return s.handler.Fail(ctx, reply, typ == 'Q' || typ == 'F')
}

// broken turns a framing error into a FATAL; other errors mean that the client is gone.
func (s *Session) broken(err error) error {
	if reply, ok := unread(err); ok {
		return s.fatal(reply)
	}
	if errors.Is(err, wire.ErrMalformed) {
		return s.fatal(&pgsql.Error{Code: pgsql.ProtocolViolation, Message: err.Error()})
	}
	return err
}

// maxBatch is how much of a pipeline is gathered before it is worked on.
const maxBatch = 1 << 20

// serveRequest handles one request: a simple query, or a batch of extended messages.
func (s *Session) serveRequest(ctx context.Context, m wire.Message) error {
	switch {
	case m.Type == 'Q':
		return s.query(ctx, m)
	case extends(m.Type):
		return s.extended(ctx, m)
	case m.Type == 'd', m.Type == 'c', m.Type == 'f': // left over from a COPY that failed
		return nil
	case m.Type == 'F':
		s.unfinished = time.Time{}
		s.conn.Hold()
		return s.handler.Function(ctx, m)
	}
	return s.fatal(&pgsql.Error{Code: pgsql.ProtocolViolation, Message: fmt.Sprintf("invalid frontend message type %d", m.Type)})
}

func (s *Session) query(ctx context.Context, m wire.Message) error {
	body := m.Body()
	s.unfinished = time.Time{}
	if bytes.IndexByte(body, 0) != len(body)-1 || len(body) == 0 { // a parser would read to the first one, and a server refuse it
		return s.handler.Fail(ctx, &pgsql.Error{Code: pgsql.ProtocolViolation, Message: "invalid message format"}, true)
	}
	s.conn.Hold() // COPY reads more while the text is in use
	return s.handler.Query(ctx, body[:len(body)-1])
}

// extended gathers messages up to Sync or Flush and hands them on as one batch.
func (s *Session) extended(ctx context.Context, m wire.Message) error {
	s.conn.Hold()
	s.batch = s.batch[:0]
	size := 0
	paused := s.unfinished // when the client first stopped to think
	run := func(sync bool) error {
		var waited time.Duration
		if !paused.IsZero() {
			waited = time.Since(paused)
		}
		s.unfinished = time.Time{}
		if n := len(s.batch); !sync && n > 0 && s.batch[n-1].Type != 'E' {
			s.unfinished = time.Now()
			if !paused.IsZero() && !slices.ContainsFunc(s.batch, func(m wire.Message) bool { return m.Type == 'E' }) {
				s.unfinished = paused
			}
		}
		err := s.handler.Batch(ctx, s.batch, sync, waited)
		if cap(s.batch) > 64 {
			s.batch = nil
		}
		return err
	}
	for {
		switch m.Type {
		case 'S':
			return run(true)
		case 'H':
			return run(false)
		}
		s.batch = append(s.batch, m)
		if size += len(m.Raw); size > maxBatch {
			return run(false)
		}
		if !s.conn.Buffered() {
			if paused.IsZero() {
				paused = time.Now()
			}
			if !s.more() {
				return run(false)
			}
		}
		typ, n, err := s.conn.Peek()
		switch {
		case err != nil && (wire.IsTimeout(err) || s.doomed.Load() != nil):
			return s.broken(err)
		case err != nil, typ == 'X': // what came before the end is done, as PostgreSQL has when it reads that
			return run(false)
		case !extends(typ) || n > s.conn.Max(): // it stays unread: a COPY among these takes what comes behind it, and what it leaves is the next request
			return run(false)
		}
		if m, err = s.conn.Next(); err != nil {
			if _, ok := unread(err); ok { // so does one for which there is no memory now
				return run(false)
			}
			return s.broken(err)
		}
	}
}

// extends says whether a message is one of a batch.
func extends(typ byte) bool {
	switch typ {
	case 'P', 'B', 'D', 'E', 'C', 'H', 'S':
		return true
	}
	return false
}

// patience is how long a pipeline without its Sync is let grow. Then what has come is worked on, and an error in it reaches the
// client, which may wait for just that.
const patience = 5 * time.Millisecond

// more waits a moment for the client to go on. What ends a wait for good shows at the next one.
func (s *Session) more() bool {
	nc := s.conn.NetConn()
	_ = nc.SetReadDeadline(time.Now().Add(patience))
	_, _, err := s.conn.Peek()
	_ = nc.SetReadDeadline(time.Time{})
	if s.doomed.Load() != nil { // whose deadline it was
		_ = nc.SetReadDeadline(time.Unix(1, 0))
		return true
	}
	return err == nil || !wire.IsTimeout(err)
}

// PID is the id that the client knows the session by.
func (s *Session) PID() uint32 { return s.key.PID }
