package wire

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// rawIO reads and writes a plain TCP or Unix socket without telling the scheduler that a system call is
// going on. The socket does not block, so the call is short; but the write wakes the peer, which may take
// the processor from us for longer than the scheduler's patience, and then it hands our work to another
// thread, for nothing. The functions are made once, so that a call allocates nothing.
type rawIO struct {
	c       *Conn
	rc      syscall.RawConn
	readFn  func(uintptr) bool
	writeFn func(uintptr) bool
	in, out []byte
	pooled  bool // the input goes to a buffer of the pool, taken when it comes
	once    bool // write what the socket takes now
	rn, wn  int
	rerr    syscall.Errno
	werr    syscall.Errno
}

// newRaw returns nil for connections that are no plain sockets.
func newRaw(nc net.Conn, c *Conn) *rawIO {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	rc, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	r := &rawIO{c: c, rc: rc}
	r.readFn, r.writeFn = r.tryRead, r.tryWrite
	return r
}

func (r *rawIO) tryRead(fd uintptr) bool {
	if r.pooled {
		r.c.takeBuffer()
		r.in = r.c.buf
	}
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&r.in[0])), uintptr(len(r.in)), syscall.MSG_DONTWAIT, 0, 0)
		switch e {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if r.pooled {
				r.c.rest()
				r.in = nil
			}
			return false
		}
		r.rn, r.rerr = int(n), e
		return true
	}
}

func (r *rawIO) tryWrite(fd uintptr) bool {
	for len(r.out) > 0 {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&r.out[0])), uintptr(len(r.out)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			r.out = r.out[n:]
			r.wn += int(n)
			continue
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return r.once
		}
		r.werr = e
		return true
	}
	return true
}

// read is like net.Conn's Read. For nil the bytes go to the connection's buffer, which it takes from the pool.
func (r *rawIO) read(b []byte) (int, error) {
	r.in, r.pooled, r.rn, r.rerr = b, b == nil, 0, 0
	err := r.rc.Read(r.readFn)
	r.in = nil
	switch {
	case err != nil:
		return 0, err
	case r.rerr != 0:
		return 0, r.rerr
	case r.rn == 0:
		return 0, io.EOF
	}
	return r.rn, nil
}

// wait returns when the socket can be read, or its deadline has passed.
func (r *rawIO) wait() { _ = r.rc.Read(readable) }

// readable says whether there is something to read, or the peer has closed.
func readable(fd uintptr) bool {
	var b [1]byte
	_, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return e != syscall.EAGAIN
}

// writeNow writes what the socket takes without waiting.
func (r *rawIO) writeNow(b []byte) (int, error) {
	r.once = true
	n, err := r.write(b)
	r.once = false
	return n, err
}

// write is like net.Conn's Write.
func (r *rawIO) write(b []byte) (int, error) {
	r.out, r.wn, r.werr = b, 0, 0
	err := r.rc.Write(r.writeFn)
	r.out = nil
	if err == nil && r.werr != 0 {
		err = r.werr
	}
	return r.wn, err
}
