package reshard

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// dependentsSQL lists, in PostgreSQL's words, what else depends on some tables: what DROP without CASCADE refuses for. What belongs to
// one of them, and so goes with it, is gone. A view depends by way of its rule.
const dependentsSQL = `with recursive root (obj) as (select to_regclass(x)::oid from unnest($1::text[]) x where to_regclass(x) is not null), gone (class, obj) as (
  select 'pg_class'::regclass::oid, obj from root
  union select d.classid, d.objid from gone g join pg_depend d on d.refclassid = g.class and d.refobjid = g.obj where d.deptype in ('a', 'i', 'P', 'S')),
found as (select distinct on (object) object, pg_describe_object(g.class, g.obj, 0) as needs
  from gone g join pg_depend d on d.refclassid = g.class and d.refobjid = g.obj left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid,
  lateral (select case when r.oid is null then pg_describe_object(d.classid, d.objid, d.objsubid) else pg_describe_object('pg_class'::regclass, r.ev_class, 0) end) o (object)
 where d.deptype = 'n' and not exists (select from gone o where o.class = d.classid and o.obj = d.objid) and not exists (select from gone o where o.class = 'pg_class'::regclass and o.obj = r.ev_class)
 order by object, g.class = 'pg_class'::regclass and g.obj in (select obj from root) desc, g.obj)
select format('%s depends on %s', object, needs) from found order by 1`

// detailLines is how many dependents a message names, as PostgreSQL does.
const detailLines = 100

// droppable is an error if something that somebody has made on one of some shards keeps the copies there from being dropped. ready are those
// of the shards that have what an attempt needs there: see start.
func (mv *Mover) droppable(ctx context.Context, d *shardmap.DB, shards []*shardmap.ShardInfo, tables []shardmap.TableName) (ready map[string]bool, err error) {
	ready = map[string]bool{}
	names := make([]string, len(tables))
	for i, n := range tables {
		names[i] = n.SQL()
	}
	for _, s := range shards {
		if s == d.Home {
			continue
		}
		c, err := mv.openShard(ctx, d.Name, s)
		if err != nil {
			return nil, err
		}
		found, err := strings1(ctx, c, dependentsSQL, names)
		if err == nil {
			ready[s.Name], err = hasAll(ctx, c, s.Name)
		}
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return nil, ownOr(s.Name, err)
		}
		if err := dependents(s.Name, tables, found); err != nil {
			return nil, err
		}
	}
	return ready, nil
}

// dependents is the refusal to drop tables on a shard that something depends on; nil if nothing does.
func dependents(shard string, tables []shardmap.TableName, found []string) error {
	if len(found) == 0 {
		return nil
	}
	message := fmt.Sprintf("cannot drop table %s on shard %q because other objects depend on it", tables[0], shard)
	if len(tables) > 1 {
		message = fmt.Sprintf("cannot drop tables on shard %q because other objects depend on them", shard)
	}
	if n := len(found) - detailLines; n > 0 {
		found = append(found[:detailLines:detailLines], fmt.Sprintf("and %d other objects", n))
	}
	return &pgsql.Error{Code: pgsql.DependentObjectsStillExist, Message: message, Detail: strings.Join(found, "\n"), Hint: "Nothing was changed. Drop these objects there, and run the statement again."}
}
