package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// worlds are the demos that tests take turns on: two shards with a replica each, and the shop, loaded. A test has one to itself from its
// first call of shop to its end, so that parallel tests disturb each other no more than processes of one machine do. There are as many as
// tests have run at the same time.
var worlds struct {
	mu   sync.Mutex
	free []*demo // the last one given back is the first to be lent
	lent map[string]*loan
	dirs []string
	all  []*demo
}

// loan is a world in the hands of a test and its subtests.
type loan struct {
	once  sync.Once
	world *demo
	err   error
	users int
}

// shop lends the test a world.
func shop(t testing.TB) *demo {
	t.Helper()
	needServers(t)
	test, _, _ := strings.Cut(t.Name(), "/")
	worlds.mu.Lock()
	l := worlds.lent[test]
	if l == nil {
		l = &loan{}
		if worlds.lent == nil {
			worlds.lent = map[string]*loan{}
		}
		worlds.lent[test] = l
	}
	l.users++
	worlds.mu.Unlock()
	t.Cleanup(func() {
		worlds.mu.Lock()
		defer worlds.mu.Unlock()
		if l.users--; l.users > 0 {
			return
		}
		delete(worlds.lent, test)
		if l.world != nil {
			worlds.free = append(worlds.free, l.world)
		}
	})
	l.once.Do(func() { l.world, l.err = freeWorld() })
	if l.err != nil {
		t.Fatalf("the demo does not start: %v", l.err)
	}
	return l.world
}

// freeWorld is one that nobody has, or a new one.
func freeWorld() (*demo, error) {
	worlds.mu.Lock()
	if n := len(worlds.free); n > 0 {
		defer worlds.mu.Unlock()
		d := worlds.free[n-1]
		worlds.free = worlds.free[:n-1]
		return d, nil
	}
	worlds.mu.Unlock()
	dir, err := testDir()
	if err != nil {
		return nil, err
	}
	d, err := startCopy(context.Background(), showcase.Options{
		Dir: dir, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", Shards: 2, Replicas: 1,
		Customers: 2000, Orders: 8000, PoolSize: 20, Servers: testServers(),
		Monitor: 500 * time.Millisecond, // many worlds, many databases in each, and two processors
	})
	worlds.mu.Lock()
	defer worlds.mu.Unlock()
	worlds.dirs = append(worlds.dirs, dir)
	if err != nil { // one that does not start in time is no reason to start no other
		return nil, err
	}
	worlds.all = append(worlds.all, d)
	return d, nil
}

// stopWorlds stops them all, as an operator would.
func stopWorlds() error {
	errs := make([]error, len(worlds.all))
	var wg sync.WaitGroup
	for i, d := range worlds.all {
		wg.Go(func() { errs[i] = d.stop() })
	}
	wg.Wait()
	for _, dir := range worlds.dirs {
		cleanTestDir(dir)
	}
	return errors.Join(errs...)
}
