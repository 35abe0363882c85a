package loop

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p pace
	now := time.Second
	turn := func(every time.Duration, n int, turns int) (alone int) {
		for range turns {
			if p.alone(now) {
				alone++
			}
			p.saw(n)
			now += every
		}
		return alone
	}
	if got := turn(200*time.Microsecond, 1, 1000); got != 0 {
		t.Errorf("a client that thinks: the loop waited by itself %d times", got)
	}
	if got := turn(20*time.Microsecond, 2, 1000); got < 900 || got > 980 {
		t.Errorf("many clients: it did so %d times of 1000, and must look after the others once in a window", got)
	}
	now += time.Hour
	if turn(time.Second, 1, 10) != 0 {
		t.Error("it waited by itself after an hour of silence")
	}
}
