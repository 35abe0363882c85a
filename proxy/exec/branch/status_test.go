package branch

import (
	"fmt"
	"testing"
)

// panicked runs f and tells what it panics with.
func panicked(f func()) (why string) {
	defer func() {
		if r := recover(); r != nil {
			why = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}

var allStatuses = []Status{Idle, Active, Failed}

func TestATransactionChangesAsTheTableSays(t *testing.T) {
	for _, from := range allStatuses {
		for c := range changes {
			s := from
			why := panicked(func() { s.On(c) })
			to, ok := Statuses[from][c]
			switch {
			case ok && (why != "" || s != to):
				t.Errorf("%s, %s: it is %s, not %s: %s", from, c, s, to, why)
			case !ok && (why == "" || s != from):
				t.Errorf("%s, %s: it is %s, and nobody is told", from, c, s)
			}
		}
	}
}

// What a client is told is what PostgreSQL would tell it, whatever comes in whatever order.
func TestAStatusIsWhatPostgreSQLSays(t *testing.T) {
	type postgres struct{ block, aborted bool }
	does := map[Change]func(p postgres) (postgres, bool){
		Begin:  func(p postgres) (postgres, bool) { return postgres{block: true}, !p.block },
		Fail:   func(p postgres) (postgres, bool) { return postgres{true, true}, p.block && !p.aborted },
		Resume: func(p postgres) (postgres, bool) { return postgres{block: true}, p.block },
		End:    func(p postgres) (postgres, bool) { return postgres{}, p.block },
	}
	says := map[postgres]Status{{}: Idle, {block: true}: Active, {true, true}: Failed}
	var walk func(s Status, p postgres, left int)
	walk = func(s Status, p postgres, left int) {
		if says[p] != s {
			t.Fatalf("it is %s, and PostgreSQL's %s", s, says[p])
		}
		for c := range changes {
			next, can := does[c](p)
			if _, ok := Statuses[s][c]; ok != can {
				t.Fatalf("%s when %s: %v here, %v there", c, s, ok, can)
			}
			if can && left > 0 {
				after := s
				after.On(c)
				walk(after, next, left-1)
			}
		}
	}
	walk(Idle, postgres{}, 8)
}
