// Package storetest says what a store of shard maps must do: every store runs the same suite.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Place is where a new and empty store is.
type Place struct {
	// Open makes another handle of it, as another process has one.
	Open func() shardmap.Store
	// Spoil makes what is stored unreadable, and Mend puts the newest map back, which is readable again.
	Spoil, Mend func()
}

// patience is how long a watcher may take to see a change.
const patience = 30 * time.Second

// Run runs the suite. place makes a place of its own for each test.
func Run(t *testing.T, place func(t *testing.T) Place) {
	for _, x := range []struct {
		name string
		test func(*testing.T, Place)
	}{
		{"an empty store has no map", empty},
		{"a save compares and swaps", compareAndSwap},
		{"of writers that race one wins", race},
		{"no change is lost", nothingLost},
		{"what was handed out is the caller's", copies},
		{"watchers see each writer", watch},
		{"a watcher sees the map that is there", watchFromBehind},
		{"what cannot be read is told once, and is not overwritten", spoilt},
		{"the history ends with the newest version", history},
		{"catalogs follow one another", catalogs},
		{"a save ends with its context", cancelled},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			x.test(t, place(t))
		})
	}
}

// doc is a map of a version, which shows in its content.
func doc(version uint64) *shardmap.Document {
	return &shardmap.Document{Version: version, Install: "i", Databases: []*shardmap.Database{{Name: fmt.Sprint("d", version)}}}
}

func save(t *testing.T, s shardmap.Store, prev uint64) {
	t.Helper()
	if err := s.Save(t.Context(), prev, doc(prev+1)); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, s shardmap.Store, version uint64) {
	t.Helper()
	d, err := s.Load(t.Context())
	if err != nil || d == nil || d.Version != version || len(d.Databases) != 1 || d.Databases[0].Name != fmt.Sprint("d", version) {
		t.Errorf("the store holds %+v, %v; want version %d", d, err, version)
	}
}

func empty(t *testing.T, p Place) {
	if d, err := p.Open().Load(t.Context()); d != nil || err != nil {
		t.Errorf("%+v, %v", d, err)
	}
	if h, err := p.Open().History(t.Context()); len(h) != 0 || err != nil {
		t.Errorf("%v, %v", h, err)
	}
	if err := p.Open().Save(t.Context(), 7, doc(8)); !errors.Is(err, shardmap.ErrConflict) {
		t.Errorf("a change of a map that is not there: %v", err)
	}
}

func compareAndSwap(t *testing.T, p Place) {
	a, b := p.Open(), p.Open()
	save(t, a, 0)
	holds(t, b, 1)
	if err := b.Save(t.Context(), 0, doc(1)); !errors.Is(err, shardmap.ErrConflict) {
		t.Errorf("a second first map: %v", err)
	}
	save(t, b, 1)
	for _, prev := range []uint64{0, 1, 3} {
		if err := a.Save(t.Context(), prev, doc(9)); !errors.Is(err, shardmap.ErrConflict) {
			t.Errorf("a change of version %d: %v", prev, err)
		}
	}
	holds(t, a, 2)
}

func race(t *testing.T, p Place) {
	save(t, p.Open(), 0)
	var wg sync.WaitGroup
	won := make(chan int, 20)
	for i := range 20 {
		wg.Go(func() {
			switch err := p.Open().Save(t.Context(), 1, doc(2)); {
			case err == nil:
				won <- i
			case !errors.Is(err, shardmap.ErrConflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d of 20 racing writers won", len(won))
	}
	holds(t, p.Open(), 2)
}

// nothingLost: writers that try again after a conflict, as catalogs do, all get their change in.
func nothingLost(t *testing.T, p Place) {
	const writers, each = 4, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			s := p.Open()
			for i := range each {
				name := fmt.Sprintf("w%d_%d", w, i)
				for {
					d, err := s.Load(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					next := &shardmap.Document{Version: 1, Install: "i"}
					if d != nil {
						next.Version, next.Databases = d.Version+1, slices.Clone(d.Databases)
					}
					next.Databases = append(next.Databases, &shardmap.Database{Name: name})
					err = s.Save(t.Context(), next.Version-1, next)
					if err == nil {
						break
					}
					if !errors.Is(err, shardmap.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	d, err := p.Open().Load(t.Context())
	if err != nil || d.Version != writers*each || len(d.Databases) != writers*each {
		t.Errorf("version %d with %d databases, %v; want %d", d.Version, len(d.Databases), err, writers*each)
	}
}

func copies(t *testing.T, p Place) {
	s := p.Open()
	mine := doc(1)
	if err := s.Save(t.Context(), 0, mine); err != nil {
		t.Fatal(err)
	}
	mine.Databases[0].Name = "changed after the save"
	holds(t, s, 1)
	d, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.Databases[0].Name = "changed after the load"
	holds(t, s, 1)
}

// seen is what a watcher was told.
type seen struct {
	version uint64
	err     error
}

// watcher begins to watch; stop ends it.
func watcher(t *testing.T, s shardmap.Store) (changes <-chan seen, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan seen, 1000)
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, func(d *shardmap.Document, err error) {
			x := seen{err: err}
			if d != nil {
				x.version = d.Version
			}
			out <- x
		})
	}()
	return out, func() {
		t.Helper()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the end of a watch: %v", err)
			}
		case <-time.After(patience):
			t.Error("the watch does not end")
		}
	}
}

// await reads what is told until it is a version; versions between may be left out, and none comes after a newer one.
func await(t *testing.T, changes <-chan seen, version uint64) {
	t.Helper()
	last := uint64(0)
	for {
		select {
		case x := <-changes:
			if x.err != nil || x.version < last || x.version > version {
				t.Fatalf("told version %d behind %d, %v; want %d", x.version, last, x.err, version)
			}
			if last = x.version; last == version {
				return
			}
		case <-time.After(patience):
			t.Fatalf("version %d is not told", version)
		}
	}
}

func watch(t *testing.T, p Place) {
	s := p.Open()
	own, stopOwn := watcher(t, s)
	other, stopOther := watcher(t, p.Open())
	for v := range uint64(3) {
		save(t, s, v)
		await(t, own, v+1)
		await(t, other, v+1)
	}
	save(t, p.Open(), 3)
	await(t, own, 4)
	stopOwn()
	save(t, s, 4)
	await(t, other, 5)
	stopOther()
}

func watchFromBehind(t *testing.T, p Place) {
	for v := range uint64(3) {
		save(t, p.Open(), v)
	}
	changes, stop := watcher(t, p.Open())
	await(t, changes, 3)
	stop()
}

func spoilt(t *testing.T, p Place) {
	s := p.Open()
	save(t, s, 0)
	changes, stop := watcher(t, p.Open())
	await(t, changes, 1)
	p.Spoil()
	select {
	case x := <-changes:
		if x.err == nil {
			t.Errorf("told version %d", x.version)
		}
	case <-time.After(patience):
		t.Fatal("nothing is told of a map that cannot be read")
	}
	if _, err := s.Load(t.Context()); err == nil {
		t.Error("it is loaded")
	}
	if err := s.Save(t.Context(), 1, doc(2)); err == nil {
		t.Error("it is overwritten")
	}
	select {
	case x := <-changes:
		t.Errorf("told again: version %d, %v", x.version, x.err)
	case <-time.After(time.Second): // four looks of a store that polls
	}
	p.Mend()
	await(t, changes, 1)
	save(t, s, 1)
	await(t, changes, 2)
	stop()
}

func history(t *testing.T, p Place) {
	s := p.Open()
	for v := range uint64(20) {
		save(t, s, v)
	}
	h, err := p.Open().History(t.Context())
	if err != nil || len(h) == 0 || !slices.IsSorted(h) || h[len(h)-1] != 20 {
		t.Errorf("%v, %v", h, err)
	}
}

func catalogs(t *testing.T, p Place) {
	a, err := shardmap.Open(t.Context(), p.Open(), "one")
	if err != nil {
		t.Fatal(err)
	}
	b, err := shardmap.Open(t.Context(), p.Open(), "two")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	put := func(tx *shardmap.Tx) error { return tx.PutDatabase(shardmap.Database{Name: "shop"}) }
	if _, err := a.Change(t.Context(), true, put); err != nil || a.Current().Version != 0 {
		t.Fatal("a dry run changed the map", err)
	}
	if _, err := a.Change(t.Context(), false, put); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); b.Current().Version != 1 || b.Current().Install != "one"; {
		if time.Now().After(end) {
			t.Fatal("the other process does not see the change")
		}
		time.Sleep(5 * time.Millisecond)
	}
	bad := func(tx *shardmap.Tx) error { return tx.PutShard(shardmap.Shard{Database: "nosuch", Name: "s"}) }
	if _, err := a.Change(t.Context(), false, bad); err == nil || a.Current().Version != 1 {
		t.Error("an invalid map was accepted")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func cancelled(t *testing.T, p Place) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := p.Open()
	if err := s.Save(ctx, 0, doc(1)); err == nil { // it need not notice: then all of it was done
		holds(t, s, 1)
	} else if d, err := s.Load(t.Context()); d != nil || err != nil {
		t.Errorf("a save that failed left %+v, %v", d, err)
	}
}
