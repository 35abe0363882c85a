package exec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
)

// PostgreSQL chooses names of indexes, constraints and the like by what is there already, and home has more than the other shards. So what
// a definition has made on another shard is called there, within the same transaction, what home has called it: else what is dropped by
// its name would stay on some of them.

// nameOf is an object that hangs on a table or type.
type nameOf struct {
	kind          string // index, constraint, statistics, sequence, domain constraint, array
	schema, owner string // the table or type
	name          string
	says          string // its definition, without names that may have been chosen
}

// namings are the names on each of the shards of a definition before it has run there.
type namings struct {
	list   []string // of the tables or types that it is about, as SQL; empty: no names are chosen
	before map[int][]nameOf
	home   []nameOf // what it has made on home
}

// namingsOf prepares for a definition that may have names chosen.
func namingsOf(p *router.Plan) *namings {
	d := &p.Stmt.Def
	if !d.Chooses || len(p.Shards) < 2 {
		return &namings{}
	}
	var list []string
	for _, ref := range append(slices.Clone(d.Objects), d.Makes...) {
		list = append(list, pgsql.Literal(ref.SQL()))
	}
	return &namings{list: list, before: map[int][]nameOf{}}
}

// namesSQL lists what hangs on some tables, their partitions and children, and on some types, in the order in which it was made.
func namesSQL(tables, types string) string {
	return `WITH RECURSIVE t (oid) AS (SELECT o FROM unnest(ARRAY[` + tables + `]::oid[]) o UNION SELECT i.inhrelid FROM pg_inherits i JOIN t ON i.inhparent = t.oid), y (oid) AS (SELECT o FROM unnest(ARRAY[` + types + `]::oid[]) o)
SELECT kind, n.nspname, q.of, name, says FROM (
  SELECT 'index', c.relnamespace, c.relname, i.relname, substr(def, strpos(def, ' INDEX ') + 8 + length(quote_ident(i.relname))), i.oid
    FROM t JOIN pg_class c USING (oid) JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class i ON i.oid = x.indexrelid, pg_get_indexdef(i.oid) def
   WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.conrelid = t.oid)
  UNION ALL SELECT 'constraint', c.relnamespace, c.relname, k.conname, pg_get_constraintdef(k.oid), k.oid
    FROM t JOIN pg_class c USING (oid) JOIN pg_constraint k ON k.conrelid = t.oid WHERE k.conname !~ '^pgmosaic_' AND NOT (k.contype = 'c' AND k.coninhcount > 0)
  UNION ALL SELECT 'statistics', s.stxnamespace, c.relname, s.stxname, substr(def, strpos(def, ' ON ')) || s.stxkind::text, s.oid
    FROM t JOIN pg_class c USING (oid) JOIN pg_statistic_ext s ON s.stxrelid = t.oid, pg_get_statisticsobjdef(s.oid) def
  UNION ALL SELECT 'sequence', s.relnamespace, c.relname, s.relname, a.attname, s.oid
    FROM t JOIN pg_class c USING (oid) JOIN pg_depend d ON d.refobjid = t.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    JOIN pg_class s ON s.oid = d.objid AND d.classid = 'pg_class'::regclass AND s.relkind = 'S' JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
  UNION ALL SELECT 'domain constraint', d.typnamespace, d.typname, k.conname, pg_get_constraintdef(k.oid), k.oid
    FROM y JOIN pg_type d USING (oid) JOIN pg_constraint k ON k.contypid = d.oid
  UNION ALL SELECT 'array', d.typnamespace, d.typname, a.typname, '', a.oid
    FROM y JOIN pg_type d USING (oid) JOIN pg_type a ON a.oid = d.typarray) q (kind, nsp, of, name, says, oid)
  JOIN pg_namespace n ON n.oid = q.nsp ORDER BY 1, 2, 3, q.oid`
}

// names asks a participant for them. What the names in the definition mean is the client's search_path's affair.
func (h *Handler) names(p *participant, list []string) (out []nameOf, err error) {
	if err := h.ready(p); err != nil {
		return nil, err
	}
	var meant []string
	for _, name := range list {
		meant = append(meant, "pg_catalog.to_regclass("+name+")::pg_catalog.oid", "pg_catalog.to_regtype("+name+")::pg_catalog.oid")
	}
	if len(meant) == 0 {
		return nil, nil
	}
	oids, err := p.Server.Row(len(meant), "SELECT "+strings.Join(meant, ", "))
	if err != nil {
		return nil, h.lost(p, err)
	}
	var tables, types []string
	for i := 0; i+1 < len(oids); i += 2 {
		if oids[i] != nil {
			tables = append(tables, string(oids[i]))
		} else if oids[i+1] != nil { // a table's own type goes with it
			types = append(types, string(oids[i+1]))
		}
	}
	err = h.amongCatalogs(p, func() error {
		rows, err := p.Server.RowsOf(5, namesSQL(strings.Join(tables, ", "), strings.Join(types, ", ")))
		if err != nil {
			return h.lost(p, err)
		}
		for _, r := range rows {
			out = append(out, nameOf{string(r[0]), string(r[1]), string(r[2]), string(r[3]), string(r[4])})
		}
		return nil
	})
	return out, err
}

// about looks at the names on a shard before the definition runs there.
func (n *namings) about(h *Handler, p *participant) (err error) {
	if len(n.list) > 0 {
		n.before[p.shard], err = h.names(p, n.list)
	}
	return err
}

// settle gives what the definition has just made on a shard the names that it has on home, which comes first.
func (n *namings) settle(h *Handler, p *participant) error {
	if len(n.list) == 0 {
		return nil
	}
	now, err := h.names(p, n.list)
	if err != nil {
		return err
	}
	made := slices.DeleteFunc(now, func(o nameOf) bool { return slices.Contains(n.before[p.shard], o) })
	if p.shard == h.planner.DB.Home.Index {
		n.home = made
		return nil
	}
	sql, err := renamings(n.home, made)
	if err == nil && sql != "" {
		if _, err = p.Server.Exec(sql); err != nil {
			err = h.lost(p, err)
		}
	}
	if err != nil {
		return h.onShard(p, err)
	}
	return nil
}

// renamings are the statements that give objects of a shard the names of home's, where they differ. Equal ones are matched in the
// order in which they were made.
func renamings(home, shard []nameOf) (string, error) {
	left := slices.Clone(shard)
	var first, then []string
	for _, want := range home {
		i := slices.IndexFunc(left, func(o nameOf) bool {
			return o.kind == want.kind && o.schema == want.schema && o.owner == want.owner && o.says == want.says
		})
		if i < 0 { // of a partition of home's alone, or what was there already
			continue
		}
		have := left[i]
		left = slices.Delete(left, i, i+1)
		if have.name == want.name {
			continue
		}
		if have.kind == "array" {
			return "", &pgsql.Error{
				Code: pgsql.DuplicateObject, Message: fmt.Sprintf("the array type of %s would be %q here, and is %q on the home shard, where the other name is taken", pgsql.Qualified(want.schema, want.owner), have.name, want.name),
				Hint: "Use another name for the type, or rename what has the name of its array type on the home shard.",
			}
		}
		between := nameOf{have.kind, have.schema, have.owner, fmt.Sprintf("pgmosaic_rename_%d", len(first)+1), ""}
		first, then = append(first, renaming(have, between.name)), append(then, renaming(between, want.name))
	}
	return strings.Join(append(first, then...), "; "), nil
}

// renaming gives an object another name.
func renaming(o nameOf, name string) string {
	switch on := pgsql.Qualified(o.schema, o.owner); o.kind {
	case "constraint":
		return "ALTER TABLE " + on + " RENAME CONSTRAINT " + pgsql.Ident(o.name) + " TO " + pgsql.Ident(name)
	case "domain constraint":
		return "ALTER DOMAIN " + on + " RENAME CONSTRAINT " + pgsql.Ident(o.name) + " TO " + pgsql.Ident(name)
	}
	return "ALTER " + strings.ToUpper(o.kind) + " " + pgsql.Qualified(o.schema, o.name) + " RENAME TO " + pgsql.Ident(name)
}
