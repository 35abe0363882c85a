package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// init_sql is one change of an empty map. It cannot be one transaction, since it makes things on servers; so the map notes how far it is,
// is not used before it is done, and a start that finds it half done goes on with it.

// setUp runs what init_sql has not done yet.
func (a *app) setUp(ctx context.Context) error {
	var steps []string
	for _, s := range append(admin.SplitStatements(a.cfg.InitSQL), a.cfg.initSteps...) {
		if strings.TrimSpace(s) != "" {
			steps = append(steps, s)
		}
	}
	now := a.catalog.Current()
	at, err := resume(now.Document.Setup, now.Version, steps)
	if err != nil || at == len(steps) && now.Document.Setup == nil {
		return err
	}
	if now.Document.Setup == nil {
		if err := a.catalog.SetUp(ctx, setupAt(steps, 0)); err != nil {
			return err
		}
	}
	for i := at; i < len(steps); i++ {
		if _, err := a.admin.Exec(ctx, steps[i], false); err != nil && !(i == at && isThere(err)) {
			return fmt.Errorf("setting up the shard map: %w", err)
		}
		if err := a.catalog.SetUp(ctx, setupAt(steps, i+1)); err != nil {
			return err
		}
	}
	return a.catalog.SetUp(ctx, nil)
}

// resume is where to begin with the statements of init_sql: behind all of them for a map that has been set up.
func resume(s *shardmap.Setup, version uint64, steps []string) (int, error) {
	switch {
	case s == nil && version > 0:
		return len(steps), nil
	case s == nil:
		return 0, nil
	case s.Done > len(steps) || setupAt(steps, s.Done).Text != s.Text:
		return 0, fmt.Errorf("setting up the shard map: the first %d statements of init_sql are done, and are not what they were; give them back as they were, or remove the map of the store, which nobody has used yet, and what it has made on the servers", s.Done)
	}
	return s.Done, nil
}

func setupAt(steps []string, done int) *shardmap.Setup {
	sum := sha256.Sum256([]byte(strings.Join(steps[:done], "\x00")))
	return &shardmap.Setup{Done: done, Text: hex.EncodeToString(sum[:])}
}

// isThere says that what a statement makes is there: the process died between making it and noting that.
func isThere(err error) bool {
	var e interface{ SQLState() string }
	return errors.As(err, &e) && (e.SQLState() == "42P04" || e.SQLState() == "42710")
}
