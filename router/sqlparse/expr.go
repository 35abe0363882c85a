package sqlparse

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pgmosaic/pgmosaic/proxy/merge"
)

var setReturning = map[string]bool{
	"unnest": true, "generate_series": true, "generate_subscripts": true, "json_array_elements": true,
	"jsonb_array_elements": true, "regexp_matches": true, "regexp_split_to_table": true, "string_to_table": true, "json_each": true,
	"jsonb_each": true, "jsonb_path_query": true, "json_object_keys": true, "jsonb_object_keys": true, "json_array_elements_text": true,
	"jsonb_array_elements_text": true, "json_each_text": true, "jsonb_each_text": true, "json_to_recordset": true, "jsonb_to_recordset": true,
	"json_populate_recordset": true, "jsonb_populate_recordset": true, "_pg_expandarray": true,
}

var otherAggregates = map[string]bool{
	"array_agg": true, "string_agg": true, "bool_and": true, "bool_or": true, "every": true,
	"bit_and": true, "bit_or": true, "bit_xor": true, "any_value": true, "json_agg": true, "jsonb_agg": true, "json_object_agg": true,
	"jsonb_object_agg": true, "stddev": true, "stddev_pop": true, "stddev_samp": true, "variance": true, "var_pop": true, "var_samp": true,
	"corr": true, "covar_pop": true, "covar_samp": true, "regr_avgx": true, "regr_avgy": true, "regr_count": true, "regr_intercept": true,
	"regr_r2": true, "regr_slope": true, "regr_sxx": true, "regr_sxy": true, "regr_syy": true, "mode": true, "percentile_cont": true,
	"percentile_disc": true, "rank": true, "dense_rank": true, "percent_rank": true, "cume_dist": true, "xmlagg": true,
	"range_agg": true, "range_intersect_agg": true, "grouping": true, "json_agg_strict": true, "jsonb_agg_strict": true,
	"json_object_agg_strict": true, "json_object_agg_unique": true, "json_object_agg_unique_strict": true,
	"jsonb_object_agg_strict": true, "jsonb_object_agg_unique": true, "jsonb_object_agg_unique_strict": true,
}

// IsAggregate says whether a name is that of an aggregate which queries are known by.
func IsAggregate(name string) bool { return merge.Aggregates[name] != nil || otherAggregates[name] }

// isAggregate says whether a part of a tree makes one value of many rows, and is no window function.
func isAggregate(m any) bool {
	if windowOf(m) != nil {
		return false
	}
	switch x := m.(type) {
	case *pg.FuncCall:
		return IsAggregate(strings.ToLower(lastName(x.Funcname))) || x.AggStar || x.AggDistinct || x.AggFilter != nil || x.AggWithinGroup || len(x.AggOrder) > 0
	case *pg.JsonArrayAgg, *pg.JsonObjectAgg:
		return true
	}
	return false
}

// windowOf is the window that a part of a tree is computed over; nil for none.
func windowOf(m any) *pg.WindowDef {
	switch x := m.(type) {
	case *pg.FuncCall:
		return x.Over
	case *pg.JsonArrayAgg:
		return x.GetConstructor().GetOver()
	case *pg.JsonObjectAgg:
		return x.GetConstructor().GetOver()
	}
	return nil
}

func (c *converter) expr(q *level, n *pg.Node) Expr {
	if n == nil {
		return Expr{}
	}
	e := Expr{Const: true, Val: c.value(n), node: n}
	if q.keyed {
		e.Key = canonical(n)
	}
	walkParts(n, func(m any) bool {
		switch m.(type) {
		case *pg.ColumnRef, *pg.SubLink:
			e.Const = false
		}
		e.HasAgg = e.HasAgg || isAggregate(m)
		return true
	})
	switch x := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		if fields := x.ColumnRef.Fields; fields[len(fields)-1].GetAStar() != nil {
			e.Star, e.Of = true, lastName(fields[:len(fields)-1])
		}
		if col, ok := c.column(q, x.ColumnRef); ok {
			e.Col = &col
		}
	case *pg.Node_AConst:
		if _, ok := x.AConst.GetVal().(*pg.A_Const_Ival); ok {
			e.Ordinal = int(x.AConst.GetIval().GetIval())
		}
	case *pg.Node_CollateClause:
		e.Collate = collationName(x.CollateClause.Collname)
	case *pg.Node_FuncCall:
		f := x.FuncCall
		name := strings.ToLower(lastName(f.Funcname))
		if e.HasAgg && len(f.Funcname) <= 2 {
			if merge.Aggregates[name] != nil && !f.AggDistinct && len(f.AggOrder) == 0 && len(f.Args) <= 1 && !f.FuncVariadic {
				e.Agg, e.AggStar = name, f.AggStar
			} else {
				e.Other = name
			}
		}
	}
	return e
}

// collationName is a collation's name, with its schema where that is said.
func collationName(names []*pg.Node) string {
	var out []string
	for _, n := range names {
		out = append(out, n.GetString_().GetSval())
	}
	return strings.Join(out, ".")
}
