package reshard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// placeCheck is the DDL of the constraint that keeps misplaced rows out of a shard.
func placeCheck(d *shardmap.DB, t *shardmap.TableInfo, shard string) string {
	return checkOn(t.SQL(), placeWhere(d, t, shard))
}

func checkOn(table, where string) string {
	return fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT pgmosaic_slot CHECK (%s)", table, where)
}

// placeWhere is the condition that a row of a table belongs to a shard, in immutable SQL: false for a shard that owns no key, and for a
// row without one, which belongs to none. It is never NULL, which a CHECK would take for true.
func placeWhere(d *shardmap.DB, t *shardmap.TableInfo, shard string) string {
	return keyedWhere(t, ownWhere(d, t, shard))
}

// keyedWhere is a condition on a row's key, and that it has one.
func keyedWhere(t *shardmap.TableInfo, where string) string {
	if len(t.Keys) == 0 || where == "false" {
		return where
	}
	return "(" + where + " AND " + keyed(t) + ")"
}

// keyed is the condition that a row has a key.
func keyed(t *shardmap.TableInfo) string {
	parts := make([]string, len(t.Keys))
	for i, k := range t.Keys {
		parts[i] = pgsql.Ident(k) + " IS NOT NULL"
	}
	return strings.Join(parts, " AND ")
}

// ownWhere is the condition that a row's key is a shard's. Where a part of the key is NULL, it may be anything. To split a range does not change it.
func ownWhere(d *shardmap.DB, t *shardmap.TableInfo, shard string) string {
	return whereBy(d.Placement(t.Group), t, shard, joined(d.Placement(t.Group).Ranges))
}

// joined are ranges with those of one shard that follow each other as one.
func joined(ranges []shardmap.Range) []shardmap.Range {
	return slices.CompactFunc(slices.Clone(ranges), func(a, b shardmap.Range) bool { return a.Shard == b.Shard })
}

// whereBy is ownWhere by some ranges.
func whereBy(places *shardmap.PlacementInfo, t *shardmap.TableInfo, shard string, ranges []shardmap.Range) string {
	g := t.Group
	cols := make([]string, len(t.Keys))
	for i, k := range t.Keys {
		cols[i] = pgsql.Ident(k)
		if g.Scheme == shardmap.ByRange && isText(g.Keys[i]) {
			cols[i] += ` COLLATE "C"`
		}
	}
	var base string
	switch g.Scheme {
	case shardmap.ByHash:
		base = slotWhere(places, cols, shard)
	case shardmap.ByRange:
		base = rangeWhere(g, ranges, cols, shard)
	case shardmap.ByList:
		base = listWhere(places, cols, shard)
	default:
		base = "false" // of a schema that lives on another shard
	}
	var here, elsewhere []string
	for _, p := range places.Pins {
		if p.Shard == shard {
			here = append(here, rowLiteral(g, p.Key))
		} else {
			elsewhere = append(elsewhere, rowLiteral(g, p.Key))
		}
	}
	row := "(" + strings.Join(cols, ", ") + ")"
	if len(elsewhere) > 0 {
		base = fmt.Sprintf("(%s AND %s NOT IN (%s))", base, row, strings.Join(elsewhere, ", "))
	}
	if len(here) > 0 {
		base = fmt.Sprintf("(%s OR %s IN (%s))", base, row, strings.Join(here, ", "))
	}
	return base
}

func isText(t pghash.Type) bool {
	return t == pghash.TypeText || t == pghash.TypeVarchar || t == pghash.TypeBpchar
}

func slotWhere(places *shardmap.PlacementInfo, cols []string, shard string) string {
	expr, _ := pghash.SlotSQL(places.Group.Keys, cols) // hash groups have only types that SQL can hash
	var parts []string
	for _, r := range places.Slots {
		if r.Shard == shard {
			parts = append(parts, fmt.Sprintf("(%s) BETWEEN %d AND %d", expr, r.From, r.To))
		}
	}
	return anyOf(parts)
}

func rangeWhere(g *shardmap.GroupInfo, ranges []shardmap.Range, cols []string, shard string) string {
	row := "(" + strings.Join(cols, ", ") + ")"
	var parts []string
	for i, r := range ranges {
		if r.Shard != shard {
			continue
		}
		var both []string
		if i > 0 {
			both = append(both, row+" >= "+rowLiteral(g, r.From))
		}
		if i+1 < len(ranges) {
			both = append(both, row+" < "+rowLiteral(g, ranges[i+1].From))
		}
		if len(both) == 0 {
			return "true"
		}
		parts = append(parts, "("+strings.Join(both, " AND ")+")")
	}
	return anyOf(parts)
}

func listWhere(places *shardmap.PlacementInfo, cols []string, shard string) string {
	var here, all []string
	rest := false
	for _, l := range places.Lists {
		rest = rest || l.Default && l.Shard == shard
		for _, v := range l.Values {
			lit := rowLiteral(places.Group, []string{v})
			all = append(all, lit)
			if l.Shard == shard {
				here = append(here, lit)
			}
		}
	}
	var parts []string
	if len(here) > 0 {
		parts = append(parts, fmt.Sprintf("(%s) IN (%s)", cols[0], strings.Join(here, ", ")))
	}
	if rest {
		if len(all) == 0 {
			return "true"
		}
		parts = append(parts, fmt.Sprintf("(%s) NOT IN (%s)", cols[0], strings.Join(all, ", ")))
	}
	return anyOf(parts)
}

func anyOf(parts []string) string {
	if len(parts) == 0 {
		return "false"
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}

// rowLiteral writes a key as a constant of the group's types.
func rowLiteral(g *shardmap.GroupInfo, key []string) string {
	out := make([]string, len(key))
	for i, v := range key {
		typ := g.Keys[i].String()
		if g.Keys[i] == pghash.TypeBpchar { // "character" is character(1)
			typ = "bpchar"
		}
		out[i] = pgsql.Literal(v) + "::" + typ
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// Replace changes which shard owns some keys of a group. No row travels: it is refused where a table holds rows with these
// keys on a shard that gives them up. Statements on the group's tables are held back meanwhile, and the constraints that keep misplaced
// rows out change first, so that a row written by an older map would be an error, never lost.
func (mv *Mover) Replace(ctx context.Context, tag, db, group string, dry bool, keys [][]string, edit func(*shardmap.PlacementInfo, *shardmap.Tx) error) (*shardmap.Snapshot, error) {
	defer mv.Alone()()
	d, err := mv.settled(ctx, db)
	if err != nil {
		return nil, err
	}
	g, err := GroupOf(d, group)
	if err != nil {
		return nil, err
	}
	change := func(tx *shardmap.Tx) error { return edit(d.Placement(g), tx) }
	then, err := mv.Catalog.Change(ctx, true, change)
	if err != nil {
		return nil, err
	}
	next := then.Databases[db]
	var moves []recheck
	for _, t := range next.SortedTables() {
		if t.Group == nil || t.Group.Name != group {
			continue
		}
		for _, s := range next.Shards {
			if was := placeWhere(d, d.Tables[t.TableName], s.Name); was != placeWhere(next, t, s.Name) && len(keys) > 0 {
				moves = append(moves, recheck{s, d.Tables[t.TableName], next, t})
			}
		}
	}
	if dry || len(moves) == 0 {
		return mv.Change(ctx, tag, dry, d, change)
	}
	return mv.changePlacement(ctx, tag, d, group, moves, keys, change)
}

// changePlacement changes the constraints of a group's tables, and then the map. Statements on these tables wait meanwhile, others do not. What a
// crash or a failure interrupts is undone by the map: see recoverPlaces.
func (mv *Mover) changePlacement(ctx context.Context, tag string, d *shardmap.DB, group string, moves []recheck, keys [][]string, change func(*shardmap.Tx) error) (snap *shardmap.Snapshot, err error) {
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, home)
	x := newAttempt(shardmap.Attempt{Database: d.Name, Statement: tag + " " + group, Group: group})
	if err = mv.start(ctx, d, home, x, nil); err == nil {
		placing := x
		placing.Step = shardmap.Placing
		err = mv.announce(ctx, x, func(tx *shardmap.Tx) error { return tx.PutAttempt(placing) }, func(tx *shardmap.Tx) error { return tx.PutAttempt(x) })
	}
	for _, m := range moves {
		if err == nil {
			var c *pgx.Conn
			if c, err = mv.openFor(ctx, d, m.shard, x.ID); err == nil {
				err = mv.recheck(ctx, c, d.Name, m, keys)
				giveBack(ctx, mv.Conns, c)
			}
		}
	}
	if err == nil { // by nil: since start, the map says that this attempt is at it
		snap, err = mv.Change(ctx, tag, false, nil, func(tx *shardmap.Tx) error { return errors.Join(tx.EndAttempt(x.ID), change(tx)) })
	}
	if err != nil {
		_ = home.Close(context.WithoutCancel(ctx)) // which gives up the attempt's lock
		return nil, errors.Join(err, mv.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	return snap, nil
}

// recoverPlaces gives the tables of a group, on some shards, the constraints that the map says, and forgets the attempt to give them others.
func (mv *Mover) recoverPlaces(ctx context.Context, d *shardmap.DB, shards []*shardmap.ShardInfo, home *pgx.Conn, x shardmap.Attempt) error {
	for _, s := range shards {
		if x.Step != shardmap.Placing {
			break
		}
		c, err := dismissed(ctx, mv, home, d, s, x.ID)
		if err != nil {
			return err
		}
		for _, t := range d.SortedTables() {
			if err == nil && t.Group != nil && t.Group.Name == x.Group {
				err = mv.recheck(ctx, c, d.Name, recheck{s, t, d, t}, nil)
			}
		}
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return err
		}
	}
	return mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return tx.Delete("attempts", x.ID) })
}

// recheck is a table on a shard that gives or takes keys.
type recheck struct {
	shard *shardmap.ShardInfo
	now   *shardmap.TableInfo
	then  *shardmap.DB // with the next placement
	next  *shardmap.TableInfo
}

// recheck gives a table on a shard the constraint of its next placement. The rows that are there need not be read again:
// those of other keys satisfied the old one, and there are none of these.
func (mv *Mover) recheck(ctx context.Context, c *pgx.Conn, db string, m recheck, keys [][]string) error {
	s, now, next := m.shard, m.now, m.next
	name := now.SQL()
	err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if err := boundedLock(ctx, tx, name, "ACCESS EXCLUSIVE"); err != nil {
			return err
		}
		if err := mv.belongs(ctx, tx, db, s, now); err != nil {
			return err
		}
		if len(keys) > 0 {
			var lits, cols []string
			for _, k := range keys {
				lits = append(lits, rowLiteral(now.Group, k))
			}
			for _, k := range now.Keys {
				cols = append(cols, pgsql.Ident(k))
			}
			held, err := ask(ctx, c, now.TableName, fmt.Sprintf("EXISTS (SELECT FROM %s WHERE (%s) IN (%s) AND NOT (%s))", name, strings.Join(cols, ", "), strings.Join(lits, ", "), placeWhere(m.then, next, s.Name)))
			if err != nil {
				return err
			}
			if held != nil && *held == "true" {
				return &pgsql.Error{
					Code: pgsql.ObjectInUse, Message: fmt.Sprintf("table %s holds rows with this key on shard %q", now.TableName, s.Name),
					Hint: "Keys that have rows cannot change their shard: delete the rows, change the placement, and insert them again.",
				}
			}
		}
		if _, err := tx.Exec(ctx, "ALTER TABLE "+name+" DROP CONSTRAINT IF EXISTS pgmosaic_slot"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, placeCheck(m.then, next, s.Name)+" NOT VALID")
		return err
	})
	return ownOr(s.Name, err)
}

// belongs is an error unless a table on a shard is what this map's distribution of it has made, or left, there. Of tables that an
// older version distributed nothing is known.
func (mv *Mover) belongs(ctx context.Context, tx pgx.Tx, db string, s *shardmap.ShardInfo, t *shardmap.TableInfo) error {
	d, err := mv.Database(db)
	switch {
	case err != nil || t.Made == "":
		return err
	case s.Name != d.Home.Name:
		return ours(ctx, tx, s.Name, t.TableName, t.Made)
	}
	return placedAs(ctx, tx.Conn(), s.Name, "relation", t.SQL(), "table "+t.String(), t.Made)
}

// GroupOf is a group of a database.
func GroupOf(d *shardmap.DB, name string) (*shardmap.GroupInfo, error) {
	g := d.Groups[name]
	if g == nil {
		return nil, &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("group %q does not exist in database %q", name, d.Name), Hint: "SHOW GROUPS lists them; CREATE GROUP makes one."}
	}
	return g, nil
}
