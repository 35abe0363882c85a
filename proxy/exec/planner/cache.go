package planner

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// cacheBytes is what all cached plans may hold.
const cacheBytes = 64 << 20

// mostPlan is what a plan in the cache may hold: a larger one would push many others out.
const mostPlan = cacheBytes / 64

// entryCost is what the cache needs for an entry, besides its key and what hangs on its template.
const entryCost = 150

// mostSpaces is how many spaces have numbers: those of old maps and schemas are forgotten with the others, which get new ones.
const mostSpaces = 10000

// cache holds the plans that sessions share. A key is a space and a text.
type cache struct {
	plans *otter.Cache[string, *entry]
	seeds [2]maphash.Seed

	mu     sync.Mutex // guards the rest
	spaces map[[2]uint64]uint64
	nextID uint64
}

// entry is a cached plan. Exact means that the stripped text shares no plan: look under the full text.
type entry struct {
	tmpl  *router.Template
	exact bool
	key   string
	cost  atomic.Uint32
	hits  atomic.Int64
}

// runs is how often the plan was used.
func (e *entry) runs() int64 { return e.hits.Load() + e.tmpl.Runs.Load() }

// Space numbers a plan's circumstances: database, role, search path, the shape of the map and the version of the schema. Sessions with equal ones share plans.
// The zero Space is nobody's.
type Space [8]byte

func newCache() (*cache, error) {
	plans, err := otter.New(&otter.Options[string, *entry]{
		MaximumWeight: cacheBytes,
		Weigher:       func(_ string, v *entry) uint32 { return v.cost.Load() },
	})
	if err != nil {
		return nil, fmt.Errorf("plan cache: %w", err)
	}
	return &cache{plans: plans, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, spaces: map[[2]uint64]uint64{}}, nil
}

// weight is what the plans hold, in bytes.
func (c *cache) weight() int64 { return int64(c.plans.WeightedSize()) }

// space is the number of some circumstances.
func (c *cache) space(circumstances string) (b Space) {
	sum := [2]uint64{maphash.String(c.seeds[0], circumstances), maphash.String(c.seeds[1], circumstances)} // a search_path may be long
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.spaces[sum]
	if !ok {
		if len(c.spaces) > mostSpaces {
			clear(c.spaces)
		}
		c.nextID++
		id = c.nextID
		c.spaces[sum] = id
	}
	binary.LittleEndian.PutUint64(b[:], id)
	return b
}

// find looks a key up, of which nothing is kept.
func (c *cache) find(key []byte) (*entry, bool) {
	return c.plans.GetIfPresent(unsafe.String(unsafe.SliceData(key), len(key)))
}

// keep puts a plan into the cache, unless it is too large. size is what hangs on its template.
func (c *cache) keep(key string, x *entry, size int) {
	if size > mostPlan {
		return
	}
	x.key = key
	x.cost.Store(uint32(min(size+len(key)+entryCost, 1<<31)))
	if x.tmpl != nil {
		x.tmpl.Kept = x
	}
	c.plans.Set(key, x)
}

// Learn keeps what a server said about a template with it, and with the plan's size.
func (p *Planner) Learn(t *router.Template, key, value any) {
	var had []any
	t.Aux.Range(func(_, v any) bool { had = append(had, v); return true })
	t.Aux.Store(key, value)
	x, cached := t.Kept.(*entry)
	if !cached {
		return
	}
	more := router.SizeOf(append(had, value)...) - router.SizeOf(had...) // it may share with what was learnt before
	x.cost.Add(uint32(min(more+entryCost, 1<<30)))
	if now, ok := p.cache.plans.GetIfPresent(x.key); ok && now == x {
		p.cache.plans.Set(x.key, x) // it is weighed again
	}
}

// PlanCount is the number of cached plans, for SHOW LISTS.
func (p *Planner) PlanCount() int { return p.cache.plans.EstimatedSize() }

// PlanInfo describes a cached plan. Its statement has no literals, which may be secrets.
type PlanInfo struct {
	Database, Route, Statement string
	Exact                      bool // it serves one text only: its literals shape the plan
	Hits                       int64
	Bytes                      int64
	MapVersion, SchemaVersion  uint64
}

// Plans are the cached plans, those used most often first, at most limit of them.
func (p *Planner) Plans(limit int) []PlanInfo {
	var all []*entry
	for _, x := range p.cache.plans.All() {
		if x.tmpl != nil {
			all = append(all, x)
		}
	}
	slices.SortStableFunc(all, func(a, b *entry) int { return cmp.Compare(b.runs(), a.runs()) })
	var out []PlanInfo
	for _, x := range all[:min(limit, len(all))] {
		t := x.tmpl
		out = append(out, PlanInfo{
			Database: t.DB.Name, Route: t.Class.String(), Statement: sqlparse.Normal(t.Stmt.Text), Exact: t.Exact,
			Hits: x.runs(), Bytes: int64(x.cost.Load()), MapVersion: t.DB.Version, SchemaVersion: t.Schema.Version,
		})
	}
	return out
}
