package branch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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

// While one pays, the others wait for what he finds, each as long as he likes; nobody waits longer than for one payment, and who owes something waits
// for nobody.
func TestNobodyWaitsForMoreThanOnePayment(t *testing.T) {
	for name, c := range map[string]struct {
		takes  time.Duration // what is asked takes so long, or as long as it may
		leaves int           // so many of them leave after a second, the first one among them
		want   time.Duration // how long the others wait
		paid   bool
	}{
		"a shard that is frozen":                 {time.Hour, 0, PayWithin, false},
		"a shard that is slow":                   {3 * time.Second, 0, 3 * time.Second, true},
		"a shard that is slow, and one leaves":   {3 * time.Second, 1, 3 * time.Second, true},
		"a shard that is frozen, and some leave": {time.Hour, 4, PayWithin, false},
		"a shard that is slow, and all leave":    {3 * time.Second, 8, time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d Debts
				d.Owe("shop", "s1", "g1")
				var asked atomic.Int32
				finish := func(ctx context.Context, _, _, gid string) error {
					asked.Add(1)
					if gid == "g2" {
						return nil
					}
					select {
					case <-time.After(c.takes):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				begun := time.Now()
				var all sync.WaitGroup
				for i := range 8 {
					ctx, want := t.Context(), c.want
					if i < c.leaves {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(t.Context(), time.Second)
						defer cancel()
						want = time.Second
					}
					all.Go(func() {
						gid, err := d.Pay(ctx, "shop", "s1", finish)
						if took := time.Since(begun); took != want || (err == nil) != (c.paid && want > time.Second) || (gid == "") != (err == nil) {
							t.Errorf("number %d is told %q, %v after %s", i, gid, err, took)
						}
					})
					synctest.Wait()
				}
				d.Owe("shop", "s2", "g2")
				if c.leaves == 0 {
					d.Owe("shop", "s1", "g2")
				}
				if took := time.Since(begun); took != 0 {
					t.Errorf("who owes waits for %s", took)
				}
				all.Wait()
				time.Sleep(PayWithin)
				if d.Has("shop", "s1") == c.paid || asked.Load() > 2 {
					t.Errorf("it is owed: %t, asked %d times", d.Has("shop", "s1"), asked.Load())
				}
			})
		})
	}
}

// What panics while it is finished stays owed, and nobody waits for it.
func TestAPaymentThatPanics(t *testing.T) {
	var d Debts
	d.Owe("shop", "s1", "g1")
	if gid, err := d.Pay(t.Context(), "shop", "s1", func(context.Context, string, string, string) error { panic("a fault") }); gid != "g1" || err == nil || !d.Has("shop", "s1") {
		t.Errorf("%q, %v, owed %t", gid, err, d.Has("shop", "s1"))
	}
	f := &finishes{}
	if _, err := d.Pay(t.Context(), "shop", "s1", f.on); err != nil || d.Has("shop", "s1") {
		t.Errorf("%v, owed %t", err, d.Has("shop", "s1"))
	}
}
