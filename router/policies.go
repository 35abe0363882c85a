package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// policiesReach refuses to read or write rows that policies judge by what a shard may not have in full.
func policiesReach(a *analysis) error {
	if !a.readsRows() {
		return nil
	}
	return judgedApart(a, a.t.Tables, map[string]bool{})
}

// judgedApart refuses rows of a table, or of one that a view of home's reads, if a policy of it reads, or calls what may read, rows that are not on the shard
// of the row that is judged. Which policies are those of whom, only the servers know, so they count for everybody. seen are the tables and functions that were
// looked at.
func judgedApart(a *analysis, names []shardmap.TableName, seen map[string]bool) error {
	for _, n := range names {
		t, key := a.sch.Tables[n], "policies of "+n.String()
		if t == nil || seen[key] {
			continue
		}
		seen[key] = true
		var below []shardmap.TableName // that are read with it, under policies of their own
		if t.Kind == 'v' {
			below = t.Reads
		}
		for _, policy := range t.Code.Asking {
			asked, here := asksHere(a, a.info(n), policy)
			if !here {
				return Refuse(RulePolicyBody, n)
			}
			below = append(slices.Clip(below), asked...)
		}
		if f := callsApart(a, n, t.Code.Policed, seen); f != "" {
			return Refuse(RuleFunctionBody, f)
		}
		if err := judgedApart(a, below, seen); err != nil {
			return err
		}
	}
	return nil
}

// callsApart names one of the functions that policies of a table call that may reach distributed tables; empty for none.
func callsApart(a *analysis, n shardmap.TableName, funcs []string, seen map[string]bool) string {
	safe := a.safe
	defer func() { a.safe = safe }()
	info := a.info(n)
	a.safe = info != nil && info.Kind == shardmap.Sharded
	i := slices.IndexFunc(funcs, func(f string) bool { return a.funcReaches(f, seen) })
	if i < 0 {
		return ""
	}
	return funcs[i]
}

// asksHere says whether a policy of a table, as Code.Asking has it, says the same of a row wherever that is as over all rows, and what it reads. info is nil
// for a table of home's.
func asksHere(a *analysis, info *shardmap.TableInfo, policy string) (asked []shardmap.TableName, here bool) {
	stmts, err := sqlparse.Parse(policy)
	if err != nil || len(stmts) != 1 || stmts[0].Kind != sqlparse.Select || stmts[0].Query.Opaque != "" {
		return nil, false
	}
	for _, ref := range stmts[0].Tables {
		if n, ok := a.env.find(a.db, a.sch, ref); ok {
			asked = append(asked, n)
		}
	}
	b := newBlock(a, stmts[0].Query, nil)
	return asked, !slices.ContainsFunc(b.subs, func(q *sqlparse.Query) bool {
		apart := false
		everyQuery(q, func(level *sqlparse.Query) {
			apart = apart || slices.ContainsFunc(level.Rels, func(r *sqlparse.Rel) bool { return readsApart(a, info, r) })
		})
		return apart && !(info != nil && info.Kind == shardmap.Sharded && a.isLocal(b, q))
	})
}

// readsApart says whether what a policy of a table names may be another thing on each shard that has the table.
func readsApart(a *analysis, info *shardmap.TableInfo, r *sqlparse.Rel) bool {
	n, ok := a.env.find(a.db, a.sch, r.Table)
	if r.Kind != sqlparse.RelTable || r.CTE || !ok {
		return false // a catalog
	}
	of := a.info(n)
	switch {
	case of != nil:
		return of.Kind != shardmap.Reference
	case info == nil && n.Schema != schema.TempSchema:
		return a.sch.Tables[n] != nil && a.readsSharded(a.sch.Tables[n], nil)
	default:
		return true
	}
}
