package reshard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// The database of each shard says whose it is, in a table that only the proxy's role may write: see shardmap.Identity. It is told so
// when it becomes a shard of several. From then on a node whose database says another thing, or nothing, is not used.

// makeOwn makes what the proxy itself needs on a shard. Another process may do so at the same time: PostgreSQL then ends one of them, with
// nothing done, as both change the same objects.
func makeOwn(ctx context.Context, mv *Mover, c *pgx.Conn, db string, ordinal int) error {
	joined := 0
	if d := mv.Catalog.Current().Databases[db]; d != nil {
		joined = d.Joined
	}
	for tries := 1; ; tries++ {
		_, err := c.Exec(ctx, txn.Schema(ordinal, joined))
		var pe *pgconn.PgError
		if tries == mostMakers || !errors.As(err, &pe) || !slices.Contains([]string{pgsql.InternalError, pgsql.UniqueViolation, pgsql.DeadlockDetected, pgsql.DuplicateSchema, pgsql.DuplicateTable, pgsql.DuplicateObject, pgsql.DuplicateFunction}, pe.Code) {
			return err
		}
	}
}

// mostMakers is how many processes may be at it at once.
const mostMakers = 10

// tellSQL does without the column that an older version has not made, and that this one may have to wait for.
const (
	tellSQL = `INSERT INTO pgmosaic.identity AS i (installation, database, shard) VALUES ($1, $2, $3)
	  ON CONFLICT (one) DO UPDATE SET shard = $3 WHERE (i.installation, i.database, i.shard) = ($1, $2, $3)`
	attemptSQL = `INSERT INTO pgmosaic.identity AS i (installation, database, shard, attempt) VALUES ($1, $2, $3, $4)
	  ON CONFLICT (one) DO UPDATE SET shard = $3, attempt = CASE WHEN i.attempt IS NOT NULL THEN $4 END WHERE (i.installation, i.database, i.shard) = ($1, $2, $3)`
)

// tell tells a database whose it is, unless it is another's; an attempt that does so first may take it back while it has not ended, and so
// may one that comes after such an attempt, and that one no more. A database that says so already has another row for it afterwards: see parting.
func tell(ctx context.Context, c *pgx.Conn, node string, mine shardmap.Identity, attempt *string) error {
	sql, args := tellSQL, []any{mine.Install, mine.Database, mine.Shard}
	if attempt != nil {
		noted, err := notesAttempts(ctx, c)
		if err == nil && !noted {
			err = &pgsql.Error{
				Code: pgsql.ObjectInUse, Message: fmt.Sprintf("pgmosaic.identity on node %q is of an older version, and in use: it cannot be brought up to date", node),
				Hint: "pg_locks on it shows who holds it, a pg_dump for one. Run the statement again when that has ended.",
			}
		}
		if err != nil {
			return ownOr(node, err)
		}
		sql, args = attemptSQL, append(args, *attempt)
	}
	if _, err := c.Exec(ctx, sql, args...); err != nil {
		return nodeFailed(node, err)
	}
	says, err := nodeconn.Identify(ctx, c.PgConn())
	if err != nil {
		return nodeFailed(node, err)
	}
	if says != mine { // another process was quicker
		return taken(node, mine, says)
	}
	return nil
}

// notesAttempts says whether a database can note which attempt has told it whose it is. Where an older version has made the table it cannot
// as long as somebody holds that: see txn.Schema.
func notesAttempts(ctx context.Context, c *pgx.Conn) (noted bool, err error) {
	err = c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('pgmosaic.identity') AND attname = 'attempt')").Scan(&noted)
	return noted, err
}

// settleMark keeps, or takes back, what an attempt has told a shard's database. An older version has not noted that it was one.
func settleMark(ctx context.Context, c *pgx.Conn, node, sql, attempt string) error {
	noted, err := notesAttempts(ctx, c)
	if err == nil && noted {
		_, err = c.Exec(ctx, sql, attempt)
	}
	return nodeFailedOrNil(node, err)
}

// identityOf is what the database of a shard of this installation says.
func identityOf(mv *Mover, db, shard string) shardmap.Identity {
	return shardmap.Identity{Install: mv.Catalog.Current().Install, Database: db, Shard: shard}
}

// prepareShard makes what the proxy itself needs on a shard, and with mark tells it whose it is, if nobody has yet.
func (mv *Mover) prepareShard(ctx context.Context, c *pgx.Conn, node string, mine shardmap.Identity, ordinal int, mark bool) error {
	says, err := nodeconn.Identify(ctx, c.PgConn())
	if err != nil {
		return nodeFailed(node, err)
	}
	if says != mine && says != (shardmap.Identity{}) {
		if !mark {
			return nil // it is another's: what is needed there is there
		}
		return taken(node, mine, says)
	}
	if err := makeOwn(ctx, mv, c, mine.Database, ordinal); err != nil {
		return nodeFailed(node, err)
	}
	if !mark {
		return nil
	}
	return tell(ctx, c, node, mine, nil)
}

// whose asks a connection that the proxy is about to work over whether it is the shard's.
func (mv *Mover) whose(db string, s *shardmap.ShardInfo, node string) nodeconn.Whose {
	return nodeconn.Asked(func(ctx context.Context, c *pgconn.PgConn) error {
		expected := mv.Catalog.Current().Expected(db, s.Name)
		if !expected.Any() {
			return nil
		}
		says, err := nodeconn.Identify(ctx, c)
		if err != nil {
			return nodeFailed(node, err)
		}
		return strange(node, expected.Judge(says))
	})
}

// strange is what an admin statement says of a node that was judged.
func strange(node string, judgement error) error {
	var stranger *shardmap.StrangerError
	if errors.As(judgement, &stranger) {
		return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("node %q: %s", node, stranger.Message), Hint: stranger.Hint}
	}
	return nil
}

// taken refuses a database that is another shard's.
func taken(node string, mine, says shardmap.Identity) error {
	e := &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("node %q is in use: it is %s", node, says)}
	const free = "DELETE FROM pgmosaic.identity on it, as the role of its connection string"
	if says.Install == mine.Install {
		e.Hint = "Each shard has a database of its own. If it is a copy that is to go its own way, or that shard is gone: " + free + "."
		return e
	}
	e.Message += " of the installation " + says.Install
	e.Hint = "Give this process that installation's map file. If that installation is gone, or the database is a copy that is to go its own way: " + free + "."
	return e
}

// checkFree refuses nodes that are in use by another shard.
func (mv *Mover) checkFree(d *shardmap.DB, shard string, nodes []shardmap.Node, found []facts) error {
	mine := identityOf(mv, d.Name, shard)
	for i, n := range nodes {
		if says := found[i].says; d.Home != nil && says != mine && says != (shardmap.Identity{}) {
			return taken(n.Name, mine, says)
		}
		for _, other := range mv.Catalog.Current().SortedDatabases() {
			if other != d && len(other.Shards) < 2 && d.Home == nil {
				continue // two names for one database
			}
			if s := mv.usedBy(other, n, found[i]); s != "" {
				return taken(n.Name, mine, shardmap.Identity{Install: mine.Install, Database: other.Name, Shard: s})
			}
		}
	}
	return nil
}

// usedBy names the shard of a database that a node is a copy of already; empty for none. A node that does not answer is known by
// its connection string only.
func (mv *Mover) usedBy(d *shardmap.DB, n shardmap.Node, f facts) string {
	for _, s := range d.Shards {
		v := mv.Monitor.View(d.Name, s.Name)
		for i, o := range s.Nodes {
			cfg, err := pgconn.ParseConfig(o.DSN)
			if err != nil {
				continue
			}
			own, err := pgconn.ParseConfig(n.DSN)
			if err == nil && cfg.Host == own.Host && cfg.Port == own.Port && cfg.Database == own.Database {
				return s.Name
			}
			if v != nil && i < len(v.Nodes) && v.Nodes[i].DSN == o.DSN && v.Nodes[i].Sample.SystemID == f.system && cfg.Database == f.database {
				return s.Name
			}
		}
	}
	return ""
}

// checkClaim refuses a node that is another shard's.
func (mv *Mover) checkClaim(db string, s *shardmap.ShardInfo, n shardmap.Node, f facts) error {
	snap := mv.Catalog.Current()
	mine := shardmap.Identity{Install: snap.Install, Database: db, Shard: s.Name}
	if snap.Expected(db, s.Name).Any() && f.says != mine && f.says != (shardmap.Identity{}) {
		return taken(n.Name, mine, f.says)
	}
	for _, other := range snap.SortedDatabases() {
		used := mv.usedBy(other, n, f)
		if used == "" || other.Name == db && used == s.Name || other.Name != db && len(other.Shards) < 2 && len(snap.Databases[db].Shards) < 2 {
			continue
		}
		return taken(n.Name, mine, shardmap.Identity{Install: mine.Install, Database: other.Name, Shard: used})
	}
	return nil
}

// checkMoved refuses to give a node a connection string of another shard's. One that does not answer is believed: it is asked
// before anything is sent there.
func (mv *Mover) checkMoved(ctx context.Context, db string, s *shardmap.ShardInfo, n shardmap.Node) error {
	f, err := identify(ctx, nil, n)
	var e *pgsql.Error
	if errors.As(err, &e) && e.Code == pgsql.InvalidParameterValue {
		return err
	}
	for _, o := range s.Nodes {
		if err != nil || o.Name == n.Name {
			continue
		}
		if other, oerr := identify(ctx, nil, *o); oerr == nil && other.database != f.database {
			return otherDatabase(n.Name, f, o.Name, other)
		}
	}
	return mv.checkClaim(db, s, n, f)
}

// mayLeave refuses to drop the node that a shard lives on. It is pure. v is nil if nothing is known of the shard.
func mayLeave(v *replication.View, node int) error {
	if v == nil || node >= len(v.Nodes) {
		return nil
	}
	answers := func(n replication.NodeView) bool { return n.Sample.Err == nil && !n.Sample.Sent.IsZero() }
	n, others := v.Nodes[node], false
	for i, o := range v.Nodes {
		others = others || i != node && answers(o)
	}
	switch {
	case v.Primary == node && v.Up():
		return &pgsql.Error{
			Code: pgsql.ObjectInUse, Message: fmt.Sprintf("node %q is the primary that serves shard %q", n.Name, v.Shard),
			Hint: "Promote another node, and drop this one when SHOW NODES shows that one as the primary; or stop this server first.",
		}
	case answers(n) && !others:
		return &pgsql.Error{
			Code: pgsql.ObjectInUse, Message: fmt.Sprintf("node %q is the last of shard %q that answers", n.Name, v.Shard),
			Hint: "Add another node first, or see why the others do not answer: SHOW REPLICAS.",
		}
	}
	return nil
}

// adopt tells the database of a shard's only primary that it is the shard's, whatever it said before: it was restored or copied on
// purpose, or upgraded. note says so in the map, with the system identifier of that server. The database of another shard of the map is none that could
// have been.
func (mv *Mover) adopt(ctx context.Context, db string, s *shardmap.ShardInfo, dry bool) (note func(*shardmap.Tx) error, err error) {
	system := ""
	var primary *shardmap.Node
	var says shardmap.Identity
	for _, n := range s.Nodes {
		f, err := identify(ctx, nil, *n)
		if err != nil || f.recovery {
			continue
		}
		if primary != nil {
			return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("nodes %q and %q of shard %q both answer as a primary", primary.Name, n.Name, s.Name), Hint: "Stop the one that is not the shard's."}
		}
		primary, says, system = n, f.says, f.system
		if d := mv.Catalog.Current().Databases[f.says.Database]; f.says.Install == mv.Catalog.Current().Install && d != nil {
			if o, ok := d.Shard(f.says.Shard); ok && (d.Name != db || o != s) && mv.usedBy(&shardmap.DB{Name: d.Name, Shards: []*shardmap.ShardInfo{o}}, *n, f) != "" {
				return nil, taken(n.Name, shardmap.Identity{Install: f.says.Install, Database: db, Shard: s.Name}, f.says)
			}
		}
	}
	if primary == nil {
		return nil, &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("no node of shard %q answers as a primary", s.Name), Hint: "SHOW NODES shows its nodes and why."}
	}
	c, err := connect(ctx, nil, primary.Name, primary.DSN, nodeconn.Unasked("it was asked before, and is told another thing"))
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	d, err := mv.Database(db)
	if err != nil {
		return nil, err
	}
	several := len(d.Shards) > 1
	note = func(tx *shardmap.Tx) error {
		err := tx.SetSystem(db, s.Name, system, true)
		if several {
			err = errors.Join(err, tx.MarkShard(db, s.Name))
		}
		return err
	}
	if dry || !several { // the database of an only shard is told nothing
		return note, nil
	}
	if err := makeOwn(ctx, mv, c, db, s.Ordinal); err != nil {
		return nil, nodeFailed(primary.Name, err)
	}
	noted, err := notesAttempts(ctx, c)
	if err != nil {
		return nil, nodeFailed(primary.Name, err)
	}
	nobodys := ""
	if noted {
		nobodys = ", attempt = NULL"
	}
	tag, err := c.Exec(ctx, `INSERT INTO pgmosaic.identity AS i (installation, database, shard) VALUES ($1, $2, $3)
	  ON CONFLICT (one) DO UPDATE SET installation = $1, database = $2, shard = $3`+nobodys+` WHERE (i.installation, i.database, i.shard) = ($4, $5, $6)`, mv.Catalog.Current().Install, db, s.Name, says.Install, says.Database, says.Shard)
	if err != nil {
		return nil, nodeFailed(primary.Name, err)
	}
	if tag.RowsAffected() == 0 { // it was asked, and told another thing meanwhile
		return nil, &pgsql.Error{Code: pgsql.SerializationFailure, Message: fmt.Sprintf("node %q was told whose it is by another process meanwhile", primary.Name), Hint: "Look at the map and run the statement again."}
	}
	if err := mv.noteAdopted(ctx, db, s, primary.Name, c); err != nil {
		return nil, err
	}
	if s.Name == d.Home.Name {
		err = nodeFailedOrNil(primary.Name, recount(ctx, c, d.Joined, says == identityOf(mv, db, s.Name)))
	}
	if err == nil {
		err = nodeFailedOrNil(primary.Name, mv.watchCopies(ctx, d, c))
	}
	return note, err
}

// recount has home count as many shards as the map knows, or, if it was this home before, as many at least: if it knows of more, the map is
// older, or lacks what a CREATE SHARD has decided just now.
func recount(ctx context.Context, c *pgx.Conn, joined int, before bool) error {
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		var have int
		err := tx.QueryRow(ctx, txn.Counted).Scan(&have)
		if err == nil && (have < joined || have > joined && !before) {
			err = runBounded(ctx, tx, definitionWait, txn.Recount(have, joined)...)
		}
		return err
	})
}

// noteAdopted notes that the tables and schemas which the map distributes over a shard are what it has made there: the database may come from before
// they were, or without the schema in which that is noted.
func (mv *Mover) noteAdopted(ctx context.Context, db string, s *shardmap.ShardInfo, node string, c *pgx.Conn) error {
	d, err := mv.Database(db)
	if err != nil {
		return err
	}
	note := "INSERT INTO pgmosaic.made (relation, distribution, attempt) SELECT to_regclass($1), $2, $2 WHERE to_regclass($1) IS NOT NULL ON CONFLICT DO NOTHING"
	if s.Name == d.Home.Name {
		note = "INSERT INTO pgmosaic.placed (relation, distribution, attempt, at) SELECT to_regclass($1), $2, $2, 'shards' WHERE to_regclass($1) IS NOT NULL ON CONFLICT DO NOTHING"
	}
	for _, t := range mv.Catalog.Current().Document.Tables {
		if t.Database != db || t.Moving || t.Made == "" && s.Name == d.Home.Name { // home is told of an older version's when it is brought home
			continue
		}
		if _, err := c.Exec(ctx, note, t.TableName().SQL(), t.Made); err != nil {
			return nodeFailed(node, err)
		}
	}
	for _, t := range mv.Catalog.Current().Document.Tenants { // home is told of a schema; of its tables the shard is when they go
		if t.Database != db || t.Moving || t.Made == "" || s.Name != d.Home.Name {
			continue
		}
		if _, err := c.Exec(ctx, "INSERT INTO pgmosaic.placed (schema, distribution, attempt, at) SELECT nspname, $2, $2, 'shards' FROM pg_namespace WHERE nspname = $1 ON CONFLICT DO NOTHING", t.Schema, t.Made); err != nil {
			return nodeFailed(node, err)
		}
	}
	return nil
}

// parting is a connection to the database of a shard that is about to be dropped, and the row in which it says that it is the shard's: if
// it is told so once more before the connection is used, that is another row.
type parting struct {
	*pgx.Conn
	row string
}

// part opens it; nil if the shard does not answer. v is what is known of the shard.
func part(ctx context.Context, mv *Mover, db, shard string, v *replication.View) *parting {
	if !v.Up() {
		return nil
	}
	p := &parting{}
	c, err := connect(ctx, nil, v.Nodes[v.Primary].Name, v.Nodes[v.Primary].DSN, nodeconn.Unasked("the row that says so is all that is read and deleted"))
	if err == nil {
		p.Conn = c
		err = c.QueryRow(ctx, "SELECT xmin::text FROM pgmosaic.identity WHERE installation = $1 AND database = $2 AND shard = $3", mv.Catalog.Current().Install, db, shard).Scan(&p.row)
	}
	if err != nil {
		stays(mv, db, shard, err)
		if c != nil {
			_ = c.Close(context.WithoutCancel(ctx)) // nothing is left on it
		}
		return nil
	}
	return p
}

// release lets the database of a shard that has been dropped be used for another. If it did not answer it says what it said: who uses it
// next is told what to do.
func (mv *Mover) release(ctx context.Context, db, shard string, p *parting) {
	if _, err := p.Exec(ctx, "DELETE FROM pgmosaic.identity WHERE xmin = $1::text::xid", p.row); err != nil {
		stays(mv, db, shard, err)
	}
}

// stays tells of a database that says that it is a dropped shard's. One of long ago may say nothing, or have no table for it.
func stays(mv *Mover, db, shard string, err error) {
	var pe *pgconn.PgError
	if errors.Is(err, pgx.ErrNoRows) || errors.As(err, &pe) && pe.Code == pgsql.UndefinedTable {
		return
	}
	mv.Log.Warn("the database of a dropped shard still says that it is the shard's", "database", db, "shard", shard, "hint", "DELETE FROM "+pgsql.Qualified("pgmosaic", "identity"), "error", err)
}

// RunUpgrade gives the shards of the map what an older process did not make there, and tells them whose they are. It tries again
// after every pause until all have it, or ctx ends.
func (mv *Mover) RunUpgrade(ctx context.Context, pause time.Duration) error {
	for logged, most := map[string]string{}, 6*pause; ; pause = min(2*pause, most) { // each try may hold others up for a moment
		if mv.upgrade(ctx, logged) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// upgrade does so once. told has the last error of each shard: one that stays is logged once.
func (mv *Mover) upgrade(ctx context.Context, logged map[string]string) (all bool) {
	all = true
	for _, d := range mv.Catalog.Current().SortedDatabases() {
		for _, s := range d.Shards {
			var err error
			if s.System == "" {
				var n shardmap.Node
				if n, err = mv.primaryOf(ctx, d.Name, s); err == nil {
					err = noteSystem(ctx, mv.Catalog, d.Name, s.Name, n)
				}
			}
			if err == nil && len(d.Shards) > 1 {
				err = mv.upgradeShard(ctx, d.Name, s)
			}
			if err == nil || ctx.Err() != nil {
				continue
			}
			all = false
			if key := d.Name + "\x00" + s.Name; logged[key] != err.Error() {
				logged[key] = err.Error()
				mv.Log.Warn("a shard may lack what an older version did not make there, or the map what it did not note", "database", d.Name, "shard", s.Name, "error", err)
			}
		}
	}
	return all
}

// noteSystem notes the system identifier of a shard's servers, which the map of an older version does not have.
func noteSystem(ctx context.Context, cat *shardmap.Catalog, db, shard string, primary shardmap.Node) error {
	f, err := identify(ctx, nil, primary)
	if err != nil {
		return err
	}
	return cat.Retry(ctx, func(tx *shardmap.Tx) error { return tx.SetSystem(db, shard, f.system, false) })
}

func (mv *Mover) upgradeShard(ctx context.Context, db string, s *shardmap.ShardInfo) error {
	n, err := mv.primaryOf(ctx, db, s)
	if err != nil {
		return err
	}
	defer mv.Alone()()
	d := mv.Catalog.Current().Databases[db]
	if d == nil {
		return nil
	}
	s, ok := d.Shard(s.Name)
	if !ok || !slices.ContainsFunc(s.Nodes, func(o *shardmap.Node) bool { return o.DSN == n.DSN }) {
		return nil
	}
	c, err := connect(ctx, nil, n.Name, n.DSN, mv.whose(db, s, n.Name))
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	have := false
	if s.Marked {
		if have, err = hasAll(ctx, c, n.Name); err != nil {
			return err
		}
	}
	var held error
	if !have {
		if err := mv.prepareShard(ctx, c, n.Name, identityOf(mv, db, s.Name), s.Ordinal, true); err != nil {
			return err
		}
		if have, err = hasAll(ctx, c, n.Name); err != nil {
			return err
		}
		if !have {
			held = errHeld
		}
	}
	if err := mv.watchCopies(ctx, d, c); err != nil {
		return nodeFailed(n.Name, err)
	}
	if err := recheckOlder(ctx, d, s, c); err != nil {
		return nodeFailed(n.Name, err)
	}
	if s.Marked {
		return held
	}
	return errors.Join(held, mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return tx.MarkShard(db, s.Name) }))
}

// errHeld is that somebody has a table in use that an older version has made: see txn.Schema.
var errHeld = errors.New("tables of schema pgmosaic that an older version has made are in use, and cannot be brought up to date: until then, members of pg_read_all_data and pg_write_all_data may read and write them; pg_locks shows who holds them, a pg_dump for one")

// hasAll says whether a shard has all that the proxy makes there, and nothing of it is open to those who should not have it.
func hasAll(ctx context.Context, c *pgx.Conn, node string) (have bool, err error) {
	err = c.QueryRow(ctx, txn.Complete).Scan(&have)
	return have, nodeFailedOrNil(node, err)
}
