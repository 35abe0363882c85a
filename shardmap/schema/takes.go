package schema

import (
	"context"
	"regexp"

	"github.com/jackc/pgx/v5"
)

// Takes says how a function can be called as an attribute: (x).f, or t.f, which is called with a row of t.
type Takes int

// What functions take and give. TakesRow has TakesValue.
const (
	TakesValue Takes = 1 << iota // one argument
	TakesRow                     // one argument that may be the row of a table
	GivesOther                   // it gives more or less than one value for each row: an aggregate, or a set
)

// takesSQL is that of the function p. One argument is enough where the others have defaults, and for VARIADIC.
const takesSQL = `case when p.prokind = 'p' or p.pronargs = 0 or p.pronargs - p.pronargdefaults > 1 then 0
  else 1 + case when p.proargtypes[0] in (select t.oid from pg_type t left join pg_type b on b.oid = t.typbasetype where t.typtype = 'c' or b.typtype = 'c' or t.oid in (2249, 2276, 2283, 2776, 5077, 5079)
      union all select k.casttarget from pg_cast k join pg_type t on t.oid = k.castsource where k.castcontext = 'i' and t.typtype = 'c') then 2 else 0 end
    + case when p.proretset or p.prokind <> 'f' then 4 else 0 end end`

// loadFields reads names of fields.
func (s *Snapshot) loadFields(ctx context.Context, tx queryer) error {
	var name string
	rows, _ := tx.Query(ctx, `select a.attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relkind = 'c' and a.attnum > 0 and not a.attisdropped
		union select x.name from pg_proc p, lateral unnest(p.proargnames, p.proargmodes) x (name, mode) where p.oid >= 16384 and x.mode in ('o', 'b', 't') and x.name <> ''`)
	_, err := pgx.ForEachRow(rows, []any{&name}, func() error { s.Fields[name] = true; return nil })
	return err
}

// attribute is what stands behind a dot in a function's body.
var attribute = regexp.MustCompile(`\.\s*"?([\pL_][\pL\pN_$]*)`)

// Attributes are the words of a function's body that stand where an attribute stands, with and without what looks like a comment: each may
// be the call of a function with what is before it.
func (f *Func) Attributes() map[string]bool {
	return f.attributes.find(func() map[string]bool {
		out := map[string]bool{}
		for body, depth := f.Body, 0; ; depth++ {
			for _, m := range attribute.FindAllStringSubmatch(body, -1) {
				out[m[1]] = true
			}
			bare, _ := withoutRemarks(body)
			switch {
			case bare == body:
				return out
			case depth == deepestRemark:
				words(body, out)
				return out
			}
			body = bare
		}
	})
}
