package cond

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// What changes between a look and the wait behind it is not missed.
func TestAChangeDuringALookIsSeen(t *testing.T) {
	var v Var
	looks := 0
	err := v.Wait(t.Context(), func() bool {
		looks++
		if looks < 3 {
			v.Changed()
			return false
		}
		return true
	})
	if err != nil || looks != 3 {
		t.Errorf("%d looks, error %v", looks, err)
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	var v Var
	ctx, cancel := context.WithCancel(t.Context())
	err := v.Wait(ctx, func() bool { cancel(); return false })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if n := v.waiting.Load(); n != 0 {
		t.Errorf("%d wait still", n)
	}
	if err := v.Wait(ctx, func() bool { return true }); err != nil {
		t.Errorf("what holds already is an error: %v", err)
	}
}

// Whatever the order in which many count down and many wait, each who waits sees the end: there is no other change behind the last.
func TestTheLastChangeReachesAll(t *testing.T) {
	for range 2000 {
		var v Var
		var left atomic.Int32
		left.Store(4)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				left.Add(-1)
				v.Changed()
			})
			wg.Go(func() {
				if err := v.Wait(t.Context(), func() bool { return left.Load() == 0 }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkChangedWithNobodyWaiting(b *testing.B) {
	var v Var
	for b.Loop() {
		v.Changed()
	}
}
