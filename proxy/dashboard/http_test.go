package dashboard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// page serves with some bounds until the test ends.
func page(t *testing.T, change func(*Bounds)) (addr string) {
	t.Helper()
	s := &Server{
		Gatherer: prometheus.NewRegistry(), Ready: func() (bool, string) { return true, "" }, Bounds: DefaultBounds(),
		Login: func(_ context.Context, _ netip.AddrPort, user, password string) (bool, string, error) {
			if user != password {
				return false, "", io.EOF
			}
			return true, "", nil
		},
	}
	change(&s.Bounds)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := s.HTTP(nil)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// say opens a connection and sends the beginning of something.
func say(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := nc.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// ends waits until the server has closed a connection.
func ends(t *testing.T, what string, nc net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("%s: the connection is open still", what)
	}
}

const (
	begun = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	asMe  = "GET /api/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic bWU6bWU=\r\n\r\n"
)

func TestNobodyHoldsAConnectionForEver(t *testing.T) {
	addr := page(t, func(b *Bounds) {
		b.Header, b.Request, b.Idle = 50*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
	})
	ends(t, "a head that does not end", say(t, addr, begun))
	ends(t, "nothing", say(t, addr, ""))
	ends(t, "a body that does not come", say(t, addr, "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"))
	ends(t, "no second request", say(t, addr, asMe))
}

func TestStrangersDoNotUseThePortUp(t *testing.T) {
	addr := page(t, func(b *Bounds) { b.Conns = 4 })
	me := say(t, addr, asMe)
	in := bufio.NewReader(me)
	again := func() {
		t.Helper()
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || !strings.Contains(string(b), `"me"`) {
			t.Fatalf("%d %s %v", res.StatusCode, b, err)
		}
	}
	again()
	var strangers []net.Conn
	for range 8 {
		strangers = append(strangers, say(t, addr, begun))
	}
	for i, nc := range strangers[:5] {
		ends(t, fmt.Sprint("stranger ", i), nc)
	}
	if _, err := strangers[7].Write([]byte("\r\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(strangers[7]).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("the newest of them: %q, %v", line, err)
	}
	if _, err := me.Write([]byte(asMe)); err != nil {
		t.Fatal(err)
	}
	again()
}

func TestStreamsAreBounded(t *testing.T) {
	s := &Server{Bounds: Bounds{Streams: 4}}
	var leave []func()
	take := func(user string, want bool) {
		t.Helper()
		l, ok := s.stream(viewer{User: user})
		if ok != want {
			t.Fatalf("%q gets a stream: %v", user, ok)
		}
		if ok {
			leave = append(leave, l)
		}
	}
	take("", true)
	take("", true)
	take("", false) // half of them are for those who have logged in
	take("admin", true)
	take("admin", true)
	take("admin", false)
	leave[0]()
	take("", true)
}

// Whoever has connected before the end is answered, also one whose request is still on its way.
func TestWhatHasComeIsAnsweredBeforeTheEnd(t *testing.T) {
	s := &Server{Gatherer: prometheus.NewRegistry(), Ready: func() (bool, string) { return true, "" }, Bounds: DefaultBounds()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := s.HTTP(nil)
	served, finished := make(chan error, 1), make(chan struct{})
	go func() { served <- srv.Serve(l) }()
	rested := say(t, l.Addr().String(), begun+"\r\n")
	if line, err := bufio.NewReader(rested).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	late := say(t, l.Addr().String(), begun)
	for s.conns.count() < 2 {
		time.Sleep(time.Millisecond)
	}
	_ = l.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	go func() {
		s.Finish(t.Context(), srv)
		close(finished)
	}()
	ends(t, "one that rests", rested)
	if _, err := late.Write([]byte("\r\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(late).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("%q, %v", line, err)
	}
	<-finished
}
