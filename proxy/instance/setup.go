package instance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// init_sql is one change of an empty map. It cannot be one transaction, since it makes things on servers; so the map notes how far it is,
// is not used before it is done, and a start that finds it half done goes on with it. What is done may have been wrong: as long as nothing has been done that
// dropping all of the map does not take back, a start with other statements drops it, on the servers too, and begins anew. It is not dropped
// when a statement fails: the place that a shard has had among the sequences of its database is not given again, and a process that is started again and again while a
// server is away would use them up.
//
// A process may die when a statement has been done and that is not noted: the note before it has what the map said then. Once all is settled that was left
// moving, the map says something else if the statement was done, for each ends with a change of the map that has all of it; one that changes nothing can be run again.

// setup is the setting up of a map.
type setup struct {
	in    *Instance
	steps []string
	loose int // how many of the steps, from the first, dropping what the map has takes back
}

// setUp runs what init_sql has not done yet. Of the processes that have one file, one does.
func (in *Instance) setUp(ctx context.Context) error {
	s := &setup{in: in}
	for _, sql := range append(admin.SplitStatements(in.cfg.InitSQL), in.cfg.Direct.Setup...) {
		if strings.TrimSpace(sql) != "" {
			s.steps = append(s.steps, sql)
		}
	}
	if s.isDone() {
		return nil
	}
	if err := s.check(); err != nil {
		return err
	}
	done, err := filestore.New(in.cfg.Store).Alone(ctx, func() { in.log.Info("another process runs init_sql: it is waited for") })
	if err != nil {
		return err
	}
	defer done()
	in.Catalog.CatchUp(ctx)
	if s.isDone() {
		return nil
	}
	at, err := s.begin(ctx)
	if err != nil {
		return fmt.Errorf("setting up the shard map: %w", err)
	}
	for i := at; i < len(s.steps); i++ {
		if err := in.Catalog.SetUp(ctx, s.note(i, in.Catalog.Current().Document)); err != nil {
			return err
		}
		if _, err := in.Admin.Exec(ctx, s.steps[i], false); err != nil {
			return s.failed(i, err)
		}
	}
	return in.Catalog.SetUp(ctx, nil)
}

// isDone says whether nothing is left to do.
func (s *setup) isDone() bool {
	now := s.in.Catalog.Current()
	return now.Document.Setup == nil && (now.Version > 0 || len(s.steps) == 0)
}

// check reads all statements before any is run.
func (s *setup) check() error {
	s.loose = len(s.steps)
	for i, sql := range s.steps {
		moves, err := admin.Check(s.in.Admin, sql)
		if err != nil {
			return s.failed(i, err)
		}
		if moves {
			s.loose = min(s.loose, i)
		}
	}
	return nil
}

// begin is where to go on with the statements, when what is there of others has been taken back.
func (s *setup) begin(ctx context.Context) (at int, err error) {
	now, more := s.in.Catalog.Current(), false
	was := now.Document.Setup
	if was != nil && was.Before != "" {
		if err := s.in.Mover.Settle(ctx); err != nil {
			return 0, fmt.Errorf("statement %d of init_sql was cut short: %w", was.Done+1, err)
		}
		more = s.in.Catalog.Current().Document.Declared() != was.Before
	}
	at, undo, err := resume(was, now.Version, s.steps, more)
	if undo {
		s.in.log.Info("what other statements of init_sql have done is taken back", "done", was.Done)
		err = s.takeBack(ctx)
	}
	return at, err
}

// resume is where to begin with the statements of init_sql: behind all of them for a map that has been set up. more says that the one that had
// begun is done, too. undo says that what is done is to be taken back before: it is not what comes now. It is pure.
func resume(s *shardmap.Setup, version uint64, steps []string, more bool) (at int, undo bool, err error) {
	switch {
	case s == nil && version > 0:
		return len(steps), false, nil
	case s == nil:
		return 0, false, nil
	case s.Undo:
		return 0, true, nil
	}
	done, text, loose := s.Done, s.Text, s.Loose
	if more && s.Next != "" {
		done, text, loose, more = done+1, s.Next, loose && !s.Moves, false
	}
	switch {
	case done <= len(steps) && textOf(steps[:done]) == text && more: // an older process has not noted which
		return min(done+1, len(steps)), false, nil
	case done <= len(steps) && textOf(steps[:done]) == text:
		return done, false, nil
	case loose:
		return 0, true, nil
	}
	return 0, false, fmt.Errorf("the first %d statements of init_sql are done, and are not what they were; they have moved data, and are not taken back: give them back as they were, with what puts right what they have done (UNDISTRIBUTE, DROP) behind them, or remove the map of the store, which nobody has used yet, and what it has made on the servers", done)
}

// note says that a statement begins.
func (s *setup) note(i int, before *shardmap.Document) *shardmap.Setup {
	return &shardmap.Setup{Done: i, Text: textOf(s.steps[:i]), Before: before.Declared(), Next: textOf(s.steps[:i+1]), Moves: i >= s.loose, Loose: i <= s.loose}
}

func textOf(steps []string) string {
	sum := sha256.Sum256([]byte(strings.Join(steps, "\x00")))
	return hex.EncodeToString(sum[:])
}

// failed tells of a statement that has failed, of what is done, and of what to do.
func (s *setup) failed(i int, err error) error {
	then := "nothing is done: correct it, and start again"
	switch {
	case i > 0 && i <= s.loose:
		then = fmt.Sprintf("the %d before it are done in a map that nobody uses: correct any of them, and start again; what is done and was wrong is taken back then", i)
	case i > 0:
		then = fmt.Sprintf("the %d before it are done, and have moved data: leave them as they are, correct this one, and start again; what puts right what they have done (UNDISTRIBUTE, DROP) may follow behind them", i)
	}
	hint := ""
	var h interface{ ErrorHint() string }
	if errors.As(err, &h) && h.ErrorHint() != "" {
		hint = " (" + h.ErrorHint() + ")"
	}
	return fmt.Errorf("setting up the shard map: statement %d of %d of init_sql, %s: %w%s; %s", i+1, len(s.steps), admin.Shown(s.steps[i]), err, hint, then)
}

// takeBack drops all that the map has, with what was made for it on servers. That it has begun is noted before: a start after one that is
// cut short goes on with it.
func (s *setup) takeBack(ctx context.Context) error {
	in := s.in
	err := in.Catalog.SetUp(ctx, &shardmap.Setup{Undo: true})
	if err == nil {
		err = in.Mover.Settle(ctx)
	}
	if err != nil {
		return err
	}
	s.awaitNodes(ctx)
	for _, sql := range drops(in.Catalog.Current()) {
		if _, err := in.Admin.Exec(ctx, sql, false); err != nil {
			return fmt.Errorf("what other statements of init_sql have done is taken back: %s: %w", sql, err)
		}
	}
	return nil
}

// answerWait is how long nodes that have just become known are waited for.
const answerWait = 5 * time.Second

// awaitNodes waits until all shards are known to answer, if they do: those that do not keep their mark.
func (s *setup) awaitNodes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	_ = s.in.Monitor.Await(ctx, func() bool {
		for _, d := range s.in.Catalog.Current().Databases {
			for _, sh := range d.Shards {
				if v := s.in.Monitor.View(d.Name, sh.Name); v == nil || !v.Up() {
					return false
				}
			}
		}
		return true
	})
}

// drops are the statements that drop all of a map that distributes nothing: what depends on other things comes before these, home is the last
// of its shards. What a CREATE SHARD has left whose server does not answer is given up.
func drops(m *shardmap.Snapshot) (out []string) {
	drop := func(kind, name, db string) {
		out = append(out, fmt.Sprintf("DROP %s %s IN %s", kind, pgsql.Ident(name), pgsql.Ident(db)))
	}
	for _, d := range m.SortedDatabases() {
		for _, g := range slices.Sorted(maps.Keys(d.Groups)) {
			drop("GROUP", g, d.Name)
		}
		for _, x := range m.Document.Attempts {
			if x.Database != d.Name || x.Shard == nil {
				continue
			}
			if _, there := d.Shard(x.Shard.Name); !there {
				drop("SHARD", x.Shard.Name, d.Name)
			}
		}
		for _, sh := range slices.Backward(d.Shards) {
			if sh != d.Home {
				drop("SHARD", sh.Name, d.Name)
			}
		}
		if d.Home != nil {
			drop("SHARD", d.Home.Name, d.Name)
		}
		out = append(out, "DROP DATABASE "+pgsql.Ident(d.Name))
	}
	return out
}
