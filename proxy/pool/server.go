package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// maxMessage bounds a server's message that must be held whole (rows of a merge); relayed ones are not.
const maxMessage = 256 << 20

// Server is a connection to a PostgreSQL node. While leased it belongs to one client's goroutine.
type Server struct {
	*wire.Conn
	Pool *Pool
	PID  uint32

	TxStatus byte              // of the last ReadyForQuery: I, T or E
	Params   map[string]string // ParameterStatus values that the server reported
	Dirty    bool              // something happened that a reset must undo: close instead of reuse

	role     string // that logged in, as the server reports it
	defaults *Settings
	key      []byte
	cancelTo func(ctx context.Context) (net.Conn, error)
	settings *Settings
	prepared map[StmtKey]*list.Element // statement text and types to its entry
	garbage  []string                  // names of statements to close
	lru      *list.List                // of *preparedEntry, the most recent in front
	named    uint64
	dialed   time.Time
	addr     string
	origin   Origin
	since    time.Time // last change between leased and idle
	gen      uint64
	cancels  sync.WaitGroup

	state          atomic.Uint32 // a State
	cutOff         atomic.Bool   // nobody may have it any more
	pendingCancels atomic.Int32
	client         atomic.Uint32 // who leases it
	last           atomic.Uint32 // who leased it last
	count          atomic.Int32  // of prepared statements
	tls            bool
	due
	doubt
	drawn
}

// doubt is what may be left on a server that nobody knows of.
type doubt struct {
	vars    []string // custom parameters to look at
	unknown bool     // there may be others
	suspect bool     // must be looked at before another client gets it
}

// due is what a server is yet to answer.
type due struct {
	running bool // an answer is still to come that nobody reads
	owes    int  // ReadyForQuery is to come so often
}

// Origin is the postmaster that a server belongs to.
type Origin struct {
	Asked   bool
	Started time.Time
	System  string // the system identifier of its data; empty if it would not say
}

// Origin is what SetOrigin has noted, by whoever leases the server.
func (s *Server) Origin() Origin { return s.origin }

// SetOrigin notes what the server has said of its postmaster.
func (s *Server) SetOrigin(o Origin) { s.origin = o }

type preparedEntry struct {
	key  StmtKey
	name string
	nth  uint64
	form StmtKey // see Note
}

// StmtKey identifies a statement's text and declared parameter types by a 128-bit hash.
type StmtKey [2]uint64

// Prepared returns the server's name of a statement with this key, if it has it, and the form that was noted of it.
func (s *Server) Prepared(key StmtKey) (name string, form StmtKey, ok bool) {
	e := s.prepared[key]
	if e == nil {
		return "", StmtKey{}, false
	}
	s.lru.MoveToFront(e)
	p := e.Value.(*preparedEntry)
	return p.name, p.form, true
}

// Note keeps, for a statement that the server has, the form of what it gives. The server sees to it that it gives nothing else.
func (s *Server) Note(key, form StmtKey) {
	if e := s.prepared[key]; e != nil {
		e.Value.(*preparedEntry).form = form
	}
}

// Prepare makes room for a statement and returns the name to parse it under, and the name of a
// statement to close first, if any. The caller sends both.
func (s *Server) Prepare(key StmtKey) (name, evict string) {
	if s.lru.Len() >= s.Pool.mgr.opts.Load().MaxPrepared {
		old := s.lru.Remove(s.lru.Back()).(*preparedEntry)
		delete(s.prepared, old.key)
		evict = old.name
	} else if n := len(s.garbage); n > 0 {
		evict = s.garbage[n-1]
		s.garbage = s.garbage[:n-1]
	}
	s.named++
	name = fmt.Sprintf("pgmosaic_%d", s.named)
	s.prepared[key] = s.lru.PushFront(&preparedEntry{key: key, name: name, nth: s.named})
	s.count.Store(int32(s.lru.Len()))
	return name, evict
}

// ForgetAll drops every prepared statement from the books: the server has dropped them.
func (s *Server) ForgetAll() {
	s.prepared, s.lru, s.garbage = map[StmtKey]*list.Element{}, list.New(), nil
	s.count.Store(0)
}

// Drop takes a statement off the books that the server still has: its name is returned by a later Prepare.
func (s *Server) Drop(key StmtKey) {
	if e := s.prepared[key]; e != nil {
		s.garbage = append(s.garbage, e.Value.(*preparedEntry).name)
		s.Forget(key)
	}
}

// StillHas notes that a statement of a server's which Prepare gave to be closed was not: its name is returned by a later one.
func StillHas(s *Server, name string) { s.garbage = append(s.garbage, name) }

// Mark is a moment in the life of the server's statements, for DropSince.
func (s *Server) Mark() uint64 { return s.named }

// DropSince takes the statements off the books that were prepared since a Mark; 0 is before all of them. They may be about what
// is not there any more.
func (s *Server) DropSince(mark uint64) {
	for e := s.lru.Front(); e != nil; {
		p := e.Value.(*preparedEntry)
		e = e.Next()
		if p.nth > mark {
			s.Drop(p.key)
		}
	}
}

// forgetMissing takes the statements off the books that are not among these names, which a space separates: a function has deallocated them.
func forgetMissing(s *Server, there string) {
	if s.lru.Len() == 0 {
		return
	}
	has := map[string]bool{}
	for _, name := range strings.Fields(there) {
		has[name] = true
	}
	for e := s.lru.Front(); e != nil; {
		p := e.Value.(*preparedEntry)
		e = e.Next()
		if !has[p.name] {
			s.Forget(p.key)
		}
	}
}

// Taken notes that a client or a function has prepared a statement of a server under a name that may be like ours: none of ours gets that name. Whoever has leased the server may call it.
func Taken(s *Server, name string) {
	if n, err := strconv.ParseUint(strings.TrimPrefix(name, "pgmosaic_"), 10, 32); err == nil {
		s.named = max(s.named, n)
	}
}

// Forget drops a statement that could not be parsed.
func (s *Server) Forget(key StmtKey) {
	if e := s.prepared[key]; e != nil {
		s.lru.Remove(e)
		delete(s.prepared, key)
		s.count.Store(int32(s.lru.Len()))
	}
}

// Dialed is when the connection was made.
func (s *Server) Dialed() time.Time { return s.dialed }

// Addr is the address that it is connected to.
func (s *Server) Addr() string { return s.addr }

// Settings is the set that the server carries. Get knows no long values of it; Has does.
func (s *Server) Settings() *Settings { return s.settings }

// SetSettings records that the client itself changed the server's settings.
func (s *Server) SetSettings(set *Settings) { s.settings = set.booked() }

// Doubt notes that it is not known who the server takes itself for: the next session sets it anew.
func (s *Server) Doubt() { s.settings = s.settings.With(userSetting, unknownUser) }

// Reported is what the server has told of a parameter, if it is one that PostgreSQL reports.
func (s *Server) Reported(name string) (value string, ok bool) {
	for n, v := range s.Params {
		if strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

// Formats are the parameters that PostgreSQL reports and that values are read and written by.
var Formats = []string{"DateStyle", "IntervalStyle", "TimeZone", "client_encoding", "standard_conforming_strings"}

// Defaults is what the server began with of Formats.
func (s *Server) Defaults() *Settings { return s.defaults }

// Itself says whether the server takes itself for whom its books have it, by its own word: PostgreSQL reports every change of
// session_authorization, whatever made it.
func (s *Server) Itself() bool {
	user := s.settings.user
	if user == "" {
		user = s.role
	}
	return s.Params[userSetting] == user
}

// Adapt gathers the SQL that gives the server the session's settings. sent says whether a simple query
// was gathered, whose answer the caller must read with Settle before anything else.
func (s *Server) Adapt(want *Settings) (sent bool) {
	sql := diff(s.settings, want)
	if sql == "" {
		return false
	}
	s.SendQuery(sql)
	return true
}

// Difference is the SQL that turns what the server carries into other settings; empty where they are the same.
func (s *Server) Difference(want *Settings) string { return diff(s.settings, want) }

// Settle reads the answer of Adapt. On an error of the server the settings are unknown: it is dirty.
func (s *Server) Settle(want *Settings) error {
	if _, err := s.ReadTag(); err != nil {
		s.Dirty = true
		return err
	}
	s.settings = want.booked()
	return nil
}

// What is sent here is counted until its ReadyForQuery is read: a server that owes one is out of step, and nobody else's.

// SendQuery gathers a simple query.
func (s *Server) SendQuery(sql string) {
	s.owes++
	s.Conn.SendQuery(sql)
}

// SendQueryBytes is SendQuery.
func (s *Server) SendQueryBytes(sql []byte) {
	s.owes++
	s.Conn.SendQueryBytes(sql)
}

// SendSync gathers Sync.
func (s *Server) SendSync() {
	s.owes++
	s.Conn.SendSync()
}

// GatherCall gathers a FunctionCall as it came.
func (s *Server) GatherCall(raw []byte) {
	s.owes++
	s.Gather(raw)
}

// Swallowed notes that a COPY has read so many of the Syncs that were sent, which are not answered.
func (s *Server) Swallowed(syncs int) { s.owes -= syncs }

// inStep says whether all that the server was asked has been sent, and all that it answered read.
func inStep(s *Server) bool { return s.owes == 0 && s.Pending() == 0 && s.Out() == 0 }

// Exec runs a simple query whose rows nobody wants, and returns its last command tag.
func (s *Server) Exec(sql string) (tag string, err error) {
	s.SendQuery(sql)
	if err := s.Flush(); err != nil {
		s.Dirty = true
		return "", err
	}
	return s.ReadTag()
}

// ReadTag reads up to ReadyForQuery and returns the last command tag, or the first error.
func (s *Server) ReadTag() (tag string, err error) {
	a := Answer{Server: s}
	err = a.Read(nil)
	return a.Tag, err
}

// Next is the connection's, of which every message has the form that its type promises. A server that says another thing is used no
// more: the error is a ProtocolError.
func (s *Server) Next() (wire.Message, error) {
	m, err := s.Conn.Next()
	if err == nil {
		err = wire.CheckServer(m)
	}
	if err == nil && m.Type == 'Z' {
		s.owes--
	}
	if errors.Is(err, wire.ErrMalformed) {
		return m, s.violates(err)
	}
	return m, err
}

// violates gives the server up, which has said what the protocol does not know.
func (s *Server) violates(err error) error {
	s.Dirty = true
	e := &ProtocolError{Cause: err}
	if s.Pool != nil {
		e.Shard, e.Node = s.Pool.Shard, s.Pool.Node
	}
	return e
}

// ProtocolError means that what a server has said is not as PostgreSQL's protocol has it.
type ProtocolError struct {
	Shard, Node string
	Cause       error
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("protocol violation by node %s of shard %s: %v", e.Node, e.Shard, e.Cause)
}

func (e *ProtocolError) Unwrap() error { return e.Cause }

// SQLState is PostgreSQL's protocol_violation.
func (e *ProtocolError) SQLState() string { return pgsql.ProtocolViolation }

// Rows runs a simple query whose small result the proxy itself wants. Its values are the caller's. Each row has as many as there are
// columns.
func (s *Server) Rows(sql string) (rows [][][]byte, err error) {
	_, rows, err = s.Result(sql)
	return rows, err
}

// RowsOf is Rows of a query that gives so many columns.
func (s *Server) RowsOf(columns int, sql string) (rows [][][]byte, err error) {
	s.SendQuery(sql)
	if err := s.Flush(); err != nil {
		s.Dirty = true
		return nil, err
	}
	return s.Answers(columns)
}

// RowsWithin is RowsOf of a query whose rows may be large: hold is asked for each before it is read. What it refuses is read to its end, and not kept.
func RowsWithin(s *Server, columns int, sql string, hold func(bytes int) error) (rows [][][]byte, err error) {
	s.SendQuery(sql)
	if err := s.Flush(); err != nil {
		s.Dirty = true
		return nil, err
	}
	var refused error
	a := Answer{Server: s}
	for {
		if typ, n, err := a.Peek(); err == nil && typ == 'D' {
			if refused == nil {
				refused = hold(n)
			}
			if refused != nil {
				rows = nil
				if err := s.Skip(); err != nil {
					s.Dirty = true
					return nil, err
				}
				continue
			}
		}
		m, err := a.Next()
		switch {
		case a.Ended && a.Failed != nil:
			return nil, a.Failed
		case a.Ended:
			return rows, refused
		case err != nil:
			return nil, err
		case m.Type == 'D':
			vals, err := wire.RowValues(nil, append([]byte(nil), m.Body()...))
			if err == nil && len(vals) != columns {
				err = fmt.Errorf("%w: a row of %d values, where there are %d", wire.ErrMalformed, len(vals), columns)
			}
			if err != nil {
				return nil, s.violates(err)
			}
			rows = append(rows, vals)
		}
	}
}

// Answers reads the answer to a query that has been sent: RowsOf in two halves, so that several servers can be asked at once.
func (s *Server) Answers(columns int) (rows [][][]byte, err error) {
	desc, rows, err := s.result()
	if err == nil && len(desc) != columns {
		return nil, s.violates(fmt.Errorf("%w: a result of %d columns, where there are %d", wire.ErrMalformed, len(desc), columns))
	}
	return rows, err
}

// Row is RowsOf of a query that gives one row.
func (s *Server) Row(columns int, sql string) (row [][]byte, err error) {
	rows, err := s.RowsOf(columns, sql)
	switch {
	case err != nil:
		return nil, err
	case len(rows) != 1:
		return nil, s.violates(fmt.Errorf("%w: a result of %d rows, where there is one", wire.ErrMalformed, len(rows)))
	}
	return rows[0], nil
}

// Result is Rows with the description of the columns.
func (s *Server) Result(sql string) (desc []wire.Field, rows [][][]byte, err error) {
	s.SendQuery(sql)
	if err := s.Flush(); err != nil {
		s.Dirty = true
		return nil, nil, err
	}
	return s.result()
}

func (s *Server) result() (desc []wire.Field, rows [][][]byte, err error) {
	a := Answer{Server: s}
	err = a.Read(func(m wire.Message) (err error) {
		switch m.Type {
		case 'T':
			desc, err = wire.ParseRowDescription(m.Body())
		case 'D':
			var vals [][]byte
			vals, err = wire.RowValues(nil, append([]byte(nil), m.Body()...))
			if err == nil && len(vals) != len(desc) {
				err = s.violates(fmt.Errorf("%w: a row of %d values for %d columns", wire.ErrMalformed, len(vals), len(desc)))
			}
			rows = append(rows, vals)
		}
		return err
	})
	return desc, rows, err
}

// NoteParam remembers a ParameterStatus.
func (s *Server) NoteParam(body []byte) {
	if name, rest, err := wire.CString(body); err == nil {
		if val, _, err := wire.CString(rest); err == nil {
			s.Params[string(name)] = string(val)
		}
	}
}

// ServerError is an error that a PostgreSQL server reported.
type ServerError struct{ Response *wire.ErrorResponse }

func (e *ServerError) Error() string { return e.Response.Message }

// SQLState is the server's SQLSTATE.
func (e *ServerError) SQLState() string { return e.Response.Code }

// BeginCancel marks that a cancel request is about to be sent, so that the server is not reused before
// it has been. The caller must hold off the server's release until BeginCancel has returned, and must
// call the function that it returns.
func (s *Server) BeginCancel() func(context.Context) error {
	s.cancels.Add(1)
	s.pendingCancels.Add(1)
	return func(ctx context.Context) error {
		defer func() { s.pendingCancels.Add(-1); s.cancels.Done() }()
		nc, err := s.cancelTo(ctx)
		if err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
		defer nc.Close() // the server closes it
		if d, ok := ctx.Deadline(); ok {
			_ = nc.SetDeadline(d)
		}
		if err := wire.WriteAll(nc, wire.CancelRequest(s.PID, s.key)); err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
		var b [1]byte
		_, _ = nc.Read(b[:]) // the server closes when it has signalled
		return nil
	}
}

// AwaitCancels returns when the cancel requests that have begun have reached the server. No new one may begin meanwhile.
func (s *Server) AwaitCancels() { s.cancels.Wait() }

// CutOff closes the connection under whoever leases it, and keeps others from getting it. Any goroutine may call it that holds off
// the server's release.
func (s *Server) CutOff() {
	s.cutOff.Store(true)
	s.Cut()
}

// Release gives the server back, or closes it if it is not fit for another client. It takes s over: whoever calls it again panics.
// now may be a little old.
func (s *Server) Release(now time.Time) {
	if now.IsZero() {
		now = time.Now()
	}
	switch st := s.State(); st {
	case Leased:
	case Parked:
		become(s, Leased)
	default:
		panic("pool: a server of node " + s.Pool.Node + " is given back that is " + st.String())
	}
	s.Pool.release(s, now)
}

// DialError is a failure to connect to a node.
type DialError struct {
	Shard string
	Node  string
	Code  string
	Cause error
}

func (e *DialError) Error() string {
	var pe *pgconn.PgError
	if errors.As(e.Cause, &pe) {
		return fmt.Sprintf("node %s of shard %s: %s", e.Node, e.Shard, pe.Message)
	}
	if hinted(e.Cause) != "" {
		return fmt.Sprintf("node %s of shard %s: %s", e.Node, e.Shard, cause(e.Cause))
	}
	return fmt.Sprintf("cannot connect to node %s of shard %s: %s", e.Node, e.Shard, cause(e.Cause))
}

func (e *DialError) Unwrap() error { return e.Cause }

// SQLState is the server's own code, or that of what was found out about it, else 08006.
func (e *DialError) SQLState() string { return e.Code }

// ErrorHint says where to look; nothing was sent to the node.
func (e *DialError) ErrorHint() string {
	if h := hinted(e.Cause); h != "" {
		return h
	}
	return "Nothing was done there. SHOW REPLICAS on the admin database shows the nodes and what they answered last."
}

// hinted is what an error tells to do; empty for nothing.
func hinted(err error) string {
	var h interface{ ErrorHint() string }
	if errors.As(err, &h) {
		return h.ErrorHint()
	}
	return ""
}

func dialError(p *Pool, err error) error {
	code := pgsql.ConnectionFailure
	var known interface{ SQLState() string }
	if errors.As(err, &known) {
		code = known.SQLState()
	}
	return &DialError{p.Shard, p.Node, code, err}
}

// cause is the innermost reason of a failed connection: pgconn's own text repeats user and address.
func cause(err error) string {
	var ne *net.OpError
	if errors.As(err, &ne) {
		return ne.Err.Error()
	}
	for {
		u := errors.Unwrap(err)
		if u == nil {
			return err.Error()
		}
		err = u
	}
}

// ErrorResponse is the server's message, field for field.
func (e *ServerError) ErrorResponse() *wire.ErrorResponse { return e.Response }
