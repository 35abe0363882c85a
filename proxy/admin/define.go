package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

func (a *Admin) parseCreate(p *parser) action {
	switch {
	case p.word("database"):
		name := p.name("database")
		dry := p.dryRun()
		return func(ctx context.Context) (*Result, error) {
			if name == "pgmosaic" || name == "pgbouncer" {
				return nil, &pgsql.Error{Code: pgsql.ReservedName, Message: fmt.Sprintf("the name %q is the admin console's", name), Hint: "Use another name."}
			}
			return a.change(ctx, "CREATE DATABASE", dry, nil, func(tx *shardmap.Tx) error {
				if there, err := tx.HasDatabase(name); err != nil || there {
					return errors.Join(err, &pgsql.Error{Code: pgsql.DuplicateDatabase, Message: fmt.Sprintf("database %q already exists", name)})
				}
				return tx.PutDatabase(shardmap.Database{Name: name})
			})
		}
	case p.word("shard"):
		return a.parseCreateShard(p)
	case p.word("group"):
		return a.parseCreateGroup(p)
	}
	p.fail("syntax error at %s: DATABASE, SHARD or GROUP was expected", p.near())
	return nil
}

// node reads 'dsn' [NAME n] [ZONE z].
func (p *parser) node() shardmap.Node {
	n := shardmap.Node{DSN: p.str("a connection string")}
	if p.word("name") {
		n.Name = p.name("node")
	}
	if p.word("zone") {
		n.Zone = p.name("zone")
	}
	return n
}

func (a *Admin) parseCreateShard(p *parser) action {
	name := p.name("shard")
	p.must("in")
	db := p.name("database")
	var nodes []shardmap.Node
	for p.word("node") {
		nodes = append(nodes, p.node())
	}
	if len(nodes) == 0 {
		p.fail("syntax error at %s: NODE '<dsn>' was expected", p.near())
	}
	home := p.word("home")
	dry := p.dryRun()
	for i := range nodes {
		if nodes[i].Name == "" {
			nodes[i].Name = fmt.Sprintf("%s_%d", name, i+1)
		}
	}
	return func(ctx context.Context) (*Result, error) {
		a.changing.Lock()
		defer a.changing.Unlock()
		return a.createShard(ctx, db, name, nodes, home, dry)
	}
}

func (a *Admin) createShard(ctx context.Context, db, name string, nodes []shardmap.Node, home, dry bool) (*Result, error) {
	d, err := a.database(db)
	if err == nil && d.Home != nil {
		d, err = a.settled(ctx, db)
	}
	if err != nil {
		return nil, err
	}
	if _, dup := d.Shard(name); dup {
		return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("shard %q of database %q already exists", name, db)}
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
	primary, found, err := checkShard(ctx, nodes)
	if err != nil {
		return nil, err
	}
	if err := a.checkFree(d, name, nodes, found); err != nil {
		return nil, err
	}
	if home && d.Home != nil {
		return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("database %q already has the home shard %q", db, d.Home.Name), Hint: "Leave HOME out."}
	}
	x := newAttempt(shardmap.Attempt{Database: db, Statement: "CREATE SHARD " + name, Shard: &shardmap.Shard{Database: db, Name: name, Marked: d.Home != nil, System: found[0].system}})
	for _, s := range d.Shards {
		x.Shard.Ordinal = max(x.Shard.Ordinal, s.Ordinal+1)
	}
	for i, n := range nodes {
		n.Database, n.Shard, n.Ordinal = db, name, i
		x.Nodes = append(x.Nodes, &n)
	}
	if d.Home != nil {
		return a.addShard(ctx, d, primary, x, dry)
	}
	if !dry {
		err := a.prepareShard(ctx, primary, db, name, x.Shard.Ordinal, false)
		var e *pgsql.Error
		if err != nil && !(errors.As(err, &e) && e.Code == pgsql.InsufficientPrivilege) { // a database of one shard needs nothing of ours there; its second shard will
			return nil, err
		}
	}
	return a.change(ctx, "CREATE SHARD", dry, d, func(tx *shardmap.Tx) error {
		return errors.Join(putShard(tx, x), tx.PutDatabase(shardmap.Database{Name: db, Home: name}))
	})
}

func putShard(tx *shardmap.Tx, x shardmap.Attempt) error {
	err := tx.PutShard(*x.Shard)
	for _, n := range x.Nodes {
		err = errors.Join(err, tx.PutNode(*n))
	}
	return err
}

// addShard makes a shard beside others, with what home has. Home decides: see attempt.go.
func (a *Admin) addShard(ctx context.Context, d *shardmap.DB, primary shardmap.Node, x shardmap.Attempt, dry bool) (res *Result, err error) {
	home, err := a.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer home.Close(context.WithoutCancel(ctx)) // its transactions have ended
	var tables []shardmap.TableName
	for _, t := range sortedTables(d) {
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
	dst, err := connect(ctx, primary.Name, primary.DSN)
	if err != nil {
		return nil, err
	}
	if err = vacant(ctx, dst, x.Shard.Name, tables); err == nil {
		err = fits(ctx, home, defined, dst, x.Shard.Name)
	}
	_ = dst.Close(context.WithoutCancel(ctx)) // nothing is left on it
	if err != nil {
		return nil, ownOr(x.Shard.Name, err)
	}
	if dry {
		return a.change(ctx, "CREATE SHARD", true, d, func(tx *shardmap.Tx) error { return putShard(tx, x) })
	}
	first, err := a.primaryOf(d.Name, d.Home)
	if err == nil {
		err = a.prepareShard(ctx, first, d.Name, d.Home.Name, d.Home.Ordinal, true)
	}
	if err == nil {
		err = a.prepareShard(ctx, primary, d.Name, x.Shard.Name, x.Shard.Ordinal, false)
	}
	if err != nil {
		return nil, err
	}
	if err := home.QueryRow(ctx, txn.Counted).Scan(&x.Count); err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	if len(d.Shards) > 1 && x.Count != d.Joined {
		return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("%d shards have joined database %q, and this map knows of %d", x.Count, d.Name, d.Joined), Hint: otherMap + " If home was restored: ALTER SHARD " + d.Home.Name + " IN " + d.Name + " ADOPT."}
	}
	x.Count++
	j := a.begin(d.Name, x.Statement)
	defer j.close(&err)
	if err = a.start(ctx, d, home, x); err == nil {
		_, err = home.Exec(ctx, "INSERT INTO pgmosaic.placed (shard, distribution, attempt, at) VALUES ($1, $2, $2, 'home')", x.Shard.Name, x.ID)
		err = ownOr(d.Home.Name, err)
	}
	if err == nil {
		err = a.join(ctx, d, home, primary, x, j)
	}
	if err != nil {
		_ = home.Close(context.WithoutCancel(ctx)) // which gives up the attempt
		return nil, errors.Join(err, a.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	err = a.shardDone(ctx, d, home, x)
	var later *laterError
	if errors.As(err, &later) {
		a.Log.Warn("what a statement has left cannot be settled yet", "error", later)
		err = nil
	}
	if err != nil {
		return nil, lastStep(x, err)
	}
	return a.done("CREATE SHARD"), nil
}

func (a *Admin) parseAlter(p *parser) action {
	if p.word("group") {
		return a.parseAlterGroup(p)
	}
	if p.word("routine") {
		return a.parseRoutine(p)
	}
	if !p.word("shard") {
		p.fail("syntax error at %s: SHARD, GROUP or ROUTINE was expected", p.near())
	}
	name := p.name("shard")
	p.must("in")
	db := p.name("database")
	var dry bool
	var edit func(ctx context.Context, s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) // asks the nodes, before the map is touched
	missing := func(n string) error {
		return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("node %q does not exist in shard %q", n, name), Hint: "SHOW NODES lists them."}
	}
	switch {
	case p.words("add", "node"):
		n := p.node()
		edit = func(ctx context.Context, s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
			n.Database, n.Shard = db, name
			for _, o := range s.Nodes {
				if o.Name == n.Name {
					return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("node %q already exists", n.Name)}
				}
				n.Ordinal = max(n.Ordinal, o.Ordinal+1)
			}
			if n.Name == "" {
				n.Name = fmt.Sprintf("%s_%d", name, n.Ordinal+1)
			}
			return func(tx *shardmap.Tx) error { return tx.PutNode(n) }, a.checkMember(ctx, db, s, n)
		}
	case p.words("drop", "node"):
		node := p.name("node")
		edit = func(_ context.Context, s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
			for i, o := range s.Nodes {
				if o.Name == node {
					return func(tx *shardmap.Tx) error { return tx.Delete("nodes", db, name, node) }, mayLeave(a.Monitor.View(db, name), i)
				}
			}
			return nil, missing(node)
		}
	case p.words("alter", "node"):
		node, dsn := p.name("node"), p.str("a connection string")
		edit = func(ctx context.Context, s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
			for _, o := range s.Nodes {
				if o.Name == node {
					n := *o
					n.DSN = dsn
					return func(tx *shardmap.Tx) error { return tx.PutNode(n) }, a.checkMoved(ctx, db, s, n)
				}
			}
			return nil, missing(node)
		}
	case p.words("set", "primary"):
		node := p.name("node")
		edit = func(_ context.Context, s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
			return func(tx *shardmap.Tx) error { return a.namePrimary(db, s, node, tx) }, nil
		}
	case p.word("adopt"):
		edit = func(ctx context.Context, s *shardmap.ShardInfo) (func(*shardmap.Tx) error, error) {
			return a.adopt(ctx, db, s, dry)
		}
	default:
		p.fail("syntax error at %s: ADD NODE, DROP NODE, ALTER NODE, SET PRIMARY or ADOPT was expected", p.near())
	}
	dry = p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		a.changing.Lock()
		defer a.changing.Unlock()
		d, err := a.database(db)
		if err != nil {
			return nil, err
		}
		s, ok := d.Shard(name)
		if !ok {
			return nil, noShard(name, db)
		}
		put, err := edit(ctx, s)
		if err != nil {
			return nil, err
		}
		return a.change(ctx, "ALTER SHARD", dry, d, put)
	}
}

// namePrimary says which of the nodes that claim to be a shard's primary it is. The others get nothing until they are
// replicas.
func (a *Admin) namePrimary(db string, s *shardmap.ShardInfo, node string, tx *shardmap.Tx) error {
	claims := func(i int) bool {
		v := a.Monitor.View(db, s.Name)
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
	return tx.PutShard(shardmap.Shard{Database: db, Name: s.Name, Ordinal: s.Ordinal, Primary: node, Named: s.Named + 1, Marked: s.Marked, System: s.System})
}

// Rejoined lets a node that the admin had barred be a shard's primary again some day: it is a replica now.
func (a *Admin) Rejoined(ctx context.Context, db, shard, node string) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	d := a.Catalog.Current().Databases[db]
	if d == nil {
		return nil
	}
	s, ok := d.Shard(shard)
	if !ok {
		return nil
	}
	for _, n := range s.Nodes {
		if n.Name == node && n.Barred {
			_, err := a.change(ctx, "ALTER SHARD", false, d, func(tx *shardmap.Tx) error {
				free := *n
				free.Barred = false
				return tx.PutNode(free)
			})
			return err
		}
	}
	return nil
}

func noShard(name, db string) error {
	return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("shard %q does not exist in database %q", name, db), Hint: "SHOW SHARDS lists them."}
}

func (a *Admin) parseDrop(p *parser) action {
	var kind, name, db string
	switch {
	case p.word("database"):
		kind, name = "database", p.name("database")
		db = name
	case p.word("shard"), p.word("group"):
		kind = p.toks[p.at-1].text
		name = p.name(kind)
		p.must("in")
		db = p.name("database")
	default:
		p.fail("syntax error at %s: DATABASE, SHARD or GROUP was expected", p.near())
	}
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		a.changing.Lock()
		defer a.changing.Unlock()
		d, err := a.database(db)
		if err != nil {
			return nil, err
		}
		if err := mayDrop(d, kind, name); err != nil {
			return nil, err
		}
		var parts *parting
		if kind == "shard" && !dry {
			if parts = part(ctx, a, db, name, a.Monitor.View(db, name)); parts != nil {
				defer parts.Close(context.WithoutCancel(ctx)) // nothing is left on it
			}
		}
		again := func() error { return nil }
		if kind == "shard" && !dry && len(d.Shards) == 2 { // before: what the only shard is asked for, it does
			if again, err = a.unwatchLast(ctx, d); err != nil {
				return nil, err
			}
		}
		res, err := a.change(ctx, "DROP "+strings.ToUpper(kind), dry, d, func(tx *shardmap.Tx) error {
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
			return nil, errors.Join(err, again())
		}
		if kind == "shard" && !dry && len(d.Shards) == 2 { // once more: another process may have given them back, by the map of before
			if _, err := a.unwatchLast(ctx, d); err != nil {
				a.Log.Warn("reference tables on the only shard may still be written by its own statements only", "database", db, "error", err)
			}
		}
		if parts != nil { // only now: a shard that stays in the map must say that it is one
			a.release(ctx, db, name, parts)
		}
		return res, nil
	}
}

func mayDrop(d *shardmap.DB, kind, name string) error {
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
			return noShard(name, d.Name)
		}
		for _, g := range d.Groups {
			if slices.Contains(g.Shards(), s.Index) {
				return inUse("shard %q still owns keys of group %q", name, g.Name)
			}
		}
		for _, t := range tenants(d) {
			if t.Shards()[0] == s.Index {
				return inUse("schema %q lives on shard %q", t.Name, name)
			}
		}
		if s == d.Home && len(d.Shards) > 1 {
			return inUse("shard %q is the home shard", name)
		}
	}
	return nil
}
