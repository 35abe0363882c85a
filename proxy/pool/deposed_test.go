package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// welcoming lets everybody in, and says nothing more. It is silent from the start where it is told so.
func welcoming(t *testing.T, silent bool) (dsn string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends with the listener
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = nc.Close() })
			if silent {
				continue
			}
			c := wire.New(nc, 1<<20)
			c.SendFrame('R', []byte{0, 0, 0, 0})
			c.SendFrame('K', []byte{0, 0, 0, 1, 0, 0, 0, 2})
			c.SendFrame('Z', []byte{'I'})
			_ = c.Flush()
		}
	}()
	at := l.Addr().(*net.TCPAddr)
	return fmt.Sprintf("host=127.0.0.1 port=%d user=app password=app dbname=shop sslmode=disable", at.Port)
}

// Nobody gets a server of a node that was deposed while it was dialled: it was not there to be cut, and would be as long as its session likes.
func TestServersThatWereDialledWhileTheirNodeWasDeposed(t *testing.T) {
	type world struct {
		m     *Manager
		dsn   string
		moved chan struct{}
	}
	cut, moves := func(w world) { w.m.CutNode(w.dsn) }, func(w world) { close(w.moved) }
	for name, c := range map[string]struct {
		during []func(w world) // while it is asked whose it is
		hangs  bool            // it does not answer that
		want   error
	}{
		"nothing":                       {nil, false, nil},
		"deposed":                       {[]func(world){moves, cut}, false, ErrMoved},
		"deposed, and not yet cut":      {[]func(world){moves}, false, ErrMoved},
		"cut, as a replica is":          {[]func(world){cut}, false, ErrMoved},
		"deposed, and silent from then": {[]func(world){moves, cut}, true, ErrMoved},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{moved: make(chan struct{}), dsn: welcoming(t, false)}
			w.m = NewManager(Options{ConnectTimeout: 20 * time.Second, Verify: Asked(func(_, _ string, ask func(string) ([][][]byte, error)) error {
				for _, f := range c.during {
					f(w)
				}
				if c.hangs {
					_, err := ask("select")
					return err
				}
				return nil
			})})
			p := w.m.Pool("shop", "s1", "s1-a", w.dsn, "app")
			wait := NewWait(nil)
			wait.Begin()
			began := time.Now()
			s, _, err := p.Acquire(t.Context(), NoSettings, false, wait, w.moved)
			if !errors.Is(err, c.want) || (s == nil) != (c.want != nil) {
				t.Errorf("it got %v, %v", s != nil, err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if s != nil {
				s.Dirty = true
				s.Release(time.Now())
			}
			if st := p.Stats(); st.Active != 0 || st.Idle != 0 || len(p.Servers()) != 0 || st.LastError != nil {
				t.Errorf("the pool has %+v", st)
			}
		})
	}
}

// A login with keys ends with its wait, as one with a password does.
func TestLoginsWithKeysCanBeEnded(t *testing.T) {
	cfg, err := pgconn.ParseConfig(welcoming(t, true))
	if err != nil {
		t.Fatal(err)
	}
	cfg.DialFunc = (&net.Dialer{}).DialContext
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	done := make(chan error, 1)
	go func() {
		_, err := loginWithKeys(ctx, cfg, &pgconn.FallbackConfig{Host: cfg.Host, Port: cfg.Port}, auth.Keys{})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it is let in")
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
}
