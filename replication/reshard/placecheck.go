package reshard

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// checkState is what a table's constraint on a shard, pgmosaic_slot, is.
type checkState string

const (
	checkRight checkState = ""
	checkNone  checkState = "it has no constraint pgmosaic_slot"
	checkOlder checkState = "its constraint pgmosaic_slot is an older version's, which lets rows without a key in"
	checkOther checkState = "its constraint pgmosaic_slot is another than the map says"
)

// slotCheckOf looks at a table's constraint on a shard, in a transaction that the caller rolls back, or that may hold a definition of its own.
// PostgreSQL writes a constraint in its own words: what it should be is said of a table with the same columns.
func slotCheckOf(ctx context.Context, tx querier, d *shardmap.DB, t *shardmap.TableInfo, shard string) (state checkState, err error) {
	var has *string
	if err := tx.QueryRow(ctx, "SELECT (SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname = 'pgmosaic_slot' AND contype = 'c')", t.SQL()).Scan(&has); err != nil || has == nil {
		return checkNone, err
	}
	state = checkOther
	apart, own := whereBy(d.Placement(t.Group), t, shard, d.Placement(t.Group).Ranges), ownWhere(d, t, shard) // apart: as older versions wrote ranges of one shard that follow each other
	for where, as := range map[string]checkState{keyedWhere(t, apart): checkRight, keyedWhere(t, own): checkRight, apart: checkOlder, own: checkOlder} {
		if where == "false" { // it is both
			as = checkRight
		}
		said, err := saidOf(ctx, tx, t, where)
		if err != nil {
			return "", err
		}
		if said == *has {
			state = as
		}
	}
	return state, nil
}

// saidOf is a condition on a table's key, in PostgreSQL's words.
func saidOf(ctx context.Context, tx querier, t *shardmap.TableInfo, where string) (said string, err error) {
	const probe = "pg_temp.pgmosaic_probe"
	err = run(ctx, tx, []string{
		fmt.Sprintf("CREATE TEMPORARY TABLE pgmosaic_probe AS SELECT %s FROM %s WITH NO DATA", pgsql.List(t.Keys), t.SQL()),
		checkOn(probe, where),
	})
	if err == nil {
		err = tx.QueryRow(ctx, "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = $1::text::regclass", probe).Scan(&said)
	}
	if err == nil {
		err = run(ctx, tx, []string{"DROP TABLE " + probe})
	}
	return said, err
}

// recheckOlder gives a shard's tables the constraint of this version where an older one's stands, for the same placement: under a lock,
// another process may be about to change it. Rows need not be read again: of one without a key VERIFY TABLE tells.
func recheckOlder(ctx context.Context, d *shardmap.DB, s *shardmap.ShardInfo, c *pgx.Conn) error {
	for _, t := range d.SortedTables() {
		if t.Kind != shardmap.Sharded || t.Moving || len(t.Keys) == 0 {
			continue
		}
		state, err := lookOnly(ctx, c, d, t, s.Name, time.Second)
		if err == nil && state == checkOlder {
			err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				err := runBounded(ctx, tx, 200*time.Millisecond, "LOCK TABLE "+t.SQL()+" IN ACCESS EXCLUSIVE MODE") // readers queue behind it, and it is tried again
				if err == nil {
					state, err = slotCheckOf(ctx, tx, d, t, s.Name)
				}
				if err == nil && state == checkOlder {
					err = run(ctx, tx, []string{"ALTER TABLE " + t.SQL() + " DROP CONSTRAINT pgmosaic_slot", placeCheck(d, t, s.Name) + " NOT VALID"})
				}
				return err
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lookOnly is slotCheckOf in a transaction of its own, of which nothing stays. Who has the table to itself is waited for so long.
func lookOnly(ctx context.Context, c *pgx.Conn, d *shardmap.DB, t *shardmap.TableInfo, shard string, wait time.Duration) (state checkState, err error) {
	tx, err := c.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // nothing of it is to stay
	_, err = bounded(ctx, tx, wait, func(ctx context.Context) (err error) { state, err = slotCheckOf(ctx, tx, d, t, shard); return err })
	return state, err
}
