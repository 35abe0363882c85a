package planner

import "context"

// Using is the version of the map by which the session runs statements, or a transaction, now; 0 if it does neither. A session may hold
// servers, for temporary tables for one, and use none. Any goroutine may call it.
func (s *Session) Using() uint64 { return s.using.Load() }

// Use says that the session runs what comes by its map, until Done. Who wants to know the newest map says so before it looks: then who
// publishes a map and asks sessions afterwards either is told of an older one, or the session sees the new one.
func (s *Session) Use() { s.using.Store(s.Map.Version) }

// Done says that the session runs nothing.
func (s *Session) Done() {
	if v := s.using.Swap(0); v != 0 && v != s.planner.Schemas.parts.Catalog.Current().Version {
		s.planner.left.Changed()
	}
}

// Idle is Done for a session that waits, and has found nothing by its map yet. back ends that; then the session must look whether the map is
// still the newest, as behind Use. A session that runs nothing is not idle.
func (s *Session) Idle() (back func(), idle bool) {
	if s.using.Load() == 0 {
		return func() {}, false
	}
	s.Done()
	return s.Use, true
}

// useNewer is Use for a session that runs something while it takes a newer map.
func (s *Session) useNewer() {
	if s.using.Load() != 0 {
		s.Use()
		s.planner.left.Changed()
	}
}

// AwaitLeft waits until something holds of the maps that sessions use, or the context ends: then it is an error. holds is called by the
// caller's goroutine, at first and whenever a session has left a map that is not the newest.
func (p *Planner) AwaitLeft(ctx context.Context, holds func() bool) error {
	return p.left.Wait(ctx, holds)
}
