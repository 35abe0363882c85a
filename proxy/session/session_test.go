package session

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// open lets everybody in. opens is called amid the login.
type open struct {
	Backend
	opens func()
}

func (open) Admin(Login) bool     { return false }
func (open) Rule(Login) auth.Rule { return auth.Rule{Method: auth.Trust} }

func (o open) Open(context.Context, Login, Client) (Handler, map[string]string, error) {
	o.opens()
	return idle{}, nil, nil
}

// idle is a handler with nothing to do.
type idle struct{ Handler }

func (idle) TxStatus() byte { return 'I' }
func (idle) Deliver() error { return nil }
func (idle) Close()         {}

// A session that is told to end amid its login ends when that is done: it waits for no request of its client's.
func TestEndToldAmidTheLogin(t *testing.T) {
	for name, end := range map[string]func(*Session){
		"drained":    (*Session).Drain,
		"terminated": func(s *Session) { s.Terminate(errDrained) },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		var s *Session
		s = New(theirs, Key{PID: 1}, Config{Backend: open{opens: func() { end(s) }}, LoginTimeout: time.Minute, MaxStatement: 1 << 20})
		done := make(chan struct{})
		go s.Run(t.Context(), func(error) { close(done) })
		c := wire.New(nc, 1<<20)
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		body := append(binary.BigEndian.AppendUint32(nil, wire.Version3), "user\x00u\x00\x00"...)
		c.Gather(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...))
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		told := ""
		for {
			m, err := c.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
			told += string(m.Type)
			if m.Type == 'E' && wire.ParseError(m.Body()).Code != pgsql.AdminShutdown {
				t.Errorf("%s: %q", name, m.Body())
			}
		}
		if told != "RKZE" {
			t.Errorf("%s: told %s", name, told)
		}
		_ = c.Close()
		<-done
	}
}
