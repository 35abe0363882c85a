package proxy

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Sharing is whether other processes may listen where this one does, and what it has from one of them.
type Sharing struct {
	On bool
	In *Inherited
}

// Listen opens a listener. An address that begins with / is a Unix socket, which is readable and writable for mode. Shared, it
// takes over what another process listens with, or listens on the same port beside it, or takes the place of its Unix socket.
// What has come until Close is handed out behind it, unless another process has taken the socket: it has the rest then.
func Listen(addr string, mode os.FileMode, share Sharing) (net.Listener, error) {
	l := &listener{}
	var err error
	if l.Listener, err = share.In.take(addr); err != nil {
		return nil, fmt.Errorf("take over %s: %w", addr, err)
	}
	shared := share.On
	if l.Listener != nil {
		if strings.HasPrefix(addr, "/") {
			l.unix = &socketName{path: addr}
			if l.unix.own, err = os.Lstat(addr); err != nil {
				_ = l.Listener.Close()
				return nil, fmt.Errorf("take over %s: %w", addr, err)
			}
		}
		return l, nil
	}
	if strings.HasPrefix(addr, "/") {
		l.unix = &socketName{path: addr}
		l.Listener, err = l.unix.listen(mode, shared)
	} else {
		var lc net.ListenConfig
		if shared {
			lc.Control = reusePort
		}
		l.Listener, err = lc.Listen(context.Background(), "tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// listener hands out what came before it was closed.
type listener struct {
	net.Listener
	unix *socketName // of a Unix socket

	mu     sync.Mutex // guards the rest
	closed bool
	gone   bool // to another process
	late   []net.Conn
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		return nc, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.late) == 0 {
		return nil, err
	}
	nc, l.late = l.late[0], l.late[1:]
	return nc, nil
}

// Close implements net.Listener. Somebody must Accept until it fails.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.gone {
		return l.Listener.Close()
	}
	if l.unix != nil {
		l.unix.leave()
	}
	l.late = waiting(l.Listener)
	return l.Listener.Close()
}

// given notes that another process listens with the socket, too.
func (l *listener) given() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
}

// socketName is a Unix socket's name. Whoever gives or takes it holds its lock file.
type socketName struct {
	path string
	own  os.FileInfo
}

// locked runs f while no other process gives the name away, or takes it. The lock's file stays: to remove it would be a race.
func (p *socketName) locked(f func() error) error {
	lock, err := os.OpenFile(p.path+"~lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // drops the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	return f()
}

// listen makes the socket under another name, and renames it when it listens: at every moment somebody does.
func (p *socketName) listen(mode os.FileMode, shared bool) (l net.Listener, err error) {
	err = p.locked(func() error {
		if !shared {
			if c, err := net.DialTimeout("unix", p.path, time.Second); err == nil {
				_ = c.Close()
				return fmt.Errorf("another process listens there")
			}
		}
		made := p.path + "~"
		if err := os.Remove(made); err != nil && !os.IsNotExist(err) { // left by a crash
			return err
		}
		u, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
		if err != nil {
			return err
		}
		u.SetUnlinkOnClose(false)
		if err = os.Chmod(made, mode); err == nil {
			p.own, err = os.Lstat(made)
		}
		if err == nil {
			err = os.Rename(made, p.path)
		}
		if err != nil {
			_ = u.Close()
			return err
		}
		l = u
		return nil
	})
	return l, err
}

// leave removes the name, unless another process has it by now.
func (p *socketName) leave() {
	_ = p.locked(func() error { // a name that stays does no harm: the next process takes it
		if fi, err := os.Lstat(p.path); err == nil && os.SameFile(fi, p.own) {
			return os.Remove(p.path)
		}
		return nil
	})
}
