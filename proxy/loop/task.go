// Package loop waits for sockets: for many of them on few threads, and with little work for each time that one of
// them has something to say.
//
// A goroutine that waits for a socket costs a look at the socket in vain, a visit to the scheduler when it falls asleep and
// another when it wakes. A Task is a coroutine in its place: while it waits nobody runs it, and a loop, which learns from
// the kernel of many sockets at once, resumes the tasks of those that are ready one after the other. What a task does
// between two waits must be short, because the others of its loop stand still meanwhile. So a task leaves its loop
// before it does what may block (Leave), and goes on as an ordinary goroutine until it has come to rest (Return). If it
// forgets to, a guard sees that within milliseconds and has another goroutine go on with the loop: a forgotten
// Leave costs time and is no fault.
package loop

import (
	"iter"
	"sync"
	"sync/atomic"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// Task is a session's thread of control: at each time at most one goroutine or one loop runs it. It begins as the ordinary
// goroutine that made it; a function given to Socket.OnInput runs as a coroutine. Its methods may be called by the task itself only, but for Resume.
type Task struct {
	self waiter // what it waits as

	mu     sync.Mutex // held by whoever runs the coroutine
	begin  func()     // a coroutine that is to begin
	next   func() (struct{}, bool)
	yield  func(struct{}) bool
	looped bool // a loop runs it, not a goroutine of its own
	alone  bool // it waits as goroutines do
	leaves bool // it asks for a goroutine of its own
	reads  int  // without a wait between them

	witness witness
	home    interface{ enqueue(*Task) } // the loop of the socket that it began with
	gate    atomic.Pointer[waiter]      // of Pause: nil, ready, or its own
}

// NewTask returns a task for the goroutine that calls it.
func NewTask() *Task {
	t := &Task{alone: true}
	t.self.task = t
	return t
}

// run resumes the coroutine, or begins it, until it waits or ends.
func (t *Task) run(looped bool) {
	t.mu.Lock()
	if f := t.begin; f != nil {
		t.begin, t.alone = nil, false
		t.next, _ = iter.Pull(func(yield func(struct{}) bool) {
			t.yield = yield
			t.witness.begins()
			_ = panics.Catch(panics.Session, func() error { f(); return nil }, nil) // the loop has others
		})
	}
	t.looped, t.leaves, t.reads = looped, false, 0
	_, more := t.next()
	leaves := more && t.leaves
	t.mu.Unlock()
	if leaves {
		go t.run(false)
	}
}

// Leave lets the task block: from here on it is an ordinary goroutine.
func (t *Task) Leave() {
	if t == nil || t.alone {
		return
	}
	t.alone = true
	if t.looped {
		t.leaves = true
		t.yield(struct{}{})
	}
}

// Return undoes Leave, from the next wait on.
func (t *Task) Return() {
	if t != nil && t.yield != nil {
		t.alone = false
	}
}

// CanPause says whether a loop runs the task. Else it waits as goroutines do.
func (t *Task) CanPause() bool { return t != nil && !t.alone }

// Pause waits for a Resume. One that came before counts, so what is waited for must be looked at again.
func (t *Task) Pause() {
	if !t.gate.CompareAndSwap(ready, nil) && t.gate.CompareAndSwap(nil, waiterOf(t)) {
		t.self.park()
		t.gate.Store(nil)
	}
}

// Resume ends the task's Pause, or its next one. Any goroutine may call it.
func (t *Task) Resume() {
	if t == nil {
		return
	}
	switch w := t.gate.Swap(ready); {
	case w == nil || w == ready:
	case w.yields:
		t.home.enqueue(t)
	default:
		w.ch <- struct{}{}
	}
}

// maxReads is how often a task may read without a wait between before it leaves its loop: who has so much to do must not keep the
// others waiting.
const maxReads = 32

// hasRead counts.
func (t *Task) hasRead() {
	if t.reads++; t.reads > maxReads {
		t.Leave()
	}
}

// waiter is who waits at a side of a socket: a coroutine that has yielded, or a goroutine.
type waiter struct {
	task   *Task
	yields bool
	ch     chan struct{} // of a goroutine: one value for each wait
}

// ready stands in the place of a waiter when the socket is ready and nobody waits.
var ready = &waiter{}

// waiterOf prepares a wait of t, or for nil of the calling goroutine.
func waiterOf(t *Task) *waiter {
	if t == nil {
		return &waiter{ch: make(chan struct{}, 1)}
	}
	w := &t.self
	if w.yields = !t.alone; !w.yields && w.ch == nil {
		w.ch = make(chan struct{}, 1)
	}
	return w
}

func (w *waiter) park() {
	if w.yields {
		w.task.yield(struct{}{})
		return
	}
	<-w.ch
}
