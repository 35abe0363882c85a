package pool

import (
	"net"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// inspectTimeout bounds the look at a server that nobody uses.
const inspectTimeout = 5 * time.Second

// Suspect marks a server that ran something which may have changed it where no parser sees it: a function,
// a DO block, a CALL. It is looked at before another client gets it. vars are custom parameters that it may
// have set, which no catalog lists; unknown says that there may be others.
func (s *Server) Suspect(vars []string, unknown bool) {
	s.suspect = true
	s.unknown = s.unknown || unknown
	for _, v := range vars {
		if !slices.Contains(s.vars, v) {
			s.vars = append(s.vars, v)
		}
	}
}

// temporary picks a row for each temporary object of the session, whatever it is: PostgreSQL finds in the same way what it drops
// when a session ends.
const temporary = `from pg_catalog.pg_depend where refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass and refobjid operator(pg_catalog.=) pg_catalog.pg_my_temp_schema() and refobjid operator(pg_catalog.<>) 0::pg_catalog.oid`

// whoSQL says who the server is, before and after it is made to be the role that logged in again: only that one sees all settings.
const whoSQL = `select pg_catalog.concat('u', session_user) union all select pg_catalog.concat('r', pg_catalog.current_setting('role'));
reset session_authorization; reset role;
select pg_catalog.concat('U', session_user) union all select pg_catalog.concat('R', pg_catalog.current_setting('role'))`

// inspectSQL lists what a server carries that it would not carry fresh: settings, prepared statements, and which of ours there are,
// session locks, temporary objects, cursors, channels. It runs with what the client has left: all of its names have a schema, so
// that nothing of a user's, not even a temporary table, answers in the place of PostgreSQL's own.
var inspectSQL = whoSQL + `;
select ` + foundSQL("'s'", "name", "setting") + ` from pg_catalog.pg_settings where source operator(pg_catalog.=) 'session' union all
select pg_catalog.concat(case when name operator(pg_catalog.~) '^pgmosaic_[0-9]+$' then 'q' else 'p' end, name) from pg_catalog.pg_prepared_statements where from_sql or name operator(pg_catalog.!~) '^pgmosaic_[0-9]+$' union all
select pg_catalog.concat('P', pg_catalog.string_agg(name, ' ')) from pg_catalog.pg_prepared_statements where not from_sql and name operator(pg_catalog.~) '^pgmosaic_[0-9]+$' union all
` + holdsSQL + ` union all
select 'n' from pg_catalog.pg_listening_channels()`

// holdsSQL lists session locks, temporary objects and held cursors.
const holdsSQL = `select 'l' from pg_catalog.pg_locks where pid operator(pg_catalog.=) pg_catalog.pg_backend_pid() and locktype operator(pg_catalog.=) 'advisory' union all
select 't' ` + temporary + ` union all
select 'c' from pg_catalog.pg_cursors where is_holdable`

// IsSuspect says whether Suspect was called since the server was last found clean, or the server is not whom its books have.
func (s *Server) IsSuspect() bool { return s.suspect || !s.Itself() }

// Trust ends the suspicion: the caller has seen to what the server carries.
func (s *Server) Trust() { s.suspect, s.unknown, s.vars = false, false, nil }

// Left is what a server carries.
type Left struct {
	Settings map[string]string // lower case names, values in their base unit
	State    bool              // something that cannot be replayed on another server

	user, role string // what it took itself for, where that is not what it logged in as
}

// Who is whom the server took itself for, as settings.
func (l *Left) Who() *Settings {
	who := NoSettings
	if l.user != "" {
		who = who.With(userSetting, pgsql.Literal(l.user))
	}
	if l.role != "" {
		who = who.With(roleSetting, pgsql.Literal(l.role))
	}
	return who
}

// Left looks at what the server carries, and makes it be the role that logged in. It must be at rest, outside a transaction.
// Of settings it brings no more than most bytes: there are more with ErrTooMuch.
func (s *Server) Left(most int64) (Left, error) {
	left := Left{Settings: map[string]string{}, State: s.unknown}
	var was, is struct{ user, role string }
	found, err := s.find(inspectSQL+varSQL(s.vars), most)
	for _, f := range found {
		switch f[0] {
		case 's':
			name, val, _ := strings.Cut(f[1:], "=")
			left.Settings[strings.ToLower(name)] = val
		case 'u':
			was.user = f[1:]
		case 'U':
			is.user = f[1:]
		case 'r':
			was.role = f[1:]
		case 'R':
			is.role = f[1:]
		case 'P':
			forgetMissing(s, f[1:])
		case 'q':
			Taken(s, f[1:])
			left.State = true
		default:
			left.State = true
		}
	}
	if err != nil {
		s.Doubt() // the look is a transaction, and was rolled back
		return left, err
	}
	if was.user != is.user {
		left.user = was.user
	}
	if was.role != is.role || was.user != is.user {
		left.role = was.role
	}
	s.settings = s.settings.Others()
	return left, nil
}

// inspect says whether a server is as its books have it.
func (s *Server) inspect() bool {
	_ = s.SetDeadline(time.Now().Add(inspectTimeout))
	defer func() { _ = s.SetDeadline(time.Time{}) }()
	left, err := s.Left(mostBooked)
	if err != nil || s.TxStatus != 'I' || s.Pending() > 0 || left.State || !s.Itself() {
		return false
	}
	for n := range left.Settings {
		if _, ok := s.settings.Get(n); !ok {
			return false
		}
	}
	s.Trust()
	return true
}

// Holds says whether the server carries state that ties a session to it: session locks, temporary objects,
// held cursors, and what nobody can list.
func (s *Server) Holds() (bool, error) {
	if s.unknown {
		return true, nil
	}
	found, err := s.list(holdsSQL)
	return len(found) > 0, err
}

// list runs a query of one text column.
func (s *Server) list(sql string) (out []string, err error) {
	rows, err := s.RowsOf(1, sql)
	for _, r := range rows {
		out = append(out, string(r[0]))
	}
	return out, err
}

// Info is one moment of a server, for SHOW SERVERS.
type Info struct {
	Database, Role, Shard, Node string
	State                       string // active, idle, tested, old
	PID                         uint32
	Client                      uint32 // whose it is; 0 for nobody's
	Remote, Local               net.Addr
	TLS                         bool
	Connected, Since            time.Time
	Prepared                    int

	server *Server
}

// Servers lists the pool's open servers.
func (p *Pool) Servers() []Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Info, 0, len(p.all))
	for s := range p.all {
		i := Info{
			Database: p.Database, Role: p.Role, Shard: p.Shard, Node: p.Node, State: "active", PID: s.PID, Client: s.client.Load(), Remote: s.NetConn().RemoteAddr(),
			Local: s.NetConn().LocalAddr(), TLS: s.tls, Connected: s.dialed, Since: s.dialed, Prepared: int(s.count.Load()), server: s,
		}
		switch s.State() {
		case Idle:
			i.State, i.Since = "idle", s.since
		case Tested:
			i.State = "tested"
		case Leased, Parked, Closed:
		}
		if s.gen != p.gen {
			i.State = "old"
		}
		out = append(out, i)
	}
	return out
}

// Lend notes whose a leased server is, by the id that the client knows itself by.
func (s *Server) Lend(client uint32) {
	s.client.Store(client)
	s.last.Store(client)
}

// Running notes whether the server was given work whose answer has not been read to its end.
func (s *Server) Running(yes bool) { s.running = yes }

// ClientOf is the client that uses the server process pid of a shard's primary now; 0 if none of this process does.
func (m *Manager) ClientOf(database, shard string, pid uint32) uint32 {
	if s := m.server(database, shard, pid); s != nil {
		return s.client.Load()
	}
	return 0
}

// LastClient is the client that uses the server process pid of a shard's primary, or used it last; 0 if it is unknown.
func (m *Manager) LastClient(database, shard string, pid uint32) uint32 {
	if s := m.server(database, shard, pid); s != nil {
		return s.last.Load()
	}
	return 0
}

// server is the one that a process of a shard's primary serves. A replica may have a process of the same number.
func (m *Manager) server(database, shard string, pid uint32) *Server {
	primary := ""
	if f := m.opts.Load().Primary; f != nil {
		if primary = f(database, shard); primary == "" {
			return nil
		}
	}
	for _, p := range m.All() {
		if p.Database != database || p.Shard != shard || primary != "" && !p.To(primary) {
			continue
		}
		p.mu.Lock()
		for s := range p.all {
			if s.PID == pid {
				p.mu.Unlock()
				return s
			}
		}
		p.mu.Unlock()
	}
	return nil
}
