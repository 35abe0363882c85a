package txn

import (
	"fmt"
	"runtime"
	"strings"
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
		s.opened("s1", at(x.now), x.open)
		s.opened("s2", at(x.now), open("1 01:00"))
		if age, ended := s.outlived("s1", "abort", at(x.now)); age != x.now || ended != x.ended {
			t.Errorf("%d: %s old, all have ended: %t", i, age, ended)
		}
	}
}

// However much there is on nodes, little of it is remembered; what there is no room for waits.
func TestSightingsAreBounded(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	start := time.Now()
	before := heap()
	var s sightings
	open := map[string]bool{}
	for i := range 500 {
		open[fmt.Sprint(i, " 1234567890.123456")] = true
	}
	s.opened("s1", start, open)
	for i := range 5000 {
		if _, ended := s.outlived("s1", fmt.Sprint("abort ", i), start); ended {
			t.Fatal("a transaction of before has not ended")
		}
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("5000 aborts with 500 transactions open hold %d MB", grown>>20)
	}
	name := strings.Repeat("long", 50)
	for i := range mostSighted * 3 / 2 {
		s.age(fmt.Sprint(name, i), start)
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("%d things hold %d MB", mostSighted*3/2, grown>>20)
	}
	later := start.Add(time.Minute)
	if age := s.age(name+"0", later); age != time.Minute {
		t.Errorf("what was seen first is %s old", age)
	}
	if age := s.age(fmt.Sprint(name, mostSighted*3/2-1), later); age != 0 {
		t.Errorf("what there was no room for is %s old", age)
	}
	s.forget(later)
	s.age("new", later)
	if age := s.age("new", later.Add(time.Second)); age != time.Second {
		t.Errorf("with room again, %s", age)
	}
	s.gone([]string{"new"})
	if age := s.age("new", later.Add(time.Hour)); age != 0 {
		t.Errorf("what is gone is %s old", age)
	}
	runtime.KeepAlive(&s)
}
