package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Shard is what the resolver needs of a shard.
type Shard struct {
	Database, Name, Node, DSN string // Node is the primary, and DSN its connection string; both empty if none answers
	Ordinal                   int

	Conns *nodeconn.Kept // where connections are kept between visits; nil: nowhere
	Whose nodeconn.Whose // asks a connection whether it is the shard's

	// Writes is told before a transaction's part is committed there, and calls what it returns after it.
	Writes func() (done func())
}

// Prepared is a prepared part found on a shard, or with Damage a decided commit whose part on some shard is lost.
type Prepared struct {
	Shard, GID, Owner, Decider, Damage string
	Age                                time.Duration
	At                                 time.Time
	listed                             time.Time // it was there then
}

// DamagedError says that what a committed transaction did on a shard is gone: its server was replaced by one that lacks the
// end of its log.
type DamagedError struct{ GID, Shard string }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("transaction %s was committed, and what it did on shard %s is lost", e.GID, e.Shard)
}

// Resolver finishes what a crash left prepared. Any number of processes may run one: the first writer of
// a decision row wins.
type Resolver struct {
	Install string
	Grace   time.Duration    // younger parts are left to the process that made them; an outcome is kept for remembered times that
	Shards  func() [][]Shard // the shards of each database, as of now

	// Seen, if it is set, is told in each round what was found prepared or damaged.
	Seen func([]Prepared)

	Now func() time.Time // this process's clock; nil: time.Now

	parts, stuck, outcomes sightings
}

// remembered is for how many times Grace an outcome is kept after nothing is left prepared: so long somebody who has seen a part
// prepared, or has lost the answer to its COMMIT, may ask for it.
const remembered = 6

func (r *Resolver) keep() time.Duration { return remembered * r.Grace }

func (r *Resolver) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// Run resolves every period until ctx ends. begun is told of each error once, when it begins, and over when a shard has none any more.
func (r *Resolver) Run(ctx context.Context, period time.Duration, begun func(error), over func(ShardError)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	var resolving, sweeping trouble
	var looked, swept time.Time
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			looked = forget(looked, r.now(), r.keep(), &r.parts, &r.stuck)
			if n%sweepEvery == 0 {
				swept = forget(swept, r.now(), 2*r.keep(), &r.outcomes) // what is done is not looked at while it is young
			}
			var seen []Prepared
			var failed, unswept error
			away := map[[2]string]bool{}
			for _, db := range r.Shards() {
				for _, s := range db {
					away[[2]string{s.Database, s.Name}] = s.DSN == ""
				}
				parts, err := r.resolve(ctx, db)
				seen, failed = append(seen, parts...), errors.Join(failed, err)
				if n%sweepEvery == 0 {
					unswept = errors.Join(unswept, r.Sweep(ctx, db))
				}
			}
			if ctx.Err() != nil {
				return nil
			}
			news, ended := resolving.news(failed, away)
			news = sweeping.untold(news)
			if n%sweepEvery == 0 {
				more, _ := sweeping.news(unswept, away)
				news = append(news, resolving.untold(more)...)
			}
			for _, err := range news {
				begun(err)
			}
			for _, s := range ended {
				over(s)
			}
			if r.Seen != nil {
				r.Seen(seen)
			}
		}
	}
}

const listSQL = `select gid, owner::text, prepared, extract(epoch from clock_timestamp() - prepared)::float8, '' from pg_prepared_xacts where database = current_database() and gid like $1
union all select gid, '', at, extract(epoch from clock_timestamp() - at)::float8, outcome from pgmosaic.decision where outcome like 'damaged%' order by 3`

// List finds the prepared parts of this installation on the shards of one database, and the damage that was found.
func (r *Resolver) List(ctx context.Context, shards []Shard) ([]Prepared, error) {
	var out []Prepared
	var errs []error
	for _, s := range shards {
		if s.DSN == "" {
			continue
		}
		err := with(ctx, s, func(ctx context.Context, c *pgx.Conn) error {
			p := Prepared{listed: time.Now()}
			rows, _ := c.Query(ctx, listSQL, "pgmosaic:"+r.Install+":%")
			var age float64
			_, err := pgx.ForEachRow(rows, []any{&p.GID, &p.Owner, &p.At, &age, &p.Damage}, func() error {
				q := p
				q.Shard, q.Age = s.Name, max(0, time.Duration(age*float64(time.Second))) // the node's clock may have gone back
				_, q.Decider, _ = ParseGID(p.GID)
				out = append(out, q)
				return nil
			})
			return err
		})
		if err != nil {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Resolve finishes the old prepared parts of one database.
func (r *Resolver) Resolve(ctx context.Context, shards []Shard) error {
	_, err := r.resolve(ctx, shards)
	return err
}

// resolve is Resolve; it returns what was found. A part is old when it is so by its node's clock, or has been seen for so long.
func (r *Resolver) resolve(ctx context.Context, shards []Shard) ([]Prepared, error) {
	parts, err := r.List(ctx, shards)
	now := r.now()
	for i := range parts {
		if parts[i].Damage != "" {
			continue // nothing waits for its age
		}
		parts[i].Age = max(parts[i].Age, r.parts.age(parts[i].Shard+" "+parts[i].GID, now))
	}
	byName := map[string]Shard{}
	for _, s := range shards {
		byName[s.Name] = s
	}
	for _, p := range parts {
		if p.Age < r.Grace || p.Damage != "" {
			continue
		}
		decider, ok := byName[p.Decider]
		if !ok {
			err = errors.Join(err, fmt.Errorf("prepared transaction %s on shard %s: its deciding shard %q is not in the map", p.GID, p.Shard, p.Decider))
			continue
		}
		outcome, e := r.decide(ctx, decider, p)
		if e == nil {
			e = finishAs(ctx, outcome, p, byName[p.Shard])
		}
		err = errors.Join(err, e)
	}
	return parts, err
}

// sweepEvery is how many rounds of the resolver go by until it sweeps.
const sweepEvery = 5

// mostSwept is how many decisions of a shard one round looks at.
const mostSwept = 40000

// Sweep deletes the rows of commits that nobody will ask for any more, and finds damage. A decision to commit is done when
// every other part has committed on its shard: all of them were prepared before it could be seen. It is marked so, then the
// rows of its parts go, then, after a while, its own. So a commit that is not done and lacks a part has lost it, and a part without a
// decision has lost that. A decision to abort may still be met by its decider, as long as that is in the transaction that it
// was in: it stays until every transaction of before it has ended. Both stay for as long as somebody may ask who has seen a part, by
// this process's clock: see sightings.
func (r *Resolver) Sweep(ctx context.Context, shards []Shard) error {
	var all []decision
	left := map[string][]string{} // rows of parts by shard
	rows := 0
	for _, s := range shards {
		if s.DSN == "" {
			return nil // a part may be there
		}
		decisions, parts, err := r.rowsOn(ctx, s)
		if err != nil {
			return err
		}
		all, left[s.Name] = append(all, decisions...), parts
		rows += len(decisions) + len(parts)
	}
	if rows == 0 {
		return nil
	}
	open, err := r.open(ctx, shards)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(d decision) bool { // what names shards of another map is not ours to judge
		return open[d.gid] || slices.ContainsFunc(d.parts, func(shard string) bool {
			return !slices.ContainsFunc(shards, func(s Shard) bool { return s.Name == strings.TrimPrefix(shard, bare) })
		})
	})
	there, err := committed(ctx, shards, all)
	if err != nil {
		return err
	}
	var errs []error
	marks, parts, done := map[string][]string{}, map[string][]string{}, map[string][]string{}
	for _, d := range all {
		if lost := d.lost(there); lost != "" && d.open {
			errs = append(errs, damaged(ctx, d.decider, d.gid, "commit", "its part on shard "+lost+" is lost", lost))
			continue
		}
		if d.open {
			marks[d.decider.Name] = append(marks[d.decider.Name], d.gid)
			r.outcomes.age(d.gid, r.now())
		} else {
			done[d.decider.Name] = append(done[d.decider.Name], d.gid)
		}
		for i, shard := range d.parts {
			parts[shard] = append(parts[shard], PartGID(d.gid, i))
		}
	}
	for _, step := range []struct {
		sql  string
		gids map[string][]string
	}{
		{"update pgmosaic.decision set outcome = 'done', at = clock_timestamp() where gid = any($1) and outcome = 'commit'", marks},
		{"delete from pgmosaic.decision where gid = any($1) and outcome = 'part'", parts},
		{"delete from pgmosaic.decision where gid = any($1) and outcome in ('done', 'abort')", done},
	} {
		if err := each(ctx, shards, step.gids, step.sql); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	for _, gids := range done {
		r.outcomes.gone(gids)
	}
	for _, s := range shards {
		errs = append(errs, r.orphans(ctx, shards, s, left[s.Name]))
	}
	return errors.Join(errs...)
}

// decision is a row of pgmosaic.decision, to commit or to abort.
type decision struct {
	gid     string
	parts   []string // the others' shards, see bare
	decider Shard
	open    bool // to commit, and not yet marked as done
}

// lost names a shard on which a part of a commit that is not prepared has not committed either; empty if there is none.
func (d *decision) lost(there map[string]map[string]bool) string {
	for i, shard := range d.parts {
		if !strings.HasPrefix(shard, bare) && !there[shard][PartGID(d.gid, i)] {
			return shard
		}
	}
	return ""
}

// sweptSQL leaves out what is done and young. What is of the future was done before the clock went back. openSQL tells transactions apart
// by their stamps, which no setting of time zones or dates prints another way, and puts no two stamps in order.
const sweptSQL = `select gid, coalesce(parts, '{}'), outcome from pgmosaic.decision where gid like $2
and (outcome in ('commit', 'part', 'abort') or outcome = 'done' and at not between clock_timestamp() - $3::interval and clock_timestamp())
order by outcome in ('commit', 'part') desc, at limit $1`

const openSQL = `select pid || ' ' || coalesce(extract(epoch from xact_start)::text, '') from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and state is distinct from 'idle' and pid <> pg_backend_pid()`

// rowsOn lists the decisions of a shard that may be swept, and the rows of parts.
func (r *Resolver) rowsOn(ctx context.Context, s Shard) (out []decision, parts []string, err error) {
	err = with(ctx, s, func(ctx context.Context, c *pgx.Conn) error {
		var done, aborts []decision
		rows, _ := c.Query(ctx, sweptSQL, mostSwept, "pgmosaic:"+r.Install+":%", r.keep())
		var gid, outcome string
		var others []string
		_, err := pgx.ForEachRow(rows, []any{&gid, &others, &outcome}, func() error {
			d := decision{gid, others, s, outcome == "commit"}
			switch outcome {
			case "part":
				parts = append(parts, gid)
			case "abort":
				aborts = append(aborts, d)
			case "done":
				done = append(done, d)
			default:
				out = append(out, d)
			}
			others = nil
			return nil
		})
		if err != nil {
			return err
		}
		now := r.now()
		for _, d := range done {
			if r.outcomes.age(d.gid, now) >= r.keep() {
				out = append(out, d)
			}
		}
		if len(aborts) > 0 {
			rows, _ := c.Query(ctx, openSQL) // after the rows were: who had begun before one of them is among these, or has ended
			list, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			open := map[string]bool{}
			for _, t := range list {
				open[t] = true
			}
			r.outcomes.opened(s.Database+" "+s.Name, now, open)
			for _, d := range aborts {
				if age, ended := r.outcomes.outlived(s.Database+" "+s.Name, d.gid, now); ended && age >= r.keep() {
					out = append(out, d)
				}
			}
		}
		return nil
	})
	return out, parts, err
}

// open are the transactions that have a prepared part.
func (r *Resolver) open(ctx context.Context, shards []Shard) (map[string]bool, error) {
	parts, err := r.List(ctx, shards)
	open := map[string]bool{}
	for _, p := range parts {
		open[Base(p.GID)] = p.Damage == "" || open[Base(p.GID)]
	}
	return open, err
}

// committed finds, on each shard, the rows of the parts that these decisions name.
func committed(ctx context.Context, shards []Shard, all []decision) (map[string]map[string]bool, error) {
	wanted := map[string][]string{}
	for _, d := range all {
		for i, shard := range d.parts {
			wanted[shard] = append(wanted[shard], PartGID(d.gid, i))
		}
	}
	out := map[string]map[string]bool{}
	for _, s := range shards {
		have, err := existing(ctx, s, wanted[s.Name])
		if err != nil {
			return nil, err
		}
		out[s.Name] = have
	}
	return out, nil
}

// existing are those of some rows that a shard has.
func existing(ctx context.Context, s Shard, gids []string) (map[string]bool, error) {
	out := map[string]bool{}
	if len(gids) == 0 {
		return out, nil
	}
	err := with(ctx, s, func(ctx context.Context, c *pgx.Conn) error {
		rows, _ := c.Query(ctx, "select gid from pgmosaic.decision where gid = any($1)", gids)
		have, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, g := range have {
			out[g] = true
		}
		return err
	})
	return out, err
}

// orphans finds rows of parts on a shard whose decision is no more. The sweep of another process takes them away before
// that: those that are still there have lost it.
func (r *Resolver) orphans(ctx context.Context, shards []Shard, shard Shard, parts []string) error {
	bases := map[string][]string{} // by decider
	for _, p := range parts {
		if _, decider, ok := ParseGID(p); ok {
			bases[decider] = append(bases[decider], Base(p))
		}
	}
	have := map[string]bool{}
	for _, s := range shards {
		some, err := existing(ctx, s, bases[s.Name])
		if err != nil {
			return err
		}
		maps.Copy(have, some)
	}
	alone := slices.DeleteFunc(slices.Clone(parts), func(p string) bool {
		_, decider, _ := ParseGID(p)
		return have[Base(p)] || !slices.ContainsFunc(shards, func(s Shard) bool { return s.Name == decider })
	})
	still, err := existing(ctx, shard, alone)
	errs := []error{err}
	for p := range still {
		_, decider, _ := ParseGID(p)
		errs = append(errs, damaged(ctx, shard, p, "part", "its decision on shard "+decider+" is lost", decider))
	}
	return errors.Join(errs...)
}

// each runs a statement on each shard for some rows of its.
func each(ctx context.Context, shards []Shard, gids map[string][]string, sql string) error {
	for _, s := range shards {
		list := gids[s.Name]
		if len(list) == 0 {
			continue
		}
		if err := with(ctx, s, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, sql, list)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// damaged marks a row as that of a commit that has lost something, if nobody has done so yet. Another process that has swept it meanwhile
// knew better.
func damaged(ctx context.Context, decider Shard, gid, was, what, lost string) error {
	var n int64
	err := with(ctx, decider, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, "update pgmosaic.decision set outcome = case when outcome = $3 then 'damaged: ' || $2::text else outcome end where gid = $1 and (outcome = $3 or outcome like 'damaged%')", gid, what, was)
		n = tag.RowsAffected()
		return err
	})
	if err == nil && n > 0 {
		err = &DamagedError{gid, lost}
	}
	return err
}

// ErrForgotten means that nobody knows any more what became of a transaction.
var ErrForgotten = errors.New("its outcome is not kept any more")

// ErrUndecided means that a transaction has no decision, and that a part of it may be prepared on a shard that was not to be asked: it may
// be decided yet.
var ErrUndecided = errors.New("it is not decided")

// Settle finds out at once what became of one transaction whose parts were all prepared, and finishes them on every shard that
// answers. committed tells the outcome; an error means that it could not be found out, or that a part of a commit is left.
func (r *Resolver) Settle(ctx context.Context, shards []Shard, gid string) (committed bool, err error) {
	_, name, _ := ParseGID(gid)
	i := slices.IndexFunc(shards, func(s Shard) bool { return s.Name == name && s.DSN != "" })
	if i < 0 {
		return false, fmt.Errorf("shard %s, which decides about %s, does not answer", name, gid)
	}
	parts, err := r.List(ctx, shards)
	parts = slices.DeleteFunc(parts, func(p Prepared) bool { return Base(p.GID) != gid || p.Damage != "" })
	var outcome string
	var e error
	if len(parts) > 0 { // so whoever has decided has not forgotten it
		outcome, e = r.decide(ctx, shards[i], parts[0])
	} else { // somebody has finished them, or they are where nobody answers
		outcome, e = decided(ctx, shards[i], gid)
		if unseen := first(err, away(shards, nil)); unseen != nil && errors.Is(e, ErrForgotten) {
			e = fmt.Errorf("%s: %w: %w", gid, ErrUndecided, unseen)
		}
	}
	if e != nil {
		return false, e
	}
	for _, p := range parts {
		at := shards[slices.IndexFunc(shards, func(s Shard) bool { return s.Name == p.Shard })]
		err = errors.Join(err, finishAs(ctx, outcome, p, at))
	}
	if !commits(outcome) { // for good: what is left of it is rolled back when its shard is back
		return false, nil
	}
	if err == nil {
		err = r.whole(ctx, shards, shards[i], gid)
	}
	return true, err
}

// away is an error if one of some shards has no primary that answers; nil names are all shards.
func away(shards []Shard, names []string) error {
	for _, s := range shards {
		if s.DSN == "" && (names == nil || slices.ContainsFunc(names, func(n string) bool { return strings.TrimPrefix(n, bare) == s.Name })) {
			return &ShardError{s.Database, s.Name, "", errNoPrimary}
		}
	}
	return nil
}

// FinishOn commits what a transaction that is known to be committed has left prepared on one shard. It counts as written now, whoever has finished it:
// another process tells nobody here when it has.
func (r *Resolver) FinishOn(ctx context.Context, s Shard, gid string) error {
	if s.DSN == "" {
		return fmt.Errorf("shard %s has no primary", s.Name)
	}
	if s.Writes != nil {
		defer s.Writes()()
	}
	parts, err := r.List(ctx, []Shard{s})
	for _, p := range parts {
		if Base(p.GID) != gid || p.Damage != "" {
			continue
		}
		var gone *pgconn.PgError
		if e := finishAs(ctx, "commit", p, s); !errors.As(e, &gone) || gone.Code != pgsql.UndefinedObject { // another resolver was quicker
			err = errors.Join(err, e)
		}
	}
	return err
}

// whole says, as a *DamagedError, if a part of a commit that was just finished has not committed. While one of its shards was not to be asked, nobody
// knows: a part without a row may be prepared there still.
func (r *Resolver) whole(ctx context.Context, shards []Shard, decider Shard, gid string) error {
	d := decision{gid: gid, decider: decider}
	var outcome string
	err := with(ctx, decider, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "select coalesce(parts, '{}'), outcome from pgmosaic.decision where gid = $1", gid).Scan(&d.parts, &outcome)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && !commits(outcome): // it was there a moment ago
		return fmt.Errorf("ask shard %s about %s again: %w", decider.Name, gid, ErrForgotten)
	case err != nil:
		return err
	case outcome == "done": // swept: all was well
		return nil
	}
	if err := away(shards, d.parts); err != nil {
		return err
	}
	there, err := committed(ctx, shards, []decision{d})
	if err != nil {
		return err
	}
	if lost := d.lost(there); lost != "" {
		return damaged(ctx, decider, gid, "commit", "its part on shard "+lost+" is lost", lost)
	}
	return nil
}

// decide asks the decider what became of the transaction of a prepared part, deciding "abort" if nothing did. The insert waits
// for a decision in flight: it must see its outcome, so it runs at READ COMMITTED. A part that was seen too long ago may have
// committed since, and its decision may be gone.
func (r *Resolver) decide(ctx context.Context, decider Shard, p Prepared) (outcome string, err error) {
	ctx, cancel := context.WithDeadline(ctx, p.listed.Add(r.keep()))
	defer cancel()
	gid := Base(p.GID)
	err = inTx(ctx, decider, func(ctx context.Context, c pgx.Tx) error {
		defer r.unstick(ctx, decider, c.Conn().PgConn().PID())()
		for _, sql := range []string{"set local lock_timeout = '5s'", "set local synchronous_commit = on"} {
			if _, err := c.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if _, err := c.Exec(ctx, "insert into pgmosaic.decision (gid, outcome) values ($1, 'abort') on conflict do nothing", gid); err != nil {
			return err
		}
		return c.QueryRow(ctx, outcomeSQL, gid).Scan(&outcome)
	})
	if err != nil {
		return "", fmt.Errorf("ask shard %s about %s: %w", decider.Name, gid, err)
	}
	return outcome, nil
}

// stuckAfter is how long a decision in flight is waited for before it is asked whether anybody is still at it.
const stuckAfter = time.Second

const stuckSQL = `select pid || ' ' || extract(epoch from state_change), state_change < clock_timestamp() - $2::interval from pg_stat_activity
where pid = any(pg_blocking_pids($1)) and datname = current_database() and state = 'idle in transaction'`

const endSQL = `select pg_terminate_backend(pid) from pg_stat_activity where pid || ' ' || extract(epoch from state_change) = any($1) and state = 'idle in transaction'`

// unstick ends the server process whose decision somebody waits for, if it has heard nothing for as long as a commit is left to its own
// process: that has lost its way to it, or its machine, and the node would learn of it only from TCP, in hours. Had it committed, nobody
// would wait; now it cannot any more. Call stop when the wait is over.
func (r *Resolver) unstick(ctx context.Context, decider Shard, waits uint32) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	panics.Go(panics.Background, func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(stuckAfter):
			}
			_ = with(ctx, decider, func(ctx context.Context, c *pgx.Conn) error { // who waits tells what is wrong with the shard
				var who string
				var old bool
				var ends []string
				now := r.now()
				rows, _ := c.Query(ctx, stuckSQL, waits, r.Grace)
				_, err := pgx.ForEachRow(rows, []any{&who, &old}, func() error {
					if age := r.stuck.age(decider.Name+" "+who, now); old || age >= r.Grace {
						ends = append(ends, who)
					}
					return nil
				})
				if err == nil && len(ends) > 0 {
					_, err = c.Exec(ctx, endSQL, ends)
				}
				return err
			})
		}
	})
	return func() { cancel(); <-done }
}

const outcomeSQL = "select outcome from pgmosaic.decision where gid = $1"

// decided is what became of a transaction that has no part prepared any more.
func decided(ctx context.Context, decider Shard, gid string) (outcome string, err error) {
	err = with(ctx, decider, func(ctx context.Context, c *pgx.Conn) error { return c.QueryRow(ctx, outcomeSQL, gid).Scan(&outcome) })
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("ask shard %s about %s: %w", decider.Name, gid, ErrForgotten)
	}
	return outcome, err
}

// commits says whether an outcome is that of a committed transaction.
func commits(outcome string) bool { return outcome != "abort" }

// finishAs does so in the name of the role that prepared the part: only that one may, or a superuser.
func finishAs(ctx context.Context, outcome string, p Prepared, at Shard) error {
	verb := "ROLLBACK PREPARED "
	if commits(outcome) {
		verb = "COMMIT PREPARED "
	}
	if at.Writes != nil && commits(outcome) {
		defer at.Writes()()
	}
	return with(ctx, at, func(ctx context.Context, c *pgx.Conn) error {
		if p.Owner != "" {
			if _, err := c.Exec(ctx, "SET ROLE "+pgsql.Ident(p.Owner)); err != nil {
				return fmt.Errorf("finish %s as the role that prepared it: %w; GRANT %s TO the role of the node's connection string", p.GID, err, p.Owner)
			}
		}
		if _, err := c.Exec(ctx, verb+pgsql.Literal(p.GID)); err != nil {
			return fmt.Errorf("%s%s: %w", verb, p.GID, err)
		}
		if _, err := c.Exec(ctx, "RESET ROLE"); err != nil { // the part is finished all the same
			_ = c.Close(ctx)
		}
		return nil
	})
}
