package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/peer"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// listenOn lists the primaries of a database's shards, for the hub.
func (in *Instance) listenOn(ctx context.Context, db string) ([]notify.Shard, error) {
	d := in.Catalog.Current().Databases[db]
	if d == nil {
		return nil, fmt.Errorf("database %q does not exist", db)
	}
	var out []notify.Shard
	for _, s := range d.Shards {
		dsn, err := in.Engine.PrimaryDSN(ctx, d, s)
		if err != nil {
			return nil, err
		}
		out = append(out, notify.Shard{Name: s.Name, DSN: dsn, Whose: in.whose(db, s.Name)})
	}
	return out, nil
}

// listenNow is listenOn without a wait, and without those who ask whose a database is.
func listenNow(in *Instance, db string) (out []notify.Shard) {
	d := in.Catalog.Current().Databases[db]
	if d == nil {
		return nil
	}
	for _, s := range d.Shards {
		sh := notify.Shard{Name: s.Name}
		if v := in.Monitor.View(db, s.Name); v != nil && v.Serves() {
			sh.DSN = v.Nodes[v.Primary].DSN
		}
		out = append(out, sh)
	}
	return out
}

// verify asks a client's server whether it is a shard's.
func (in *Instance) verify(database, shard string, ask func(sql string) ([][][]byte, error)) error {
	return in.judge(database, shard, func() (shardmap.Identity, error) { return nodeconn.IdentityOver(ask) })
}

// whose asks a connection of the proxy's own the same.
func (in *Instance) whose(database, shard string) nodeconn.Whose {
	return nodeconn.Asked(func(ctx context.Context, c *pgconn.PgConn) error {
		return in.judge(database, shard, func() (shardmap.Identity, error) { return nodeconn.Identify(ctx, c) })
	})
}

func (in *Instance) judge(database, shard string, ask func() (shardmap.Identity, error)) error {
	expected := in.Catalog.Current().Expected(database, shard)
	if !expected.Any() {
		return nil
	}
	says, err := ask()
	if err != nil {
		return err
	}
	return expected.Judge(says)
}

// ShardsOf are a database's shards as they are visited; none for one that is gone.
func (in *Instance) ShardsOf(d *shardmap.DB) []txn.Shard {
	if d == nil {
		return nil
	}
	out := make([]txn.Shard, len(d.Shards))
	for i, s := range d.Shards {
		out[i] = in.shardOf(d, s)
	}
	return out
}

// shardOf is a shard as it is visited, without a DSN where it has no primary.
func (in *Instance) shardOf(d *shardmap.DB, s *shardmap.ShardInfo) txn.Shard {
	whole := in.Engine.Horizon.Slot(in.Engine.Horizon.Shard(d.Name, s.Name), "", 0)
	t := txn.Shard{
		Database: d.Name, Name: s.Name, Ordinal: s.Ordinal, Conns: &in.conns, Whose: in.whose(d.Name, s.Name),
		Writes: func() func() {
			in.Engine.Horizon.Sent(whole)
			return func() { in.Engine.Horizon.Acked(whole, time.Now()) }
		},
	}
	if v := in.Monitor.View(d.Name, s.Name); v != nil && v.Up() {
		t.Node, t.DSN = v.Nodes[v.Primary].Name, v.Nodes[v.Primary].DSN
	}
	return t
}

// primaryOf is the connection string of a shard's primary, whether it answers now or not; empty while none is known.
func primaryOf(in *Instance, database, shard string) string {
	if v := in.Monitor.View(database, shard); v != nil && v.Primary >= 0 {
		return v.Nodes[v.Primary].DSN
	}
	return ""
}

// warnOfShard logs an error of a visit to a shard, with where it was.
func (in *Instance) warnOfShard(what string, err error) {
	attrs := []any{"error", err}
	var s *txn.ShardError
	if errors.As(err, &s) {
		attrs = append([]any{"database", s.Database, "shard", s.Shard, "node", s.Node}, attrs...)
	}
	in.log.Warn(what, attrs...)
}

// Resolver finishes commits over shards that their own session did not.
func (in *Instance) Resolver() *txn.Resolver {
	return &txn.Resolver{Install: in.Catalog.Current().Install, Grace: in.cfg.Grace.Value(), Shards: func() (out [][]txn.Shard) {
		for _, d := range in.Catalog.Current().Databases {
			if len(d.Shards) > 1 {
				out = append(out, in.ShardsOf(d))
			}
		}
		return out
	}}
}

// resolve looks for what a crash left prepared until ctx ends.
func (in *Instance) resolve(ctx context.Context) error {
	r := in.Resolver()
	r.Seen = func(parts []txn.Prepared) {
		panics.Point("resolver")
		in.prepared.Store(&parts)
	}
	return r.Run(ctx, in.cfg.Resolve.Value(), func(err error) { in.warnOfShard("resolver", err) }, func(s txn.ShardError) {
		in.log.Info("the resolver works on a shard again", "database", s.Database, "shard", s.Shard)
	})
}

// finishOn finishes a decided commit on one shard.
func (in *Instance) finishOn(ctx context.Context, db, shard, gid string) error {
	for _, s := range in.ShardsOf(in.Catalog.Current().Databases[db]) {
		if s.Name == shard {
			return in.Resolver().FinishOn(ctx, s, gid)
		}
	}
	return nil // the shard is gone from the map
}

// settle finds out how a commit ended.
func (in *Instance) settle(ctx context.Context, db, gid string) (bool, error) {
	return in.Resolver().Settle(ctx, in.ShardsOf(in.Catalog.Current().Databases[db]), gid)
}

// definitionWait is how long a client's definition waits for others: as long as an admin statement's.
const definitionWait = 20 * time.Second

// holderOf says who has a turn on a shard, as SHOW CLIENTS calls it; empty if nobody has it any more, or that cannot be found out.
func (in *Instance) holderOf(ctx context.Context, db, shard, turn string) string {
	d := in.Catalog.Current().Databases[db]
	if d == nil {
		return ""
	}
	s, ok := d.Shard(shard)
	if !ok {
		return ""
	}
	h, err := txn.HolderOf(ctx, in.shardOf(d, s), turn)
	switch {
	case err != nil:
		return ""
	case h.PID == 0:
		return "a transaction that is prepared on shard " + shard
	}
	process := fmt.Sprintf("server process %d of shard %s, %s", h.PID, shard, h.State)
	if client := in.Pools.ClientOf(db, shard, h.PID); client != 0 {
		return fmt.Sprintf("client %d of user %s (%s)", client, h.User, process)
	}
	if o := in.peers.ask(ctx, []peer.Process{{Database: db, Shard: shard, PID: h.PID}}); o[0].Client != 0 {
		return fmt.Sprintf("client %d of user %s at another pgmosaic (%s)", o[0].Client, h.User, process)
	}
	return fmt.Sprintf("user %s (%s)", h.User, process)
}

// shareSecrets gives the engine what it proves with, on each shard, that a write is the proxy's.
func (in *Instance) shareSecrets() {
	secrets := &txn.Secrets{}
	in.Engine.Turns.Wait.Store(int64(definitionWait))
	in.Engine.Turns.Holder = in.holderOf
	in.Engine.Turns.Secret = func(ctx context.Context, db, shard string, leave func()) (txn.Secret, error) {
		if d := in.Catalog.Current().Databases[db]; d != nil {
			if s, ok := d.Shard(shard); ok {
				visited := in.shardOf(d, s)
				if s, ok := secrets.Known(db, visited); ok {
					return s, nil
				}
				leave()
				if visited.DSN == "" { // as a client's statement, it waits for one that is late, and asks one that is slow
					visited.DSN, _ = in.Engine.PrimaryDSN(ctx, d, s) // why there is none is told by who asks
				}
				if visited.DSN == "" {
					return txn.Secret{}, fmt.Errorf("shard %s has no primary", shard)
				}
				return secrets.Of(ctx, db, visited)
			}
		}
		return txn.Secret{}, fmt.Errorf("the map has no shard %s", shard)
	}
	in.Engine.Turns.Forget = secrets.Forget
	in.Catalog.OnChange(func(s *shardmap.Snapshot) {
		secrets.Retain(func(db, shard string) bool {
			d := s.Databases[db]
			if d == nil {
				return false
			}
			_, ok := d.Shard(shard)
			return ok
		})
	})
}

// followMap closes connections to nodes that leave the map: their databases can be dropped then. Who listens follows it as well.
func (in *Instance) followMap() {
	in.Catalog.OnChange(func(s *shardmap.Snapshot) {
		known := map[string]bool{}
		for _, d := range s.Databases {
			for _, sh := range d.Shards {
				for _, n := range sh.Nodes {
					known[n.DSN] = true
				}
			}
		}
		panics.Go(panics.Background, func() { in.conns.Retain(func(dsn string) bool { return known[dsn] }) })
		in.hub.Follow()
	})
}
