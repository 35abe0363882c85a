package instance

import (
	"context"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/peer"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

// deadlockPeriod is PostgreSQL's default deadlock_timeout. A deadlock over shards is broken after two to three of them.
const deadlockPeriod = time.Second

// deadlocks looks for deadlocks over shards among this process's clients.
func (in *Instance) deadlocks() *txn.Deadlocks {
	var names []string // of the databases of the last Shards
	find := func(id uint32) *session.Session {
		for _, s := range in.Server.Sessions() {
			if s.Info().PID == id {
				return s
			}
		}
		return nil
	}
	elsewhere := map[uint32]time.Time{} // of clients of other processes, as of the last round
	since := func(id uint32) time.Time {
		if s := find(id); s != nil {
			return s.TxSince()
		}
		return elsewhere[id]
	}
	return &txn.Deadlocks{
		Shards: func() (out [][]txn.Shard) {
			names = names[:0]
			for _, d := range in.Catalog.Current().Databases {
				if len(d.Shards) > 1 {
					names, out = append(names, d.Name), append(out, in.ShardsOf(d))
				}
			}
			return out
		},
		Suspect: func() bool {
			wide, waiting := 0, 0
			for _, s := range in.Server.Sessions() {
				i := s.Info()
				if h, ok := i.Handler.(*exec.Handler); ok && i.State == session.Busy && h.Servers() > 1 {
					wide++
					if time.Since(i.Request) > deadlockPeriod {
						waiting++
					}
				}
			}
			return waiting > 0 && (wide > 1 || len(in.peers.addresses()) > 0)
		},
		Client: func(database int, shard string, pid uint32) uint32 {
			return in.Pools.ClientOf(names[database], shard, pid)
		},
		Others: func(ctx context.Context, list []txn.Server) []uint32 {
			procs := make([]peer.Process, len(list))
			for i, s := range list {
				procs[i] = peer.Process{Database: names[s.Database], Shard: s.Shard, PID: s.PID}
			}
			clear(elsewhere)
			out := make([]uint32, len(list))
			for i, o := range in.peers.ask(ctx, procs) {
				out[i], elsewhere[o.Client] = o.Client, o.Since
			}
			return out
		},
		Younger: func(x, y uint32) bool {
			return younger(since(x), since(y), x, y)
		},
		Cancel: func(id uint32) {
			s := find(id)
			if s == nil {
				return
			}
			in.log.Info("deadlock over shards: the youngest transaction is cancelled", "client", id)
			if h, ok := s.Info().Handler.(*exec.Handler); ok {
				h.CancelBecause(&pgsql.Error{Code: pgsql.DeadlockDetected, Message: "deadlock detected", Detail: "The transaction waits for others on one shard, and they for it on another.", Hint: "Run the transaction again. Lock rows in the same order everywhere."}, false)()
			}
		},
	}
}

// younger says which of two clients' transactions is to end for a deadlock. Every process must say the same: they compare what is sent,
// the stamps of clocks, and not what only the process knows whose client it is.
func younger(sinceX, sinceY time.Time, x, y uint32) bool {
	if c := sinceX.Round(0).Compare(sinceY.Round(0)); c != 0 {
		return c > 0
	}
	return x > y
}
