package loop

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is both ends of a TCP connection, the first one adopted.
func pair(t testing.TB) (*Socket, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type accepted struct {
		nc  net.Conn
		err error
	}
	got := make(chan accepted, 1)
	go func() {
		nc, err := l.Accept()
		got <- accepted{nc, err}
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a := <-got
	for a.err == nil && a.nc.RemoteAddr().String() != nc.LocalAddr().String() { // somebody else's, who looks for a server that had the port before
		_ = a.nc.Close()
		a.nc, a.err = l.Accept()
	}
	if a.err != nil {
		t.Fatal(a.err)
	}
	s, ok := Adopt(nc).(*Socket)
	if !ok {
		t.Fatal("a TCP connection was not adopted")
	}
	t.Cleanup(func() { _ = s.Close(); _ = a.nc.Close() })
	return s, a.nc
}

// unixPair is pair by Unix sockets, which take no ports: those of connections by TCP are kept for a minute behind each.
func unixPair(t testing.TB) (*Socket, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		nc, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = nc
	}
	s, ok := Adopt(ends[0]).(*Socket)
	if !ok {
		t.Fatal("a Unix connection was not adopted")
	}
	return s, ends[1]
}

// until waits for what is about to be so.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Error(what + " is not so")
			return
		}
	}
}

// within fails a test that hangs.
func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal(what + " did not end")
	}
}

// spawn runs f as the coroutine of a socket's new task, at once.
func spawn(s *Socket, f func(*Task)) <-chan struct{} {
	done := make(chan struct{})
	t := NewTask()
	s.SetTask(t)
	s.Run(t, func() {
		defer close(done)
		f(t)
	})
	return done
}

func TestSocketIsANetConn(t *testing.T) {
	s, peer := pair(t)
	if s.LocalAddr().String() != peer.RemoteAddr().String() || s.RemoteAddr().String() != peer.LocalAddr().String() {
		t.Errorf("addresses %v %v, the peer has %v %v", s.LocalAddr(), s.RemoteAddr(), peer.LocalAddr(), peer.RemoteAddr())
	}
	sent := make([]byte, 8<<20) // more than the kernel takes at once
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := s.Write(sent); err != nil {
			t.Error(err)
		}
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatal("what was written differs from what was read", err)
	}
	within(t, "the write", done)
	go func() { _, _ = peer.Write(sent); _ = peer.Close() }()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
		t.Fatal("what was read differs from what was written", err)
	}
}

// The last bytes and the end may come as one event, of which a short read takes the bytes only.
func TestEndBehindData(t *testing.T) {
	for range 200 {
		s, peer := pair(t)
		got := make(chan struct{})
		go func() {
			defer close(got)
			b := make([]byte, 64)
			if n, err := s.Read(b); n != 5 || err != nil {
				t.Errorf("read %d bytes, %v", n, err)
			}
			if n, err := s.Read(b); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("read %d bytes and %v at the end", n, err)
			}
		}()
		_, _ = peer.Write([]byte("hello"))
		_ = peer.Close()
		within(t, "reading", got)
		_ = s.Close()
	}
}

func TestDeadlines(t *testing.T) {
	s, peer := pair(t)
	b := make([]byte, 8)
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	var ne net.Error
	if _, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("a read past its deadline: %v", err)
	}
	_, _ = peer.Write([]byte("x"))
	if _, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another one, though there is something: %v", err)
	}
	_ = s.SetReadDeadline(time.Time{})
	if n, err := s.Read(b); n != 1 || err != nil {
		t.Errorf("without a deadline: %d %v", n, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a wait that is ended: %v", err)
		}
	}()
	time.Sleep(10 * time.Millisecond)
	_ = s.SetReadDeadline(time.Unix(1, 0))
	within(t, "the read", done)

	written := make(chan struct{})
	go func() {
		defer close(written)
		if n, err := s.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
			t.Errorf("a write that nobody reads: %d bytes, %v", n, err)
		}
	}()
	if _, err := peer.Read(b[:1]); err != nil { // it has begun
		t.Fatal(err)
	}
	_ = s.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	within(t, "the write", written)
	_ = s.SetDeadline(time.Now().Add(time.Hour))
	_ = s.SetDeadline(time.Time{})
}

func TestCloseEndsWaits(t *testing.T) {
	for _, f := range []func(*Socket) error{
		func(s *Socket) error { _, err := s.Read(make([]byte, 8)); return err },
		func(s *Socket) error { _, err := s.Write(make([]byte, 64<<20)); return err },
		func(s *Socket) error {
			s.task.Leave() // it waits as a goroutine does
			rc, _ := s.SyscallConn()
			return rc.Read(func(uintptr) bool { return false })
		},
	} {
		for _, coroutine := range []bool{false, true} {
			s, _ := pair(t)
			body := func() {
				if err := f(s); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a wait of a closed socket: %v", err)
				}
			}
			var done <-chan struct{}
			if coroutine {
				done = spawn(s, func(*Task) { body() })
			} else {
				c := make(chan struct{})
				go func() { defer close(c); body() }()
				done = c
			}
			time.Sleep(5 * time.Millisecond)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			within(t, "the wait", done)
			if err := s.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed twice: %v", err)
			}
		}
	}
}

// A descriptor that is in use is not given back: it may become another connection's.
func TestCloseWaitsForTheCall(t *testing.T) {
	s, _ := pair(t)
	rc, _ := s.SyscallConn()
	_ = rc.Control(func(fd uintptr) {
		_ = s.Close()
		if rc.Control(func(uintptr) {}) == nil {
			t.Error("a closed socket lends its descriptor")
		}
		if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil {
			t.Errorf("the descriptor of a call under way was given back: %v", err)
		}
	})
}

// A socket that was closed lets its number alone, whatever is asked of it: it is another's.
func TestClosedSocketLetsItsNumberAlone(t *testing.T) {
	for name, ask := range map[string]func(*Socket){
		"control":  func(s *Socket) { rc, _ := s.SyscallConn(); _ = rc.Control(func(uintptr) {}) },
		"read":     func(s *Socket) { _, _ = s.Read(make([]byte, 1)) },
		"try":      func(s *Socket) { _, _ = s.TryRead(make([]byte, 1)) },
		"write":    func(s *Socket) { _, _ = s.Write([]byte("x")) },
		"close":    func(s *Socket) { _ = s.Close() },
		"deadline": func(s *Socket) { _ = s.SetDeadline(time.Unix(1, 0)) },
		"input":    func(s *Socket) { within(t, "input", spawn(s, func(*Task) {})) },
		"readable": func(s *Socket) { s.readable() },
		"raw read": func(s *Socket) { rc, _ := s.SyscallConn(); _ = rc.Read(func(uintptr) bool { return false }) },
	} {
		s, _ := pair(t)
		rc, _ := s.SyscallConn()
		var number int
		_ = rc.Control(func(fd uintptr) { number = int(fd) })
		_ = s.Close()
		heir, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		if fd := int(heir.Fd()); fd != number { // a lower one was free
			if err := unix.Dup3(fd, number, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			_ = heir.Close()
			heir = os.NewFile(uintptr(number), os.DevNull)
		}
		ask(s)
		ask(s)
		if _, err := heir.Stat(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = heir.Close()
	}
}

// An event may be older than the connection that has the descriptor now.
func TestEventOfAnEarlierConnection(t *testing.T) {
	s, _ := pair(t)
	if find(s.fd.number, s.serial) != s || find(s.fd.number, s.serial-1) != nil || find(1<<20, s.serial) != nil {
		t.Error("an event finds a socket that it is not about")
	}
	_ = s.Close()
	if find(s.fd.number, s.serial) != nil {
		t.Error("an event finds a socket that was closed")
	}
}

// A wait that begins while its socket is closed, or its deadline set to the past, ends.
func TestWaitsThatJustBegin(t *testing.T) {
	for i := range 3000 {
		s, peer := unixPair(t)
		done := spawn(s, func(*Task) { _, _ = s.Read(make([]byte, 1)) })
		for range rand.IntN(60) {
			runtime.Gosched()
		}
		if i%2 == 0 {
			_ = s.Close()
		} else {
			_ = s.SetReadDeadline(time.Unix(1, 0))
		}
		within(t, "the wait", done)
		_, _ = s.Close(), peer.Close()
	}
}

// Who finds more and more to read, or cannot write, leaves the loop to the others.
func TestBusyTasksLeave(t *testing.T) {
	s, peer := pair(t)
	_, _ = peer.Write(make([]byte, maxReads+1))
	until(t, "all is there", func() bool {
		n, err := unix.IoctlGetInt(s.fd.number, unix.SIOCINQ)
		return err == nil && n == maxReads+1
	})
	within(t, "reading", spawn(s, func(task *Task) {
		b := make([]byte, 1)
		for i := range maxReads + 1 {
			if task.alone {
				t.Errorf("it left before read %d", i)
			}
			_, _ = s.Read(b)
		}
		if !task.alone {
			t.Error("it stays whatever there is to read")
		}
	}))
	written := spawn(s, func(task *Task) {
		_, _ = s.Write(make([]byte, 64<<20))
		if !task.alone {
			t.Error("it waits in the loop for a peer that does not read")
		}
	})
	until(t, "it waits", func() bool { w := s.wr.w.Load(); return w != nil && w != ready })
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	within(t, "writing", written)
}

// Tasks of one loop go on though one of them blocks without having left it, whatever it blocks on.
func TestGuard(t *testing.T) {
	unblamed(t)
	const n = 8
	release := make(chan struct{})
	blocked := make(chan struct{}, n)
	var ends []<-chan struct{}
	var peers []net.Conn
	for range n {
		s, peer := pair(t)
		peers = append(peers, peer)
		ends = append(ends, spawn(s, func(*Task) {
			b := make([]byte, 1)
			if _, err := s.Read(b); err != nil {
				t.Error(err)
			}
			blocked <- struct{}{}
			<-release // without Leave
			if _, err := s.Write(b); err != nil {
				t.Error(err)
			}
			_, _ = s.Read(b)
		}))
	}
	for _, p := range peers {
		_, _ = p.Write([]byte("x"))
	}
	for range n {
		select {
		case <-blocked:
		case <-time.After(20 * time.Second):
			t.Fatal("a task waits for one that blocks")
		}
	}
	close(release)
	for i, p := range peers {
		if _, err := io.ReadFull(p, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		_ = p.Close()
		within(t, "a task", ends[i])
	}
}

// A task that has left its loop may block for long and comes back.
func TestLeaveAndReturn(t *testing.T) {
	s, peer := pair(t)
	turns := make(chan struct{})
	done := spawn(s, func(task *Task) {
		b := make([]byte, 1)
		for range 100 {
			if _, err := s.Read(b); err != nil {
				t.Error(err)
			}
			task.Leave()
			task.Leave()
			<-turns
			if _, err := s.Read(b); err != nil {
				t.Error(err)
			}
			task.Return()
			task.Return()
		}
	})
	for range 100 {
		_, _ = peer.Write([]byte("x"))
		select {
		case turns <- struct{}{}:
		case <-time.After(20 * time.Second):
			t.Fatal("the task does not come to its turn")
		}
		_, _ = peer.Write([]byte("y"))
	}
	within(t, "the task", done)
}

// A pause ends with the Resume behind it, or with one that came before: none is lost.
func TestPauseAndResume(t *testing.T) {
	s, _ := pair(t)
	const rounds = 20000
	var want atomic.Int64
	seen := make(chan int64, 1)
	handle := make(chan *Task, 1)
	done := spawn(s, func(task *Task) {
		handle <- task
		for i := int64(1); i <= rounds; i++ {
			for want.Load() < i {
				task.Pause()
			}
			select {
			case seen <- i:
			default:
				t.Errorf("round %d came before the last was seen", i)
			}
			if i == rounds/2 {
				task.Leave() // from here on as a goroutine
			}
		}
	})
	task := <-handle
	for i := int64(1); i <= rounds; i++ {
		want.Store(i)
		task.Resume()
		select {
		case <-seen:
		case <-time.After(20 * time.Second):
			t.Fatalf("round %d: the task sleeps on", i)
		}
	}
	within(t, "the task", done)
}

// A function that is to run on input runs once, and not before, whatever comes first.
func TestOnInput(t *testing.T) {
	for _, what := range []string{"data", "data before", "end", "deadline", "close"} {
		s, peer := pair(t)
		task := NewTask()
		s.SetTask(task)
		if what == "data before" {
			_, _ = peer.Write([]byte("xy"))
			b := make([]byte, 1)
			_, _ = s.Read(b)
		}
		var runs atomic.Int32
		done := make(chan struct{})
		s.OnInput(task, func() {
			runs.Add(1)
			close(done)
		})
		if what != "data before" {
			time.Sleep(5 * time.Millisecond)
			if runs.Load() != 0 {
				t.Errorf("%s: it ran too early", what)
			}
		}
		switch what {
		case "data":
			_, _ = peer.Write([]byte("x"))
		case "end":
			_ = peer.Close()
		case "deadline":
			_ = s.SetReadDeadline(time.Unix(1, 0))
		case "close":
			_ = s.Close()
		}
		within(t, what, done)
	}
}

// Many tasks ask one another over and over, rest, leave, return, are woken and have deadlines: each byte must come back, in order.
func TestManyTasks(t *testing.T) {
	const tasks, rounds = 64, 300
	var all sync.WaitGroup
	var came atomic.Int64 // bytes that have come back
	for i := range tasks {
		client, far := pair(t) // our end of a client's connection
		server, echo := pair(t)
		go func() { _, _ = io.Copy(echo, echo) }()
		task := NewTask()
		client.SetTask(task)
		server.SetTask(task)
		dice := rand.New(rand.NewPCG(uint64(i), 7))
		all.Add(1)
		var serve func()
		serve = func() {
			b := make([]byte, 16)
			for {
				if dice.IntN(3) == 0 && client.Dry() {
					client.OnInput(task, serve)
					return
				}
				n, err := client.Read(b)
				switch {
				case errors.Is(err, os.ErrDeadlineExceeded):
					_ = client.SetReadDeadline(time.Time{})
					continue
				case err != nil:
					all.Done()
					return
				}
				if dice.IntN(4) == 0 {
					task.Leave()
					time.Sleep(time.Duration(dice.IntN(200)) * time.Microsecond)
				}
				_, _ = server.Write(b[:n])
				if _, err := io.ReadFull(server, b[:n]); err != nil {
					t.Error(err)
				}
				if _, err := client.Write(b[:n]); err != nil {
					t.Error(err)
				}
				task.Return()
			}
		}
		client.OnInput(task, serve)
		all.Add(1)
		go func() {
			defer all.Done()
			b := make([]byte, 1)
			for r := range rounds {
				if r%7 == 0 {
					_ = client.SetReadDeadline(time.Unix(1, 0))
				}
				_, _ = far.Write([]byte{byte(r)})
				if _, err := io.ReadFull(far, b); err != nil || b[0] != byte(r) {
					t.Errorf("round %d: %d, %v", r, b[0], err)
					break
				}
				came.Add(1)
			}
			_ = far.Close()
		}()
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for last := int64(-1); ; { // on a busy machine they take long: they must go on
		select {
		case <-done:
			return
		case <-time.After(20 * time.Second):
			if now := came.Load(); now == last {
				t.Fatalf("the tasks stand still, when %d of %d bytes have come back", now, tasks*rounds)
			} else {
				last = now
			}
		}
	}
}

// After a time without work the guard sleeps, and is there when it is needed.
func TestGuardSleeps(t *testing.T) {
	loops() // it is there
	for turns := 0; !drowsy.Load(); turns++ {
		if turns > 10*quietTicks { // on a busy machine its ticks are late, as these turns are
			t.Fatal("the guard does not sleep")
		}
		time.Sleep(guardEvery)
	}
	TestGuard(t)
}

// A turn of a task that answers: one read, one write, one wait.
func BenchmarkTurn(b *testing.B) {
	s, peer := pair(b)
	spawn(s, func(*Task) {
		buf := make([]byte, 64)
		for {
			n, err := s.Read(buf)
			if err != nil {
				return
			}
			_, _ = s.Write(buf[:n])
		}
	})
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = peer.Write(buf)
		if _, err := io.ReadFull(peer, buf); err != nil {
			b.Fatal(err)
		}
	}
}
