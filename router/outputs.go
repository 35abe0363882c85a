package router

import "github.com/pgmosaic/pgmosaic/router/sqlparse"

// outputColumn is an output column; star: it is one of those that * stands for.
type outputColumn struct {
	name string
	star bool
}

// listed are the output columns of a SELECT, those that * stands for among them. sure is false where they are not all known.
func listed(a *analysis, q *sqlparse.Query) (cols []outputColumn, sure bool) {
	for i := range q.Targets {
		qualifier, plain, expanded := q.Expands(i)
		if !expanded {
			name, certain := q.OutputName(i)
			if !certain {
				return nil, false
			}
			cols = append(cols, outputColumn{name, false})
			continue
		}
		names, certain := starNames(a, q, qualifier)
		if !plain || !certain {
			return nil, false
		}
		for _, n := range names {
			cols = append(cols, outputColumn{n, true})
		}
	}
	return cols, true
}

// starNames are the columns that t.*, or * where FROM has one item, stands for. sure is false where they are not known.
func starNames(a *analysis, q *sqlparse.Query, qualifier string) (names []string, sure bool) {
	found := 0
	for _, r := range q.Rels {
		if qualifier == "" || r.Name() == qualifier {
			names, sure = columnsOf(a, r)
			found++
		}
	}
	return names, sure && found == 1
}

// columnsOf is outputs, and looks into a subquery's own *.
func columnsOf(a *analysis, r *sqlparse.Rel) (names []string, sure bool) {
	if r.Kind != sqlparse.RelQuery || r.Sub == nil || r.Sub.SetOp {
		return a.outputs(r)
	}
	cols, sure := listed(a, r.Sub)
	for _, c := range cols {
		names = append(names, c.name)
	}
	return names, sure
}
