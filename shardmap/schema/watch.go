package schema

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// fingerprintSQL changes with every definition that a plan may rest on, and with nothing else: TRUNCATE, VACUUM and ANALYZE leave
// it as it is. Rows of catalogs that only definitions write count by their xmin. Where the rows of a table are, its constraint pgmosaic_slot says, which
// each key that gets another shard writes anew: that it has one counts. It is the proxy's own by pgmosaic.placed, and not by its name.
func fingerprintSQL(placed bool) string {
	if !placed {
		return fmt.Sprintf(fingerprintForm, "false")
	}
	return fmt.Sprintf(fingerprintForm, "c.conname = 'pgmosaic_slot' and c.contype = 'c' and (c.coninhcount > 0 or exists (select from pgmosaic.placed p where p.relation = c.conrelid))")
}

// fingerprintOf is what it is on a server, for whom it is asked: a client's own server is asked amid its transaction, too, and its role may not read
// pgmosaic.placed.
func fingerprintOf(ctx context.Context, q queryer) (fp string, err error) {
	rows, _ := q.Query(ctx, "select exists (select from pg_class c where c.oid = to_regclass('pgmosaic.placed') and pg_has_role(c.relowner, 'USAGE'))") // an error comes with the rows
	placed, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return "", err
	}
	rows, _ = q.Query(ctx, fingerprintSQL(placed))
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
}

const fingerprintForm = `with r as materialized (select c.oid, c.relname, c.relnamespace, c.relkind, c.relpersistence, c.relhassubclass, c.relhasrules, c.reloptions, c.relrowsecurity, c.relispartition
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')),
  n as (select oid, nspname, nspowner, nspacl from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmosaic'))
select md5(concat_ws(',',
  (select sum(hashtextextended(r::text, 0)) from r),
  (select sum(hashtextextended(a.attrelid || ' ' || a.attnum || ' ' || a.xmin, 0)) from pg_attribute a join r on r.oid = a.attrelid where a.attnum > 0),
  (select sum(hashtextextended(p.oid || ' ' || p.xmin, 0)) from pg_proc p where p.pronamespace in (select oid from n)),
  (select sum(hashtextextended(w.oid || ' ' || w.xmin, 0)) from pg_rewrite w join r on r.oid = w.ev_class),
  (select sum(hashtextextended(t.oid || ' ' || t.xmin, 0)) from pg_trigger t join r on r.oid = t.tgrelid where not exists (select from pg_proc p where p.oid = t.tgfoid and p.pronamespace = to_regnamespace('pgmosaic'))),
  (select sum(hashtextextended(case when %s then c.conrelid || ' slot' else c.oid || ' ' || c.xmin end, 0)) from pg_constraint c where c.connamespace in (select oid from n)),
  (select sum(hashtextextended(d.oid || ' ' || d.xmin, 0)) from pg_attrdef d join r on r.oid = d.adrelid),
  (select sum(hashtextextended(i.indexrelid || ' ' || i.indrelid || i.indisunique || i.indisprimary, 0)) from pg_index i join r on r.oid = i.indexrelid),
  (select sum(hashtextextended(p.oid || ' ' || p.xmin, 0)) from pg_policy p join r on r.oid = p.polrelid),
  (select sum(hashtextextended(e.oid || ' ' || e.xmin, 0)) from pg_enum e),
  (select sum(hashtextextended(o.oid || ' ' || o.xmin, 0)) from pg_operator o where o.oid >= 16384), (select sum(hashtextextended(c.oid || ' ' || c.xmin, 0)) from pg_cast c where c.oid >= 16384),
  (select sum(hashtextextended(t.oid || ' ' || t.xmin, 0)) from pg_type t where t.typnamespace in (select oid from n) and t.typtype <> 'c'),
  (select sum(hashtextextended(o.oid || ' ' || o.xmin, 0)) from pg_collation o where o.oid >= 16384), (select sum(hashtextextended(e.oid || ' ' || e.xmin, 0)) from pg_extension e), (select sum(hashtextextended(n::text, 0)) from n),
  ` + usageSQL + `))`

// lookTimeout bounds a look at a server that accepts connections and says nothing.
const lookTimeout = 30 * time.Second

// Fingerprint is that of a shard's database now: it differs from that of a Snapshot if something was defined since.
func (r *Reader) Fingerprint(ctx context.Context, at Server) (fp string, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err = r.lend(ctx, at, func(ctx context.Context, c *pgx.Conn) error {
		fp, err = fingerprintOf(ctx, c)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("look for definitions: %w", err)
	}
	return fp, nil
}
