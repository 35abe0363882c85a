// Package memory counts what the process holds for its sessions, by what it is held for, so that it ends before the system's memory does.
package memory

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Consumer is what memory is held for.
type Consumer int

// The consumers.
const (
	Plans         Consumer = iota // that all sessions share
	Prepared                      // statements that sessions have prepared
	Merges                        // rows that merges hold
	Parsing                       // trees of statements that are being planned
	Portals                       // of sessions, that no server runs
	Settings                      // of sessions
	Transactions                  // what they have set and saved, for servers that join them later, and to go back to
	Notifications                 // that wait for their sessions, and the channels that these listen to
	Messages                      // of clients, that are longer than a few pieces
	Logins                        // what auth_query has answered

	consumers = iota
)

// Names are the consumers' names in metrics, in order.
var Names = [consumers]string{"plans", "prepared_statements", "merges", "parsing", "portals", "settings", "transactions", "notifications", "messages", "logins"}

// Ledger counts what sessions hold, by consumer. What is taken is given back by whoever took it. It counts what is made
// and what goes, nothing in between.
type Ledger struct {
	// Limit is the process's memory, 0 for none: the consumers together get half of it. The other half is for small buffers,
	// and for what the garbage collector has not found yet.
	Limit atomic.Int64

	// Session is how much a session's prepared statements may hold, 0 for any amount; as much what it keeps besides them, and as much what
	// waits for it.
	Session atomic.Int64

	used  [consumers]atomic.Int64
	plans func() int64 // nil: none are held
}

// CountPlans says how the plans are counted: their cache weighs them itself. It is called before the ledger is used.
func (m *Ledger) CountPlans(held func() int64) { m.plans = held }

// Used is what a consumer holds now.
func (m *Ledger) Used(c Consumer) int64 {
	if c == Plans && m.plans != nil {
		return m.plans()
	}
	return m.used[c].Load()
}

// Take counts n bytes for a consumer, unless all together would then hold too much.
func (m *Ledger) Take(c Consumer, n int64) error {
	m.used[c].Add(n)
	limit := m.Limit.Load()
	if limit == 0 {
		return nil
	}
	sum := int64(0)
	for c := range Consumer(consumers) {
		sum += m.Used(c)
	}
	if sum <= limit/2 {
		return nil
	}
	m.used[c].Add(-n)
	return &pgsql.Error{
		Code: pgsql.OutOfMemory, Message: "out of memory", Detail: fmt.Sprintf("%s more for %s; half of memory_limit (%s) is used: %s.", About(n), c.Words(), About(limit), m.uses()),
		Hint: "Try again when others have finished, DEALLOCATE what is no longer used, or raise memory_limit.",
	}
}

// Add counts n bytes for a consumer that are there already, whatever the limit.
func (m *Ledger) Add(c Consumer, n int64) { m.used[c].Add(n) }

// Give counts n bytes of a consumer back.
func (m *Ledger) Give(c Consumer, n int64) { m.used[c].Add(-n) }

// About is a number of bytes for people.
func About(n int64) string {
	for _, u := range []struct {
		name  string
		shift uint
	}{{"GB", 30}, {"MB", 20}, {"kB", 10}} {
		if n>>u.shift >= 10 || u.shift == 10 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		}
	}
	return ""
}

// Words is the consumer for people.
func (c Consumer) Words() string { return strings.ReplaceAll(Names[c], "_", " ") }

func (m *Ledger) uses() string {
	var out []string
	for c := range Consumer(consumers) {
		out = append(out, c.Words()+" "+About(m.Used(c)))
	}
	return strings.Join(out, ", ")
}
