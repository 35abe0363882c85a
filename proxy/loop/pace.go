package loop

import "time"

// pace decides how a loop waits that has the only processor. With the others it can wait on Go's poller, which costs about as much as a statement's own work, or
// in the kernel by itself, which is cheap, but Go's scheduler is late to see that the processor is free meanwhile, and so is all that waits on its
// poller: logins, probes, timers. So a loop waits by itself only while its sockets have much to say, and looks after the others once in a window.
type pace struct {
	since  time.Duration // when the window began
	events int           // in it
	busy   bool          // the window before had enough of them
}

const (
	paceWindow = time.Millisecond
	paceEvents = 8 // a single client that asks as fast as it can makes 10 to 20
)

// alone says, for a wait that begins now, whether the loop waits by itself.
func (p *pace) alone(now time.Duration) bool {
	if d := now - p.since; d >= paceWindow {
		p.busy = time.Duration(p.events)*paceWindow >= paceEvents*d
		p.since, p.events = now, 0
		return false
	}
	return p.busy
}

// saw notes how many events a wait has brought.
func (p *pace) saw(n int) { p.events += n }
