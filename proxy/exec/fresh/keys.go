package fresh

import "github.com/pgmosaic/pgmosaic/router"

// What a slot of the horizons may stand for, besides rows of a key: see ReadKeys.
const (
	anyRow  = 0 // whatever is written to the table
	unkeyed = 1 // what is written to it by a statement that is not tied to one key

	anyWrite = 2 // of the empty table: whatever is written on the shard
)

// ReadKeys appends the slots of the horizons that a read must look at. A read that is tied to one key looks at what was written to that
// key's rows and by statements that were tied to none; any other read at all that was written to the table.
func (s *Shard) ReadKeys(keys []uint32, t *router.Template, key uint64) []uint32 {
	slot := func(table string, of uint64) uint32 { return s.from.Horizon.Slot(s.hash, table, of) }
	for i, n := range t.Tables {
		if key != 0 && i < t.Sharded {
			keys = append(keys, slot(n.Name, key), slot(n.Name, unkeyed))
		} else {
			keys = append(keys, slot(n.Name, anyRow)) // equal names in two schemas share a slot
		}
	}
	for _, n := range t.Behind {
		keys = append(keys, slot(n.Name, anyRow))
	}
	if t.Beyond {
		keys = append(keys, s.any)
	}
	return keys
}

// WriteKeys appends the slots that a write marks.
func (s *Shard) WriteKeys(keys []uint32, t *router.Template, key uint64) []uint32 {
	slot := func(table string, of uint64) uint32 { return s.from.Horizon.Slot(s.hash, table, of) }
	for i, n := range t.Tables {
		by := uint64(unkeyed)
		if key != 0 && i < t.Sharded {
			by = key
		}
		keys = append(keys, slot(n.Name, by), slot(n.Name, anyRow))
	}
	if t.Whole || len(t.Tables) == 0 {
		keys = append(keys, s.whole)
	}
	return append(keys, s.any)
}

// UnseenKeys appends the slots that a write of nobody knows what marks.
func (s *Shard) UnseenKeys(keys []uint32) []uint32 { return append(keys, s.whole, s.any) }
