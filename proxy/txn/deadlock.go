package txn

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// A deadlock over shards is one that no PostgreSQL sees: each shard knows a part of the ring only. The detector puts the
// parts together, also those that other processes know, and ends the youngest transaction of a ring as PostgreSQL would.
// Every process finds the same ring and the same victim, and each ends its own clients only.

// Wait is one edge: a client waits on a shard for a lock that another holds. Clients are named by the ids of their sessions.
type Wait struct {
	Shard          string
	Waiter, Holder uint32
}

// Victims picks one client of each ring of waits that goes over more than one shard: the youngest, by the given order.
func Victims(waits []Wait, younger func(a, b uint32) bool) []uint32 {
	var out []uint32
	for {
		ring := ring(waits)
		if ring == nil {
			return out
		}
		shards := map[string]bool{}
		victim := ring[0].Waiter
		for _, w := range ring {
			shards[w.Shard] = true
			if younger(w.Waiter, victim) {
				victim = w.Waiter
			}
		}
		if len(shards) > 1 { // else its shard finds it
			out = append(out, victim)
		}
		waits = slices.DeleteFunc(slices.Clone(waits), func(w Wait) bool { return w.Waiter == victim })
	}
}

// ring finds waits that lead from a client back to itself.
func ring(waits []Wait) []Wait {
	by := map[uint32][]Wait{}
	for _, w := range waits {
		by[w.Waiter] = append(by[w.Waiter], w)
	}
	done := map[uint32]bool{}
	var path []Wait
	var visit func(client uint32) []Wait
	visit = func(client uint32) []Wait {
		if i := slices.IndexFunc(path, func(w Wait) bool { return w.Waiter == client }); i >= 0 {
			return slices.Clone(path[i:])
		}
		if done[client] {
			return nil
		}
		for _, w := range by[client] {
			path = append(path, w)
			if found := visit(w.Holder); found != nil {
				return found
			}
			path = path[:len(path)-1]
		}
		done[client] = true
		return nil
	}
	for _, w := range waits {
		if found := visit(w.Waiter); found != nil {
			return found
		}
	}
	return nil
}

// Deadlocks looks for deadlocks over shards. Its functions may be called by its goroutine at any time.
type Deadlocks struct {
	Shards  func() [][]Shard                                    // the shards of each database, as of now
	Suspect func() bool                                         // whether enough sessions wait that there may be one: it costs nothing to ask
	Client  func(database int, shard string, pid uint32) uint32 // whose server process pid of a shard is; 0: nobody's here. database is an index of Shards' answer
	Others  func(ctx context.Context, list []Server) []uint32   // the same of those that are nobody's here, asked of the other processes; nil: there are none
	Younger func(a, b uint32) bool                              // whether the transaction of client a is younger than that of b
	Cancel  func(client uint32)                                 // ends what a victim does, with 40P01

	before []seen // of the round before: waits that have just begun are given time
}

// Server is a server process of a shard.
type Server struct {
	Database int // index of Shards' answer
	Shard    string
	PID      uint32
}

// seen is a wait as a shard told of it, with when it began: the wait, its statement and the transaction that it is for. Two
// transactions of the same two clients, or two waits of one, are other waits.
type seen struct {
	Wait
	since string
}

// lasting gives the waits that were seen in two rounds, unbroken. The shards are read one after the other, so what one round
// shows need not have been true at any one moment: a wait for a lock that was given on meanwhile and one that came after it look
// like a ring. Waits that all lasted from one round into the next were all there between the two.
func lasting(before, now []seen) (out []Wait) {
	for _, w := range now {
		if slices.Contains(before, w) {
			out = append(out, w.Wait)
		}
	}
	return out
}

// Run looks every period until ctx ends. Waits count once they have lasted for two rounds. begun is told of each error once, when
// it begins.
func (d *Deadlocks) Run(ctx context.Context, period time.Duration, begun func(error)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	var looking trouble
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			switch {
			case ctx.Err() != nil: // both had come
				return nil
			case !d.Suspect():
				d.before = nil
				continue
			}
			now, err := d.waits(ctx)
			if ctx.Err() == nil {
				news, _ := looking.news(err, nil)
				for _, e := range news {
					begun(e)
				}
			}
			for _, v := range Victims(lasting(d.before, now), d.Younger) {
				d.Cancel(v)
			}
			d.before = now
		}
	}
}

// waitsSQL lists who waits for whom, and since when. waitstart is of PostgreSQL 14, and NULL for a moment when a wait begins.
const waitsSQL = `select a.pid, b.pid, concat_ws(' ', to_jsonb(l)->>'waitstart', a.query_start, h.xact_start)
	from pg_stat_activity a
	left join pg_locks l on l.pid = a.pid and not l.granted,
	unnest(pg_blocking_pids(a.pid)) b(pid)
	left join pg_stat_activity h on h.pid = b.pid
	where a.wait_event_type = 'Lock' and a.datname = current_database() and b.pid <> 0`

func (d *Deadlocks) waits(ctx context.Context) (out []seen, err error) {
	type edge struct {
		waiter, holder Server
		since          string
	}
	var edges []edge
	for i, shards := range d.Shards() {
		for _, s := range shards {
			if s.DSN == "" {
				continue
			}
			err = errors.Join(err, with(ctx, s, func(ctx context.Context, c *pgx.Conn) error {
				rows, _ := c.Query(ctx, waitsSQL)
				var waiter, holder uint32
				var since string
				_, err := pgx.ForEachRow(rows, []any{&waiter, &holder, &since}, func() error {
					edges = append(edges, edge{Server{i, s.Name, waiter}, Server{i, s.Name, holder}, since})
					return nil
				})
				return err
			}))
		}
	}
	clients := map[Server]uint32{}
	var foreign []Server
	for _, e := range edges {
		for _, s := range []Server{e.waiter, e.holder} {
			if _, known := clients[s]; !known {
				if clients[s] = d.Client(s.Database, s.Shard, s.PID); clients[s] == 0 {
					foreign = append(foreign, s)
				}
			}
		}
	}
	if d.Others != nil && len(foreign) > 0 {
		for i, id := range d.Others(ctx, foreign) {
			clients[foreign[i]] = id
		}
	}
	for _, e := range edges {
		if w := (Wait{e.waiter.Shard, clients[e.waiter], clients[e.holder]}); w.Waiter != 0 && w.Holder != 0 && w.Waiter != w.Holder {
			out = append(out, seen{w, e.since})
		}
	}
	return out, err
}
