package pool

import "testing"

// A process is the primary's, though a replica whose name comes first has one of the same number: in containers that is usual.
func TestProcessesAreThePrimarys(t *testing.T) {
	primary := "host=b.test"
	m := NewManager(Options{Verify: Unasked("a test"), Primary: func(string, string) string { return primary }})
	for i, n := range []string{"a", "b"} {
		s := saying(t)
		s.Pool, s.PID = m.Pool("shop", "s1", "s1-"+n, "host="+n+".test", "app"), 77
		s.Lend(uint32(i + 1))
		s.Pool.all[s] = struct{}{}
	}
	for _, x := range []struct {
		primary string
		want    uint32
	}{{"host=b.test", 2}, {"host=a.test", 1}, {"host=c.test", 0}, {"", 0}} {
		primary = x.primary
		if now, last := m.ClientOf("shop", "s1", 77), m.LastClient("shop", "s1", 77); now != x.want || last != x.want {
			t.Errorf("with %q as the primary they are %d and %d, not %d", primary, now, last, x.want)
		}
	}
}
