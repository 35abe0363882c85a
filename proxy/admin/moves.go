package admin

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/replication/reshard"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// What moves data, and what looks whether it is where it belongs: replication/reshard does it.

func (a *Admin) parseDistribute(p *parser) action {
	db, sch, tbl := p.tableRef()
	t := shardmap.Table{Database: db, Schema: sch, Name: tbl, Kind: shardmap.Reference}
	local := false
	if p.words("as", "reference") {
		dry := p.dryRun()
		return func(ctx context.Context) (*Result, error) {
			return answer("DISTRIBUTE TABLE", dry)(a.Distribute(ctx, t, false, dry))
		}
	}
	p.must("in", "group")
	t.Kind, t.Group = shardmap.Sharded, p.name("group")
	p.must("key")
	p.mustPunct("(")
	t.Key = []string{p.name("column")}
	for p.punct(",") {
		t.Key = append(t.Key, p.name("column"))
	}
	p.mustPunct(")")
	if p.words("allow", "local", "unique") {
		local = true
	}
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		return answer("DISTRIBUTE TABLE", dry)(a.Distribute(ctx, t, local, dry))
	}
}

func (p *parser) schemaRef() (db, schema string) {
	db = p.name("database")
	p.mustPunct(".")
	return db, p.name("schema")
}

func (a *Admin) parseDistributeSchema(p *parser) action {
	db, schema := p.schemaRef()
	p.must("on")
	t := shardmap.Tenant{Database: db, Schema: schema, Shard: p.name("shard")}
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		return answer("DISTRIBUTE SCHEMA", dry)(a.DistributeSchema(ctx, t, dry))
	}
}

func (a *Admin) parseUndistribute(p *parser) action {
	db, sch, tbl := p.tableRef()
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		return answer("UNDISTRIBUTE TABLE", dry)(a.Undistribute(ctx, db, sch, tbl, dry))
	}
}

func (a *Admin) parseUndistributeSchema(p *parser) action {
	db, schema := p.schemaRef()
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		return answer("UNDISTRIBUTE SCHEMA", dry)(a.UndistributeSchema(ctx, db, schema, dry))
	}
}

func (a *Admin) parseVerify(p *parser) action {
	if !p.word("table") {
		p.fail("syntax error at %s: TABLE or SCHEMA was expected", p.near())
	}
	db, sch, tbl := p.tableRef()
	p.end()
	return func(ctx context.Context) (*Result, error) {
		found, err := a.VerifyTable(ctx, db, shardmap.TableName{Schema: sch, Name: tbl})
		if err != nil {
			return nil, err
		}
		res := &Result{Columns: []string{"shard", "key", "difference"}, Tag: "VERIFY"}
		for _, f := range found[:min(len(found), reshard.MaxDifferences)] {
			res.Rows = append(res.Rows, []any{f.Shard, strings.Join(f.Key, ", "), f.How})
		}
		if len(found) > reshard.MaxDifferences {
			res.Rows = append(res.Rows, []any{"", "", fmt.Sprintf("and more: the first %d are told of", reshard.MaxDifferences)})
		}
		return res, nil
	}
}

func (a *Admin) parseVerifySchema(p *parser) action {
	p.must("in")
	db := p.name("database")
	p.end()
	return func(ctx context.Context) (*Result, error) {
		found, err := a.VerifySchema(ctx, db)
		if err != nil {
			return nil, err
		}
		res := &Result{Columns: []string{"shard", "kind", "object", "home", "theirs"}, Tag: "VERIFY"}
		text := func(s *string) any {
			if s == nil {
				return nil
			}
			return *s
		}
		for _, x := range found {
			res.Rows = append(res.Rows, []any{x.Shard, x.Kind, x.Object, text(x.Home), text(x.Theirs)})
		}
		return res, nil
	}
}
