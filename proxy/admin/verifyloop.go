package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Checked is what the last look found of a reference table.
type Checked struct {
	Database string
	Table    shardmap.TableName
	Differs  int // rows, at most maxDifferences and one
	At       time.Time
}

// firstCheck is how long after the start the first look is, at the latest; verifyPause is between tables.
const (
	firstCheck  = 10 * time.Minute
	verifyPause = time.Second
)

// RunVerify looks at the copies of all reference tables, once in every interval, until ctx ends.
func (a *Admin) RunVerify(ctx context.Context, interval time.Duration) error {
	wait := min(interval, firstCheck)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = interval
		kept := map[string]map[shardmap.TableName]bool{}
		for _, d := range sortedDBs(a.Catalog.Current()) {
			kept[d.Name] = map[shardmap.TableName]bool{}
			for _, t := range sortedTables(d) {
				if t.Kind != shardmap.Reference || len(d.Shards) < 2 {
					continue
				}
				kept[d.Name][t.TableName] = true
				if t.Moving {
					continue
				}
				a.check(ctx, d, t)
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(min(verifyPause, interval)):
				}
			}
		}
		a.checks.Range(func(k, _ any) bool { // tables that are no more
			if of := k.(checkOf); !kept[of.database][of.table] {
				a.checks.Delete(k)
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
func (a *Admin) check(ctx context.Context, d *shardmap.DB, t *shardmap.TableInfo) {
	v, err := a.openVerify(ctx, d, t, &job{})
	var found []difference
	if err == nil {
		found, err = v.look(ctx)
		v.close(ctx)
	}
	if err != nil {
		if ctx.Err() == nil && a.Catalog.Current().Databases[d.Name] == d {
			a.Log.Warn("the copies of a reference table could not be compared", "database", d.Name, "table", t.TableName, "error", err)
		}
		return
	}
	a.noteCheck(d, t, found)
}

// noteCheck keeps what was found, and says so when it is not what was found before.
func (a *Admin) noteCheck(d *shardmap.DB, t *shardmap.TableInfo, found []difference) {
	was, _ := a.checks.Swap(checkOf{d.Name, t.TableName}, Checked{d.Name, t.TableName, len(found), time.Now()})
	before, _ := was.(Checked)
	if len(found) == before.Differs {
		return
	}
	e := Event{At: time.Now(), Level: "info", Database: d.Name, What: fmt.Sprintf("the copies of reference table %s are equal again", t.TableName)}
	if len(found) > 0 {
		f := found[0]
		e.Level, e.Shard = "error", f.shard
		e.What, e.Reason = fmt.Sprintf("the copies of reference table %s differ in %d rows", t.TableName, len(found)), fmt.Sprintf("row (%s): %s; VERIFY TABLE lists them", strings.Join(f.key, ", "), f.how)
		a.Log.Error("the copies of a reference table differ", "database", d.Name, "table", t.TableName, "rows", len(found), "shard", f.shard)
	} else {
		a.Log.Info("the copies of a reference table are equal again", "database", d.Name, "table", t.TableName)
	}
	a.Note(e)
}

// Checks are what was found last of each reference table.
func (a *Admin) Checks() (out []Checked) {
	a.checks.Range(func(_, c any) bool { out = append(out, c.(Checked)); return true })
	slices.SortFunc(out, func(x, y Checked) int {
		return cmp.Or(cmp.Compare(x.Database, y.Database), cmp.Compare(x.Table.String(), y.Table.String()))
	})
	return out
}
