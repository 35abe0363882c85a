package pool

import (
	"testing"
	"time"
)

// A server that owes an answer, or was not sent all that it was asked, is nobody else's: the next client would read that answer.
func TestAServerOutOfStepIsClosed(t *testing.T) {
	sent := func(s *Server) { s.Truncate(0) }
	for _, x := range []struct {
		what  string
		did   func(s *Server)
		stays bool
	}{
		{"was asked nothing", func(*Server) {}, true},
		{"has answered", func(s *Server) { s.SendQuery("select 1"); sent(s); _, _ = s.ReadTag() }, true},
		{"owes an answer", func(s *Server) { s.SendSync(); sent(s) }, false},
		{"owes the second of two", func(s *Server) { s.SendQueryBytes([]byte("x")); s.SendSync(); sent(s); _, _ = s.ReadTag() }, false},
		{"owes the result of a call", func(s *Server) { s.GatherCall([]byte("F\x00\x00\x00\x04")); sent(s) }, false},
		{"has read a Sync as part of a COPY", func(s *Server) { s.SendSync(); sent(s); s.Swallowed(1) }, true},
		{"was not sent what is gathered", func(s *Server) { s.SendFlush() }, false},
	} {
		p := NewManager(Options{Verify: Unasked("a test"), Lifetime: time.Hour}).Pool("shop", "s1", "s1-a", "host=node.test", "app")
		s := saying(t, "ZI")
		s.Pool, s.TxStatus, s.settings, s.dialed = p, 'I', NoSettings, time.Now()
		p.all[s] = struct{}{}
		p.active++
		x.did(s)
		p.release(s, time.Now())
		if stays := len(p.idle) == 1; stays != x.stays {
			t.Errorf("a server that %s stays: %v", x.what, stays)
		}
	}
}
