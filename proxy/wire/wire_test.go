package wire

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// slow is a connection that delivers a few bytes at a time.
type slow struct {
	net.Conn
	data []byte
	step func() int
	out  bytes.Buffer
}

func (s *slow) Read(b []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := min(s.step(), len(b), len(s.data))
	copy(b, s.data[:n])
	s.data = s.data[n:]
	return n, nil
}

func (s *slow) Write(b []byte) (int, error) { return s.out.Write(b) }

func script(n int) []byte {
	var b []byte
	for i := range n {
		b = Frame(b, "QPBDE"[i%5], bytes.Repeat([]byte{byte(i)}, i*37%20000))
	}
	return b
}

func TestMessagesArriveWholeHoweverTheyAreCut(t *testing.T) {
	all := script(40)
	for name, step := range map[string]func() int{"byte by byte": func() int { return 1 }, "at random": func() int { return 1 + rand.IntN(9000) }, "at once": func() int { return 1 << 20 }} {
		t.Run(name, func(t *testing.T) {
			c := New(&slow{data: all, step: step}, 1<<20)
			var got, held []byte
			var msgs []Message
			c.Hold()
			for {
				m, err := c.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				msgs = append(msgs, m)
				got = append(got, m.Raw...)
			}
			for _, m := range msgs { // held messages stay as they were
				held = append(held, m.Raw...)
			}
			if !bytes.Equal(got, all) || !bytes.Equal(held, all) {
				t.Error("bytes differ")
			}
			dst := &slow{}
			from, to := New(&slow{data: all, step: step}, 10), New(dst, 10)
			for range 40 { // forwarding knows no limit
				if err := from.Forward(to); err != nil {
					t.Fatal(err)
				}
			}
			if err := to.Flush(); err != nil || !bytes.Equal(dst.out.Bytes(), all) {
				t.Error("forwarded bytes differ")
			}
		})
	}
}

func TestClaimedLengthsCostNothing(t *testing.T) {
	huge := binary.BigEndian.AppendUint32([]byte{'Q'}, 1<<30)
	c := New(&slow{data: huge, step: func() int { return 5 }}, 64<<20)
	if _, err := c.Next(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
	c = New(&slow{data: huge, step: func() int { return 5 }}, 2<<30)
	if _, err := c.Next(); !errors.Is(err, io.ErrUnexpectedEOF) || len(c.buf) > 1<<20 {
		t.Errorf("error %v, a buffer of %d bytes", err, len(c.buf))
	}
	for _, n := range []uint32{0, 3, 1 << 31} {
		c := New(&slow{data: binary.BigEndian.AppendUint32([]byte{'Q'}, n), step: func() int { return 5 }}, 1<<20)
		if _, err := c.Next(); !errors.Is(err, ErrMalformed) {
			t.Errorf("length %d: error %v", n, err)
		}
	}
}

// A peer that sends much and reads nothing until it is read from would block a plain write for ever.
func TestDuplexDoesNotDeadlock(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const size = 32 << 20
	done := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer nc.Close()
		if _, err := nc.Write(Frame(nil, 'd', make([]byte, size))); err != nil {
			done <- err
			return
		}
		_, err = io.ReadFull(nc, make([]byte, size))
		done <- err
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := New(nc, 2*size)
	defer c.Close()
	c.Gather(make([]byte, size))
	fin := make(chan error, 1)
	got := 0
	go func() {
		f, err := c.FlushAside()
		if err == nil { // what comes meanwhile is read piece by piece
			err = c.Pieces(func(b []byte) error { got += len(b); return nil })
		}
		fin <- errors.Join(err, f.Wait(err != nil))
	}()
	select {
	case err := <-fin:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("deadlock")
	}
	if got != size+5 {
		t.Errorf("%d bytes came", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFlushWatchingReadsWhileItWaits(t *testing.T) {
	x, y := pairOf(t)
	c := New(x, 1<<20)
	defer c.Close()
	defer y.Close()
	const size = 16 << 20
	done := make(chan error, 1)
	go func() { // says 200 things before it takes anything
		for range 200 {
			if _, err := y.Write(Frame(nil, 'N', make([]byte, 100<<10))); err != nil {
				done <- err
				return
			}
		}
		_, err := io.ReadFull(y, make([]byte, size))
		done <- err
	}()
	notices := 0
	c.Gather(make([]byte, size))
	if err := c.FlushWatching(func() error { notices++; return c.Skip() }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || notices < 100 {
		t.Errorf("%v, %d notices were read", err, notices)
	}
	for ; notices < 200; notices++ { // the deadline is gone
		if err := c.Skip(); err != nil {
			t.Fatal(err)
		}
	}
}

// What was gathered has been sent while a message comes: it is read to its end.
func TestFlushWatchingEndsBetweenMessages(t *testing.T) {
	x, y := pairOf(t)
	c := New(x, 1<<20)
	defer c.Close()
	defer y.Close()
	const size = 16 << 20
	done := make(chan error, 1)
	go func() {
		half := Frame(Frame(nil, 'N', make([]byte, 100<<10)), 'Z', []byte("I"))
		_, err := y.Write(half[:50<<10])
		_, rerr := io.ReadFull(y, make([]byte, size))
		time.Sleep(20 * time.Millisecond) // for the other side to notice that all is sent
		_, werr := y.Write(half[50<<10:])
		done <- errors.Join(err, rerr, werr)
	}()
	c.Gather(make([]byte, size))
	if err := c.FlushWatching(c.Skip); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); err != nil || m.Type != 'Z' {
		t.Errorf("%q, %v", m.Type, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestForwardRunPassesEqualMessagesOn(t *testing.T) {
	var all []byte
	for i := range 3000 {
		all = Frame(all, "DDDDC"[i%5], bytes.Repeat([]byte{byte(i)}, i%300))
	}
	dst := &slow{}
	from, to := New(&slow{data: all, step: func() int { return 1 + rand.IntN(9000) }}, 10), New(dst, 10)
	runs := 0
	for {
		err := from.ForwardRun(to)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		runs++
	}
	if err := to.Flush(); err != nil || !bytes.Equal(dst.out.Bytes(), all) {
		t.Error("bytes differ")
	}
	if runs >= 3000 {
		t.Error("messages went one by one")
	}
}

// pairOf is two connected sockets.
func pairOf(b testing.TB) (x, y net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ch := make(chan net.Conn, 1)
	go func() { c, _ := l.Accept(); ch <- c }()
	if x, err = net.Dial("tcp", l.Addr().String()); err != nil {
		b.Fatal(err)
	}
	return x, <-ch
}

func TestRelayAllocatesNothing(t *testing.T) {
	a, b := pairOf(t)
	c, d := pairOf(t)
	defer a.Close()
	defer b.Close()
	defer c.Close()
	defer d.Close()
	src, dst := New(b, 1<<20), New(c, 1<<20)
	msg := Frame(Frame(nil, 'D', make([]byte, 100)), 'C', make([]byte, 12))
	buf := make([]byte, len(msg))
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := a.Write(msg); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := src.Forward(dst); err != nil {
				t.Fatal(err)
			}
		}
		if err := dst.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(d, buf); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for two messages", allocs)
	}
}

func FuzzConn(f *testing.F) {
	f.Add(script(6), uint8(3))
	f.Add([]byte{'Q', 0, 0, 0, 3}, uint8(1))
	f.Fuzz(func(_ *testing.T, data []byte, step uint8) {
		c := New(&slow{data: data, step: func() int { return int(step) + 1 }}, 1<<16)
		for {
			m, err := c.Next()
			if err != nil {
				return
			}
			switch m.Type {
			case 'P':
				_, _ = DecodeParse(m.Body())
			case 'D':
				_, _ = RowValues(nil, m.Body())
			case 'E':
				ParseError(m.Body())
			case 'T':
				_, _ = ParseRowDescription(m.Body())
			case 't':
				_, _ = ParseParameterTypes(m.Body())
			}
		}
	})
}

func FuzzBind(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01a\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p BindParts
		if p.Decode(b) == nil && len(p.Params) > len(b) {
			t.Error("more parameters than bytes")
		}
	})
}

func FuzzStartup(f *testing.F) {
	f.Add(uint32(Version3), []byte("user\x00app\x00database\x00shop\x00\x00"))
	f.Fuzz(func(_ *testing.T, code uint32, b []byte) { _, _, _ = ParseStartup(code, b) })
}

func FuzzDecoders(f *testing.F) {
	f.Add([]byte("p\x00s\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x01x\x00\x00"))
	f.Add([]byte("s\x00select 1\x00\x00\x01\x00\x00\x00\x17"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p BindParts
		if err := p.Decode(b); err == nil {
			again := BindParts{}
			body := append(append(append(append([]byte{}, p.Portal...), 0), append(append([]byte{}, p.Statement...), 0)...), BindRest(&p)...)
			if err := again.Decode(body); err != nil || len(again.Params) != len(p.Params) {
				t.Errorf("a Bind does not survive its encoding: %v", err)
			}
		}
		_, _ = DecodeParse(b)
		_, _ = RowValues(nil, b)
		_, _ = ParseRowDescription(b)
		_ = EachField(append([]byte(nil), b...), func(int, []byte, []byte, int16) {})
		_, _ = ParseParameterTypes(b)
		_ = ParseError(b)
		_, _, _ = ParseStartup(Version3, b)
		_, _, _ = CString(b)
	})
}

func TestTruncateToWhole(t *testing.T) {
	c := NewSink(io.Discard)
	if !c.TruncateToWhole() || c.Out() != 0 {
		t.Error("nothing is whole")
	}
	c.SendReady('I')
	whole := c.Out()
	c.Gather([]byte{'D', 0, 0, 0, 9, 1})
	if !c.TruncateToWhole() || c.Out() != whole {
		t.Errorf("%d bytes are left of a torn message", c.Out()-whole)
	}
	c.Gather([]byte{'D', 0})
	if !c.TruncateToWhole() || c.Out() != whole {
		t.Errorf("%d bytes are left of a torn header", c.Out()-whole)
	}
	for _, odd := range [][]byte{{'D', 0, 0, 0, 3}, {0, 0, 0, 0, 4}} {
		c.Gather(odd)
		if c.TruncateToWhole() {
			t.Errorf("%q was taken for a message", odd)
		}
		c.Truncate(whole)
	}
}

// Who cuts a connection, or sets its deadline, meets it amid a handshake, too: the race detector looks.
func TestCutAmidAHandshake(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := New(a, 1<<20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.SetNetConn(tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS12}))
	}()
	_ = Socket(c).SetReadDeadline(time.Now())
	_ = c.SetDeadline(time.Now())
	c.Cut()
	<-done
	if _, err := a.Write(nil); err == nil {
		t.Error("it is open")
	}
}
