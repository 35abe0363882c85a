// Package proxy accepts clients and keeps track of their sessions.
package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/peer"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/proxy/tcp"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// State is where a server is.
type State uint32

// The states of a server.
const (
	Listening State = iota
	Draining
	Stopped
)

func (s State) String() string { return [...]string{"listening", "draining", "stopped"}[s] }

// Transitions lists the allowed changes of state: docs/states.md is printed from it.
var Transitions = map[State][]State{Listening: {Draining, Stopped}, Draining: {Stopped}}

// Options are what may change while the server runs.
type Options struct {
	MaxClients int // max_client_conn; 0: no limit
	Limits     session.Limits
	TCP        tcp.Options // of clients that come
}

// Server accepts clients.
type Server struct {
	Session session.Config
	Log     *slog.Logger
	// Peer is this process's number among those that share its clients, below Peers; Others says where to
	// send a request to cancel a client of another one.
	Peer   int
	Others func(peer int) (addr string, ok bool)
	// PeerKey is the key that the processes share, and Owners whose server processes are: for the questions of others.
	PeerKey func() []byte
	Owners  func([]peer.Process) []peer.Owner

	opts      atomic.Pointer[Options]
	listeners []net.Listener
	state     atomic.Uint32
	active    sync.WaitGroup
	serving   atomic.Bool
	accepting sync.WaitGroup // until nothing more comes

	mu       sync.Mutex // guards the rest
	room     room
	sessions map[uint32]*session.Session
	next     uint32
	leaving  []chan struct{} // see empty
}

// Peers bounds the numbers of processes that forward each other's cancel requests.
const Peers = 1 << 10

// A client's id: no server process has one so high, so that the two are never mistaken for each other.
const (
	clientBit  = 1 << 30
	peerShift  = 20
	serialMask = 1<<peerShift - 1
)

// IsClient says whether a process id is one that we gave to a client, of whatever process.
func IsClient(pid uint32) bool { return pid>>30 == 1 }

// SetOptions replaces the limits.
func (s *Server) SetOptions(o Options) { s.opts.Store(&o) }

// Options are the limits in force.
func (s *Server) Options() Options { return *s.opts.Load() }

// Listen opens a listener: see the function of that name.
func (s *Server) Listen(addr string, mode os.FileMode, share Sharing) error {
	l, err := Listen(addr, mode, share)
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, l)
	s.accepting.Add(1)
	if s.sessions == nil {
		s.sessions = map[uint32]*session.Session{}
	}
	return nil
}

// Listeners are the server's.
func (s *Server) Listeners() []net.Listener { return s.listeners }

// Addr is where the server listens first.
func (s *Server) Addr() string { return s.listeners[0].Addr().String() }

// State may be read by any goroutine.
func (s *Server) State() State { return State(s.state.Load()) }

// watchEvery is how often sessions are compared with their limits.
const watchEvery = 100 * time.Millisecond

// Serve accepts clients until Drain or Stop, and returns when the last session has ended.
func (s *Server) Serve(ctx context.Context) error {
	defer s.active.Wait()
	s.serving.Store(true)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	s.active.Add(1)
	go func() {
		defer s.active.Done()
		_ = panics.Keep(watching, "watch of the clients", func(ctx context.Context) error { s.watch(ctx); return nil })
	}()
	errs := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() {
			defer s.accepting.Done()
			errs <- panics.Keep(ctx, "listener", func(ctx context.Context) error { return s.accept(ctx, l) })
		}()
	}
	var first error
	for range s.listeners {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	<-s.empty() // drained ones still have limits
	return first
}

// acceptPause is how long nobody is let in after a failure that passes, as too many open files do.
const acceptPause = 10 * time.Millisecond

func (s *Server) accept(ctx context.Context, l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.State() != Listening {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			s.Log.Warn("accept", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		if err := s.Options().TCP.Set(nc); err != nil { // it is gone already
			_ = nc.Close()
			continue
		}
		sess := s.register(nc)
		if sess == nil {
			_ = nc.Close()
			continue
		}
		s.active.Add(1)
		go sess.Run(ctx, func(err error) {
			defer s.active.Done()
			_ = panics.Catch(panics.Session, func() error { s.ended(sess, err); return nil }, nil)
		})
	}
}

// watch compares every session with its limits.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	worked, done := time.Now(), true
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C: // of a while ago, if this goroutine is late: what has begun since would be older than it is
			l := s.opts.Load().Limits
			for _, x := range s.Sessions() {
				if now := time.Now(); x.Watch(now, l) {
					worked, done = now, false
				}
			}
			if !done && time.Since(worked) > quietAfter && collects(time.Now()) { // nobody is kept waiting by it now
				done = true
				debug.FreeOSMemory()
			}
		}
	}
}

// quietAfter is how long nobody works before what their work has left in memory is given back, which reads all that the process holds: it is
// done at most every collectEvery, also where work comes in small bursts or the process has several servers.
const (
	quietAfter   = 2 * time.Second
	collectEvery = 20 * time.Second
)

// collected is when a server of this process last began to give memory back; nil: none has.
var collected atomic.Pointer[time.Time]

// collects says whether memory may be given back now, and notes it if so.
func collects(now time.Time) bool {
	last := collected.Load()
	return (last == nil || now.Sub(*last) >= collectEvery) && collected.CompareAndSwap(last, &now)
}

func (s *Server) ended(sess *session.Session, err error) {
	var cancel session.CancelRequest
	asks := errors.As(err, &cancel)
	if asks { // its connection is open meanwhile, and has its place
		s.cancel(cancel)
	}
	s.mu.Lock()
	delete(s.sessions, sess.PID())
	s.room.leave(sess)
	if len(s.sessions) == 0 {
		for _, c := range s.leaving {
			close(c)
		}
		s.leaving = nil
	}
	s.mu.Unlock()
	if err != nil && !asks {
		i := sess.Info()
		s.Log.Info("client gone", "client", i.PID, "user", i.Login.User, "database", i.Login.Database, "from", i.From(), "error", err)
	}
}

// cancel does what a cancel request asks for, or passes it to the process whose client it names. One that
// was passed on already is not passed on again.
func (s *Server) cancel(c session.CancelRequest) {
	s.mu.Lock()
	other := s.sessions[c.PID]
	s.mu.Unlock()
	if other != nil {
		other.Cancel(c.Secret)
		return
	}
	peer := int(c.PID&^clientBit) >> peerShift
	if !IsClient(c.PID) || peer == s.Peer || s.Others == nil {
		return
	}
	if addr, ok := s.Others(peer); ok {
		if err := wire.SendCancel(addr, c.PID, binary.BigEndian.AppendUint32(nil, c.Secret)); err != nil {
			s.Log.Warn("a cancel request could not be passed on", "peer", peer, "address", addr, "error", err)
		}
	}
}

// ServePeers takes cancel requests that other processes pass on, and answers their questions, until ctx ends.
func (s *Server) ServePeers(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		nc, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.Log.Warn("accept of another process", "error", err) // of the moment, as too many open files are
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		s.active.Add(1)
		go func() {
			defer s.active.Done()
			defer nc.Close()
			_ = panics.Catch(panics.Background, func() error { s.servePeer(nc); return nil }, nil)
		}()
	}
}

// servePeer does what another process asks for.
func (s *Server) servePeer(nc net.Conn) {
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	code, body, err := wire.New(nc, wire.MaxStartup).ReadStartup()
	if err == nil && code == peer.Code && s.PeerKey != nil {
		key := s.PeerKey()
		if len(key) == 0 {
			return // nobody may ask
		}
		if err := peer.Answer(nc, key, bytes.Clone(body), s.Owners); err != nil {
			s.Log.Warn("the question of another process was not answered", "from", nc.RemoteAddr().String(), "error", err)
		}
		return
	}
	if err != nil || code != wire.CancelCode || len(body) != 8 {
		return
	}
	s.mu.Lock()
	other := s.sessions[binary.BigEndian.Uint32(body)]
	s.mu.Unlock()
	if other != nil {
		other.Cancel(binary.BigEndian.Uint32(body[4:]))
	}
}

// register gives a connection its key and its place. One too many is told so when it says who it is.
func (s *Server) register(nc net.Conn) *session.Session {
	sess, victim := s.addSession(nc)
	if victim != nil {
		victim.Kill()
	}
	return sess
}

func (s *Server) addSession(nc net.Conn) (sess, victim *session.Session) {
	limit := s.opts.Load().MaxClients
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.State() == Stopped { // nobody would end it
		return nil, nil
	}
	cfg := s.Session
	cfg.Room = s.admit
	for {
		s.next = (s.next + 1) & serialMask
		var secret [4]byte
		_, _ = rand.Read(secret[:]) // never fails
		key := session.Key{PID: clientBit | uint32(s.Peer)<<peerShift | s.next, Secret: binary.BigEndian.Uint32(secret[:])}
		if s.sessions[key.PID] != nil {
			continue
		}
		sess = session.New(nc, key, cfg)
		s.sessions[key.PID] = sess
		return sess, s.room.arrive(sess, limit)
	}
}

// SessionOf finds a session by the id that its client knows, nil for none.
func (s *Server) SessionOf(pid uint32) *session.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[pid]
}

// Sessions lists the sessions by id.
func (s *Server) Sessions() []*session.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*session.Session, 0, len(s.sessions))
	for _, x := range s.sessions {
		out = append(out, x)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].PID() < out[j].PID() })
	return out
}

// empty is closed when no session is left.
func (s *Server) empty() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	if len(s.sessions) == 0 {
		close(c)
	} else {
		s.leaving = append(s.leaving, c)
	}
	return c
}

// untilEmpty waits until no session is left, or ctx ends.
func (s *Server) untilEmpty(ctx context.Context) {
	select {
	case <-s.empty():
	case <-ctx.Done():
	}
}

// Drain stops accepting and lets every session end at the end of its transaction. After timeout, or when
// ctx ends, the rest are closed.
func (s *Server) Drain(ctx context.Context, timeout time.Duration) {
	if !s.state.CompareAndSwap(uint32(Listening), uint32(Draining)) {
		return
	}
	s.closeListeners()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, x := range s.Sessions() {
		x.Drain()
	}
	s.untilEmpty(ctx)
	s.Stop()
}

// WaitForClients stops accepting and returns when every client has left by itself, or ctx ends.
func (s *Server) WaitForClients(ctx context.Context) {
	if !s.state.CompareAndSwap(uint32(Listening), uint32(Draining)) {
		return
	}
	s.closeListeners()
	s.untilEmpty(ctx)
	s.Stop()
}

// Stop ends everything: clients are told, and cut off if they do not go at once.
func (s *Server) Stop() {
	if s.state.Swap(uint32(Stopped)) == uint32(Stopped) {
		return
	}
	s.closeListeners()
	for _, x := range s.Sessions() {
		x.Terminate(&pgsql.Error{Code: pgsql.AdminShutdown, Message: "terminating connection due to administrator command", Hint: "The proxy is shutting down: connect again."})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.untilEmpty(ctx)
	for _, x := range s.Sessions() {
		x.Kill()
	}
}

// closeListeners has nothing more come, and returns when what has come is registered.
func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	if s.serving.Load() {
		s.accepting.Wait()
	}
}
