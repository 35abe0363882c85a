// Package filestore keeps the shard map in one JSON file.
//
// A save writes a temporary file, syncs it, renames it over the old one and syncs the folder, under a
// file lock that is held only while saving; so a reader sees the old or the new map, never a part. The
// last versions are kept beside it. Who sets up a new map has another lock, in the file .setup.
package filestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

const keepVersions = 10

// Store is a shardmap.Store in a file. Other processes on the host may use the same file.
type Store struct {
	path     string
	poll     time.Duration
	patience time.Duration // for the lock
}

var _ shardmap.Store = (*Store)(nil)

// New returns a store for the file at path, which need not exist yet. Changes by other processes are
// seen within a quarter of a second.
func New(path string) *Store {
	return &Store{path: path, poll: 250 * time.Millisecond, patience: lockWait}
}

// Load returns the document, or nil when there is no file. A damaged file is an error that names the
// file, the line and the newest version that can still be read.
func (s *Store) Load(context.Context) (*shardmap.Document, error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the shard map: %w", err)
	}
	return s.decode(b)
}

func (s *Store) decode(b []byte) (*shardmap.Document, error) {
	doc := &shardmap.Document{}
	err := json.Unmarshal(b, doc)
	if err == nil && doc.Install == "" {
		err = errors.New("it names no install")
	}
	if err == nil {
		return doc, nil
	}
	line := 1
	var syn *json.SyntaxError
	if errors.As(err, &syn) {
		line += strings.Count(string(b[:min(int(syn.Offset), len(b))]), "\n")
	}
	return nil, fmt.Errorf("the shard map %s is damaged at line %d: %w; the newest good version is %s: check it and copy it over", s.path, line, err, s.lastGood())
}

func (s *Store) lastGood() string {
	versions, _ := s.History(context.Background())
	for i := len(versions) - 1; i >= 0; i-- {
		name := s.versionPath(versions[i])
		if b, err := os.ReadFile(name); err == nil && json.Valid(b) {
			return name
		}
	}
	return "(none)"
}

func (s *Store) versionPath(v uint64) string { return fmt.Sprintf("%s.v%d", s.path, v) }

// Save implements shardmap.Store. An error other than of the comparison is a *shardmap.StoreError: the map is what it was.
func (s *Store) Save(ctx context.Context, prev uint64, doc *shardmap.Document) error {
	err := s.save(ctx, prev, doc)
	if err == nil || errors.Is(err, shardmap.ErrConflict) {
		return err
	}
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
	return &shardmap.StoreError{Full: full, Err: err}
}

func (s *Store) save(ctx context.Context, prev uint64, doc *shardmap.Document) (err error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("save the shard map: %w", err)
	}
	lock, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the shard map: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // closing drops the lock
	if err := s.lock(ctx, lock); err != nil {
		return err
	}
	cur, err := s.Load(ctx)
	if err != nil {
		return err
	}
	if cur != nil && cur.Version != prev || cur == nil && prev != 0 {
		return shardmap.ErrConflict
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("save the shard map: %w", err)
	}
	b = append(b, '\n')
	if err := writeSynced(s.versionPath(doc.Version), b); err != nil {
		return err
	}
	if err := writeSynced(s.path, b); err != nil {
		_ = os.Remove(s.versionPath(doc.Version)) // it was never in force
		return err
	}
	s.prune()
	return nil
}

// Alone waits until no other process on the host sets up the map of this file, or ctx ends; busy is called once if one does. done, or the end
// of the process, lets the next one. It keeps nobody from saving.
func (s *Store) Alone(ctx context.Context, busy func()) (done func(), err error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return nil, fmt.Errorf("set up the shard map: %w", err)
	}
	f, err := os.OpenFile(s.path+".setup", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("set up the shard map: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing drops the lock
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("set up the shard map: %w", err), f.Close())
		}
		if busy != nil {
			busy()
			busy = nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(s.poll):
		}
	}
}

// lockWait bounds how long the lock is waited for: who has it may have been stopped while it saved.
const lockWait = 10 * time.Second

func (s *Store) lock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock the shard map: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock the shard map: another process has held %s for %s", f.Name(), s.patience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func writeSynced(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (s *Store) prune() {
	versions, _ := s.History(context.Background())
	for len(versions) > keepVersions {
		_ = os.Remove(s.versionPath(versions[0])) // only a spare copy
		versions = versions[1:]
	}
}

// History implements shardmap.Store: the versions kept beside the file, oldest first.
func (s *Store) History(context.Context) ([]uint64, error) {
	names, err := filepath.Glob(s.path + ".v*")
	if err != nil {
		return nil, fmt.Errorf("list map versions: %w", err)
	}
	var out []uint64
	for _, n := range names {
		if v, err := strconv.ParseUint(strings.TrimPrefix(n, s.path+".v"), 10, 64); err == nil {
			out = append(out, v)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out, nil
}

// Watch implements shardmap.Store by looking at the file's identity a few times a second.
func (s *Store) Watch(ctx context.Context, changed func(*shardmap.Document, error)) error {
	tick := time.NewTicker(s.poll)
	defer tick.Stop()
	var last os.FileInfo
	for {
		fi, err := os.Stat(s.path)
		switch {
		case err == nil && last != nil && os.SameFile(last, fi) && fi.ModTime().Equal(last.ModTime()):
		case err == nil:
			if doc, err := s.Load(ctx); doc != nil || err != nil {
				last = fi
				changed(doc, err)
			}
		case last != nil: // before the first map there is no file
			last = nil
			changed(nil, fmt.Errorf("the shard map's file is gone: %w", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
