package proxy

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func listen(t *testing.T, addr string, share Sharing) net.Listener {
	t.Helper()
	l, err := Listen(addr, 0o700, share)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// serves says whether a listener hands the other end of a connection out.
func serves(t *testing.T, l net.Listener, c net.Conn) {
	t.Helper()
	nc, err := l.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Error(err)
	} else if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestWhatWaitsIsServedBehindClose(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", filepath.Join(t.TempDir(), "s")} {
		l := listen(t, addr, Sharing{})
		var conns []net.Conn
		for range 3 {
			conns = append(conns, dial(t, l, address(l, addr)))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for _, c := range conns {
			serves(t, l, c)
		}
		if nc, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, %v", nc, err)
		}
	}
}

func address(l net.Listener, addr string) string {
	if l.Addr().Network() == "unix" {
		return addr
	}
	return l.Addr().String()
}

func TestAUnixSocketChangesHandsByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old := listen(t, path, Sharing{On: true})
	next := listen(t, path, Sharing{On: true})
	serves(t, next, dial(t, next, path))
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	serves(t, next, dial(t, next, path)) // its name is there still
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the name is left: %v", err)
	}
	if l, err := Listen(path, 0o700, Sharing{}); err != nil { // nor does a name that a crash left keep anybody out
		t.Error(err)
	} else {
		_ = l.Close()
	}
}

// Whoever waits at a socket that changes hands is served by the new process, and one that dies before it is ready has taken nothing.
func TestSocketsAreHandedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	name := t.Name() + path
	olds := map[string]net.Listener{"tcp": listen(t, "127.0.0.1:0", Sharing{On: true}), path: listen(t, path, Sharing{On: true})}
	offer, err := NewOffer(name, olds)
	if err != nil {
		t.Fatal(err)
	}
	dead := TakeOver(name)
	if dead == nil || len(dead.files) != 2 {
		t.Fatalf("%+v", dead)
	}
	dead.Close()
	if offer.Taken() {
		t.Error("a dead process has taken the sockets")
	}
	in := TakeOver(name)
	if in == nil || len(in.files) != 2 {
		t.Fatalf("after one that died: %+v", in)
	}
	for addr, old := range olds {
		c := dial(t, old, address(old, addr))
		next := listen(t, addr, Sharing{On: true, In: in})
		if len(in.files) == 0 {
			if err := in.Done(); err != nil {
				t.Error(err)
			}
			for _, old := range olds {
				if err := old.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		defer func() {
			serves(t, next, c)
			serves(t, next, dial(t, next, address(next, addr)))
		}()
	}
	offer.Close()
	if !offer.Taken() {
		t.Error("the sockets were not taken")
	}
	again, err := NewOffer(name, nil) // the name is free for the next one
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if in := TakeOver(name); in != nil {
		t.Errorf("nobody offers anything: %+v", in)
	}
}
