package exec

import (
	"fmt"
	"strings"
	"sync"
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

	consumers = iota
)

// ConsumerNames are the consumers' names in metrics, in order.
var ConsumerNames = [consumers]string{"plans", "prepared_statements", "merges", "parsing", "portals", "settings", "transactions", "notifications"}

// Memory counts what sessions hold, by consumer. What is taken is given back by whoever took it. It counts what is made
// and what goes, nothing in between.
type Memory struct {
	// Limit is the process's memory, 0 for none: the consumers together get half of it. The other half is for buffers,
	// and for what the garbage collector has not found yet.
	Limit atomic.Int64

	// Session is how much a session's prepared statements may hold, 0 for any amount; as much what it keeps besides them, and as much what
	// waits for it.
	Session atomic.Int64

	used  [consumers]atomic.Int64
	plans func() int64
}

// Used is what a consumer holds now.
func (m *Memory) Used(c Consumer) int64 {
	if c == Plans && m.plans != nil {
		return m.plans()
	}
	return m.used[c].Load()
}

// Take counts n bytes for a consumer, unless all together would then hold too much.
func (m *Memory) Take(c Consumer, n int64) error {
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
		Code: pgsql.OutOfMemory, Message: "out of memory", Detail: fmt.Sprintf("%s more for %s; half of memory_limit (%s) is used: %s.", about(n), c.words(), about(limit), m.uses()),
		Hint: "Try again when others have finished, DEALLOCATE what is no longer used, or raise memory_limit.",
	}
}

// Give counts n bytes of a consumer back.
func (m *Memory) Give(c Consumer, n int64) { m.used[c].Add(-n) }

// about is a number of bytes for people.
func about(n int64) string {
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

func (c Consumer) words() string { return strings.ReplaceAll(ConsumerNames[c], "_", " ") }

func (m *Memory) uses() string {
	var out []string
	for c := range Consumer(consumers) {
		out = append(out, c.words()+" "+about(m.Used(c)))
	}
	return strings.Join(out, ", ")
}

// texts are those of prepared statements: one copy for all sessions that have prepared the same.
type texts struct {
	mu     sync.Mutex // held to prepare and to forget a named statement
	shared map[string]*sharedText
}

type sharedText struct {
	text     string
	sessions int
}

// take is the one copy of a text, and whether it is new.
func (t *texts) take(sql string) (text string, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.shared[sql]
	if s == nil {
		s = &sharedText{text: sql}
		t.shared[sql] = s
	}
	s.sessions++
	return s.text, s.sessions == 1
}

// give says that a session has no more use for a text, and whether that was the last.
func (t *texts) give(sql string) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.shared[sql]
	if s.sessions--; s.sessions > 0 {
		return false
	}
	delete(t.shared, sql)
	return true
}

// stmtCost is what a session needs for a prepared statement, besides its text, and textCost what is needed for a text.
const (
	stmtCost = 400
	textCost = 120
)

// own is what a statement costs its session, as if the text were the session's alone.
func (s *stmt) own() int64 {
	n := int64(stmtCost + textCost + len(s.sql) + len(s.name) + 4*len(s.types))
	if s.desc != nil {
		n += s.desc.size()
	}
	return n
}

func (d *described) size() int64 {
	n := int64(64 + 4*len(d.params))
	for i := range d.fields {
		n += int64(fieldCost + len(d.fields[i].Name))
	}
	return n
}

// fieldCost is a described column's, besides its name.
const fieldCost = 64

// fits says whether a session may prepare one more statement.
func (x *extended) fits(s *stmt) error {
	m := x.memory
	if m == nil {
		return nil
	}
	if most := m.Session.Load(); most > 0 && x.held+s.own() > most {
		return &pgsql.Error{
			Code: pgsql.OutOfMemory, Message: "out of memory", Detail: fmt.Sprintf("The session's %d prepared statements hold %s; session_memory_limit is %s.", len(x.named), about(x.held), about(most)),
			Hint: "DEALLOCATE those that are no longer used, or raise session_memory_limit.",
		}
	}
	if err := m.Take(Prepared, s.own()); err != nil {
		return err
	}
	m.Give(Prepared, s.own()) // it is counted when it has its name
	return nil
}

// hold counts a statement that has got a name, and shares its text.
func (x *extended) hold(s *stmt) {
	if x.memory == nil || s.counted > 0 {
		return
	}
	fresh := false
	s.sql, fresh = x.texts.take(s.sql)
	s.counted = s.own()
	x.held += s.counted
	n := s.counted
	if !fresh {
		n -= int64(textCost + len(s.sql))
	}
	x.memory.used[Prepared].Add(n)
}

// drop counts a statement back that has lost its name.
func (x *extended) drop(s *stmt) {
	if x.memory == nil || s == nil || s.counted == 0 {
		return
	}
	n := s.counted
	x.held -= n
	if !x.texts.give(s.sql) {
		n -= int64(textCost + len(s.sql))
	}
	x.memory.Give(Prepared, n)
	s.counted = 0
}

// recount counts what a server has said about a statement.
func (x *extended) recount(s *stmt) {
	if s.counted > 0 {
		more := s.own() - s.counted
		s.counted += more
		x.held += more
		x.memory.used[Prepared].Add(more)
	}
}
