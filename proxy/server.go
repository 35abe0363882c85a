// Package proxy accepts clients and keeps track of their sessions.
package proxy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/session"
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

// Server accepts clients on one listener.
type Server struct {
	Session    session.Config
	MaxClients int // max_client_conn
	Log        *slog.Logger

	listener net.Listener
	state    atomic.Uint32
	active   sync.WaitGroup

	mu       sync.Mutex // guards sessions
	sessions map[uint32]*session.Session
}

// Listen opens the listener.
func (s *Server) Listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	s.listener = l
	s.sessions = map[uint32]*session.Session{}
	return nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// State may be read by any goroutine.
func (s *Server) State() State { return State(s.state.Load()) }

// Serve accepts clients until Drain or Stop, and returns when the last session has ended.
func (s *Server) Serve(ctx context.Context) error {
	defer s.active.Wait()
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			if s.State() != Listening {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			s.Log.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.active.Add(1)
		go func() {
			defer s.active.Done()
			s.serve(ctx, nc)
		}()
	}
}

func (s *Server) serve(ctx context.Context, nc net.Conn) {
	sess := s.register(nc)
	if sess == nil {
		_ = nc.Close()
		return
	}
	err := sess.Serve(ctx)
	s.mu.Lock()
	delete(s.sessions, sess.PID())
	s.mu.Unlock()
	var cancel session.CancelRequest
	switch {
	case errors.As(err, &cancel):
		s.mu.Lock()
		other := s.sessions[cancel.PID]
		s.mu.Unlock()
		if other != nil {
			other.Cancel(cancel.Secret)
		}
	case err != nil:
		i := sess.Info()
		s.Log.Info("client gone", "client", i.PID, "user", i.Login.User, "database", i.Login.Database, "from", nc.RemoteAddr().String(), "error", err)
	}
}

// register gives a connection its key, unless there are too many.
func (s *Server) register(nc net.Conn) *session.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.MaxClients > 0 && len(s.sessions) >= s.MaxClients {
		s.Log.Warn("no more connections allowed (max_client_conn)", "limit", s.MaxClients)
		return nil
	}
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		key := session.Key{PID: binary.BigEndian.Uint32(b[:]) & 0x7fffffff, Secret: binary.BigEndian.Uint32(b[4:])}
		if key.PID == 0 || s.sessions[key.PID] != nil {
			continue
		}
		sess := session.New(nc, key, s.Session)
		s.sessions[key.PID] = sess
		return sess
	}
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

// Drain stops accepting and lets every session end at the end of its transaction. After timeout, or when
// ctx ends, the rest are closed.
func (s *Server) Drain(ctx context.Context, timeout time.Duration) {
	if !s.state.CompareAndSwap(uint32(Listening), uint32(Draining)) {
		return
	}
	_ = s.listener.Close()
	end := time.Now().Add(timeout)
	for len(s.Sessions()) > 0 && time.Now().Before(end) && ctx.Err() == nil {
		for _, x := range s.Sessions() {
			x.Drain()
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Stop()
}

// Stop closes everything at once.
func (s *Server) Stop() {
	s.state.Store(uint32(Stopped))
	_ = s.listener.Close()
	for _, x := range s.Sessions() {
		x.Kill()
	}
}
