package pool

import (
	"context"
	"strings"
	"testing"
	"time"
)

// Two admins pause and resume, and kill, at once: a pause that has come to nothing opens no gate that another has shut since, and one that
// somebody has ended meanwhile does not say that it holds.
func TestPausesOfTwoAdmins(t *testing.T) {
	paused := func(m *Manager, ctx context.Context) chan error {
		was := opening(m)
		done := make(chan error, 1)
		go func() { _, err := m.Pause(ctx, "shop", ""); done <- err }()
		for opening(m) == was {
			time.Sleep(time.Millisecond)
		}
		return done
	}
	busy := func() (*Manager, *Pool) {
		m := NewManager(Options{Verify: Unasked("a test")})
		p := m.Pool("shop", "s1", "s1-a", "host=node.test", "app")
		p.active = 1
		return m, p
	}
	end := func(p *Pool) { p.give(nil) }
	t.Run("resumed while it waits", func(t *testing.T) {
		m, p := busy()
		done := paused(m, t.Context())
		m.Resume("shop", "")
		end(p)
		if err := <-done; err == nil || !strings.Contains(err.Error(), "resumed") {
			t.Errorf("it says %v", err)
		}
	})
	for _, c := range []struct {
		name  string
		other func(m *Manager) chan error
	}{
		{"resumed, and paused by another", func(m *Manager) chan error { m.Resume("shop", ""); return paused(m, context.Background()) }},
		{"killed by another", func(m *Manager) chan error { m.Hold("shop"); return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, p := busy()
			ctx, cancel := context.WithCancel(t.Context())
			done := paused(m, ctx)
			other := c.other(m)
			cancel()
			if err := <-done; err == nil {
				t.Error("it holds, and a transaction runs")
			}
			if !m.Paused("shop", "") {
				t.Error("it has ended the other's")
			}
			end(p)
			if other != nil {
				if err := <-other; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A pause that waits is told of each way in which the last lease may end: it does not look by itself.
func TestAPauseHearsOfEachEnd(t *testing.T) {
	for name, end := range map[string]func(p *Pool, s *Server){
		"given back":             func(_ *Pool, s *Server) { s.Release(time.Time{}) },
		"closed":                 func(_ *Pool, s *Server) { s.Dirty = true; s.Release(time.Time{}) },
		"given back for a look":  func(_ *Pool, s *Server) { s.suspect = true; s.Release(time.Time{}) },
		"kept by an idle client": func(_ *Pool, s *Server) { s.Park() },
		"nothing was dialled":    func(p *Pool, _ *Server) { p.back(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			m := NewManager(Options{Verify: Unasked("a test")})
			p := m.Pool("shop", "s1", "s1-a", "host=node.test", "app")
			s := saying(t)
			s.Pool, s.settings, s.TxStatus, s.dialed = p, NoSettings, 'I', time.Now()
			p.active, p.all[s] = 1, struct{}{}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			done := make(chan error, 1)
			was := opening(m)
			go func() { _, err := m.Pause(ctx, "shop", ""); done <- err }()
			for opening(m) == was {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond) // it has looked, and waits
			end(p, s)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// WAIT_CLOSE is told when the last condemned server is closed.
func TestTheLastOldServerIsHeardOf(t *testing.T) {
	m := NewManager(Options{Verify: Unasked("a test")})
	p := m.Pool("shop", "s1", "s1-a", "host=node.test", "app")
	s := saying(t)
	s.Pool, s.settings, s.TxStatus, s.dialed = p, NoSettings, 'I', time.Now()
	p.active, p.all[s] = 1, struct{}{}
	m.Reconnect("shop")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.AwaitOld(ctx, "shop") }()
	time.Sleep(20 * time.Millisecond) // it has looked, and waits
	select {
	case err := <-done:
		t.Fatalf("it is there, and the wait has ended: %v", err)
	default:
	}
	s.Release(time.Time{})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who shuts a gate and counts nobody has nobody behind it: one who came through before it was shut, and takes a server then, goes back.
func TestNobodySlipsThroughAGate(t *testing.T) {
	m := NewManager(Options{Verify: Unasked("a test"), Size: 1, WaitTimeout: time.Minute})
	p := m.Pool("shop", "s1", "s1-a", "host=node.test", "app")
	p.active = 1 // somebody else's, which the waiter is handed
	s := saying(t)
	s.Pool, s.settings = p, NoSettings
	p.all[s] = struct{}{}
	w := NewWait(nil)
	w.Begin()
	got := make(chan *Server, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		x, _, _ := p.Acquire(ctx, NoSettings, false, w, nil)
		got <- x
	}()
	for p.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	m.Hold("shop")
	p.give(s)
	for p.Busy() > 0 && len(got) == 0 {
		time.Sleep(time.Millisecond)
	}
	if len(got) > 0 {
		t.Fatal("the gate is shut, and one who waited has a server")
	}
	if s := p.Stats(); s.Idle != 1 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	cancel()
	if x := <-got; x != nil {
		t.Error("one who has stopped waiting has a server")
	}
}

// opening is what the database's gate is shut with now.
func opening(m *Manager) chan struct{} {
	g := m.gateOf("shop", "")
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// A node that is another shard's by now, under another name, has a pool that says so: a pause of the shard holds what runs there.
func TestThePoolOfANodeIsItsShards(t *testing.T) {
	m := NewManager(Options{Verify: Unasked("a test")})
	old := m.Pool("shop", "s2", "n2", "host=node.test", "app")
	p := m.Pool("shop", "s3", "n3", "host=node.test", "app")
	if p.Shard != "s3" || p.Node != "n3" || old.Shard != "s2" {
		t.Errorf("the pool is of shard %s, node %s; the one before of %s", p.Shard, p.Node, old.Shard)
	}
	if g := m.Gatherers("shop", "s3", "n3", "host=node.test", "app"); g == p || g.Shard != "s3" {
		t.Errorf("that of the servers to gather on is of shard %s", g.Shard)
	}
	if m.Pool("shop", "s3", "n3", "host=node.test", "app") != p {
		t.Error("the node has two pools")
	}
	p.active = 1
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Pause(ctx, "shop", "s3"); err == nil {
		t.Error("the shard is said to be paused while work runs there")
	}
}
