package fresh

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// nowhere are views of no node.
type nowhere struct{}

func (nowhere) Policy() replication.Policy {
	return replication.Policy{Interval: 100 * time.Millisecond, MaxAge: time.Hour, HardLimit: time.Hour}
}
func (nowhere) Slot(_, _ string) *atomic.Pointer[replication.View] { return nil }

// A replica is read only if it has what the session must see, whoever wrote it and whatever the session knows of the shard.
func TestReplicasThatMayAnswer(t *testing.T) {
	now := time.Now()
	before := now.Add(-time.Hour)
	table := &router.Template{Read: true, Tables: []shardmap.TableName{{Schema: "public", Name: "t"}}, Sharded: 1}
	other := &router.Template{Read: true, Tables: []shardmap.TableName{{Schema: "public", Name: "o"}}, Sharded: 1}
	unseen := &router.Template{Read: true, Beyond: true}
	since := func(f func(s *Shard)) func(s *Shard) { return f }
	wrote := func(s *Shard, t *router.Template, key uint64, at time.Time) { // anybody
		for _, k := range s.WriteKeys(nil, t, key) {
			s.from.Horizon.Sent(k)
			s.from.Horizon.Acked(k, at)
		}
	}
	for _, x := range []struct {
		what    string
		set     func(s *Shard)
		level   replication.Level
		read    *router.Template
		key     uint64
		iso     string
		replica bool // it may answer
		vouch   bool // if it gives its word
	}{
		{"nothing was written", nil, replication.Causal, table, 7, "", true, false},
		{"the key was written", since(func(s *Shard) { wrote(s, table, 7, now) }), replication.Causal, table, 7, "", false, false},
		{"another key was written", since(func(s *Shard) { wrote(s, table, 8, now) }), replication.Causal, table, 7, "", true, false},
		{"a statement of no one key wrote", since(func(s *Shard) { wrote(s, table, 0, now) }), replication.Causal, table, 7, "", false, false},
		{"another key was written, and all are read", since(func(s *Shard) { wrote(s, table, 8, now) }), replication.Causal, table, 0, "", false, false},
		{"another table was written", since(func(s *Shard) { wrote(s, other, 7, now) }), replication.Causal, table, 7, "", true, false},
		{"another table was written, and a snapshot is taken", since(func(s *Shard) { wrote(s, other, 7, now) }), replication.Causal, table, 7, "repeatable read", false, false},
		{"another table was written, and nobody knows what is read", since(func(s *Shard) { wrote(s, other, 7, now) }), replication.Causal, unseen, 0, "", false, false},
		{"nobody knows what was written", since(func(s *Shard) { wrote(s, &router.Template{}, 0, now) }), replication.Causal, table, 7, "", false, false},
		{"others wrote the key, and the session did not", since(func(s *Shard) { wrote(s, table, 7, now) }), replication.Session, table, 7, "", true, false},
		{"the session wrote the key", since(func(s *Shard) { wrote(s, table, 7, now); s.Settled(now, true, false) }), replication.Session, table, 7, "", false, false},
		{"the session's commit was owed, and somebody has finished it", since(func(s *Shard) {
			wrote(s, table, 7, before)
			s.Owed()
			s.Settled(before, true, false)
			wrote(s, &router.Template{}, 0, now)
		}), replication.Session, table, 7, "", false, false},
		{"the session's commit was owed, and others wrote the key since", since(func(s *Shard) {
			wrote(s, &router.Template{}, 0, before)
			s.Owed()
			wrote(s, table, 7, now)
		}), replication.Session, table, 7, "", true, false},
		{"the session saw the primary", since(func(s *Shard) { s.Settled(now, false, false) }), replication.Causal, table, 7, "", true, true},
		{"the session saw the primary, and asked in vain", since(func(s *Shard) { s.Settled(now, false, false); s.Behind(now) }), replication.Causal, table, 7, "", false, false},
		{"rows have moved to the shard", since(func(s *Shard) { s.floor = now }), replication.Causal, table, 7, "", false, false},
		{"a position was told", since(func(s *Shard) { s.Reach(1 << 40) }), replication.Causal, table, 7, "", false, false},
		{"serializable", nil, replication.Causal, table, 7, "serializable", false, false},
		{"strong", nil, replication.Strong, table, 7, "", false, false},
		{"whatever was written", since(func(s *Shard) { wrote(s, table, 7, now) }), replication.Eventual, table, 7, "", true, false},
	} {
		t.Run(fmt.Sprintf("%s, %s", x.level, x.what), func(t *testing.T) {
			e, m := sources(), database(t, 1)
			e.Monitor = nowhere{}
			e.Horizon = replication.NewHorizons(before.Add(-time.Hour))
			m.At = before
			none := e.Open("d", "r")
			all := none.By(m, m.Databases["d"].Shards)
			s := all.At(0)
			if x.set != nil {
				x.set(s)
			}
			v := &replication.View{Primary: 0, Nodes: []replication.NodeView{{Name: "a", Primary: true}, {Name: "b", Sample: replication.Sample{Sent: now}, FreshUntil: now.Add(-time.Minute), LagKnown: true}}}
			v.Nodes[1].Verdict.Health = replication.Eligible
			c := s.Choose(v, Read{Level: x.level, Isolation: x.iso, Now: now, Template: x.read, Key: x.key})
			if (c.Node == 1) != x.replica || c.Vouch != x.vouch {
				t.Errorf("%+v, want the replica: %v, by its word: %v", c, x.replica, x.vouch)
			}
		})
	}
}
