package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
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
			return answer("CREATE DATABASE", dry)(a.Change(ctx, "CREATE DATABASE", dry, nil, func(tx *shardmap.Tx) error {
				if there, err := tx.HasDatabase(name); err != nil || there {
					return errors.Join(err, &pgsql.Error{Code: pgsql.DuplicateDatabase, Message: fmt.Sprintf("database %q already exists", name)})
				}
				return tx.PutDatabase(shardmap.Database{Name: name})
			}))
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
		return answer("CREATE SHARD", dry)(a.CreateShard(ctx, db, name, nodes, home, dry))
	}
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
	var do func(ctx context.Context, dry bool) (*shardmap.Snapshot, error)
	switch {
	case p.words("add", "node"):
		n := p.node()
		do = func(ctx context.Context, dry bool) (*shardmap.Snapshot, error) {
			return a.AddNode(ctx, db, name, n, dry)
		}
	case p.words("drop", "node"):
		node := p.name("node")
		do = func(ctx context.Context, dry bool) (*shardmap.Snapshot, error) {
			return a.DropNode(ctx, db, name, node, dry)
		}
	case p.words("alter", "node"):
		node, dsn := p.name("node"), p.str("a connection string")
		do = func(ctx context.Context, dry bool) (*shardmap.Snapshot, error) {
			return a.AlterNode(ctx, db, name, node, dsn, dry)
		}
	case p.words("set", "primary"):
		node := p.name("node")
		do = func(ctx context.Context, dry bool) (*shardmap.Snapshot, error) {
			return a.SetPrimary(ctx, db, name, node, dry)
		}
	case p.word("adopt"):
		do = func(ctx context.Context, dry bool) (*shardmap.Snapshot, error) { return a.Adopt(ctx, db, name, dry) }
	default:
		p.fail("syntax error at %s: ADD NODE, DROP NODE, ALTER NODE, SET PRIMARY or ADOPT was expected", p.near())
	}
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) { return answer("ALTER SHARD", dry)(do(ctx, dry)) }
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
		return answer("DROP "+strings.ToUpper(kind), dry)(a.Drop(ctx, kind, db, name, dry))
	}
}
