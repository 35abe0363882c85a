package reshard

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// replicatedSQL names a publication by which subscribers would be told that a table's rows are gone, as home deletes or truncates what has moved, and a
// subscription that writes the table or a partition of it. OIDs in pg_subscription are for superusers only before PostgreSQL 14; the view has them for everybody.
const replicatedSQL = `with own as (select c.oid, n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.oid = $1::text::regclass or c.oid in (select relid from pg_partition_tree($1::text::regclass)))
select coalesce((select min(p.pubname::text) from pg_publication p where case $2 when 'delete' then p.pubdelete when 'truncate' then p.pubtruncate else false end
    and exists (select from pg_publication_tables t join own on t.schemaname = own.nspname and t.tablename = own.relname where t.pubname = p.pubname)), ''),
  coalesce((select min(s.subname::text) from pg_stat_subscription s join pg_subscription_rel r on r.srsubid = s.subid where r.srrelid in (select oid from own)), '')`

// checkReplicated refuses a table whose move would reach others by way of logical replication, or which that writes. gone is what the move does on home to rows
// that have moved: delete, truncate or nothing.
func checkReplicated(ctx context.Context, home *pgx.Conn, d *shardmap.DB, n shardmap.TableName, gone string) error {
	if len(d.Shards) < 2 {
		return nil
	}
	var publication, subscription string
	if err := home.QueryRow(ctx, replicatedSQL, n.SQL(), gone).Scan(&publication, &subscription); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if publication != "" {
		return &pgsql.Error{
			Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be distributed: publication %q would tell its subscribers that the rows which leave home are deleted", n, publication),
			Hint: "ALTER PUBLICATION " + pgsql.Ident(publication) + " on home, SET (publish = 'insert, update') for the time of the statement, or DROP TABLE. What other shards have, a publication on each of them publishes.",
		}
	}
	if subscription != "" {
		return &pgsql.Error{
			Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be distributed: subscription %q writes it on home, past the proxy", n, subscription),
			Hint: "End the subscription first. What it brings can be written through the proxy.",
		}
	}
	return nil
}
