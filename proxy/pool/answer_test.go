package pool

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// saying is a server that has these messages to say.
func saying(t *testing.T, frames ...string) *Server {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	go func() { // ends with the pipe
		c := wire.New(theirs, 1<<20)
		for _, f := range frames {
			c.SendFrame(f[0], []byte(f[1:]))
		}
		_ = c.Flush()
		_ = c.Close()
	}()
	return &Server{Conn: wire.New(ours, 1<<20), Params: map[string]string{}}
}

const (
	brokenFirst = "ESERROR\x00C22012\x00Mfirst\x00\x00"
	brokenThen  = "ESERROR\x00C25P02\x00Mthen\x00\x00"
	ready       = "ZE"
)

func TestAnswerKeepsTheFirstErrorAndTellsTheRest(t *testing.T) {
	s := saying(t, "NSNOTICE\x00Mhear\x00\x00", "CSELECT 1\x00", brokenFirst, "STimeZone\x00UTC\x00", brokenThen, ready)
	var heard, seen []string
	a := Answer{Server: s, Hear: func(m wire.Message) error { heard = append(heard, string(m.Type)); return nil }}
	err := a.Read(func(m wire.Message) error { seen = append(seen, string(m.Type)); return errors.New("each's") })
	var se *ServerError
	if !errors.As(err, &se) || se.Response.Message != "first" {
		t.Errorf("the error is %v", err)
	}
	if !slices.Equal(heard, []string{"N", "S"}) || !slices.Equal(seen, []string{"C"}) || a.Tag != "SELECT 1" || !a.Ended {
		t.Errorf("heard %q, seen %q, tag %q, ended %v", heard, seen, a.Tag, a.Ended)
	}
	if s.TxStatus != 'E' || s.Params["TimeZone"] != "UTC" || s.Dirty {
		t.Errorf("status %c, parameters %v, dirty %v", s.TxStatus, s.Params, s.Dirty)
	}
}

func TestAnswerIsReadToItsEndWhateverEachSays(t *testing.T) {
	s := saying(t, "D\x00\x00", "D\x00\x00", "CSELECT 2\x00", "ZI")
	n := 0
	broken := errors.New("cannot be decoded")
	a := Answer{Server: s}
	if err := a.Read(func(wire.Message) error { n++; return broken }); !errors.Is(err, broken) || n != 1 || s.TxStatus != 'I' || s.Dirty {
		t.Errorf("%v after %d, status %c, dirty %v", err, n, s.TxStatus, s.Dirty)
	}
}

func TestAnswerOfAnOpenPipelineEndsWithItsError(t *testing.T) {
	a := Answer{Server: saying(t, "1", brokenFirst), Open: true}
	if m, err := a.Next(); err != nil || m.Type != '1' {
		t.Fatalf("%c, %v", m.Type, err)
	}
	if _, err := a.Next(); err == nil || a.Failed == nil || !a.Ended {
		t.Errorf("%v, %v", err, a.Failed)
	}
}

func TestAnswerThatIsCutOffIsNoAnswer(t *testing.T) {
	s := saying(t, brokenFirst)
	a := Answer{Server: s}
	var se *ServerError
	if err := a.Read(nil); err == nil || errors.As(err, &se) || !s.Dirty || a.Ended || a.Failed == nil {
		t.Errorf("%v, dirty %v", err, s.Dirty)
	}
	s = saying(t, "NSNOTICE\x00Mhear\x00\x00", "ZI")
	gone := errors.New("the client is gone")
	a = Answer{Server: s, Hear: func(wire.Message) error { return gone }}
	if err := a.Read(nil); !errors.Is(err, gone) || !s.Dirty || a.Ended {
		t.Errorf("%v, dirty %v", err, s.Dirty)
	}
}

func TestStatementsSinceAMarkAreDropped(t *testing.T) {
	s := &Server{Pool: &Pool{mgr: &Manager{}}}
	s.Pool.mgr.opts.Store(&Options{MaxPrepared: 10})
	s.ForgetAll()
	before, after := StmtKey{1}, StmtKey{2}
	s.Prepare(before)
	mark := s.Mark()
	name, _ := s.Prepare(after)
	s.DropSince(mark)
	if _, _, ok := s.Prepared(before); !ok {
		t.Error("an older statement is gone")
	}
	if _, _, ok := s.Prepared(after); ok {
		t.Error("a newer statement is still there")
	}
	if _, evict := s.Prepare(StmtKey{3}); evict != name || !strings.HasPrefix(evict, "pgmosaic_") {
		t.Errorf("%q is closed, not %q", evict, name)
	}
}

// What a function has deallocated is prepared again, and a name that one has taken is none of ours.
func TestTheBooksHaveTheStatementsThatTheServerHas(t *testing.T) {
	s := &Server{Pool: &Pool{mgr: &Manager{}}}
	s.Pool.mgr.opts.Store(&Options{MaxPrepared: 10})
	s.ForgetAll()
	gone, there := StmtKey{1}, StmtKey{2}
	s.Prepare(gone)
	name, _ := s.Prepare(there)
	forgetMissing(s, "pgmosaic_77 "+name)
	if _, _, ok := s.Prepared(gone); ok {
		t.Error("a statement that the server does not have is on the books")
	}
	if _, _, ok := s.Prepared(there); !ok {
		t.Error("a statement that the server has is off the books")
	}
	Taken(s, "pgmosaic_9")
	Taken(s, "pgmosaic_3")
	if name, _ := s.Prepare(gone); name != "pgmosaic_10" {
		t.Errorf("a statement is named %s", name)
	}
}
