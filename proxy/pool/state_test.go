package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
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

func TestServersChangeStateAsTheTableSays(t *testing.T) {
	p := NewManager(Options{Verify: Unasked("a test")}).Pool("shop", "s1", "s1-a", "host=node.test", "app")
	for from := Leased; from <= Closed; from++ {
		for to := Leased; to <= Closed; to++ {
			s := &Server{Pool: p}
			s.state.Store(uint32(from))
			why := panicked(func() { become(s, to) })
			if want := slices.Contains(Transitions[from], to); want != (why == "") {
				t.Errorf("from %s to %s: %q", from, to, why)
			}
			if why != "" && s.State() != from {
				t.Errorf("from %s to %s: it is %s", from, to, s.State())
			}
		}
	}
}

// Who gives a server back that is not leased is at fault, and the pool is as it was: no server is there twice, and no lease is counted back twice.
func TestAServerIsGivenBackOnce(t *testing.T) {
	for _, dirty := range []bool{false, true} {
		p := NewManager(Options{Verify: Unasked("a test")}).Pool("shop", "s1", "s1-a", "host=node.test", "app")
		s := saying(t)
		s.Pool, s.settings, s.TxStatus, s.dialed, s.Dirty = p, NoSettings, 'I', time.Now(), dirty
		p.active, p.all[s] = 2, struct{}{} // another's lease, too
		s.Park()
		s.Release(time.Time{})
		before := p.Stats()
		if why := panicked(func() { s.Release(time.Time{}) }); !strings.Contains(why, "given back") {
			t.Errorf("it is given back twice: %q", why)
		}
		if after := p.Stats(); after.Active != 1 || after.Active != before.Active || after.Idle != before.Idle {
			t.Errorf("before %+v, after %+v", before, after)
		}
	}
}

// The number of statements that SHOW SERVERS tells is that of the server's books, whatever takes one off them.
func TestStatementsOffTheBooksAreNotCounted(t *testing.T) {
	m := NewManager(Options{Verify: Unasked("a test"), MaxPrepared: 5})
	s := &Server{Pool: m.Pool("shop", "s1", "s1-a", "host=node.test", "app")}
	s.ForgetAll()
	for i := range uint64(4) {
		s.Prepare(StmtKey{1, i})
	}
	s.Forget(StmtKey{1, 0})
	forgetMissing(s, "pgmosaic_2 pgmosaic_3")
	s.Drop(StmtKey{1, 1})
	if n := s.count.Load(); n != 1 || s.lru.Len() != 1 {
		t.Errorf("%d are counted, %d are on the books", n, s.lru.Len())
	}
}
