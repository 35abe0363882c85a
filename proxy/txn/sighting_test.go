package txn

import (
	"testing"
	"time"
)

// How long something has been there is what this process has seen of it, and what has not been seen for long begins anew.
func TestSightings(t *testing.T) {
	var s sightings
	start := time.Now()
	at := func(after time.Duration) time.Time { return start.Add(after) }
	open := func(list ...string) map[string]bool {
		m := map[string]bool{}
		for _, x := range list {
			m[x] = true
		}
		return m
	}
	for i, x := range []struct {
		now  time.Duration
		what string
		age  time.Duration
	}{{0, "a", 0}, {time.Second, "a", time.Second}, {time.Second, "b", 0}, {time.Hour, "a", time.Hour}} {
		if got := s.age(x.what, at(x.now)); got != x.age {
			t.Errorf("%d: %s is %s old, not %s", i, x.what, got, x.age)
		}
	}
	s.forget(at(time.Minute))
	if a, b := s.age("a", at(2*time.Hour)), s.age("b", at(2*time.Hour)); a != 2*time.Hour || b != 0 {
		t.Errorf("after forgetting: %s, %s", a, b)
	}
	for i, x := range []struct {
		now   time.Duration
		open  map[string]bool
		ended bool
	}{
		{0, open("7 10:00", "8 09:00"), false},
		{1, open("8 09:00", "9 08:00"), false}, // one that has begun since does not matter, whatever its stamp
		{2, open("7 10:01", "9 08:00"), true},  // the other's process is at its next one
		{3, open("7 10:00", "8 09:00"), true},  // what has ended does not come back
	} {
		if age, ended := s.outlived("abort", at(x.now), x.open); age != x.now || ended != x.ended {
			t.Errorf("%d: %s old, all have ended: %t", i, age, ended)
		}
	}
}
