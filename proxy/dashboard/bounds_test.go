package dashboard

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// pipes is a listener whose clients are in the process, so that a test's clock rules them.
type pipes struct {
	come  chan net.Conn
	close sync.Once
	ended chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.come:
		return nc, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.close.Do(func() { close(p.ended) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// The bounds that the page has where nobody says others end every connection that comes to nothing.
func TestDefaultBoundsEndSlowClients(t *testing.T) {
	for what, text := range map[string]string{
		"nothing": "", "a head that does not end": begun, "no second request": asMe,
		"a body that does not come": "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &Server{Gatherer: prometheus.NewRegistry(), Ready: func() (bool, string) { return true, "" }, Bounds: DefaultBounds(), Open: true}
			l := &pipes{come: make(chan net.Conn), ended: make(chan struct{})}
			srv := s.HTTP(nil)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(l) }()
			ours, theirs := net.Pipe()
			l.come <- theirs
			go func() { _, _ = io.WriteString(ours, text) }()
			_ = ours.SetReadDeadline(time.Now().Add(time.Hour))
			if _, err := io.Copy(io.Discard, ours); err != nil {
				t.Errorf("%s: the connection is open still after an hour: %v", what, err)
			}
			_ = ours.Close()
			_ = srv.Close()
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
	b := DefaultBounds()
	if b.Conns < 1 || b.Conns > 1000 || b.Streams < 2 || b.Streams > b.Conns/2 {
		t.Errorf("%d connections and %d streams", b.Conns, b.Streams)
	}
}
