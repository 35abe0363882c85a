package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// insertInside ties an INSERT in WITH to the shards of its rows. The statement has to be on one.
func (a *analysis) insertInside(q *sqlparse.Query, info *shardmap.TableInfo) error {
	t := a.sch.Tables[info.TableName]
	if t == nil {
		return nil // the server will say that it is gone
	}
	pos, err := a.keyPositions(q, info, t)
	if err != nil {
		return err
	}
	switch {
	case len(pos) == 0: // a schema that lives on one shard
		a.t.pins = append(a.t.pins, pin{group: info.Group, pinRole: inserts})
		return nil
	case slices.Contains(pos, -1):
		return Refuse(RuleInsertKey, info.KeyList())
	case q.Source != nil:
		p, err := a.constantKey(q, info, pos)
		if err != nil {
			return err
		}
		a.t.pins = append(a.t.pins, p)
		return nil
	case len(q.Rows) == 0:
		return Refuse(RuleInsertKey, info.KeyList())
	}
	for _, row := range q.Rows {
		for _, at := range pos {
			if at < len(row) && row[at].Kind == sqlparse.ValDefault { // a sequence is drawn for the statement's own rows
				return Refuse(RuleInsertKey, info.KeyList())
			}
		}
	}
	return a.insertRows(q, info, t, pos)
}

// mergeInserts ties the rows that a MERGE may insert to their shards: those of constants, and those that take their key from
// a sharded table that the statement reads, which is tied already.
func (a *analysis) mergeInserts(b *block) error {
	q := b.query
	info := a.target(q)
	if q.Cmd != sqlparse.Merge || info == nil || info.Kind != shardmap.Sharded {
		return nil
	}
	for _, m := range q.Inserts {
		keys, ok := a.mergeKey(info, m)
		if !ok {
			return Refuse(RuleMerge, info.TableName)
		}
		if len(keys) == 0 {
			a.t.pins = append(a.t.pins, pin{group: info.Group, pinRole: inserts})
			continue
		}
		if a.insertsOwn(b, info, m) {
			continue
		}
		var rows [][]sqlparse.Value // a value of each key column
		for i, e := range keys {
			vals := []sqlparse.Value{e.Val}
			if e.Col != nil {
				vals = b.constants(q, *e.Col)
			}
			if i > 0 && (len(vals) != len(rows) || len(vals) > 1 && keys[0].Col.Qual != e.Col.Qual) { // of other rows than the first
				return Refuse(RuleMerge, info.TableName)
			}
			for j, v := range vals {
				if !standsAlone(v) || !keyFits(info.Group.Keys[i], v) {
					return Refuse(RuleMerge, info.TableName)
				}
				if i == 0 {
					rows = append(rows, nil)
				}
				rows[j] = append(rows[j], v)
			}
			if len(vals) == 0 {
				return Refuse(RuleMerge, info.TableName)
			}
		}
		for _, r := range rows {
			p := pin{group: info.Group, columns: info.Keys, pinRole: inserts, held: heldBy(a.sch.Tables[info.TableName], info)}
			for _, v := range r {
				p.vals = append(p.vals, []sqlparse.Value{v})
			}
			a.t.pins = append(a.t.pins, p)
		}
	}
	return nil
}

// mergeKey is what a MERGE inserts into the key's columns. ok is false if one is left out.
func (a *analysis) mergeKey(info *shardmap.TableInfo, m sqlparse.MergeInsert) (out []sqlparse.Expr, ok bool) {
	t := a.sch.Tables[info.TableName]
	for _, k := range info.Keys {
		at := slices.Index(m.Columns, k)
		if m.Columns == nil && t != nil {
			_, at = t.Column(k)
		}
		if at < 0 || at >= len(m.Values) {
			return nil, false
		}
		out = append(out, m.Values[at])
	}
	return out, true
}

// insertsOwn says whether a MERGE inserts rows on the shard of the source's row: they take the whole key of a sharded table
// of the same group.
func (a *analysis) insertsOwn(b *block, info *shardmap.TableInfo, m sqlparse.MergeInsert) bool {
	keys, ok := a.mergeKey(info, m)
	if !ok {
		return false
	}
	for _, u := range b.units() {
		for _, r := range u.rels {
			from := a.declared(r)
			fits := r != b.query.Target && from.Group == info.Group && b.certain(u, r) && keepsKeys(a, from, info)
			for i := 0; fits && i < len(keys); i++ {
				fits = keys[i].Col != nil
				if fits {
					id, _, known := b.resolve(b.query, *keys[i].Col)
					fits = known && id.rel == r && b.class(id) == b.class(colID{r, from.Keys[i]})
				}
			}
			if fits {
				return true
			}
		}
	}
	return false
}

// handed are the values that the key of the rows of WITH d AS (..) INSERT .. SELECT .. FROM d can have, at a place of the
// SELECT list: what is known of the column of d that stands there. Nil where nothing is.
func (a *analysis) handed(q *sqlparse.Query, at int) []sqlparse.Value {
	src := q.Source
	if !isFlat(src) || len(src.Rels) != 1 || !src.Rels[0].CTE {
		return nil
	}
	i := slices.IndexFunc(q.CTEs, func(c *sqlparse.Query) bool { return c.Named != "" && c.Named == src.Rels[0].Table.Name })
	if i < 0 {
		return nil
	}
	d := q.CTEs[i]
	out := a.returns(d)
	switch {
	case len(src.Targets) == 1 && src.Targets[0].Expr.Star && at < len(out):
		return a.handedBy(d, out[at].Name)
	case at < len(src.Targets) && !a.starBefore(src, at+1) && src.Targets[at].Expr.Col != nil:
		name := src.Targets[at].Expr.Col.Name
		if j := slices.IndexFunc(out, func(c returned) bool { return c.As == name }); j >= 0 {
			return a.handedBy(d, out[j].Name)
		}
	}
	return nil
}

// returned is a column that RETURNING gives, by the name that it has in the table, if it is one of its, and outside.
type returned struct{ Name, As string }

// returns are the columns of RETURNING; nil where they are not all known.
func (a *analysis) returns(d *sqlparse.Query) (out []returned) {
	if d.Target == nil {
		return nil
	}
	t := a.tableOf(d.Target)
	for _, o := range d.Outputs {
		switch {
		case o.Expr.Star && (t == nil || len(d.Outputs) > 1 || len(d.Rels) > 1):
			return nil
		case o.Expr.Star:
			for _, c := range t.Columns {
				out = append(out, returned{c.Name, c.Name})
			}
		case o.Expr.Col != nil && t != nil && hasColumn(t, o.Expr.Col.Name) && (o.Expr.Col.Qual == d.Target.Name() || o.Expr.Col.Qual == "" && len(d.Rels) <= 1):
			as := o.Name
			if as == "" {
				as = o.Expr.Col.Name
			}
			out = append(out, returned{o.Expr.Col.Name, as})
		default:
			out = append(out, returned{"", o.Name})
		}
	}
	return out
}

// handedBy are the values that a column of the rows that a WITH query writes can have, as far as its text says.
func (a *analysis) handedBy(d *sqlparse.Query, column string) []sqlparse.Value {
	info := a.target(d)
	if info == nil || !info.IsKey(column) {
		return nil
	}
	switch d.Cmd {
	case sqlparse.Insert:
		if d.Conflict || d.Source != nil || len(d.Rows) == 0 {
			return nil
		}
		pos, err := a.keyPositions(d, info, a.sch.Tables[info.TableName])
		if err != nil {
			return nil
		}
		at := pos[slices.Index(info.Keys, column)]
		var vals []sqlparse.Value
		for _, row := range d.Rows {
			if at < 0 || at >= len(row) {
				return nil
			}
			vals = append(vals, row[at])
		}
		return vals // the INSERT is tied to them, whatever they are
	case sqlparse.Update, sqlparse.Delete:
		if slices.ContainsFunc(d.Sets, func(s sqlparse.Assign) bool { return s.Column == column }) {
			return nil
		}
		b := newBlock(a, d, nil)
		return best(b.pinsOf(colID{d.Target, column}))
	default:
		return nil
	}
}
