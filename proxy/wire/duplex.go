package wire

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// Two peers that both send may wait for each other for ever: each one's buffers are full until the other
// reads. So what a socket does not take at once is sent by a goroutine of its own, while the caller reads.

// Flushing is output that is still being sent. A nil one has been sent.
type Flushing struct {
	c    *Conn
	done chan struct{}
	err  error
}

// FlushAside begins to send what was gathered and returns at once. Until Wait has returned, nothing else may
// be written; reading is free.
func (c *Conn) FlushAside() (*Flushing, error) {
	b := c.out
	if len(b) == 0 {
		return nil, nil
	}
	if c.raw != nil {
		n, err := c.raw.WriteNow(b)
		c.sent.Add(int64(n))
		if err != nil {
			return nil, err
		}
		if n == len(b) {
			c.out = c.out[:0]
			if cap(c.out) > 2*flushSize {
				c.out = nil
			}
			return nil, nil
		}
		b = b[n:]
	} else if len(b) < flushSize {
		return nil, c.Flush()
	}
	c.out = nil
	f := &Flushing{c: c, done: make(chan struct{})}
	if c.sock != nil {
		c.sock.SetAside(true)
	}
	go func() {
		defer close(f.done)
		f.err = panics.Catch(panics.Session, func() error { return c.send(b) }, nil)
	}()
	return f, nil
}

// Wait returns when all has been sent. After a failed read it must be told so: what cannot be sent any more
// is then given up.
func (f *Flushing) Wait(failed bool) error {
	if f == nil {
		return nil
	}
	if failed {
		_ = f.c.nc.SetWriteDeadline(time.Now())
	}
	f.c.Leave()
	<-f.done
	if f.c.sock != nil {
		f.c.sock.SetAside(false)
	}
	if failed {
		_ = f.c.nc.SetWriteDeadline(time.Time{})
	}
	return f.err
}

// ErrEnough ends the watching.
var ErrEnough = errors.New("enough was read")

// FlushWatching sends what was gathered, and calls onInput, which must read at least one message, whenever the
// peer has something to say meanwhile. When onInput returns ErrEnough, the rest is sent without reading; after any
// other error, what cannot be sent at once is given up.
func (c *Conn) FlushWatching(onInput func() error) error {
	f, err := c.FlushAside()
	if err != nil {
		return err
	}
	if f == nil {
		if c.Quiet() {
			return nil
		}
		if err := onInput(); !errors.Is(err, ErrEnough) {
			return err
		}
		return nil
	}
	c.Leave()
	var mu sync.Mutex // guards both
	waiting, sent := false, false
	noted := make(chan struct{})
	go func() {
		defer close(noted)
		<-f.done
		mu.Lock()
		defer mu.Unlock()
		if sent = true; waiting { // for a message to begin: one that has begun is read to its end
			_ = c.nc.SetReadDeadline(time.Now())
		}
	}()
	wait := func() (more bool, err error) {
		mu.Lock()
		if sent {
			mu.Unlock()
			return false, nil
		}
		waiting = true
		mu.Unlock()
		_, _, err = c.Peek()
		mu.Lock()
		defer mu.Unlock()
		if waiting = false; sent {
			_ = c.nc.SetReadDeadline(time.Time{})
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return false, nil
			}
		}
		return true, err
	}
	for {
		more, err := wait()
		if more && err == nil {
			err = onInput()
		}
		if !more || err != nil {
			enough := !more || errors.Is(err, ErrEnough)
			werr := f.Wait(!enough)
			<-noted
			if enough {
				return werr
			}
			return err
		}
	}
}

// Watch calls f, on a goroutine of its own, when the connection has something to say, or has been closed. stop
// ends the watch and returns when f is not running and will not be called. Nothing may be read meanwhile, but
// what has come.
func (c *Conn) Watch(f func()) (stop func()) {
	sc, ok := socket(c.nc).(syscall.Conn)
	if !ok {
		return func() {}
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	var stopped atomic.Bool
	go func() {
		defer close(done)
		err := rc.Read(func(fd uintptr) bool {
			var b [1]byte
			_, _, e := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			return !errors.Is(e, syscall.EAGAIN)
		})
		if err == nil && !stopped.Load() {
			_ = panics.Catch(panics.Session, func() error { f(); return nil }, nil)
		}
	}()
	return func() {
		stopped.Store(true)
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = c.nc.SetReadDeadline(time.Time{})
	}
}
