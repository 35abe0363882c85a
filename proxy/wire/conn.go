// Package wire reads and writes framed PostgreSQL messages.
//
// A Conn is one side of one connection. Bytes are read in bursts and written in bursts: Write gathers,
// Flush sends. Messages are relayed as the raw bytes that came; only the edges decode them, with the
// types in message.go. Nothing is ever allocated by a length that a peer claims.
package wire

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/loop"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

const (
	readSize  = 8 << 10  // a connection's read buffer
	wideSize  = 64 << 10 // the same while much comes in
	flushSize = 32 << 10 // gathered output that is sent without being asked
)

// ErrTooLarge means that a message is longer than the connection accepts.
var ErrTooLarge = errors.New("message too large")

// RefusedError means that there is no memory for a message of several pieces now, and says why.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// ErrMalformed means that the bytes are no PostgreSQL message.
var ErrMalformed = errors.New("malformed message")

// Message is one framed message. Raw holds the type byte, the length and the body.
type Message struct {
	Type byte
	Raw  []byte
}

// Body is the message without type and length.
func (m Message) Body() []byte { return m.Raw[5:] }

// Conn is a message connection. One goroutine, or one task of a loop, uses it, but for Cut and SetDeadline, which any may call.
type Conn struct {
	base net.Conn // what is at the bottom of nc: never changes, so that any goroutine may have it
	nc   net.Conn
	raw  *loop.Socket // nc, where it is a plain one
	sock *loop.Socket // what is at the bottom of nc, under TLS, too
	task *loop.Task
	buf  []byte
	pos  int // next unread byte
	end  int // end of read bytes
	out  []byte
	max  int // longest message that Next accepts

	keep   bool // earlier messages are still in use: the buffer may grow, not move
	wide   bool // the last read filled its buffer
	frugal bool // holds no buffer while it waits for input
	outBox *outBuffer
	held   *string // a tag that is kept back, empty for none yet; nil: none is kept back

	Memory Budget // of long messages

	in, sent atomic.Int64
}

// New takes nc over. max is the longest message that Next accepts, in bytes.
func New(nc net.Conn, max int) *Conn {
	c := &Conn{max: max, base: socket(nc)}
	c.SetNetConn(nc)
	return c
}

// NewSink returns a connection whose output goes to w. It cannot be read.
func NewSink(w io.Writer) *Conn { return &Conn{nc: sink{w: w}, max: 1} }

type sink struct {
	net.Conn
	w io.Writer
}

func (s sink) Write(b []byte) (int, error) { return s.w.Write(b) }

// Frugal makes the connection give its buffers up whenever it waits for input. It is for clients, of which
// there are many and most are idle.
func (c *Conn) Frugal() { c.frugal = true }

// NetConn is the connection below, for addresses and TLS state.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Socket is what is at the bottom of a connection, below TLS. Any goroutine may have it, also amid a handshake.
func Socket(c *Conn) net.Conn { return c.base }

// SetNetConn replaces the connection below, after a TLS handshake. Nothing may be buffered.
func (c *Conn) SetNetConn(nc net.Conn) {
	c.nc = nc
	c.raw, _ = nc.(*loop.Socket)
	c.sock, _ = socket(nc).(*loop.Socket)
	c.SetTask(c.task)
}

// SetTask says who reads and writes the connection from now on; nil is any goroutine.
func (c *Conn) SetTask(t *loop.Task) {
	c.task = t
	if c.sock != nil {
		c.sock.SetTask(t)
	}
}

// Task is who reads and writes the connection.
func (c *Conn) Task() *loop.Task { return c.task }

// Leave lets the connection's task block until Return: see loop.Task.
func (c *Conn) Leave() { c.task.Leave() }

// Return ends Leave.
func (c *Conn) Return() {
	if c.sock != nil {
		c.task.Return()
	}
}

// OnInput runs f, as a coroutine of the connection's task, when there is something to read, or the connection's deadline has
// passed, or it has been closed. What calls it must end then. Until then nothing is kept but the connection.
func (c *Conn) OnInput(f func()) {
	if c.sock == nil {
		panics.Go(panics.Session, f)
		return
	}
	if c.raw != nil && c.end == c.pos {
		c.rest()
		c.raw.OnInput(c.task, f)
		return
	}
	c.sock.Run(c.task, f) // TLS may have read what comes next
}

// FirstByte waits for the next byte and leaves it unread.
func (c *Conn) FirstByte() (byte, error) {
	if err := c.fill(1); err != nil {
		return 0, err
	}
	return c.buf[c.pos], nil
}

// Unread returns the connection below with the bytes that were read too early put back in front. SetNetConn
// must follow.
func (c *Conn) Unread() net.Conn {
	early := append([]byte(nil), c.buf[c.pos:c.end]...)
	c.dropBuffer()
	return &prefixed{Conn: c.nc, early: early}
}

// prefixed is a connection whose first bytes have been read already.
type prefixed struct {
	net.Conn
	early []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.early) > 0 {
		n := copy(b, p.early)
		p.early = p.early[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// Close closes the connection below. It may be called more than once.
func (c *Conn) Close() error { return c.nc.Close() }

// Cut closes the connection beside the goroutine that uses it: without TLS's farewell, which is written. Any goroutine may call it.
func (c *Conn) Cut() { _ = c.base.Close() }

// SetDeadline bounds every later read and write. Any goroutine may call it.
func (c *Conn) SetDeadline(t time.Time) error { return c.base.SetDeadline(t) }

// Traffic counts the bytes read and written so far. Any goroutine may call it.
func (c *Conn) Traffic() (in, out int64) { return c.in.Load(), c.sent.Load() }

// Pending is the number of bytes read and not yet consumed.
func (c *Conn) Pending() int { return c.end - c.pos }

// fill reads until n bytes are unread.
func (c *Conn) fill(n int) error {
	for c.end-c.pos < n {
		if err := c.read(n); err != nil {
			return err
		}
	}
	return nil
}

// read makes room for n unread bytes, a piece at a time, and reads once.
func (c *Conn) read(n int) error {
	var m int
	var err error
	if c.pos == c.end && !c.keep {
		c.dropBuffer()
		if c.raw != nil {
			m, err = c.readLate()
		} else {
			c.takeBuffer()
			m, err = c.nc.Read(c.buf)
		}
	} else {
		if err := c.makeRoom(n); err != nil {
			return err
		}
		m, err = c.nc.Read(c.buf[c.end:])
	}
	if m > 0 {
		c.wide = m == len(c.buf)-c.end && m >= readSize
		c.end += m
		c.in.Add(int64(m))
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// readLate reads into a buffer that is taken when there is something to put in it.
func (c *Conn) readLate() (int, error) {
	for {
		if c.raw.Dry() {
			c.rest()
			if err := c.raw.WaitRead(); err != nil {
				return 0, err
			}
		}
		if c.buf == nil {
			c.takeBuffer()
		}
		if n, err := c.raw.TryRead(c.buf); n > 0 || err != nil {
			return n, err
		}
	}
}

// makeRoom makes room behind what is unread.
func (c *Conn) makeRoom(n int) error {
	if len(c.buf)-c.end >= min(n-(c.end-c.pos), readSize) && c.end < len(c.buf) {
		return nil
	}
	if !c.keep && c.pos > 0 {
		c.end = copy(c.buf, c.buf[c.pos:c.end])
		c.pos = 0
		spoil(c.buf[c.end:])
		return nil
	}
	// Doubling, so a claimed length costs nothing until its bytes have come.
	var grown []byte
	if len(c.buf) < wideSize {
		grown = wideBuffers.Get().(*[wideSize]byte)[:]
	} else {
		if err := c.Memory.take(2 * len(c.buf)); err != nil {
			return err
		}
		grown = make([]byte, 2*len(c.buf))
	}
	n = copy(grown, c.buf[c.pos:c.end])
	if !c.keep { // held messages still point into the old one
		c.dropBuffer()
	}
	c.pos, c.end, c.buf = 0, n, grown
	return nil
}

// Peek waits for the next message's header. length counts the whole message, header included.
func (c *Conn) Peek() (typ byte, length int, err error) {
	if c.end-c.pos < 5 {
		if err := c.fill(5); err != nil {
			return 0, 0, err
		}
	}
	n := binary.BigEndian.Uint32(c.buf[c.pos+1:])
	if n < 4 || n > 1<<30+1<<20 {
		return 0, 0, fmt.Errorf("%w: type %q claims %d bytes", ErrMalformed, c.buf[c.pos], n)
	}
	return c.buf[c.pos], int(n) + 1, nil
}

// Next returns the next message, waiting for it. One that is too long, or that is refused, is left unread: Skip gets past it. Its bytes are valid until Release, or if Hold was
// not called, until the next read.
func (c *Conn) Next() (Message, error) {
	typ, n, err := c.Peek()
	if err != nil {
		return Message{}, err
	}
	if n > c.max {
		return Message{Type: typ}, fmt.Errorf("%w: type %q of %d bytes, the limit is %d", ErrTooLarge, typ, n, c.max)
	}
	if c.end-c.pos < n {
		if err := c.fill(n); err != nil {
			return Message{Type: typ}, unexpected(err)
		}
	}
	m := Message{typ, c.buf[c.pos : c.pos+n : c.pos+n]}
	c.pos += n
	return m, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Buffered says whether the next message has wholly arrived.
func (c *Conn) Buffered() bool {
	if c.end-c.pos < 5 {
		return false
	}
	n := int(binary.BigEndian.Uint32(c.buf[c.pos+1:])) + 1
	return c.end-c.pos >= n
}

// Hold keeps the bytes of the messages that follow valid until Release.
func (c *Conn) Hold() { c.keep = true }

// Release ends Hold.
func (c *Conn) Release() {
	c.keep = false
	if c.Memory.taken > 0 {
		c.Memory.give(c.Memory.taken - large(c.buf))
	}
}

// Skip drops the next message without keeping it in memory.
func (c *Conn) Skip() error { return c.Pieces(func([]byte) error { return nil }) }

// Max is the longest message that Next returns.
func (c *Conn) Max() int { return c.max }

// Forward passes the next message to dst, by pieces if it is long, so that its size does not matter. One of
// ordinary size goes as a whole or not at all.
func (c *Conn) Forward(dst *Conn) error {
	if _, n, err := c.Peek(); err == nil && n <= wideSize/2 && c.end-c.pos < n {
		if err := c.fill(n); err != nil {
			return unexpected(err)
		}
	}
	return c.Pieces(func(b []byte) error {
		if err := dst.Write(b); err != nil {
			return &PeerError{err}
		}
		return nil
	})
}

// ForwardRun passes the next message to dst, and with it those behind it that have wholly arrived and are of
// the same type: a buffer full of rows is one copy.
func (c *Conn) ForwardRun(dst *Conn) error {
	typ, n, err := c.Peek()
	if err != nil {
		return err
	}
	end := c.pos + n
	if end > c.end {
		return c.Forward(dst)
	}
	for c.end-end >= 5 && c.buf[end] == typ {
		n := int(binary.BigEndian.Uint32(c.buf[end+1:])) + 1
		if n < 5 || n > c.end-end {
			break
		}
		end += n
	}
	b := c.buf[c.pos:end]
	c.pos = end
	if err := dst.Write(b); err != nil {
		return &PeerError{err}
	}
	return nil
}

// Pieces hands the next message, header included, to f as its bytes come, and keeps none of them. They are
// valid during the call.
func (c *Conn) Pieces(f func([]byte) error) error {
	_, n, err := c.Peek()
	if err != nil {
		return err
	}
	whole := n
	for n > 0 {
		if c.pos == c.end {
			if err := c.read(1); err != nil {
				if n < whole {
					return &TornError{unexpected(err)}
				}
				return unexpected(err)
			}
		}
		m := min(n, c.end-c.pos)
		b := c.buf[c.pos : c.pos+m]
		c.pos += m
		n -= m
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

// TornError is a failure amid a message of which a part has been handed on: who got it cannot be told anything
// more, since it waits for the rest.
type TornError struct{ Err error }

func (e *TornError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *TornError) Unwrap() error { return e.Err }

// PeerError wraps a failure of the connection that was written to, where the one read from is in order.
type PeerError struct{ Err error }

func (e *PeerError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *PeerError) Unwrap() error { return e.Err }

// Write gathers b for sending. Much gathered output is sent at once.
func (c *Conn) Write(b []byte) error {
	if len(c.out) == 0 && len(b) >= flushSize {
		return c.send(b)
	}
	c.out = append(c.out, b...)
	if len(c.out) >= flushSize {
		return c.Flush()
	}
	return nil
}

// Append gathers bytes that f appends. It never sends.
func (c *Conn) Append(f func([]byte) []byte) { c.out = f(c.out) }

// Out is the number of bytes gathered and not yet sent.
func (c *Conn) Out() int { return len(c.out) }

// Truncate takes back what was gathered behind the first n bytes.
func (c *Conn) Truncate(n int) { c.out = c.out[:min(n, len(c.out))] }

// TruncateToWhole takes back what was gathered of a message that is not whole. It is false if what was gathered cannot be read as messages: then nothing
// more can be said on the connection.
func (c *Conn) TruncateToWhole() bool {
	n := 0
	for len(c.out)-n >= 5 {
		size := int(binary.BigEndian.Uint32(c.out[n+1:])) + 1
		if c.out[n] < '1' || c.out[n] > 'z' || size < 5 {
			return false
		}
		if size > len(c.out)-n {
			break
		}
		n += size
	}
	c.out = c.out[:n]
	return true
}

// Flush sends what was gathered.
func (c *Conn) Flush() error {
	if len(c.out) == 0 {
		return nil
	}
	b := c.out
	c.out = c.out[:0]
	err := c.send(b)
	if cap(c.out) > 2*flushSize {
		c.out = nil
	}
	return err
}

func (c *Conn) send(b []byte) error {
	n, err := c.nc.Write(b)
	c.sent.Add(int64(n))
	return err
}

// Gather appends b without ever sending.
func (c *Conn) Gather(b []byte) { c.out = append(c.out, b...) }

// socket is the connection at the bottom.
func socket(nc net.Conn) net.Conn {
	for {
		switch x := nc.(type) {
		case *tls.Conn:
			nc = x.NetConn()
		case *prefixed:
			nc = x.Conn
		default:
			return nc
		}
	}
}

// Quiet says whether a connection at rest is open and has nothing to say. One that was closed, or that
// holds an unread message, is not quiet. It costs a system call.
func (c *Conn) Quiet() bool {
	if c.end > c.pos {
		return false
	}
	sc, ok := socket(c.nc).(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, e := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(e, syscall.EAGAIN)
	})
	return err == nil && quiet
}
