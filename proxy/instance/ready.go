package instance

import (
	"fmt"
	"sort"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy"
)

// Ready says whether this process should be sent clients: it takes them, and reaches at least one shard. A shard that is away
// is away for every process alike: it is no reason to close this one. why says what is amiss in either case.
func (in *Instance) Ready() (ok bool, why string) {
	if in.Server.State() != proxy.Listening && in.door.taken() { // who asks here now asks for the next process
		return true, ""
	}
	if in.Server.State() != proxy.Listening {
		return false, "shutting down"
	}
	if in.Catalog.Current().Document.Setup != nil {
		return false, "init_sql is not done"
	}
	var away []string
	shards := 0
	for _, d := range in.Catalog.Current().Databases {
		if len(d.Shards) == 0 {
			away = append(away, fmt.Sprintf("database %s has no shard", d.Name))
			shards++
		}
		for _, s := range d.Shards {
			shards++
			if v := in.Monitor.View(d.Name, s.Name); v == nil || !v.Up() {
				away = append(away, fmt.Sprintf("shard %s of database %s has no primary that answers", s.Name, d.Name))
			}
		}
	}
	sort.Strings(away)
	return shards == 0 || len(away) < shards, strings.Join(away, "\n")
}
