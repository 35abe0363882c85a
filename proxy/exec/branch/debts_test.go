package branch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// finishes counts what is finished, and fails as often as it is told to.
type finishes struct {
	mu   sync.Mutex
	fail int
	done []string
}

func (f *finishes) on(_ context.Context, _, shard, gid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail > 0 {
		f.fail--
		return errors.New("it is away")
	}
	f.done = append(f.done, shard+" "+gid)
	return nil
}

func TestADebtStaysUntilItIsPaid(t *testing.T) {
	var d Debts
	f := &finishes{fail: 1}
	pay := func(shard string) (string, error) { return d.Pay(t.Context(), "shop", shard, f.on) }
	if _, err := pay("s1"); err != nil || d.Has("shop", "s1") {
		t.Errorf("nothing is owed, and %v", err)
	}
	d.Owe("shop", "s1", "g1")
	d.Owe("shop", "s1", "g1")
	if !d.Has("shop", "s1") || d.Has("shop", "s2") || d.Has("other", "s1") {
		t.Error("it is owed on s1 of shop, and there alone")
	}
	if gid, err := pay("s1"); err == nil || gid != "g1" || !d.Has("shop", "s1") {
		t.Errorf("it was not finished, and %q, %v, owed %t", gid, err, d.Has("shop", "s1"))
	}
	if _, err := pay("s2"); err != nil || len(f.done) > 0 {
		t.Errorf("s2 owes nothing: %v, %v", err, f.done)
	}
	if gid, err := pay("s1"); err != nil || gid != "" || d.Has("shop", "s1") || d.any.Load() != 0 {
		t.Errorf("it was finished, and %q, %v, owed %t", gid, err, d.Has("shop", "s1"))
	}
}

// Whoever comes to a shard while another finishes what is owed there goes on behind that, and each transaction is finished once.
func TestNobodyRunsBeforeWhatIsOwed(t *testing.T) {
	var d Debts
	for _, gid := range []string{"g1", "g2", "g3"} {
		d.Owe("shop", "s1", gid)
	}
	f := &finishes{}
	var early atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := d.Pay(t.Context(), "shop", "s1", f.on); err != nil || d.Has("shop", "s1") {
				early.Add(1)
			}
		})
	}
	all.Wait()
	if early.Load() > 0 || len(f.done) != 3 {
		t.Errorf("%d came too early; finished: %v", early.Load(), f.done)
	}
}
