package router

import (
	"maps"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// settled are stable functions whose values hang on their arguments and on settings, which are the session's on every shard.
var settled = map[string]bool{
	"to_char": true, "to_date": true, "to_timestamp": true, "to_number": true, "date_trunc": true, "date_part": true, "extract": true, "timezone": true,
	"make_timestamptz": true, "format": true, "concat": true, "concat_ws": true, "array_to_string": true, "quote_literal": true, "quote_nullable": true,
	"to_json": true, "to_jsonb": true, "row_to_json": true, "array_to_json": true, "json_build_object": true, "json_build_array": true, "jsonb_build_object": true,
	"jsonb_build_array": true, "jsonb_path_query_tz": true, "jsonb_path_exists_tz": true,
	"plainto_tsquery": true, "phraseto_tsquery": true, "websearch_to_tsquery": true, "ts_headline": true,
}

// byOID are immutable functions of PostgreSQL's whose value for an enum, or what has one in it, or for a type of users', hangs on OIDs.
var byOID = map[string]bool{
	"hashenum": true, "hashenumextended": true, "hash_array": true, "hash_array_extended": true, "hash_record": true, "hash_record_extended": true, "hash_range": true, "hash_range_extended": true,
	"hash_multirange": true, "hash_multirange_extended": true, "array_send": true, "record_send": true,
}

// constancy is for how long a function's value is one, on whatever server it is called.
func (a *analysis) constancy(name string) sqlparse.Constancy {
	return varies(a, name, map[string]bool{})
}

// varies is constancy for what is called by what has been seen: a function may say that it is immutable and call one that is not.
func varies(a *analysis, name string, seen map[string]bool) sqlparse.Constancy {
	if a.isVolatile(name) {
		return sqlparse.Volatile
	}
	if !settled[name] && (a.sch.Stable[name] || byOID[name] || name == "age") { // age(x) counts from today
		return sqlparse.Steady
	}
	seen[name] = true
	for _, f := range a.userFuncs(name) {
		if !f.Immutable || f.Tells() {
			return sqlparse.Steady
		}
		for _, w := range append(slices.Collect(maps.Keys(f.Spoken())), callsOf(a, f)...) {
			switch {
			case settled[w] || seen[w] || strings.HasPrefix(w, schema.TypeFunc("")):
			case a.sch.Volatile[w] || a.sch.Stable[w] || byOID[w] || len(a.sch.Funcs[w]) > 0 && varies(a, w, seen) != sqlparse.Constant:
				return sqlparse.Steady
			}
		}
	}
	return sqlparse.Constant
}

// varying is the first of some functions whose value is not the same whenever and wherever it is called; empty for none.
func varying(a *analysis, names []string) string {
	i := slices.IndexFunc(names, func(n string) bool { return a.constancy(n) != sqlparse.Constant })
	if i < 0 {
		return ""
	}
	return names[i]
}

// apart says what of a reference table's own would give other values on each of its copies, whatever is written; empty for nothing.
func apart(a *analysis, t *schema.Table) string {
	called := slices.DeleteFunc(slices.Clone(t.Code.Generated), func(n string) bool { return strings.HasPrefix(n, schema.TypeFunc("")) }) // types judge values, and change none
	if f := varying(a, called); f != "" {
		return "a generated column calls " + f + "(), which may give another value on each shard"
	}
	if f := varying(a, t.Code.Casts); f != "" {
		return "the " + f + ", which a column has, calls a function that may give another value on each shard"
	}
	return ""
}

// policed says the same of what its policies show of it.
func policed(a *analysis, t *schema.Table) string {
	if len(t.Code.Policies) > 0 {
		return "policy " + t.Code.Policies[0] + " may show other rows on each shard"
	}
	for _, f := range t.Code.Policed {
		if chance(a, f, map[string]bool{}) {
			return "a policy calls " + f + "(), which may say another thing on each shard"
		}
	}
	return ""
}

// timeless are types that cannot be read from a text as a time, nor hold one.
var timeless = map[string]bool{
	"smallint": true, "integer": true, "bigint": true, "numeric": true, "real": true, "double precision": true, "boolean": true, "text": true, "character varying": true, "bpchar": true, "\"char\"": true, "name": true,
	"uuid": true, "bytea": true, "json": true, "jsonb": true, "xml": true, "inet": true, "cidr": true, "macaddr": true, "money": true, "interval": true, "oid": true, "bit varying": true, "tsvector": true, "": true,
	"smallint[]": true, "integer[]": true, "bigint[]": true, "numeric[]": true, "real[]": true, "double precision[]": true, "boolean[]": true, "text[]": true, "character varying[]": true, "uuid[]": true, "jsonb[]": true, "int4range": true, "int8range": true, "numrange": true,
}

// timed says whether a text that is put into a column may be read as a time.
func timed(c *schema.Column) bool { return !timeless[c.Base] }

// differs says what may make the copies of a reference table different when a statement writes it: operators and casts with another value on
// each shard.
func (a *analysis) differs() string {
	for _, op := range a.stmt.Ops {
		if a.isVolatile(op) || a.constancy(op) != sqlparse.Constant {
			return "operator " + op + " may have another value on each shard"
		}
	}
	for _, n := range a.stmt.TypeNames {
		if key := schema.CastFunc(n); a.constancy(key) != sqlparse.Constant {
			return "the " + key + " may give another value on each shard"
		}
	}
	return ""
}

// fills is what has to be known to write all copies of a table alike.
func (a *analysis) fills(t *schema.Table) *sqlparse.Fills {
	f := &sqlparse.Fills{Varies: map[string]sqlparse.Constancy{}}
	called := append(slices.Clone(t.Code.Defaults), t.Code.Always...) // defaults of types stand among the latter
	lies := varying(a, called) != ""
	for _, name := range a.stmt.Funcs {
		f.Varies[name] = a.constancy(name)
	}
	for _, name := range a.attrs {
		f.Varies[sqlparse.AsAttr(name)] = a.constancy(name)
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		if c.Generated {
			continue
		}
		fill := sqlparse.Fill{Name: c.Name, Default: c.Default, Timed: timed(c), Text: c.Base == "text" || c.Base == "character varying" || c.Base == "bpchar", Named: strings.HasPrefix(c.Base, "reg")}
		switch {
		case c.Steady:
			fill.Varies = sqlparse.Steady
		case c.Volatile:
			fill.Varies = sqlparse.Volatile
		case lies && strings.Contains(c.Default, "("): // it may be this one that calls it
			fill.Varies = sqlparse.Volatile
		}
		f.Columns = append(f.Columns, fill)
		f.Times = f.Times || timed(c)
	}
	return f
}
