package instance

import (
	"testing"
	"time"
)

// Two processes, of which one's clock has jumped, choose the same victim of a deadlock.
func TestProcessesAgreeWhoIsYounger(t *testing.T) {
	began := time.Now()
	after := began.Add(time.Second)                                                         // both are this process's clients
	sent := func(x time.Time, jump time.Duration) time.Time { return x.Round(0).Add(jump) } // as another process hears of them
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour} {
		here := began.Add(jump) // what a clock that has jumped between them gives: the stamp, and not the monotonic reading, is other
		if younger(here, after, 1, 2) != younger(sent(began, jump), sent(after, 0), 1, 2) {
			t.Errorf("with a jump of %s they do not agree", jump)
		}
	}
	if younger(began, began, 1, 2) || !younger(began, began, 2, 1) {
		t.Error("of two of the same moment the later client is younger")
	}
}
