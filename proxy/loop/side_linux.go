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
	var next *waiter
	if isReady {
		next = ready
	}
	for {
		w := d.w.Load()
		if w == ready || w == nil && !isReady {
			return nil
		}
		if d.w.CompareAndSwap(w, next) {
			return w
		}
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
		if d.w.CompareAndSwap(ready, nil) {
			return false, nil
		}
		if !d.w.CompareAndSwap(nil, w) {
			if d.w.Load() == ready {
				continue
			}
			return false, errBusy
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
	if s.refs.Load()&closing != 0 {
		return errClosed
	}
	if d.expired.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// setDeadline is net.Conn's, for one side.
func (s *Socket) setDeadline(d *side, at time.Time) {
	d.mu.Lock()
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
