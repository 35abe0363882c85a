package pool

import "context"

// A session may keep a server while it is in no transaction, for a temporary table for one. A pause does not wait for such a server:
// its session parks it, and is held back like others when it wants to go on.

// Park says that the session that leases the server does nothing on it before it has called Unpark.
func (s *Server) Park() {
	if s.Parked() {
		return
	}
	become(s, Parked)
	s.Pool.left()
}

// Parked says whether Unpark must be called before the server is used.
func (s *Server) Parked() bool { return s.State() == Parked }

// Unpark lets the session use the server again; false: its pool is paused, and it stays parked. Who shuts a gate and then counts, counts
// this server or holds it back.
func (s *Server) Unpark() bool {
	become(s, Leased)
	if s.Pool.Paused() {
		s.Park()
		return false
	}
	return true
}

// AwaitPause waits until the server's pool is not paused. w is the session's, and has begun: the wait ends with ErrStopped after its Stop.
func (s *Server) AwaitPause(ctx context.Context, w *Wait) error {
	return w.during(ctx, nil, s.Pool.pass)
}
