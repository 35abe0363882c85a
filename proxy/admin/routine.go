package admin

import (
	"context"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// parseRoutine is ALTER ROUTINE .. [NOT] SHARD SAFE. The routine need not be there yet: a map may come before its schema.
func (a *Admin) parseRoutine(p *parser) action {
	db, schema, name := p.tableRef()
	not := p.word("not")
	p.must("shard", "safe")
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		defer a.Alone()()
		if _, err := a.Database(db); err != nil {
			return nil, err
		}
		return answer("ALTER ROUTINE", dry)(a.Change(ctx, "ALTER ROUTINE", dry, nil, func(tx *shardmap.Tx) error {
			if not {
				return tx.Delete("routines", db, schema, name)
			}
			return tx.PutRoutine(shardmap.Routine{Database: db, Schema: schema, Name: name})
		}))
	}
}
