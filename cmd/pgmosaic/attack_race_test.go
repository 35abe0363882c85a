//go:build attack

package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

var (
	raceRounds = flag.Int("race.rounds", 120, "TestAttackStatementsRace: rounds")
	raceSeed   = flag.Uint64("race.seed", 0, "TestAttackStatementsRace: its seed; 0: by the clock")
)

// mapState is what a map says, as far as the statements of racing change it.
type mapState struct {
	Database, C, Node, Keyed, Codes bool
	Pin                             string
}

// racing is a statement, and what it makes of a map; false: it is refused.
type racing struct {
	sql   string
	apply func(s *mapState) bool
}

// to is a change of a value, which must not be there already.
func to[T comparable](at *T, v T, may bool) bool {
	if !may || *at == v {
		return false
	}
	*at = v
	return true
}

var racers = []racing{
	{"CREATE DATABASE more", func(s *mapState) bool { return to(&s.Database, true, true) }},
	{"DROP DATABASE more", func(s *mapState) bool { return to(&s.Database, false, true) }},
	{"CREATE SHARD c IN %s NODE '{c}'", func(s *mapState) bool { return to(&s.C, true, true) }},
	{"DROP SHARD c IN %s", func(s *mapState) bool { return to(&s.C, false, true) }},
	{"ALTER SHARD b IN %s ADD NODE '{b}' NAME b2", func(s *mapState) bool { return to(&s.Node, true, true) }},
	{"ALTER SHARD b IN %s DROP NODE b2", func(s *mapState) bool { return to(&s.Node, false, true) }},
	{"ALTER SHARD b IN %s DROP NODE b_1", func(*mapState) bool { return false }},
	{"ALTER SHARD b IN %s SET PRIMARY b_1", func(*mapState) bool { return true }},
	{"ALTER SHARD b IN %s ADOPT", func(*mapState) bool { return true }},
	{"ALTER SHARD c IN %s ADOPT", func(s *mapState) bool { return s.C }},
	{"PIN KEY (1000) OF %s.p ON a", func(s *mapState) bool { return to(&s.Pin, "a", s.Pin == "") }},
	{"PIN KEY (1000) OF %s.p ON b", func(s *mapState) bool { return to(&s.Pin, "b", s.Pin == "") }},
	{"UNPIN KEY (1000) OF %s.p", func(s *mapState) bool { return to(&s.Pin, "", true) }},
	{"DISTRIBUTE TABLE %s.public.keyed IN GROUP p KEY (k)", func(s *mapState) bool { return to(&s.Keyed, true, true) }},
	{"UNDISTRIBUTE TABLE %s.public.keyed", func(s *mapState) bool { return to(&s.Keyed, false, true) }},
	{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", func(s *mapState) bool { return to(&s.Codes, true, true) }},
	{"UNDISTRIBUTE TABLE %s.public.codes", func(s *mapState) bool { return to(&s.Codes, false, true) }},
}

// mapSays is what a map says.
func mapSays(doc *shardmap.Document) (s mapState) {
	s.Database = slices.ContainsFunc(doc.Databases, func(d *shardmap.Database) bool { return d.Name == "more" })
	s.C = slices.ContainsFunc(doc.Shards, func(x *shardmap.Shard) bool { return x.Name == "c" })
	s.Node = slices.ContainsFunc(doc.Nodes, func(x *shardmap.Node) bool { return x.Name == "b2" })
	for _, t := range doc.Tables {
		s.Keyed, s.Codes = s.Keyed || t.Name == "keyed", s.Codes || t.Name == "codes"
	}
	for _, p := range doc.Placements {
		for _, x := range p.Pins {
			s.Pin = x.Shard
		}
	}
	return s
}

// Two statements at once, of two administrators of one process or of two: what comes of them is what comes of one behind the other, or
// one of them is told that the map has changed.
func TestAttackStatementsRace(t *testing.T) {
	w := newTwoAdmins(t, "race")
	d := shop(t)
	standby := d.cluster.Node("s2-b").DSN("race_1")
	eventually(t, "the standby has the database", func() bool {
		c, err := pgx.Connect(t.Context(), standby)
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err == nil
	})
	if err := w.exec(t, 0, "CREATE GROUP p IN %s KEY (int) BY HASH"); err != nil {
		t.Fatal(err)
	}
	seed := *raceSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-race.seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	fill := strings.NewReplacer("{c}", w.dsns[2], "{b}", standby)
	told, serial := map[string]int{}, 0
	for round := range *raceRounds {
		before := mapSays(w.agree(t))
		on := [2]int{rng.IntN(2), rng.IntN(2)}
		pair := [2]racing{racers[rng.IntN(len(racers))], racers[rng.IntN(len(racers))]}
		var errs [2]error
		var both sync.WaitGroup
		for i := range pair {
			both.Go(func() { errs[i] = w.exec(t, on[i], fill.Replace(pair[i].sql)) })
		}
		both.Wait()
		what := fmt.Sprintf("round %d: %+v: on %d %.40s: %v; on %d %.40s: %v", round, before, on[0], pair[0].sql, errs[0], on[1], pair[1].sql, errs[1])
		var doc *shardmap.Document
		eventually(t, what+": all is settled", func() bool { doc = w.agree(t); return len(doc.Attempts) == 0 })
		after, ok := mapSays(doc), false
		for _, order := range [][2]int{{0, 1}, {1, 0}} {
			s, fits := before, true
			for _, i := range order {
				code := ""
				var e interface{ SQLState() string }
				if errs[i] != nil && !errors.As(errs[i], &e) {
					t.Fatalf("%s: an error without a code", what)
				} else if errs[i] != nil {
					code = e.SQLState()
				}
				told[code]++
				switch code {
				case "":
					fits = pair[i].apply(&s) && fits
				case "40001", "55006": // somebody was at it, or it was in use
				default:
					now := s
					fits = !pair[i].apply(&now) && fits
				}
			}
			ok = ok || fits && s == after
		}
		if !ok {
			t.Fatalf("%s: the map says %+v", what, after)
		}
		if errs[0] == nil && errs[1] == nil {
			serial++
		}
		w.shardsFit(t, what, doc)
		w.whole(t)
		if t.Failed() {
			t.Fatal(what)
		}
	}
	t.Logf("%d times both were done; told: %v", serial, told)
}

// shardsFit makes sure that each database of a shard says that it is that one's, with what the map gives it.
func (w *twoAdmins) shardsFit(t *testing.T, what string, doc *shardmap.Document) {
	t.Helper()
	for _, x := range doc.Shards {
		if !slices.ContainsFunc(doc.Nodes, func(n *shardmap.Node) bool { return n.Database == x.Database && n.Shard == x.Name }) {
			t.Errorf("%s: shard %s has no node", what, x.Name)
		}
	}
	for i, name := range []string{"a", "b", "c"} {
		in := slices.ContainsFunc(doc.Shards, func(x *shardmap.Shard) bool { return x.Name == name })
		is := ""
		if queryOne[bool](t, w.shards[i], "select to_regclass('pgmosaic.identity') is not null") {
			is = queryOne[string](t, w.shards[i], "select coalesce((select shard from pgmosaic.identity), '')")
		}
		if in && is != name || !in && is != "" {
			t.Errorf("%s: the database of shard %s, which is in the map: %t, says that it is %q", what, name, in, is)
		}
		if !in {
			mustExec(t, w.shards[i], "drop table if exists keyed, codes") // a shard that is dropped keeps what it has
		}
	}
}
