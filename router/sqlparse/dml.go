package sqlparse

import (
	pg "github.com/pganalyze/pg_query_go/v5"
)

func (c *converter) insert(x *pg.InsertStmt) *Query {
	q := newLevel(&Query{Cmd: Insert, Returning: len(x.ReturningList) > 0})
	defer c.scope()()
	c.with(q, x.WithClause)
	q.Target = c.rel(x.Relation)
	q.Target.CTE = false
	for _, col := range x.Cols {
		rt := col.GetResTarget()
		q.Columns = append(q.Columns, rt.GetName())
		if len(rt.GetIndirection()) > 0 {
			q.Opaque = "an assignment to a part of a column"
		}
	}
	if sel := x.GetSelectStmt().GetSelectStmt(); sel != nil {
		src := c.query(sel)
		if plain := len(src.Rows) > 0 && len(src.CTEs) == 0 && src.Limit == nil && src.Offset == nil && len(src.OrderBy) == 0; plain {
			q.Rows, q.Subs = src.Rows, append(q.Subs, src.Subs...)
		} else {
			q.Source = src
		}
	}
	c.returning(q, x.ReturningList)
	if oc := x.OnConflictClause; oc != nil {
		q.Conflict = true
		for _, el := range oc.GetInfer().GetIndexElems() {
			q.ConfCols = append(q.ConfCols, el.GetIndexElem().GetName())
		}
		q.ConfNamed = oc.GetInfer().GetConname() != ""
		c.assigns(q, oc.TargetList)
		c.scan(q, oc.WhereClause)
	}
	return q.Query
}

func (c *converter) returning(q *level, list []*pg.Node) {
	before := len(q.Subs)
	for _, r := range list {
		rt := r.GetResTarget()
		c.scan(q, r)
		q.Outputs = append(q.Outputs, Target{c.expr(q, rt.GetVal()), rt.GetName()})
	}
	for _, sub := range q.Subs[before:] {
		sub.Returned = true
	}
}

func (c *converter) merge(x *pg.MergeStmt) *Query {
	q := newLevel(&Query{Cmd: Merge})
	defer c.scope()()
	c.with(q, x.WithClause)
	c.target(q, x.Relation)
	source := c.from(q, x.SourceRelation)
	var into []*Rel
	for _, n := range x.MergeWhenClauses { // a row of the source that is not matched counts: an outer join
		if w := n.GetMergeWhenClause(); !w.GetMatched() && w.GetCommandType() == pg.CmdType_CMD_INSERT {
			q.Target.Nullable, into = true, []*Rel{q.Target}
			for _, r := range source.Rels {
				r.Kept = true
			}
		}
	}
	c.where(q, x.JoinCondition, into)
	for _, n := range x.MergeWhenClauses {
		w := n.GetMergeWhenClause()
		var sees *Sight
		if !w.GetMatched() { // there is no row of the target
			sees = source
		}
		q.within(sees, func() { c.when(q, w) })
	}
	return q.Query
}

// when reads a WHEN clause of MERGE.
func (c *converter) when(q *level, w *pg.MergeWhenClause) {
	c.scan(q, w.GetCondition())
	switch w.GetCommandType() {
	case pg.CmdType_CMD_UPDATE:
		c.assigns(q, w.TargetList)
	case pg.CmdType_CMD_INSERT:
		var m MergeInsert
		for _, t := range w.TargetList {
			m.Columns = append(m.Columns, t.GetResTarget().GetName())
			if len(t.GetResTarget().GetIndirection()) > 0 {
				q.Opaque = "an assignment to a part of a column"
			}
		}
		for _, v := range w.Values {
			c.scan(q, v)
			m.Values = append(m.Values, c.expr(q, v))
		}
		q.Inserts = append(q.Inserts, m)
	}
}

func (c *converter) assigns(q *level, targets []*pg.Node) {
	for _, t := range targets {
		rt := t.GetResTarget()
		if len(rt.GetIndirection()) > 0 {
			q.Opaque = "an assignment to a part of a column"
		}
		q.Sets = append(q.Sets, Assign{rt.GetName(), c.value(rt.GetVal())})
		c.scan(q, rt.GetVal())
	}
}

func (c *converter) update(x *pg.UpdateStmt) *Query {
	q := newLevel(&Query{Cmd: Update, Returning: len(x.ReturningList) > 0})
	defer c.scope()()
	c.with(q, x.WithClause)
	c.target(q, x.Relation)
	for _, f := range x.FromClause {
		c.from(q, f)
	}
	c.where(q, x.WhereClause, nil)
	c.assigns(q, x.TargetList)
	c.returning(q, x.ReturningList)
	return q.Query
}

func (c *converter) delete(x *pg.DeleteStmt) *Query {
	q := newLevel(&Query{Cmd: Delete, Returning: len(x.ReturningList) > 0})
	defer c.scope()()
	c.with(q, x.WithClause)
	c.target(q, x.Relation)
	for _, f := range x.UsingClause {
		c.from(q, f)
	}
	c.where(q, x.WhereClause, nil)
	c.returning(q, x.ReturningList)
	return q.Query
}

func (c *converter) target(q *level, r *pg.RangeVar) {
	q.Target = c.rel(r)
	q.Target.CTE = false
	q.Rels = append(q.Rels, q.Target)
}
