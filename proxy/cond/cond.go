// Package cond waits until something holds, without looking again and again: who changes it says so.
package cond

import (
	"context"
	"sync"
	"sync/atomic"
)

// Var is a condition variable whose waits end with a context. The zero value is ready for use, and must not be copied. Any goroutine may
// call its methods, whatever locks it has.
type Var struct {
	waiting atomic.Int32 // those in Wait, counted before they look
	mu      sync.Mutex   // guards changed; nothing else is done under it
	changed chan struct{}
}

// Changed must be called after every change by which a condition may come to hold. It costs a load while nobody waits.
func (v *Var) Changed() {
	if v.waiting.Load() == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
}

// Wait returns nil as soon as holds is true, or the context's error if that ends before. holds is called here, at first and after each
// change: what changes while it looks has it called again.
func (v *Var) Wait(ctx context.Context, holds func() bool) error {
	v.waiting.Add(1)
	defer v.waiting.Add(-1)
	for {
		changed := v.next()
		if holds() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// next is closed by the next change.
func (v *Var) next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.changed
}
