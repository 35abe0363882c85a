package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/storetest"
)

func doc(version uint64) *shardmap.Document {
	return &shardmap.Document{Version: version, Install: "i", Databases: []*shardmap.Database{{Name: fmt.Sprint("d", version)}}}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Place {
		path := filepath.Join(t.TempDir(), "map.json")
		var good []byte
		write := func(b []byte) {
			if err := writeSynced(path, b); err != nil {
				t.Fatal(err)
			}
		}
		return storetest.Place{
			Open: func() shardmap.Store { return New(path) },
			Spoil: func() {
				var err error
				if good, err = os.ReadFile(path); err != nil {
					t.Fatal(err)
				}
				write(good[:len(good)/2])
			},
			Mend: func() { write(good) },
		}
	})
}

func TestOwnerAloneReadsTheFileAndSomeVersionsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.json")
	s := New(path)
	for v := range uint64(30) {
		if err := s.Save(t.Context(), v, doc(v+1)); err != nil {
			t.Fatal(err)
		}
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: the file may hold passwords", fi.Mode())
	}
	if h, _ := s.History(t.Context()); len(h) != keepVersions {
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

func TestMapsAreSupersededByNewerOnesAlone(t *testing.T) {
	c, err := shardmap.Open(t.Context(), New(filepath.Join(t.TempDir(), "map.json")), "i")
	if err != nil {
		t.Fatal(err)
	}
	over := func(s *shardmap.Snapshot) bool {
		select {
		case <-s.Superseded():
			return true
		default:
			return false
		}
	}
	was := c.Current()
	put := func(tx *shardmap.Tx) error { return tx.PutDatabase(shardmap.Database{Name: "d"}) }
	if _, err := c.Change(t.Context(), true, put); err != nil || over(was) {
		t.Fatalf("after a dry run: %v, superseded %v", err, over(was))
	}
	if _, err := c.Change(t.Context(), false, func(*shardmap.Tx) error { return errors.New("no") }); err == nil || over(was) {
		t.Fatalf("after a change that failed: %v, superseded %v", err, over(was))
	}
	if _, err := c.Change(t.Context(), false, put); err != nil || !over(was) || over(c.Current()) {
		t.Fatalf("after a change: %v, the old one superseded %v, the new one %v", err, over(was), over(c.Current()))
	}
}

func TestOneProcessSetsUpAMap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "map.json")
	done, err := New(path).Alone(t.Context(), func() { t.Error("nobody else is at it") })
	if err != nil {
		t.Fatal(err)
	}
	if err := New(path).Save(t.Context(), 0, doc(1)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := New(path).Alone(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	busy := make(chan struct{})
	got := make(chan error, 1)
	go func() {
		done, err := New(path).Alone(t.Context(), func() { close(busy) })
		if err == nil {
			done()
		}
		got <- err
	}()
	<-busy
	done()
	if err := <-got; err != nil {
		t.Error(err)
	}
}
