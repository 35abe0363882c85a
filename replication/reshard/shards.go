package reshard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// CreateShard declares a shard of a database. Beside others it gets what home has.
func (mv *Mover) CreateShard(ctx context.Context, db, name string, nodes []shardmap.Node, home, dry bool) (*shardmap.Snapshot, error) {
	defer mv.Alone()()
	d, err := mv.Database(db)
	if err == nil && d.Home != nil {
		d, err = mv.settled(ctx, db)
	}
	if err != nil {
		return nil, err
	}
	if _, dup := d.Shard(name); dup {
		return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("shard %q of database %q already exists", name, db)}
	}
	if !txn.MayDecide(mv.Catalog.Current().Install, name) {
		return nil, &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("a shard cannot be called %q", name), Hint: "Transactions over shards carry its name: leave : and / out of it, and keep it below 100 bytes."}
	}
	seen := map[string]bool{}
	for _, s := range d.Shards {
		for _, n := range s.Nodes {
			seen[n.Name] = true
		}
	}
	for _, n := range nodes {
		if seen[n.Name] {
			return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("node %q of database %q already exists", n.Name, db), Hint: "Give it another NAME."}
		}
		seen[n.Name] = true
	}
	conns := &nodeconn.Kept{}
	defer conns.Retain(func(string) bool { return false })
	primary, found, err := checkShard(ctx, conns, nodes)
	if err != nil {
		return nil, err
	}
	if err := mv.checkFree(d, name, nodes, found); err != nil {
		return nil, err
	}
	if home && d.Home != nil {
		return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("database %q already has the home shard %q", db, d.Home.Name), Hint: "Leave HOME out."}
	}
	x := newAttempt(shardmap.Attempt{Database: db, Statement: "CREATE SHARD " + name, Shard: &shardmap.Shard{Database: db, Name: name, Marked: d.Home != nil, System: found[0].system}})
	for _, s := range d.Shards {
		x.Shard.Ordinal = max(x.Shard.Ordinal, s.Ordinal+1) // of several, see addShard
	}
	for i, n := range nodes {
		n.Database, n.Shard, n.Ordinal = db, name, i
		x.Nodes = append(x.Nodes, &n)
	}
	if d.Home != nil {
		return mv.addShard(ctx, d, newcomer{primary, conns, becomes(mv, db, name, primary.Name), 0}, x, dry)
	}
	if !dry {
		err := prepareNew(ctx, mv, newcomer{primary, conns, nodeconn.Unasked("an only shard is told nothing, and may be another's"), 0}, x)
		var e *pgsql.Error
		if err != nil && !(errors.As(err, &e) && e.Code == pgsql.InsufficientPrivilege) { // a database of one shard needs nothing of ours there; its second shard will
			return nil, err
		}
	}
	return mv.Change(ctx, "CREATE SHARD", dry, d, func(tx *shardmap.Tx) error {
		return errors.Join(putShard(tx, x), tx.PutDatabase(shardmap.Database{Name: db, Home: name}))
	})
}

// newcomer is the primary of a shard that is being made.
type newcomer struct {
	shardmap.Node
	conns *nodeconn.Kept // to it, of this statement alone: no map has it yet
	whose nodeconn.Whose

	counted int // home's count of shards before it
}

func (p newcomer) connect(ctx context.Context) (*pgx.Conn, error) {
	return connect(ctx, p.conns, p.Name, p.DSN, p.whose)
}

// becomes asks a newcomer's database, which says nothing until it is told that it is the shard's.
func becomes(mv *Mover, db, shard, node string) nodeconn.Whose {
	return nodeconn.Asked(func(ctx context.Context, c *pgconn.PgConn) error {
		mine := identityOf(mv, db, shard)
		says, err := nodeconn.Identify(ctx, c)
		if err != nil {
			return nodeFailed(node, err)
		}
		if says != mine && says != (shardmap.Identity{}) {
			return taken(node, mine, says)
		}
		return nil
	})
}

// prepareNew is prepareShard for a newcomer.
func prepareNew(ctx context.Context, mv *Mover, p newcomer, x shardmap.Attempt) error {
	c, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer giveBack(ctx, p.conns, c)
	return mv.prepareShard(ctx, c, p.Name, identityOf(mv, x.Database, x.Shard.Name), x.Shard.Ordinal, false)
}

func putShard(tx *shardmap.Tx, x shardmap.Attempt) error {
	err := tx.PutShard(*x.Shard)
	for _, n := range x.Nodes {
		err = errors.Join(err, tx.PutNode(*n))
	}
	return err
}

// addShard makes a shard beside others, with what home has. Home decides: see attempt.go.
func (mv *Mover) addShard(ctx context.Context, d *shardmap.DB, primary newcomer, x shardmap.Attempt, dry bool) (snap *shardmap.Snapshot, err error) {
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, home)
	var tables []shardmap.TableName
	for _, t := range d.SortedTables() {
		tables = append(tables, t.TableName)
	}
	err = owned(ctx, home, tables...)
	var defined []object
	if err == nil {
		defined, err = objects(ctx, home)
	}
	if err != nil {
		return nil, ownOr(d.Home.Name, err)
	}
	dst, err := primary.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err = vacant(ctx, dst, x.Shard.Name, tables); err == nil {
		err = fits(ctx, home, defined, dst, x.Shard.Name)
	}
	if err == nil {
		err = fitsDefaults(ctx, home, dst, x.Shard.Name)
	}
	giveBack(ctx, primary.conns, dst)
	if err != nil {
		return nil, ownOr(x.Shard.Name, err)
	}
	if dry {
		return mv.Change(ctx, "CREATE SHARD", true, d, func(tx *shardmap.Tx) error { return putShard(tx, x) })
	}
	first, err := mv.primaryOf(ctx, d.Name, d.Home)
	if err == nil {
		err = mv.prepareShard(ctx, home, first.Name, identityOf(mv, d.Name, d.Home.Name), d.Home.Ordinal, true)
	}
	if err != nil {
		return nil, err
	}
	if err := home.QueryRow(ctx, txn.Counted).Scan(&primary.counted); err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	if len(d.Shards) > 1 && primary.counted != d.Joined {
		return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("%d shards have joined database %q, and this map knows of %d", primary.counted, d.Name, d.Joined), Hint: otherMap + " If home was restored: ALTER SHARD " + d.Home.Name + " IN " + d.Name + " ADOPT."}
	}
	x.Shard.Ordinal = max(x.Shard.Ordinal, primary.counted+1) // those of dropped shards are not given again: what they have drawn, and ids that they gave, may be known
	x.Count = x.Shard.Ordinal
	if err := prepareNew(ctx, mv, primary, x); err != nil {
		return nil, err
	}
	j := mv.begin(d.Name, x.Statement)
	defer j.close(&err)
	if err = mv.start(ctx, d, home, x, nil); err == nil {
		_, err = home.Exec(ctx, "INSERT INTO pgmosaic.placed (shard, distribution, attempt, at) VALUES ($1, $2, $2, 'home')", x.Shard.Name, x.ID)
		err = ownOr(d.Home.Name, err)
	}
	if err == nil {
		err = mv.join(ctx, d, home, primary, x, j)
	}
	if err != nil {
		_ = home.Close(context.WithoutCancel(ctx)) // which gives up the attempt
		return nil, errors.Join(err, mv.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	if mv.Joins != nil {
		defer mv.Joins(ctx, d.Name, x.Shard.Name, primary.DSN, primary.whose)()
	}
	err = mv.shardDone(ctx, d, home, x)
	var later *laterError
	if errors.As(err, &later) {
		mv.Log.Warn("what a statement has left cannot be settled yet", "error", later)
		err = nil
	}
	if err != nil {
		return nil, lastStep(x, err)
	}
	return mv.done("CREATE SHARD"), nil
}

// namePrimary says which of the nodes that claim to be a shard's primary it is. The others get nothing until they are
// replicas.
func (mv *Mover) namePrimary(db string, s *shardmap.ShardInfo, node string, tx *shardmap.Tx) error {
	claims := func(i int) bool {
		v := mv.Monitor.View(db, s.Name)
		return v != nil && i < len(v.Nodes) && v.Nodes[i].Primary && v.Nodes[i].Sample.Err == nil
	}
	at := slices.IndexFunc(s.Nodes, func(n *shardmap.Node) bool { return n.Name == node })
	switch {
	case at < 0:
		return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("node %q does not exist in shard %q", node, s.Name), Hint: "SHOW NODES lists them."}
	case !claims(at):
		return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("node %q does not answer as a primary", node), Hint: "pgmosaic promotes nobody: promote it with pg_ctl promote, or by your cluster manager. SHOW REPLICAS shows what each node says of itself."}
	}
	for i, n := range s.Nodes {
		if barred := i != at && (claims(i) || n.Barred); barred != n.Barred {
			other := *n
			other.Barred = barred
			if err := tx.PutNode(other); err != nil {
				return err
			}
		}
	}
	return tx.PutShard(shardmap.Shard{Database: db, Name: s.Name, Ordinal: s.Ordinal, Primary: node, Named: s.Named + 1, Marked: s.Marked, System: s.System, Adopted: s.Adopted})
}

// Rejoined lets a node that the admin had barred be a shard's primary again some day: it is a replica now.
func (mv *Mover) Rejoined(ctx context.Context, db, shard, node string) error {
	defer mv.Alone()()
	d := mv.Catalog.Current().Databases[db]
	if d == nil {
		return nil
	}
	s, ok := d.Shard(shard)
	if !ok {
		return nil
	}
	for _, n := range s.Nodes {
		if n.Name == node && n.Barred {
			_, err := mv.Change(ctx, "ALTER SHARD", false, d, func(tx *shardmap.Tx) error {
				free := *n
				free.Barred = false
				return tx.PutNode(free)
			})
			return err
		}
	}
	return nil
}

// NoShard is the refusal of a shard that there is not.
func NoShard(name, db string) error {
	return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("shard %q does not exist in database %q", name, db), Hint: "SHOW SHARDS lists them."}
}

func mayDrop(d *shardmap.DB, attempts []*shardmap.Attempt, kind, name string) error {
	inUse := func(format string, args ...any) error {
		return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf(format, args...), Hint: "Move or drop what depends on it first."}
	}
	switch kind {
	case "database":
		if len(d.Shards) > 0 {
			return inUse("database %q still has %d shards", d.Name, len(d.Shards))
		}
	case "group":
		g := d.Groups[name]
		if g == nil {
			return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("group %q does not exist in database %q", name, d.Name), Hint: "SHOW GROUPS lists them."}
		}
		for _, t := range d.Tables {
			if t.Group == g {
				return inUse("group %q still has table %s", name, t.TableName)
			}
		}
	default:
		s, ok := d.Shard(name)
		if !ok {
			return NoShard(name, d.Name)
		}
		for _, g := range d.Groups {
			if slices.Contains(d.Placement(g).Shards(), s.Index) {
				return inUse("shard %q still owns keys of group %q", name, g.Name)
			}
		}
		for _, t := range d.Tenants() {
			if d.Placement(t).Shards()[0] == s.Index {
				return inUse("schema %q lives on shard %q", t.Name, name)
			}
		}
		if s == d.Home && len(d.Shards) > 1 {
			return inUse("shard %q is the home shard", name)
		}
		if s == d.Home {
			return mayLeaveHome(d, attempts, name)
		}
	}
	return nil
}

// mayLeaveHome refuses to drop the last shard while the map has a table of its database, or a statement that home has to decide.
func mayLeaveHome(d *shardmap.DB, attempts []*shardmap.Attempt, name string) error {
	if tables := d.SortedTables(); len(tables) > 0 {
		return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("shard %q has all of table %s, which is distributed", name, tables[0].TableName), Hint: "UNDISTRIBUTE TABLE it first."}
	}
	for _, x := range attempts {
		if x.Database == d.Name {
			return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("shard %q is the home of what is unfinished: %s", name, x.Statement), Hint: "It is undone when the nodes that it was at answer: SHOW JOBS, and the log, say which do not. DROP SHARD gives up a CREATE SHARD whose server is gone for good."}
		}
	}
	return nil
}

// alterShard changes a shard as edit says, which asks the nodes before the map is touched.
func (mv *Mover) alterShard(ctx context.Context, db, name string, dry bool, edit func(s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error)) (*shardmap.Snapshot, error) {
	defer mv.Alone()()
	d, err := mv.Database(db)
	if err != nil {
		return nil, err
	}
	s, ok := d.Shard(name)
	if !ok {
		return nil, NoShard(name, db)
	}
	put, err := edit(s)
	if err != nil {
		return nil, err
	}
	return mv.Change(ctx, "ALTER SHARD", dry, d, put)
}

func noNode(node, shard string) error {
	return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("node %q does not exist in shard %q", node, shard), Hint: "SHOW NODES lists them."}
}

// AddNode gives a shard a node more, whose server must be of that shard.
func (mv *Mover) AddNode(ctx context.Context, db, shard string, n shardmap.Node, dry bool) (*shardmap.Snapshot, error) {
	return mv.alterShard(ctx, db, shard, dry, func(s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
		n.Database, n.Shard = db, shard
		for _, o := range s.Nodes {
			if o.Name == n.Name {
				return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("node %q already exists", n.Name)}
			}
			n.Ordinal = max(n.Ordinal, o.Ordinal+1)
		}
		if n.Name == "" {
			n.Name = fmt.Sprintf("%s_%d", shard, n.Ordinal+1)
		}
		return func(tx *shardmap.Tx) error { return tx.PutNode(n) }, mv.checkMember(ctx, db, s, n)
	})
}

// DropNode takes a node from a shard that goes on without it.
func (mv *Mover) DropNode(ctx context.Context, db, shard, node string, dry bool) (*shardmap.Snapshot, error) {
	return mv.alterShard(ctx, db, shard, dry, func(s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
		for i, o := range s.Nodes {
			if o.Name == node {
				return func(tx *shardmap.Tx) error { return tx.Delete("nodes", db, shard, node) }, mayLeave(mv.Monitor.View(db, shard), i)
			}
		}
		return nil, noNode(node, shard)
	})
}

// AlterNode says where a node is from now on.
func (mv *Mover) AlterNode(ctx context.Context, db, shard, node, dsn string, dry bool) (*shardmap.Snapshot, error) {
	return mv.alterShard(ctx, db, shard, dry, func(s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
		for _, o := range s.Nodes {
			if o.Name == node {
				n := *o
				n.DSN = dsn
				return func(tx *shardmap.Tx) error { return tx.PutNode(n) }, mv.checkMoved(ctx, db, s, n)
			}
		}
		return nil, noNode(node, shard)
	})
}

// SetPrimary says which of the nodes that claim to be a shard's primary it is.
func (mv *Mover) SetPrimary(ctx context.Context, db, shard, node string, dry bool) (*shardmap.Snapshot, error) {
	return mv.alterShard(ctx, db, shard, dry, func(s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
		return func(tx *shardmap.Tx) error { return mv.namePrimary(db, s, node, tx) }, nil
	})
}

// Adopt tells the database of a shard's primary, which was restored, copied or upgraded on purpose, that it is this shard's.
func (mv *Mover) Adopt(ctx context.Context, db, shard string, dry bool) (*shardmap.Snapshot, error) {
	return mv.alterShard(ctx, db, shard, dry, func(s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
		return mv.adopt(ctx, db, s, dry)
	})
}

// Drop forgets a database, a shard or a group that nothing depends on; kind is "database", "shard" or "group".
func (mv *Mover) Drop(ctx context.Context, kind, db, name string, dry bool) (*shardmap.Snapshot, error) {
	defer mv.Alone()()
	d, err := mv.Database(db)
	if err == nil && d.Home != nil { // a table that is about to be distributed needs its group, and its shards
		if d, err = mv.settled(ctx, db); err != nil && kind == "shard" {
			d, err = settledWithout(ctx, mv, db, name, dry, err)
		}
	}
	if err != nil {
		return nil, err
	}
	attempts := mv.Catalog.Current().Document.Attempts
	if _, there := d.Shard(name); kind == "shard" && !there {
		for _, x := range attempts { // which could not be undone just now
			if x.Database == db && x.Shard != nil && x.Shard.Name == name {
				return forsake(ctx, mv, d, *x, dry)
			}
		}
	}
	if err := mayDrop(d, attempts, kind, name); err != nil {
		return nil, err
	}
	var parts *parting
	if kind == "shard" && !dry {
		if parts = part(ctx, mv, db, name, mv.Monitor.View(db, name)); parts != nil {
			defer parts.Close(context.WithoutCancel(ctx)) // nothing is left on it
		}
	}
	var lost map[shardmap.TableName]bool
	doc := mv.Catalog.Current().Document
	if s, _ := d.Shard(name); kind == "shard" && !dry && s != d.Home {
		lost = passOn(ctx, mv, d, s)
	}
	restore := func() error { return nil }
	if kind == "shard" && !dry && len(d.Shards) == 2 { // before: what the only shard is asked for, it does
		if restore, err = mv.unwatchLast(ctx, d); err != nil {
			return nil, err
		}
	}
	snap, err := mv.Change(ctx, "DROP "+strings.ToUpper(kind), dry, d, func(tx *shardmap.Tx) error {
		switch kind {
		case "database":
			for _, r := range d.ShardSafes() {
				if err := tx.Delete("routines", db, r.Schema, r.Name); err != nil {
					return err
				}
			}
			return tx.Delete("databases", name)
		case "group":
			return tx.DropGroup(db, name)
		}
		s, _ := d.Shard(name)
		if err := markLost(tx, doc, db, lost); err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if err := tx.Delete("nodes", db, name, n.Name); err != nil {
				return err
			}
		}
		if d.Home == s {
			if err := tx.PutDatabase(shardmap.Database{Name: db}); err != nil {
				return err
			}
		}
		return tx.Delete("shards", db, name)
	})
	if err != nil {
		return nil, errors.Join(err, restore())
	}
	if kind == "shard" && !dry && len(d.Shards) == 2 { // once more: another process may have given them back, by the map of before
		if _, err := mv.unwatchLast(ctx, d); err != nil {
			mv.Log.Warn("reference tables on the only shard may still be written by its own statements only", "database", db, "error", err)
		}
	}
	if parts != nil { // only now: a shard that stays in the map must say that it is one
		mv.release(ctx, db, name, parts)
	}
	return snap, nil
}
