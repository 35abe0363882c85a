package router

import (
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// settled are stable functions whose values hang on their arguments and on settings, which are the session's on every shard.
var settled = map[string]bool{
	"to_char": true, "to_date": true, "to_timestamp": true, "to_number": true, "date_trunc": true, "date_part": true, "extract": true, "timezone": true,
	"make_timestamptz": true, "format": true, "concat": true, "concat_ws": true, "array_to_string": true, "quote_literal": true, "quote_nullable": true,
	"to_json": true, "to_jsonb": true, "row_to_json": true, "array_to_json": true, "json_build_object": true, "json_build_array": true, "jsonb_build_object": true,
	"jsonb_build_array": true, "json_populate_record": true, "jsonb_populate_record": true, "jsonb_path_query_tz": true, "jsonb_path_exists_tz": true,
	"plainto_tsquery": true, "phraseto_tsquery": true, "websearch_to_tsquery": true, "ts_headline": true, "pg_typeof": true,
}

// constancy is for how long a function's value is one, on whatever server it is called.
func (a *analysis) constancy(name string) sqlparse.Constancy {
	if a.isVolatile(name) {
		return sqlparse.Volatile
	}
	if !settled[name] && (a.sch.Stable[name] || name == "age") { // age(x) counts from today
		return sqlparse.Steady
	}
	for _, f := range a.userFuncs(name) {
		if !f.Immutable {
			return sqlparse.Steady
		}
	}
	return sqlparse.Constant
}

// fills is what has to be known to write all copies of a table alike.
func (a *analysis) fills(t *schema.Table) *sqlparse.Fills {
	f := &sqlparse.Fills{Varies: map[string]sqlparse.Constancy{}}
	for _, name := range a.stmt.Funcs {
		f.Varies[name] = a.constancy(name)
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		if c.Generated {
			continue
		}
		fill := sqlparse.Fill{Name: c.Name, Default: c.Default}
		switch {
		case c.Steady:
			fill.Varies = sqlparse.Steady
		case c.Volatile:
			fill.Varies = sqlparse.Volatile
		}
		f.Columns = append(f.Columns, fill)
		switch c.Base {
		case "date", "timestamp with time zone", "timestamp without time zone", "time with time zone", "time without time zone":
			f.Times = true
		}
	}
	return f
}
