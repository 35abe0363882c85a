// Package session speaks the server's side of the PostgreSQL protocol with one client.
//
// A Session runs on one goroutine from the first byte to the last. It knows logins and messages, not SQL
// and not shards: what a statement does is its Handler's affair.
package session

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// State is where a session is.
type State uint32

// The states of a session. Only its goroutine changes them.
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

// Handler runs a client's statements. The session's goroutine calls all of it but Cancel. Errors of SQL
// are written to the client by the handler; an error that it returns ends the session.
type Handler interface {
	// Query runs a simple query string and writes its whole answer, ReadyForQuery included.
	Query(ctx context.Context, sql []byte) error
	// Batch runs messages of the extended protocol. With sync set the batch ends with a Sync, and the
	// answer with ReadyForQuery; else all that can be answered is. The messages are valid for the call.
	Batch(ctx context.Context, msgs []wire.Message, sync bool) error
	// TxStatus is I, T or E.
	TxStatus() byte
	// Cancel stops what the session is doing. Any goroutine may call it.
	Cancel()
	// Close gives back whatever the session holds. It is called once.
	Close()
}

// Login is who asks for what.
type Login struct {
	User, Database string
	Params         map[string]string
	Remote         netip.AddrPort
	TLS            bool
}

// Backend checks logins and makes handlers. All sessions share it.
type Backend interface {
	Method(l Login) auth.Method
	// Credential is what the password is checked against. Users that do not exist have one, too.
	Credential(ctx context.Context, l Login) (auth.Credential, error)
	// Open makes the handler of a session and the parameters to report. It is called after the login.
	Open(ctx context.Context, l Login, client *wire.Conn) (Handler, map[string]string, error)
}

// Config is what all sessions share.
type Config struct {
	Backend      Backend
	TLS          *tls.Config   // nil: SSLRequest is answered N
	LoginTimeout time.Duration // client_login_timeout, 60 s
	MaxStatement int           // max_statement_size, 64 MB
	Log          *slog.Logger
}

// Key is what a client cancels with.
type Key struct{ PID, Secret uint32 }

// Session is one client connection.
type Session struct {
	cfg   Config
	key   Key
	login Login

	conn    *wire.Conn
	handler Handler
	batch   []wire.Message

	state    atomic.Uint32
	draining atomic.Bool
	since    time.Time
	request  atomic.Int64 // when the current request began, Unix nanoseconds

	mu     sync.Mutex // guards opened
	opened Handler    // what Cancel reaches
}

// New makes a session for a connection, which it takes over.
func New(nc net.Conn, key Key, cfg Config) *Session {
	return &Session{cfg: cfg, key: key, conn: wire.New(nc, cfg.MaxStatement), since: time.Now()}
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
}

// Info may be called by any goroutine.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, out := s.conn.Traffic()
	return Info{
		PID: s.key.PID, Login: s.login, State: State(s.state.Load()), Connected: s.since, Request: time.Unix(0, s.request.Load()),
		TLS: s.login.TLS, In: in, Out: out, Application: s.login.Params["application_name"], Handler: s.opened,
	}
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
	if State(s.state.Load()) == Ready {
		_ = s.conn.NetConn().SetReadDeadline(time.Now()) // wakes it up
	}
}

// Kill closes the connection under the session.
func (s *Session) Kill() { _ = s.conn.Close() }

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

// Serve runs the session to its end and closes the connection. The error, if any, says why it ended other
// than by the client's leave.
func (s *Session) Serve(ctx context.Context) (err error) {
	defer func() {
		s.mu.Lock()
		s.opened = nil
		s.mu.Unlock()
		if s.handler != nil {
			s.handler.Close()
		}
		s.to(Closed)
		_ = s.conn.Close()
	}()
	if err := s.start(ctx); err != nil {
		return quiet(err)
	}
	err = s.loop(ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// fatal tells the client why the session ends.
func (s *Session) fatal(err error) error {
	r := wire.ErrorFor("FATAL", err)
	r.Severity, r.SeverityUnlocalized = "FATAL", "FATAL"
	s.conn.Send(r)
	_ = s.conn.NetConn().SetWriteDeadline(time.Now().Add(5 * time.Second))
	_ = s.conn.Flush()
	return err
}

var errDrained = &wire.PgError{Code: "57P01", Message: "terminating connection due to administrator command", Hint: "The proxy is shutting down: connect again."}

// loop reads requests until the client leaves.
func (s *Session) loop(ctx context.Context) error {
	for {
		if err := s.conn.Flush(); err != nil {
			return err
		}
		if s.draining.Load() && s.handler.TxStatus() == 'I' && s.conn.Pending() == 0 {
			return s.fatal(errDrained)
		}
		s.conn.Release()
		m, err := s.conn.Next()
		if err != nil {
			if s.draining.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				_ = s.conn.NetConn().SetReadDeadline(time.Time{})
				continue
			}
			return s.broken(err)
		}
		if m.Type == 'X' {
			return nil
		}
		s.to(Busy)
		s.request.Store(time.Now().UnixNano())
		if err := s.request1(ctx, m); err != nil {
			return err
		}
		s.to(Ready)
	}
}

// broken turns a framing error into a FATAL; other errors mean that the client is gone.
func (s *Session) broken(err error) error {
	switch {
	case errors.Is(err, wire.ErrTooLarge):
		return s.fatal(&wire.PgError{Code: "54000", Message: err.Error(), Hint: "Raise max_statement_size, or send smaller statements."})
	case errors.Is(err, wire.ErrMalformed):
		return s.fatal(&wire.PgError{Code: "08P01", Message: err.Error()})
	}
	return err
}

// maxBatch is how much of a pipeline is gathered before it is worked on.
const maxBatch = 1 << 20

// request1 handles one request: a simple query, or a batch of extended messages.
func (s *Session) request1(ctx context.Context, m wire.Message) error {
	switch m.Type {
	case 'Q':
		return s.query(ctx, m)
	case 'P', 'B', 'D', 'E', 'C', 'H', 'S':
		return s.extended(ctx, m)
	case 'd', 'c', 'f': // left over from a COPY that failed
		return nil
	case 'F':
		s.conn.Send(wire.ErrorFor("ERROR", &wire.PgError{Code: "0A000", Message: "function calls by the fast-path protocol are not supported", Hint: "Use SELECT function(...)."}))
		s.conn.SendReady(s.handler.TxStatus())
		return nil
	}
	return s.fatal(&wire.PgError{Code: "08P01", Message: fmt.Sprintf("invalid frontend message type %d", m.Type)})
}

func (s *Session) query(ctx context.Context, m wire.Message) error {
	body := m.Body()
	if len(body) == 0 || body[len(body)-1] != 0 {
		return s.fatal(&wire.PgError{Code: "08P01", Message: "invalid message format"})
	}
	s.conn.Hold() // COPY reads more while the text is in use
	return s.handler.Query(ctx, body[:len(body)-1])
}

// extended gathers messages up to Sync or Flush and hands them on as one batch.
func (s *Session) extended(ctx context.Context, m wire.Message) error {
	s.conn.Hold()
	s.batch = s.batch[:0]
	size := 0
	for {
		switch m.Type {
		case 'S':
			return s.handler.Batch(ctx, s.batch, true)
		case 'H':
			return s.handler.Batch(ctx, s.batch, false)
		case 'P', 'B', 'D', 'E', 'C':
			s.batch = append(s.batch, m)
			size += len(m.Raw)
		case 'X':
			return io.EOF
		case 'd', 'c', 'f':
		default:
			if err := s.handler.Batch(ctx, s.batch, false); err != nil {
				return err
			}
			return s.request1(ctx, m)
		}
		if size > maxBatch {
			return s.handler.Batch(ctx, s.batch, false)
		}
		var err error
		if m, err = s.conn.Next(); err != nil {
			return s.broken(err)
		}
	}
}

// PID is the id that the client knows the session by.
func (s *Session) PID() uint32 { return s.key.PID }
