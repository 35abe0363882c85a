package instance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// init_sql is one change of an empty map. It cannot be one transaction, since it makes things on servers; so the map notes how far it is,
// is not used before it is done, and a start that finds it half done goes on with it. A process may die when a statement has been done and
// that is not noted: the note before it has what the map said then. Once all is settled that was left moving, the map says something else if
// the statement was done, for each ends with a change of the map that has all of it; one that changes nothing can be run again.

// setUp runs what init_sql has not done yet.
func (in *Instance) setUp(ctx context.Context) error {
	var steps []string
	for _, s := range append(admin.SplitStatements(in.cfg.InitSQL), in.cfg.Direct.Setup...) {
		if strings.TrimSpace(s) != "" {
			steps = append(steps, s)
		}
	}
	now := in.Catalog.Current()
	at, err := resume(now.Document.Setup, now.Version, steps)
	if err != nil || at == len(steps) && now.Document.Setup == nil {
		return err
	}
	if s := now.Document.Setup; s != nil && s.Before != "" {
		if err := in.Mover.Settle(ctx); err != nil {
			return fmt.Errorf("setting up the shard map: statement %d of init_sql was cut short: %w", at+1, err)
		}
		if in.Catalog.Current().Document.Declared() != s.Before {
			at++
		}
	}
	for i := at; i < len(steps); i++ {
		if err := in.Catalog.SetUp(ctx, beginning(steps, i, in.Catalog.Current().Document)); err != nil {
			return err
		}
		if _, err := in.Admin.Exec(ctx, steps[i], false); err != nil {
			return fmt.Errorf("setting up the shard map: %w", err)
		}
	}
	return in.Catalog.SetUp(ctx, nil)
}

// beginning notes that the next of the statements begins.
func beginning(steps []string, done int, before *shardmap.Document) *shardmap.Setup {
	s := setupAt(steps, done)
	s.Before = before.Declared()
	return s
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
