package exec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// onceBatch is how many expressions one statement evaluates: planning takes more than twice as long for twice as many.
const onceBatch = 100

// written are the settings under which values that were evaluated become texts: with these, a text is the whole value, and is read alike
// under all settings but a few. The expressions themselves, and what they call, see the client's settings.
var written = []struct{ name, value string }{
	{"DateStyle", "ISO, YMD"}, {"IntervalStyle", "postgres"}, {"TimeZone", "UTC"}, {"extra_float_digits", "3"}, {"bytea_output", "hex"}, {"search_path", "pg_catalog, pg_temp"},
}

// exactTypes are the types, by OID, whose texts are read as the same value under all settings. Of values of other types that is looked at.
const exactTypes = "{16,17,19,20,21,23,25,26,114,650,700,701,829,869,1042,1043,1082,1083,1114,1184,1560,1562,1700,2950,3802}"

// xmlOID and jsonOID are the OIDs of PostgreSQL's xml and json.
const (
	xmlOID  = 142
	jsonOID = 114
)

// xmlType is how PostgreSQL's own xml is named by onceSQL. How a literal of it is read hangs on xmloption.
const xmlType = "pg_catalog.xml"

// evaluate gives the values of expressions, for a table, as SQL, which every copy reads as the same value, of the same type. Defaults are
// read as they are printed, and what they call sees the client's search_path.
func (h *Handler) evaluate(p *participant, table shardmap.TableName, asked []string, defaults bool, hold *holding) (values []string, err error) {
	for len(asked) > 0 {
		some := asked[:min(len(asked), onceBatch)]
		asked = asked[len(some):]
		var path *string
		if defaults {
			if path, err = asWritten(h, p); err != nil {
				return nil, err
			}
		}
		rows, err := pool.RowsWithin(p.Server, 3, onceSQL(some, path), hold.take)
		var full *pgsql.Error
		switch {
		case errors.As(err, &full): // the server is in order
			return nil, err
		case err != nil:
			return nil, h.lost(p, err)
		}
		if len(rows) != len(some) {
			return nil, fmt.Errorf("exec: %d of %d expressions have a value", len(rows), len(some))
		}
		for _, r := range rows {
			typ, text, exact := string(r[0]), r[1], string(r[2]) == "t"
			switch {
			case text == nil:
				values = append(values, "CAST(NULL AS "+typ+")")
			case !exact:
				return nil, router.Refuse(router.RuleInexact, "a value of type "+typ+" for reference table "+table.String())
			case typ == xmlType:
				values = append(values, "XMLPARSE(CONTENT "+pgsql.Literal(string(text))+" PRESERVE WHITESPACE)")
			default:
				values = append(values, "CAST("+pgsql.Literal(string(text))+" AS "+typ+")")
			}
		}
	}
	return values, nil
}

// onceSQL asks for the type, the text and whether that is read as the same value, bit for bit, of each of some expressions. path, unless nil,
// becomes the search_path before they are evaluated. Each step is a subquery of the next, which OFFSET keeps apart: the expressions are
// evaluated, each once; the settings become those of written; the values become texts; the settings become again what they were; the texts
// are read. A type's own output makes the texts, where a cast to text may leave something out or be a user's function. The types' names are
// whole and without a length: "character" would be one of 1.
func onceSQL(exprs []string, path *string) string {
	var vals, names, texts, tell strings.Builder
	if path != nil {
		fmt.Fprintf(&vals, "pg_catalog.set_config('search_path', %s, true),", pgsql.Literal(*path))
		names.WriteString("path,")
	}
	for i, e := range exprs {
		fmt.Fprintf(&vals, "(%s\n),", e)
		fmt.Fprintf(&names, "v%d,", i)
		known := fmt.Sprintf("CASE WHEN pg_catalog.pg_typeof(v%[1]d)::pg_catalog.oid OPERATOR(pg_catalog.=) ANY ('%[2]s'::pg_catalog.oid[]) THEN", i, exactTypes)
		fmt.Fprintf(&texts, ", CASE WHEN v%[1]d IS DISTINCT FROM NULL THEN pg_catalog.format('%%s', v%[1]d) END AS t%[1]d, %[2]s NULL ELSE pg_catalog.format('%%s', ARRAY[v%[1]d]) END AS a%[1]d", i, known)
		if i > 0 {
			tell.WriteByte(',')
		}
		// what is read stands in an array: JSON would be taken as it is
		fmt.Fprintf(&tell, `(%[1]d, pg_catalog.pg_typeof(v%[1]d)::pg_catalog.oid, t%[1]d, %[2]s true WHEN t%[1]d IS NULL THEN true
 WHEN pg_catalog.pg_typeof(v%[1]d)::pg_catalog.oid OPERATOR(pg_catalog.=) 142 THEN CAST(ROW(v%[1]d) AS pg_catalog.record) OPERATOR(pg_catalog.*=) ROW(XMLPARSE(CONTENT t%[1]d PRESERVE WHITESPACE))
 ELSE ROW(ARRAY[v%[1]d]) OPERATOR(pg_catalog.*=) pg_catalog.json_populate_record(ROW(ARRAY[v%[1]d]), pg_catalog.json_build_object('f1', a%[1]d)) END)`, i, known)
	}
	var set, back strings.Builder
	for i, s := range written {
		if i > 0 {
			vals.WriteByte(',')
			names.WriteByte(',')
		}
		fmt.Fprintf(&vals, "pg_catalog.current_setting(%s)", pgsql.Literal(s.name))
		fmt.Fprintf(&names, "o%d", i)
		fmt.Fprintf(&set, ", pg_catalog.set_config(%s, %s, true)", pgsql.Literal(s.name), pgsql.Literal(s.value))
		fmt.Fprintf(&back, ", pg_catalog.set_config(%s, o%d, true)", pgsql.Literal(s.name), i)
	}
	return "WITH once AS MATERIALIZED (SELECT written.*" + back.String() +
		" FROM (SELECT apart.*" + texts.String() +
		" FROM (SELECT made.*" + set.String() +
		" FROM (VALUES (" + vals.String() + ") OFFSET 0) AS made (" + names.String() + ") OFFSET 0) AS apart OFFSET 0) AS written)" +
		` SELECT CASE WHEN e.oid IS NULL THEN pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(t.typname))
 ELSE pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(e.typname), '[]') END, told.txt, told.exact
 FROM once, LATERAL (VALUES ` + tell.String() + `) AS told (at, typ, txt, exact)
 JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) told.typ JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
 LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem AND e.typarray OPERATOR(pg_catalog.=) t.oid ORDER BY told.at`
}

// asWritten has a server, in a transaction, read the next statement as the schema's expressions are printed, where pg_catalog comes first;
// behind it comes what the client's search_path has, which is returned.
func asWritten(h *Handler, p *participant) (path *string, err error) {
	row, err := p.Server.Row(2, "SELECT pg_catalog.current_setting('search_path'), pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog', CASE WHEN pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) '' THEN pg_catalog.current_setting('search_path') END, 'pg_temp'), true)")
	if err != nil {
		return nil, h.lost(p, err)
	}
	was := string(row[0])
	return &was, nil
}
