package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// A process that starts beside another one takes its listening sockets over: what waits in them, or is on its way, is lost if a
// socket is closed, whatever is opened beside it. They meet under a name in the abstract namespace, which is as wide
// as that of ports, and ends with its owner. Each looks whether the other is of the same user.

// The bounds of an exchange: for a message, and for the new process to be ready.
const (
	answerTimeout = 5 * time.Second
	readyTimeout  = time.Minute
)

func meeting(listen string) *net.UnixAddr {
	sum := sha256.Sum256(fmt.Append(nil, os.Getuid(), listen))
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@pgmosaic-%x", sum[:16])}
}

// sameUser says whether the process at the other end is of our user.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && int(cred.Uid) == os.Getuid()
	})
	return same
}

// Inherited are the listening sockets of another process, by address. A nil one holds none.
type Inherited struct {
	conn  *net.UnixConn
	files map[string]*os.File
}

// TakeOver asks the process that offers its sockets under an address; nil for none.
func TakeOver(listen string) *Inherited {
	c, err := net.DialUnix("unix", nil, meeting(listen))
	if err != nil {
		return nil
	}
	_ = c.SetReadDeadline(time.Now().Add(answerTimeout))
	names, rights := make([]byte, 8<<10), make([]byte, 1<<10)
	n, m, _, _, err := c.ReadMsgUnix(names, rights)
	in := &Inherited{conn: c, files: map[string]*os.File{}}
	var fds []int
	if msgs, e := unix.ParseSocketControlMessage(rights[:m]); err == nil && e == nil && len(msgs) == 1 {
		fds, _ = unix.ParseUnixRights(&msgs[0]) // none
	}
	addrs := strings.Split(string(names[:n]), "\n")
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "listener")
		if i < len(addrs) && sameUser(c) {
			in.files[addrs[i]] = f
		} else {
			_ = f.Close()
		}
	}
	return in
}

// take gives the socket of an address; nil for none.
func (in *Inherited) take(addr string) (net.Listener, error) {
	if in == nil || in.files[addr] == nil {
		return nil, nil
	}
	f := in.files[addr]
	delete(in.files, addr)
	defer f.Close() // the listener has a copy
	return net.FileListener(f)
}

// Done tells the other process that this one listens, and returns when it has understood: it need not be the one to do so
// any more. Sockets that nobody took are let go.
func (in *Inherited) Done() error {
	if in == nil {
		return nil
	}
	_ = in.conn.SetDeadline(time.Now().Add(answerTimeout))
	_, err := in.conn.Write([]byte{1})
	if err == nil {
		_, err = in.conn.Read(make([]byte, 1))
	}
	in.Close()
	return err
}

// Close lets go of what was not taken. It may be called more than once.
func (in *Inherited) Close() {
	if in == nil {
		return
	}
	for f := range maps.Values(in.files) {
		_ = f.Close()
	}
	in.files = nil
	_ = in.conn.Close()
}

// Offer gives the listeners to another process that asks, until one has taken them or Close.
type Offer struct {
	l     *net.UnixListener
	asker atomic.Pointer[net.UnixConn] // who has them, and is not ready yet
	taken atomic.Bool
	done  chan struct{}
}

// Taken says whether another process listens in our place. A nil Offer was not taken.
func (o *Offer) Taken() bool { return o != nil && o.taken.Load() }

// NewOffer offers listeners of Listen, by address, under the first process's address for clients.
func NewOffer(listen string, listeners map[string]net.Listener) (*Offer, error) {
	l, err := net.ListenUnix("unix", meeting(listen))
	if err != nil {
		return nil, fmt.Errorf("offer the sockets to the next process: %w", err)
	}
	o := &Offer{l: l, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		_ = panics.Keep(context.Background(), "handover", func(context.Context) error { return o.answer(listeners) })
	}()
	return o, nil
}

// answer gives the listeners to who asks, until one has them or Close.
func (o *Offer) answer(listeners map[string]net.Listener) error {
	for !o.taken.Load() {
		c, err := o.l.AcceptUnix()
		if err != nil {
			return err
		}
		o.asker.Store(c)
		o.answerTo(c, listeners)
	}
	return nil
}

func (o *Offer) answerTo(c *net.UnixConn, listeners map[string]net.Listener) {
	defer func() { _ = c.Close() }()
	if sameUser(c) && give(c, listeners) == nil {
		o.taken.Store(true)
		_ = o.l.Close() // the name is the next one's
		_, _ = c.Write([]byte{1})
	}
}

// Close ends the offer.
func (o *Offer) Close() {
	if o == nil {
		return
	}
	_ = o.l.Close()
	if c := o.asker.Load(); c != nil {
		_ = c.Close()
	}
	<-o.done
}

// give sends the sockets and waits until the other process listens.
func give(c *net.UnixConn, listeners map[string]net.Listener) error {
	_ = c.SetDeadline(time.Now().Add(readyTimeout))
	addrs := slices.Sorted(maps.Keys(listeners))
	var fds []int
	for _, a := range addrs {
		sc, ok := listeners[a].(*listener).Listener.(syscall.Conn)
		if !ok {
			return errors.ErrUnsupported
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) {
			if n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				fds = append(fds, n)
			}
		}); err != nil {
			return err
		}
	}
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	if len(fds) != len(addrs) {
		return syscall.EMFILE
	}
	if _, _, err := c.WriteMsgUnix([]byte(strings.Join(addrs, "\n")), unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return err
	}
	for _, l := range listeners {
		l.(*listener).given()
	}
	return nil
}
