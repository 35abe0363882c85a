package shardmap

import (
	"cmp"
	"encoding/json"
	"slices"
)

// stored is how a Document is written. The placements of all groups are in one list for each kind of their parts, which name their group.
type stored struct {
	Version   uint64      `json:"version"`
	Install   string      `json:"install"`
	Secret    string      `json:"secret,omitempty"`
	Databases []*Database `json:"databases"`
	Shards    []*Shard    `json:"shards"`
	Nodes     []*Node     `json:"nodes"`
	Groups    []*Group    `json:"groups"`
	storedPlaces
	Tables   []*Table   `json:"tables"`
	Tenants  []*Tenant  `json:"tenants,omitempty"`
	Routines []*Routine `json:"routines,omitempty"`
	Attempts []*Attempt `json:"attempts,omitempty"`
	Setup    *Setup     `json:"setup,omitempty"`
}

type storedPlaces struct {
	Slots  []*storedRun   `json:"slots"`
	Ranges []*storedRange `json:"ranges,omitempty"`
	Lists  []*storedList  `json:"lists,omitempty"`
	Pins   []*storedPin   `json:"pins,omitempty"`
}

type storedRun struct {
	Database string `json:"database"`
	Group    string `json:"group"`
	From     int    `json:"from"`
	To       int    `json:"to"`
	Shard    string `json:"shard"`
}

type storedRange struct {
	Database string   `json:"database"`
	Group    string   `json:"group"`
	Ordinal  int      `json:"ordinal"`
	From     []string `json:"from"`
	Shard    string   `json:"shard"`
}

type storedList struct {
	Database string   `json:"database"`
	Group    string   `json:"group"`
	Ordinal  int      `json:"ordinal"`
	Values   []string `json:"values"`
	Default  bool     `json:"default,omitempty"`
	Shard    string   `json:"shard"`
}

type storedPin struct {
	Database string   `json:"database"`
	Group    string   `json:"group"`
	Ordinal  int      `json:"ordinal"`
	Key      []string `json:"key"`
	Shard    string   `json:"shard"`
}

// MarshalJSON writes the document as it is stored.
func (d *Document) MarshalJSON() ([]byte, error) {
	return json.Marshal(stored{
		Version: d.Version, Install: d.Install, Secret: d.Secret, Databases: d.Databases, Shards: d.Shards, Nodes: d.Nodes, Groups: d.Groups,
		storedPlaces: flatten(d.Placements), Tables: d.Tables, Tenants: d.Tenants, Routines: d.Routines, Attempts: d.Attempts, Setup: d.Setup,
	})
}

// UnmarshalJSON reads a document that is stored.
func (d *Document) UnmarshalJSON(b []byte) error {
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*d = Document{
		Version: s.Version, Install: s.Install, Secret: s.Secret, Databases: s.Databases, Shards: s.Shards, Nodes: s.Nodes, Groups: s.Groups,
		Placements: s.placements(), Tables: s.Tables, Tenants: s.Tenants, Routines: s.Routines, Attempts: s.Attempts, Setup: s.Setup,
	}
	return nil
}

func flatten(all []*Placement) (out storedPlaces) {
	for _, p := range all {
		for _, r := range p.Slots {
			out.Slots = append(out.Slots, &storedRun{p.Database, p.Group, r.From, r.To, r.Shard})
		}
		for i, r := range p.Ranges {
			out.Ranges = append(out.Ranges, &storedRange{p.Database, p.Group, i, r.From, r.Shard})
		}
		for i, l := range p.Lists {
			out.Lists = append(out.Lists, &storedList{p.Database, p.Group, i, l.Values, l.Default, l.Shard})
		}
		for i, x := range p.Pins {
			out.Pins = append(out.Pins, &storedPin{p.Database, p.Group, i, x.Key, x.Shard})
		}
	}
	return out
}

// placements puts the parts of each group together, in their order.
func (s *storedPlaces) placements() (out []*Placement) {
	slices.SortStableFunc(s.Slots, func(a, b *storedRun) int { return cmp.Compare(a.From, b.From) })
	slices.SortStableFunc(s.Ranges, func(a, b *storedRange) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	slices.SortStableFunc(s.Lists, func(a, b *storedList) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	slices.SortStableFunc(s.Pins, func(a, b *storedPin) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	by := map[[2]string]*Placement{}
	of := func(database, group string) *Placement {
		p := by[[2]string{database, group}]
		if p == nil {
			p = &Placement{Database: database, Group: group}
			by[[2]string{database, group}], out = p, append(out, p)
		}
		return p
	}
	for _, r := range s.Slots {
		p := of(r.Database, r.Group)
		p.Slots = append(p.Slots, SlotRun{r.From, r.To, r.Shard})
	}
	for _, r := range s.Ranges {
		p := of(r.Database, r.Group)
		p.Ranges = append(p.Ranges, Range{r.From, r.Shard})
	}
	for _, l := range s.Lists {
		p := of(l.Database, l.Group)
		p.Lists = append(p.Lists, List{l.Values, l.Default, l.Shard})
	}
	for _, x := range s.Pins {
		p := of(x.Database, x.Group)
		p.Pins = append(p.Pins, Pin{x.Key, x.Shard})
	}
	slices.SortFunc(out, func(a, b *Placement) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Group, b.Group))
	})
	return out
}
