package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

func doc(version uint64) *shardmap.Document {
	return &shardmap.Document{Version: version, Install: "i", Databases: []*shardmap.Database{{Name: fmt.Sprint("d", version)}}}
}

func TestSaveComparesAndSwaps(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "map.json")
	a, b := New(path), New(path)
	if d, err := a.Load(ctx); d != nil || err != nil {
		t.Fatal(d, err)
	}
	if err := a.Save(ctx, 0, doc(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Save(ctx, 0, doc(1)); !errors.Is(err, shardmap.ErrConflict) {
		t.Errorf("error %v", err)
	}
	var wg sync.WaitGroup
	won := make(chan int, 20)
	for i := range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if New(path).Save(ctx, 1, doc(2)) == nil {
				won <- i
			}
		}()
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d of 20 racing writers won", len(won))
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: the file may hold passwords", fi.Mode())
	}
	for v := uint64(2); v < 30; v++ {
		if err := a.Save(ctx, v, doc(v+1)); err != nil {
			t.Fatal(err)
		}
	}
	if h, _ := a.History(ctx); len(h) != keepVersions || h[len(h)-1] != 30 {
		t.Errorf("history %v", h)
	}
}

func TestDamagedFileIsRefusedWithItsLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.json")
	s := New(path)
	if err := s.Save(t.Context(), 0, doc(1)); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if err := os.WriteFile(path, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Load(t.Context())
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "line ") || !strings.Contains(err.Error(), ".v1") {
		t.Errorf("error %v", err)
	}
	if err := s.Save(t.Context(), 1, doc(2)); err == nil {
		t.Error("a damaged file was overwritten")
	}
}

func TestWatchSeesOtherProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.json")
	s := New(path)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan uint64, 10)
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, func(d *shardmap.Document, err error) {
			if err != nil {
				t.Error(err)
				return
			}
			seen <- d.Version
		})
	}()
	for v := uint64(0); v < 3; v++ {
		if err := New(path).Save(ctx, v, doc(v+1)); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-seen:
			if got != v+1 {
				t.Errorf("saw version %d, want %d", got, v+1)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the change was not seen")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCatalogPublishesByWatch(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "map.json")
	a, err := shardmap.Open(ctx, New(path), "one")
	if err != nil {
		t.Fatal(err)
	}
	b, err := shardmap.Open(ctx, New(path), "two")
	if err != nil {
		t.Fatal(err)
	}
	rctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.Run(rctx) }()
	put := func(tx *shardmap.Tx) error { return tx.PutDatabase(shardmap.Database{Name: "shop"}) }
	if _, err := a.Change(ctx, true, put); err != nil || a.Current().Version != 0 {
		t.Fatal("a dry run changed the map", err)
	}
	if _, err := a.Change(ctx, false, put); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); b.Current().Version != 1 || b.Current().Install != "one"; {
		if time.Now().After(end) {
			t.Fatal("the other process does not see the change")
		}
		time.Sleep(5 * time.Millisecond)
	}
	bad := func(tx *shardmap.Tx) error { return tx.PutShard(shardmap.Shard{Database: "nosuch", Name: "s"}) }
	if _, err := a.Change(ctx, false, bad); err == nil || a.Current().Version != 1 {
		t.Error("an invalid map was accepted")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who holds the lock and does not go on holds nobody up for ever.
func TestStoppedHolderOfTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.json")
	s := New(path)
	s.patience = 50 * time.Millisecond
	f, err := os.Create(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var told interface{ SQLState() string }
	if err := s.Save(t.Context(), 0, doc(1)); !errors.As(err, &told) || told.SQLState() != "58030" || !strings.Contains(err.Error(), path+".lock") {
		t.Errorf("error %v", err)
	}
	_ = f.Close()
	if err := s.Save(t.Context(), 0, doc(1)); err != nil {
		t.Error(err)
	}
}

// A store that has gone back to an older map is told: every change would meet a conflict, without an end.
func TestOlderMapInTheStoreIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.json")
	c, err := shardmap.Open(t.Context(), New(path), "one")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 10)
	c.OnTrouble = func(err error) { told <- err }
	for _, name := range []string{"a", "b"} {
		if _, err := c.Change(t.Context(), false, func(tx *shardmap.Tx) error { return tx.PutDatabase(shardmap.Database{Name: name}) }); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	next := func() error {
		select {
		case err := <-told:
			return err
		case <-time.After(time.Minute):
			t.Fatal("nothing is told")
		}
		return nil
	}
	put := func(v int) {
		b, err := os.ReadFile(fmt.Sprintf("%s.v%d", path, v))
		if err == nil {
			err = writeSynced(path, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	if err := next(); err == nil || !strings.Contains(err.Error(), "version 1 of the shard map, and version 2 is in force") {
		t.Errorf("told %v", err)
	}
	put(2)
	if err := next(); err != nil {
		t.Errorf("told %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
