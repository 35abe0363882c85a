package loop

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop is an epoll instance and the goroutine that is in charge of it, which runs the tasks whose sockets are ready.
type loop struct {
	epoll, waker standing
	nested       syscall.RawConn // the epoll instance, seen from Go's poller; nil where a processor is left to that
	poll         func(uintptr) bool

	// charge is the number of the goroutine in charge, times two, and one more while it runs a task: then, and only then, the
	// guard may put another one in charge.
	charge atomic.Uint64
	runs   atomic.Uint64 // counts what has been run
	sleeps atomic.Bool   // it waits for the kernel, or is about to
	watch  watcher

	// of the goroutine in charge
	events   [128]unix.EpollEvent
	at, n    int
	pace     pace
	taken    []*Task
	finished []*Task // a buffer for the next exchange with woken

	mu     sync.Mutex // guards the rest
	woken  []*Task    // by something other than their socket
	queued atomic.Bool
}

// loops are all there are. Where there are several processors to run on, one is left to what waits on Go's poller.
var loops = sync.OnceValue(func() []*loop {
	all := make([]*loop, max(1, runtime.GOMAXPROCS(0)-1))
	for i := range all {
		l := &loop{}
		err := l.epoll.own(unix.EpollCreate1(unix.EPOLL_CLOEXEC))
		if err == nil {
			err = l.waker.own(unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK))
		}
		if err == nil {
			fd := l.waker.get()
			err = unix.EpollCtl(l.epoll.get(), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
		}
		if err == nil && runtime.GOMAXPROCS(0) == 1 {
			err = l.nest()
		}
		if err != nil {
			return nil // sockets stay with the runtime's poller
		}
		all[i] = l
		go l.drive(0)
	}
	go guard(all)
	return all
})

// nest has Go's poller watch the loop's epoll instance, which costs for each event.
func (l *loop) nest() error {
	l.poll = l.look
	err := unix.SetNonblock(l.epoll.get(), true)
	if err == nil {
		l.nested, err = os.NewFile(uintptr(l.epoll.get()), "epoll").SyscallConn()
	}
	return err
}

// drive runs the loop as its goroutine number id, until the guard puts another one in charge. What one leaves undone the
// next one finds.
func (l *loop) drive(id uint64) {
	for {
		for l.at < l.n {
			e := &l.events[l.at]
			l.at++
			if t := dispatch(int(e.Fd), uint32(e.Pad), e.Events); t != nil && !l.run(t, id) {
				return
			}
		}
		for len(l.taken) > 0 || l.queued.Load() {
			if len(l.taken) == 0 {
				l.mu.Lock()
				l.taken, l.woken = l.woken, l.finished[:0]
				l.finished = l.taken
				l.queued.Store(false)
				l.mu.Unlock()
				continue
			}
			t := l.taken[0]
			l.taken = l.taken[1:]
			if !l.run(t, id) {
				return
			}
		}
		l.wait()
	}
}

var began = time.Now()

// wait waits for events, or for tasks that were woken.
func (l *loop) wait() {
	alone := l.nested == nil
	if !alone {
		alone = l.pace.alone(time.Since(began))
		runtime.Gosched() // to what the tasks have set going
	}
	l.at, l.n = 0, 0
	l.sleeps.Store(true)
	switch {
	case l.queued.Load():
	case alone:
		if n, _, e := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll.get()), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), ^uintptr(0), 0, 0); e == 0 {
			l.n = int(n)
		}
	default:
		_ = l.nested.Read(l.poll)
	}
	l.pace.saw(l.n)
	l.sleeps.Store(false)
}

// look takes the events that there are, and says whether the wait is over.
func (l *loop) look(fd uintptr) bool {
	if n, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0); e == 0 {
		l.n = int(n)
	}
	return l.n > 0 || l.queued.Load()
}

// run runs a task, and says whether the goroutine is still in charge.
func (l *loop) run(t *Task, id uint64) bool {
	l.charge.Store(id | 1)
	l.runs.Add(1)
	if drowsy.Load() { // behind these: a guard that falls asleep meanwhile looks at them behind that
		rouse()
	}
	l.watch.runs(t)
	t.run(true)
	l.watch.ran(t)
	return l.charge.CompareAndSwap(id|1, id)
}

// enqueue has the loop run a task soon. Any goroutine may call it.
func (l *loop) enqueue(t *Task) {
	l.mu.Lock()
	l.woken = append(l.woken, t)
	l.queued.Store(true)
	l.mu.Unlock()
	if l.sleeps.Load() {
		_, _ = unix.Write(l.waker.get(), one)
	}
}

// wake has w go on, which must have been taken from where it waits.
func (l *loop) wake(w *waiter) {
	if w.yields {
		l.enqueue(w.task)
		return
	}
	w.ch <- struct{}{}
}

var one = binary.NativeEndian.AppendUint64(nil, 1)

// guardEvery is how long a task may run, and twice that at most, before the others of its loop go on without it.
const guardEvery = 5 * time.Millisecond

// quietTicks is after how many ticks without work the guard sleeps.
const quietTicks = 200

var (
	drowsy = new(atomic.Bool) // the guard sleeps, or is about to
	bell   = make(chan struct{}, 1)
)

// rouse wakes the guard.
func rouse() {
	if drowsy.Swap(false) {
		bell <- struct{}{}
	}
}

// guard puts new goroutines in charge of loops whose task runs for too long: it blocks, or computes.
func guard(all []*loop) {
	type state struct{ charge, runs uint64 }
	last := make([]state, len(all))
	tick := time.NewTicker(guardEvery)
	for quiet := 0; ; {
		<-tick.C
		quiet++
		for i, l := range all {
			now := state{l.charge.Load(), l.runs.Load()}
			if now != last[i] || now.charge&1 == 1 {
				quiet = 0
			}
			if now == last[i] && now.charge&1 == 1 && l.charge.CompareAndSwap(now.charge, now.charge+1) {
				l.watch.caught()
				go l.drive(now.charge + 1)
			}
			last[i] = now
		}
		if quiet < quietTicks {
			continue
		}
		tick.Stop()
		drowsy.Store(true)
		for i, l := range all { // one that has begun before it could see that the guard sleeps
			if (state{l.charge.Load(), l.runs.Load()}) != last[i] {
				rouse()
				break
			}
		}
		<-bell
		quiet = 0
		tick.Reset(guardEvery)
	}
}
