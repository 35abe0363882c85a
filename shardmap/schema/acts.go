package schema

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Events are what happens to a table's rows, with the bits of pg_trigger.tgtype.
type Events int16

// The events, and what else stands in tgtype.
const (
	ForRow    Events = 1 << 0
	OnInsert  Events = 1 << 2
	OnDelete  Events = 1 << 3
	OnUpdate  Events = 1 << 4
	OnTrunc   Events = 1 << 5
	InsteadOf Events = 1 << 6
	ForAll    Events = 1 << 8 // not in tgtype: the trigger reads all rows that the statement changes
	AnyEvent         = OnInsert | OnDelete | OnUpdate | OnTrunc
)

// Fired are the functions of the triggers that fire at some of these events. Those for a statement do not fire for a partition or child
// when the statement is about the table above it, but for TRUNCATE.
func (t *Table) Fired(events Events, above bool) []string { return t.fired(events, above, 0) }

// FiredForAll are those of them that read all rows which the statement changes.
func (t *Table) FiredForAll(events Events, above bool) []string {
	return t.fired(events, above, ForAll)
}

// fired are those of triggers that are of some kind.
func (t *Table) fired(events Events, above bool, kind Events) (funcs []string) {
	for i, f := range t.Triggers {
		when := AnyEvent | ForRow
		if i < len(t.On) {
			when = t.On[i]
		}
		if when&kind == kind && when&events&AnyEvent != 0 && (!above || when&ForRow != 0 || when&events&OnTrunc != 0) {
			funcs = append(funcs, f)
		}
	}
	return funcs
}

// Act is a foreign key that refers to a table, and what it does.
type Act struct {
	From     shardmap.TableName
	Keys     []string // the columns that it refers to
	Columns  []string // its own
	Defaults []string // of these, those that it sets to their defaults
	Deleted  Events   // what happens to its rows when the one is deleted that they refer to; 0: nothing
	Renamed  Events   // the same when its key is changed
}

// actsSQL says of each action what it is: c for CASCADE, n and d for SET NULL and SET DEFAULT.
const actsSQL = `select k.confrelid, k.conrelid, k.confdeltype::text, k.confupdtype::text, array(select a.attname::text from pg_attribute a where a.attrelid = k.confrelid and a.attnum = any (k.confkey)),
       array(select a.attname::text from pg_attribute a where a.attrelid = k.conrelid and a.attnum = any (k.conkey)) from pg_constraint k where k.contype = 'f'`

// varyingSQL lists the domains with a default that is not the same whenever and wherever it is evaluated.
const varyingSQL = `select dt.typname::text from pg_type dt left join pg_attrdef d on false where dt.typtype = 'd' and dt.typdefaultbin is not null and dt.oid >= 16384 and ` + variesSQL + ` <> 'i'`

// loadActs reads what foreign keys do.
func (s *Snapshot) loadActs(ctx context.Context, q queryer) error {
	byOID := s.byOID()
	var to, from uint32
	var deleted, renamed string
	var keys, columns []string
	rows, _ := q.Query(ctx, actsSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&to, &from, &deleted, &renamed, &keys, &columns}, func() error {
		if a, b := byOID[to], byOID[from]; a != nil && b != nil {
			act := Act{From: b.TableName, Keys: keys, Columns: columns, Deleted: acted(deleted, OnDelete), Renamed: acted(renamed, OnUpdate)}
			if deleted == "d" || renamed == "d" {
				act.Defaults = columns
			}
			a.Acts = append(a.Acts, act)
		}
		keys, columns = nil, nil
		return nil
	})
	return err
}

// loadVarying reads which domains have a default that varies.
func (s *Snapshot) loadVarying(ctx context.Context, q queryer) error {
	s.Varying = map[string]bool{}
	var name string
	rows, _ := q.Query(ctx, varyingSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&name}, func() error { s.Varying[name] = true; return nil })
	return err
}

// acted is what a foreign key's action does to the rows that refer to another, where CASCADE does what happens to that one.
func acted(action string, cascades Events) Events {
	switch action {
	case "c":
		return cascades
	case "n", "d":
		return OnUpdate
	}
	return 0
}

// loadChildren reads which tables are partitions and children of which.
func (s *Snapshot) loadChildren(ctx context.Context, q queryer) error {
	byOID := s.byOID()
	var parent, child uint32
	rows, _ := q.Query(ctx, "select inhparent, inhrelid from pg_inherits order by inhrelid")
	_, err := pgx.ForEachRow(rows, []any{&parent, &child}, func() error {
		if p, c := byOID[parent], byOID[child]; p != nil && c != nil {
			p.Children = append(p.Children, c.TableName)
		}
		return nil
	})
	return err
}

func (s *Snapshot) byOID() map[uint32]*Table {
	out := make(map[uint32]*Table, len(s.Tables))
	for _, t := range s.Tables {
		out[t.OID] = t
	}
	return out
}
