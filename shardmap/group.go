package shardmap

import (
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// GroupInfo is a compiled group. Which shard has which key is its placement's: see DB.Placement.
type GroupInfo struct {
	Name   string
	Scheme Scheme
	Keys   []pghash.Type
	Moving bool // of a schema that lives on one shard: it travels; of another: keys get other shards

	declared *Group
	index    int            // of its placement among the database's
	fixed    *PlacementInfo // of what lives on one shard, and is declared with it
}

// onOne is the group of what lives on one shard.
func onOne(name string, shard int) *GroupInfo {
	g := &GroupInfo{Name: name, Scheme: ByTenant}
	g.fixed = &PlacementInfo{Group: g, fallback: shard, all: []int{shard}}
	return g
}

// Slot is the slot of a key of a hash group.
func (g *GroupInfo) Slot(key []pghash.Key) int { return slotOf(key) }

func slotOf(key []pghash.Key) int {
	row := uint64(0)
	for i := range key {
		row = pghash.Combine(row, key[i].Hash())
	}
	return int(row & (pghash.Slots - 1))
}

// TypeList is the key types as they are written in SQL and in messages.
func (g *GroupInfo) TypeList() string {
	var out []string
	for _, t := range g.Keys {
		out = append(out, t.String())
	}
	return strings.Join(out, ", ")
}

// ParseKey reads the values of a key given as text. The error is a *pgsql.Error.
func (g *GroupInfo) ParseKey(vals []string) ([]pghash.Key, error) {
	if len(vals) != len(g.Keys) {
		return nil, invalid(pgsql.InvalidParameterValue, "", "a key of group %q has %d columns, %d values were given", g.Name, len(g.Keys), len(vals))
	}
	out := make([]pghash.Key, len(vals))
	for i, v := range vals {
		var ok bool
		if out[i], ok = pghash.ParseText(g.Keys[i], v); !ok {
			return nil, invalid(pgsql.InvalidTextRepresentation, "Write dates and timestamps in ISO 8601, with an offset for timestamptz.", "invalid input syntax for type %s: %q", g.Keys[i], v)
		}
	}
	return out, nil
}

func (g *GroupInfo) form(vals []string) (string, error) {
	key, err := g.ParseKey(vals)
	if err != nil {
		return "", err
	}
	var out []byte
	for i := range key {
		out = key[i].AppendOrdered(out)
	}
	return string(out), nil
}

func newGroup(g *Group) (*GroupInfo, error) {
	info := &GroupInfo{Name: g.Name, Scheme: g.Scheme, declared: g}
	for _, name := range g.Keys {
		kt, ok := pghash.TypeByName(name)
		if !ok {
			return nil, invalid(pgsql.FeatureNotSupported, "Use one of: integer, bigint, smallint, text, varchar, char(n), uuid, date, timestamp, timestamptz, numeric, boolean.",
				"type %q cannot be the key of a group", name)
		}
		if _, ok := pghash.SlotSQL([]pghash.Type{kt}, []string{"k"}); !ok && g.Scheme == ByHash {
			return nil, invalid(pgsql.FeatureNotSupported, "Use a uuid, a text or an integer key.", "type %s cannot be the key of a hash group: SQL cannot check the place of its rows", kt)
		}
		info.Keys = append(info.Keys, kt)
	}
	switch {
	case len(info.Keys) == 0 || len(info.Keys) > pghash.MaxColumns:
		return nil, invalid(pgsql.TooManyColumns, "", "the key of group %q has %d columns: 1 to %d are possible", g.Name, len(info.Keys), pghash.MaxColumns)
	case g.Scheme == ByList && len(info.Keys) > 1:
		return nil, invalid(pgsql.InvalidTableDefinition, "Use one column, or BY HASH or BY RANGE.", "cannot use \"list\" with more than one key column")
	case g.Scheme == ByHash:
	case g.Scheme != ByRange && g.Scheme != ByList:
		return nil, invalid(pgsql.InvalidParameterValue, "", "group %q has the unknown scheme %q", g.Name, g.Scheme)
	}
	return info, nil
}
