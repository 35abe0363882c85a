package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// aggregatesOutside notes of each level inside q the aggregates that are not its own: one that stands in a subquery and names columns of
// levels around alone is that of the innermost of these, which makes one row of all of its rows then:
// https://www.postgresql.org/docs/current/sql-expressions.html#SYNTAX-AGGREGATES. around are the levels around q, from the outermost in.
func aggregatesOutside(a *analysis, q *sqlparse.Query, around []*sqlparse.Query) {
	if q == nil {
		return
	}
	if len(around) > 0 && q.Agg {
		for _, x := range q.Aggregated() {
			aggregateOutside(a, q, around, x)
		}
	}
	inside := append(slices.Clip(around), q)
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves, {q.Source}} {
		for _, sub := range list {
			aggregatesOutside(a, sub, inside)
		}
	}
	for _, r := range q.Rels {
		aggregatesOutside(a, r.Sub, inside)
	}
}

// aggregateOutside notes an aggregate of q at the level that it is of. Where the names do not tell, it is q's own, unless one around has
// them for certain; of several that may have them, it is each one's.
func aggregateOutside(a *analysis, q *sqlparse.Query, around []*sqlparse.Query, x sqlparse.Aggregated) {
	doubtful := len(x.Below) > 0
	for _, c := range x.Cols {
		has, sure := hasName(a, q, c)
		if has {
			return
		}
		doubtful = doubtful || !sure
	}
	cols := x.Cols
	for _, c := range x.Below {
		if has, _ := hasName(a, q, c); has && c.Qual != "" {
			return
		}
		cols = append(cols, c)
	}
	for _, level := range slices.Backward(around) {
		for _, c := range cols {
			has, sure := hasName(a, level, c)
			level.Agg = level.Agg || has || !sure && !doubtful
			if has {
				return
			}
		}
	}
}

// hasName says whether a name can be one of a level's own FROM. sure is false where its columns are not all known.
func hasName(a *analysis, q *sqlparse.Query, c sqlparse.Col) (has, sure bool) {
	sure = q.Opaque == "" // else an alias may rename columns
	for _, r := range q.Rels {
		switch {
		case c.Qual != "":
			has = has || r.Name() == c.Qual
			continue
		case r.Name() == c.Name: // a whole row
			return true, true
		case r.Kind == sqlparse.RelTable && systemColumns[c.Name]:
			return true, true
		}
		names, known := columnsOf(a, r)
		has = has || slices.Contains(names, c.Name) || slices.Contains(r.Cols, c.Name)
		sure = sure && known
	}
	return has, has || sure
}
