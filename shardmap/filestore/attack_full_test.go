//go:build attack && linux

package filestore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A disk that is full leaves the map as it was, with nothing beside it that was never in force; with room again it goes on.
func TestAttackFullDiskLeavesTheMapWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	small(t, dir)
	s := New(filepath.Join(dir, "map.json"))
	d := doc(1)
	d.Databases[0].Home = strings.Repeat("x", 20000)
	if err := s.Save(t.Context(), 0, d); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	filler := filepath.Join(dir, "filler")
	for free := 0; free < 40000; free += 4096 { // no room for the copy, then none for the map
		fill(t, filler, free)
		d.Version = 2
		err := s.Save(t.Context(), 1, d)
		var full interface{ SQLState() string }
		if free < 30000 && err == nil {
			t.Fatalf("with %d bytes free it was saved", free)
		}
		if err == nil {
			break
		}
		if !errors.As(err, &full) || full.SQLState() != "53100" {
			t.Errorf("with %d bytes free: %v", free, err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if now := listing(t, dir); now != before {
			t.Fatalf("with %d bytes free: there is\n%s, there was\n%s", free, now, before)
		}
		if got, err := s.Load(t.Context()); err != nil || got.Version != 1 {
			t.Fatalf("with %d bytes free: %v", free, err)
		}
	}
	_ = os.Remove(filler)
	if err := s.Save(t.Context(), 1, d); err != nil && !errors.Is(err, shardmap.ErrConflict) {
		t.Error(err)
	}
	if got, err := s.Load(t.Context()); err != nil || got.Version != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// small makes a folder one of a disk of 128 kB.
func small(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatalf("a disk that can be filled needs a mount, which root may: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill leaves so many bytes free on the disk of a file.
func fill(t *testing.T, file string, free int) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err == nil {
		err = f.Truncate(fi.Size() - int64(free))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// listing is what is in a folder, with the bytes of each file.
func listing(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range list {
		if e.Name() == "map.json.lock" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %d %x\n", e.Name(), len(b), sha256.Sum256(b))
	}
	return out.String()
}
