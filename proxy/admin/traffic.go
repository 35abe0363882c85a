package admin

import (
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/replication"
)

// Traffic is what a database has done since the start, to be compared with an earlier state of it.
type Traffic struct {
	Queries, Errors             int64
	ReplicaReads, ReadsByChoice int64 // reads that a replica has answered, of those that one may answer
	whole                       metrics.HistogramState
}

// Traffic reads a database's counters.
func (a *Admin) Traffic(database string) Traffic {
	d := a.Metrics.Database(database)
	t := Traffic{Queries: d.Queries.Load(), Errors: d.Errors.Load(), whole: d.Stages[metrics.Whole].State()}
	db := a.Catalog.Current().Databases[database]
	if db == nil {
		return t
	}
	for _, s := range db.Shards {
		for _, n := range s.Nodes {
			m := a.Metrics.Node(database, s.Name, n.Name)
			for i := range m.Reads {
				switch replication.Reason(i) {
				case replication.ByLevel:
				case replication.ToReplica:
					t.ReplicaReads += m.Reads[i].Load()
					fallthrough
				default:
					t.ReadsByChoice += m.Reads[i].Load()
				}
			}
		}
	}
	return t
}

// Quantile is the time below which a share of the requests since an earlier state has been; 0 if there were none.
func (t Traffic) Quantile(q float64, since Traffic) time.Duration {
	return t.whole.Quantile(q, since.whole)
}

// Databases lists the logical databases by name.
func (a *Admin) Databases() []string {
	var out []string
	for _, d := range a.Catalog.Current().SortedDatabases() {
		out = append(out, d.Name)
	}
	return out
}

// Compare orders two cells of a view: numbers as numbers, the rest as text.
func Compare(x, y any) int { return compareCells(Text(x), Text(y)) }

// Doubt is what the resolver found last: parts of commits over shards that are not finished, and commits that have lost one.
// Unlike SHOW TRANSACTIONS it asks no shard.
func (a *Admin) Doubt() []DoubtRow {
	out := []DoubtRow{}
	if a.Found == nil {
		return out
	}
	for _, p := range a.Found() {
		state := "prepared"
		if p.Damage != "" {
			state = p.Damage
		}
		out = append(out, DoubtRow{p.Shard, p.GID, p.Decider, state, p.Age.Milliseconds()})
	}
	return out
}

// DoubtRow is a row of Doubt.
type DoubtRow struct {
	Shard   string `json:"shard"`
	GID     string `json:"gid"`
	Decider string `json:"decider"`
	State   string `json:"state"`
	AgeMS   int64  `json:"age_ms"`
}
