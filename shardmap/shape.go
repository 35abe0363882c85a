package shardmap

import (
	"maps"
	"slices"
)

// shape is all that statements are planned by: what the map says of a database, but for its nodes, which of them is a shard's primary, and
// which of its shards has which key of a group. DB.Shape is its number. Databases of one name and Shape differ in nothing that a plan is
// made of: what was planned by the one is as good for the other, which says where a key is.
type shape struct {
	number uint64 // the version of the map that had it first, as far as this process has seen
	part   *part
	shards map[string][]int // of each group: those that have keys
}

// mostShapes are the shapes that are remembered: what is undone, and what is announced and over, leads back to one of them.
const mostShapes = 4

// shapesOf are the shapes that a database has had lately, the present one first. was is the database before.
func shapesOf(d, was *DB) []shape {
	now := shape{d.Version, d.part, make(map[string][]int, len(d.placements))}
	for _, p := range d.placements {
		now.shards[p.Group.Name] = p.all
	}
	at := slices.IndexFunc(was.shapes, func(s shape) bool { return s.is(&now) })
	if at >= 0 {
		now.number = was.shapes[at].number
	}
	out := []shape{now} // the newest parts: nothing older is kept for it
	for i, s := range was.shapes {
		if i != at && len(out) < mostShapes {
			out = append(out, s)
		}
	}
	return out
}

func (s *shape) is(t *shape) bool {
	return s.part.plannedAs(t.part) && maps.EqualFunc(s.shards, t.shards, slices.Equal[[]int])
}

// plannedAs says whether the map says the same of a database, but for what plans ask it for each time.
func (p *part) plannedAs(q *part) bool {
	return p.alikeBut(q, "nodes", "shards", "placements") && (same(p.shards, q.shards) || alike(bare(p.shards), bare(q.shards)))
}

// bare are shards without the word which of their nodes is the primary.
func bare(shards []*Shard) []*Shard {
	out := make([]*Shard, len(shards))
	for i, s := range shards {
		out[i] = s
		if s.Primary != "" || s.Named != 0 {
			b := *s
			b.Primary, b.Named = "", 0
			out[i] = &b
		}
	}
	return out
}
