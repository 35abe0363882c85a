package reshard

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Checked is what the last look found of a reference table.
type Checked struct {
	Database string
	Table    shardmap.TableName
	Differs  int // rows, at most MaxDifferences and one
	At       time.Time
}

// firstCheck is how long after the start the first look is, at the latest; verifyPause is between tables.
const (
	firstCheck  = 10 * time.Minute
	verifyPause = time.Second
)

// RunVerify looks at the copies of all reference tables, once in every interval, until ctx ends.
func (mv *Mover) RunVerify(ctx context.Context, interval time.Duration) error {
	wait := min(interval, firstCheck)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = interval
		kept := map[string]map[shardmap.TableName]bool{}
		for _, d := range mv.Catalog.Current().SortedDatabases() {
			kept[d.Name] = map[shardmap.TableName]bool{}
			for _, t := range d.SortedTables() {
				if t.Kind != shardmap.Reference || len(d.Shards) < 2 {
					continue
				}
				kept[d.Name][t.TableName] = true
				if t.Moving {
					continue
				}
				mv.check(ctx, d, t)
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(min(verifyPause, interval)):
				}
			}
		}
		mv.checks.Range(func(k, _ any) bool { // tables that are no more
			if of := k.(checkOf); !kept[of.database][of.table] {
				mv.checks.Delete(k)
			}
			return true
		})
	}
}

// checkOf is of what table a Checked is.
type checkOf struct {
	database string
	table    shardmap.TableName
}

// check looks at one table.
func (mv *Mover) check(ctx context.Context, d *shardmap.DB, t *shardmap.TableInfo) {
	v, err := mv.openVerify(ctx, d, t, &job{})
	var found []Difference
	if err == nil {
		found, err = v.look(ctx)
		v.close(ctx)
	}
	if err != nil {
		if ctx.Err() == nil && mv.Catalog.Current().Databases[d.Name] == d {
			mv.Log.Warn("the copies of a reference table could not be compared", "database", d.Name, "table", t.TableName, "error", err)
		}
		return
	}
	mv.noteCheck(d, t, found)
}

// noteCheck keeps what was found, and says so when it is not what was found before.
func (mv *Mover) noteCheck(d *shardmap.DB, t *shardmap.TableInfo, found []Difference) {
	was, _ := mv.checks.Swap(checkOf{d.Name, t.TableName}, Checked{d.Name, t.TableName, len(found), time.Now()})
	before, _ := was.(Checked)
	if len(found) == before.Differs {
		return
	}
	if len(found) == 0 {
		mv.Log.Info("the copies of a reference table are equal again", "database", d.Name, "table", t.TableName)
		mv.Tell(slog.LevelInfo, d.Name, "", fmt.Sprintf("the copies of reference table %s are equal again", t.TableName), "")
		return
	}
	f := found[0]
	mv.Log.Error("the copies of a reference table differ", "database", d.Name, "table", t.TableName, "rows", len(found), "shard", f.Shard)
	mv.Tell(slog.LevelError, d.Name, f.Shard, fmt.Sprintf("the copies of reference table %s differ in %d rows", t.TableName, len(found)), fmt.Sprintf("row (%s): %s; VERIFY TABLE lists them", strings.Join(f.Key, ", "), f.How))
}

// Checks are what was found last of each reference table.
func (mv *Mover) Checks() (out []Checked) {
	mv.checks.Range(func(_, c any) bool { out = append(out, c.(Checked)); return true })
	slices.SortFunc(out, func(x, y Checked) int {
		return cmp.Or(cmp.Compare(x.Database, y.Database), cmp.Compare(x.Table.String(), y.Table.String()))
	})
	return out
}
