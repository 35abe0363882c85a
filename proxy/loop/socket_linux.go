package loop

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a plain TCP or Unix connection that a loop waits for. It is a net.Conn, with the same promises, but that one
// goroutine at a time may read it, and one write it.
type Socket struct {
	fd     descriptor
	loop   *loop
	serial uint32
	hup    atomic.Bool // the peer has closed, or there is an error: it is always worth a look
	task   *Task       // who reads and writes it
	aside  bool        // somebody else writes it
	dry    bool        // all that had come was read

	rd, wr        side
	local, remote net.Addr
}

var errClosed = net.ErrClosed

// table finds the socket of a descriptor.
var table struct {
	sync.Mutex
	serial  uint32
	next    int // loop
	sockets atomic.Pointer[[]atomic.Pointer[Socket]]
}

// Adopt takes a plain socket over from Go's own poller; nc is closed, and what is returned is used in its place. Other
// connections are returned as they are.
func Adopt(nc net.Conn) net.Conn {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nc
	}
	all := loops()
	rc, err := nc.(syscall.Conn).SyscallConn()
	if all == nil || err != nil {
		return nc
	}
	fd := -1
	cerr := rc.Control(func(u uintptr) { fd, err = unix.FcntlInt(u, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil || err != nil {
		return nc
	}
	s := &Socket{local: nc.LocalAddr(), remote: nc.RemoteAddr()}
	s.fd.own(fd)
	s.register(fd, all)
	if err := unix.EpollCtl(s.loop.epoll.get(), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd), Pad: int32(s.serial),
	}); err != nil {
		_ = s.Close()
		return nc
	}
	_ = nc.Close()
	return s
}

// register gives the socket a loop and its number's place in the table.
func (s *Socket) register(fd int, all []*loop) {
	table.Lock()
	defer table.Unlock()
	table.serial++
	table.next++
	s.serial, s.loop = table.serial, all[table.next%len(all)]
	var t []atomic.Pointer[Socket]
	if p := table.sockets.Load(); p != nil {
		t = *p
	}
	if fd >= len(t) {
		grown := make([]atomic.Pointer[Socket], 2*fd+64)
		for i := range t {
			grown[i].Store(t[i].Load())
		}
		t = grown
		table.sockets.Store(&grown)
	}
	t[fd].Store(s)
}

// find returns the socket that an event is about: nil where it has been closed since.
func find(fd int, serial uint32) *Socket {
	p := table.sockets.Load()
	if p == nil || fd >= len(*p) {
		return nil
	}
	if s := (*p)[fd].Load(); s != nil && s.serial == serial {
		return s
	}
	return nil
}

// dispatch notes what has become of a socket and wakes who waits for it. A task that is to be run is returned.
func dispatch(fd int, serial, events uint32) *Task {
	s := find(fd, serial)
	if s == nil {
		return nil
	}
	const gone = unix.EPOLLHUP | unix.EPOLLERR
	if events&(gone|unix.EPOLLRDHUP) != 0 {
		s.hup.Store(true)
	}
	if events&(unix.EPOLLOUT|gone) != 0 {
		if w := s.wr.take(true); w != nil {
			s.loop.wake(w)
		}
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|gone) != 0 {
		if w := s.rd.take(true); w != nil {
			if w.yields {
				return w.task
			}
			s.loop.wake(w)
		}
	}
	return nil
}

// SetTask says who reads and writes the socket from now on; nil is any goroutine. The caller owns the socket.
func (s *Socket) SetTask(t *Task) { s.task = t }

// SetAside says whether a goroutine other than the task's writes the socket.
func (s *Socket) SetAside(aside bool) { s.aside = aside }

// OnInput runs f as a coroutine of t when there is something to read, or the deadline has passed, or the socket has been closed. What
// calls it must end then: t is f from now on.
func (s *Socket) OnInput(t *Task, f func()) {
	s.prepare(t, f)
	for {
		if s.dry || !s.readable() {
			if waits, err := s.enter(&s.rd, &t.self); waits {
				return
			} else if err == nil {
				s.dry = false
				continue
			}
		}
		s.loop.enqueue(t)
		return
	}
}

// Run is OnInput that waits for nothing.
func (s *Socket) Run(t *Task, f func()) {
	s.prepare(t, f)
	s.loop.enqueue(t)
}

func (s *Socket) prepare(t *Task, f func()) {
	t.begin, t.self.yields = f, true
	if t.home == nil {
		t.home = s.loop
	}
}

// readable says whether a look at the socket is worth it.
func (s *Socket) readable() bool {
	fd, ok := s.fd.hold()
	if !ok {
		return true
	}
	defer s.fd.drop()
	var b [1]byte
	_, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	s.dry = e == syscall.EAGAIN
	return !s.dry
}

// Close closes the connection. Whoever waits for it is told.
func (s *Socket) Close() error {
	fd, ok := s.fd.giveUp()
	if !ok {
		return errClosed
	}
	table.Lock()
	(*table.sockets.Load())[fd].Store(nil) // before the number can be another socket's
	table.Unlock()
	s.rd.stopTimer()
	s.wr.stopTimer()
	s.rouse(&s.rd)
	s.rouse(&s.wr)
	s.fd.drop()
	return nil
}

// Dry says that the next read has to wait: all that had come was read.
func (s *Socket) Dry() bool { return s.dry }

// WaitRead waits for input, as the socket's task.
func (s *Socket) WaitRead() error {
	err := s.wait(&s.rd, s.task)
	if err == nil {
		s.dry = false
	}
	return err
}

// TryRead reads what has come. Nothing and no error mean that the socket is dry.
func (s *Socket) TryRead(b []byte) (int, error) {
	if err := s.barred(&s.rd); err != nil {
		return 0, err
	}
	for {
		fd, ok := s.fd.hold()
		if !ok {
			return 0, errClosed
		}
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
		s.fd.drop()
		switch e {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			s.dry = int(n) < len(b) && !s.hup.Load()
			if s.task != nil {
				s.task.hasRead()
			}
			return int(n), nil
		case syscall.EAGAIN:
			s.dry = true
			return 0, nil
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}

// Read is net.Conn's.
func (s *Socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := s.barred(&s.rd); err != nil {
		return 0, err
	}
	for {
		if s.dry {
			if err := s.WaitRead(); err != nil {
				return 0, err
			}
		}
		if n, err := s.TryRead(b); n > 0 || err != nil {
			return n, err
		}
	}
}

// Write is net.Conn's.
func (s *Socket) Write(b []byte) (int, error) { return s.write(b, false) }

// WriteNow writes what the socket takes without waiting.
func (s *Socket) WriteNow(b []byte) (int, error) { return s.write(b, true) }

func (s *Socket) write(b []byte, once bool) (done int, err error) {
	if err := s.barred(&s.wr); err != nil {
		return 0, err
	}
	for done < len(b) {
		fd, ok := s.fd.hold()
		if !ok {
			return done, errClosed
		}
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[done])), uintptr(len(b)-done), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		s.fd.drop()
		switch e {
		case 0:
			done += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			if once {
				return done, nil
			}
			if !s.aside {
				s.task.Leave()
			}
			if err := s.wait(&s.wr, nil); err != nil {
				return done, err
			}
		default:
			return done, e
		}
	}
	return done, nil
}

// LocalAddr is net.Conn's.
func (s *Socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr is net.Conn's.
func (s *Socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline is net.Conn's.
func (s *Socket) SetDeadline(t time.Time) error {
	_ = s.setDeadline(&s.rd, t)
	return s.setDeadline(&s.wr, t)
}

// SetReadDeadline is net.Conn's.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.setDeadline(&s.rd, t) }

// SetWriteDeadline is net.Conn's.
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.setDeadline(&s.wr, t) }

// SyscallConn is syscall.Conn's. Its Read and Write wait as a goroutine does, not as the socket's task.
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return rawConn{s}, nil }

type rawConn struct{ s *Socket }

func (r rawConn) Control(f func(uintptr)) error {
	fd, ok := r.s.fd.hold()
	if !ok {
		return errClosed
	}
	defer r.s.fd.drop()
	f(uintptr(fd))
	return nil
}

func (r rawConn) Read(f func(uintptr) bool) error { return r.until(&r.s.rd, f) }

func (r rawConn) Write(f func(uintptr) bool) error { return r.until(&r.s.wr, f) }

func (r rawConn) until(d *side, f func(uintptr) bool) error {
	if err := r.s.barred(d); err != nil {
		return err
	}
	for done := false; ; {
		if err := r.Control(func(fd uintptr) { done = f(fd) }); err != nil || done {
			if d == &r.s.rd {
				r.s.dry = false
			}
			return err
		}
		if err := r.s.wait(d, nil); err != nil {
			return err
		}
	}
}
