package loop

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// side is one direction of a socket: who waits for it, and until when.
type side struct {
	w       atomic.Pointer[waiter] // nil, ready, or who waits
	expired atomic.Bool            // the deadline has passed

	mu    sync.Mutex
	timer *time.Timer
}

// take returns who waits, if anybody does, and lets the next one who comes pass if the socket is ready. The caller must wake who is returned.
func (d *side) take(isReady bool) *waiter {
	for {
		w := d.w.Load()
		after, who := taken(w, isReady)
		if after == w || d.w.CompareAndSwap(w, after) {
			return who
		}
	}
}

// taken is what is in the place of w, nil, ready or a waiter, when the waiter is taken away, and the waiter, which must be woken.
func taken(w *waiter, isReady bool) (after, who *waiter) {
	if w == ready {
		return w, nil
	}
	if isReady {
		after = ready
	}
	return after, w
}

// seated is what is in the place of w when somebody comes to wait: itself, unless it need not, or somebody else waits.
func seated(w, who *waiter) (after *waiter, waits bool) {
	switch w {
	case ready:
		return nil, false
	case nil:
		return who, true
	default:
		return w, false
	}
}

// errBusy cannot happen: one goroutine reads a socket, and one writes it.
var errBusy = errors.New("loop: somebody else waits for the socket")

// enter puts w in its place, unless there is no need to wait: then waits is false.
func (s *Socket) enter(d *side, w *waiter) (waits bool, err error) {
	for {
		if err := s.barred(d); err != nil {
			return false, err
		}
		was := d.w.Load()
		after, waits := seated(was, w)
		if after == was {
			return false, errBusy
		}
		if !d.w.CompareAndSwap(was, after) {
			continue
		}
		if !waits {
			return false, nil
		}
		if s.barred(d) == nil || !d.w.CompareAndSwap(w, nil) { // what bars it from now on wakes w
			return true, nil
		}
	}
}

// wait returns when the socket is ready, or the deadline has passed, or it has been closed.
func (s *Socket) wait(d *side, t *Task) error {
	for {
		w := waiterOf(t)
		waits, err := s.enter(d, w)
		if !waits {
			return err
		}
		w.park()
	}
}

// barred says why the socket cannot be used, or is nil.
func (s *Socket) barred(d *side) error {
	if s.fd.isClosed() {
		return errClosed
	}
	if d.expired.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// setDeadline is net.Conn's, for one side.
func (s *Socket) setDeadline(d *side, at time.Time) error {
	d.mu.Lock()
	if s.fd.isClosed() { // Close has stopped the timer, or is about to
		d.mu.Unlock()
		return errClosed
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	left := time.Until(at)
	d.expired.Store(!at.IsZero() && left <= 0)
	if !at.IsZero() && left > 0 {
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			d.mu.Lock()
			current := d.timer == timer
			if current {
				d.expired.Store(true)
			}
			d.mu.Unlock()
			if current {
				s.rouse(d)
			}
		})
		d.timer = timer
	}
	d.mu.Unlock()
	if d.expired.Load() {
		s.rouse(d)
	}
	return nil
}

// stopTimer is for a socket that is closed.
func (d *side) stopTimer() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// rouse wakes who waits, though the socket is not ready.
func (s *Socket) rouse(d *side) {
	if w := d.take(false); w != nil {
		s.loop.wake(w)
	}
}
