package fresh

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A session that makes every shard known at once, and takes along what it knows of all at each map change, is what one that makes them
// known when it uses them has to be like: whatever it does, it never knows less.
func TestShardsAreAsIfAllWereKnownAtOnce(t *testing.T) {
	type state struct {
		seen, horizon, wrote, floor time.Time
		owed                        bool
		at                          replication.LSN
		all                         time.Time // when the session was last told of all, if the shard was not there: it must see that or nothing
	}
	doc := database(t, 150).Databases["d"].Shards
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		clock := time.Now()
		now := func() time.Time { clock = clock.Add(time.Second); return clock }
		plain := map[string]*state{}
		var all time.Time
		none := sources().Open("d", "r")
		s := none
		var infos []*shardmap.ShardInfo
		take := func() {
			m := &shardmap.Snapshot{At: now()}
			infos = nil
			next := map[string]*state{}
			for _, i := range rng.Perm(len(doc))[:1+rng.IntN(len(doc))] {
				info := *doc[i]
				info.Index = len(infos)
				infos = append(infos, &info)
				st := plain[info.Name]
				if st == nil {
					st = &state{all: all}
				}
				st.floor = later(st.floor, m.At)
				next[info.Name] = st
			}
			plain, s = next, s.By(m, infos)
		}
		take()
		for range 60 {
			i := rng.IntN(len(infos))
			st := plain[infos[i].Name]
			switch rng.IntN(9) {
			case 0:
				take()
			case 1:
				if rng.IntN(4) == 0 {
					all = now()
					for _, st := range plain {
						st.seen, st.floor = all, all
					}
					s.SeeAll(all)
				}
			case 3:
				st.owed = true
				s.At(i).Owed()
			case 2:
				at := replication.LSN(rng.Uint64N(1000))
				st.at = max(st.at, at)
				s.At(i).Reach(at)
			default:
				wrote, replica, n := rng.IntN(3) == 0, rng.IntN(2) == 0, now()
				st.seen = n
				if wrote {
					st.wrote = n
				}
				if wrote || !replica {
					st.horizon = n
				}
				s.At(i).Settled(n, wrote, replica)
			}
		}
		for i, info := range infos {
			want, used := plain[info.Name], s.Uses(i)
			if (!want.seen.IsZero() || want.at != 0) && !used {
				t.Errorf("seed %d: shard %s was used, and is not said to be", seed, info.Name)
			}
			got := s.At(i)
			told := !want.all.IsZero() && got.seen.Equal(later(want.seen, want.all)) && got.floor.Equal(later(want.floor, want.all))
			if plain := got.seen.Equal(want.seen) && got.floor.Equal(want.floor); got.Info != info || !plain && !told || !got.horizon.Equal(want.horizon) || !got.wrote.Equal(want.wrote) || got.at != want.at || got.owed != want.owed {
				t.Errorf("seed %d: of shard %s is known %s, want %s", seed, info.Name, known(got.seen, got.horizon, got.wrote, got.floor, got.at), known(want.seen, want.horizon, want.wrote, want.floor, want.at))
			}
		}
	}
}

func known(seen, horizon, wrote, floor time.Time, at replication.LSN) string {
	return fmt.Sprintf("seen %s, horizon %s, wrote %s, floor %s, at %s", seen, horizon, wrote, floor, at)
}
