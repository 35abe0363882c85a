package exec

import (
	"fmt"
	"sync"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

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
			Code: pgsql.OutOfMemory, Message: "out of memory", Detail: fmt.Sprintf("The session's %d prepared statements hold %s; session_memory_limit is %s.", len(x.named), memory.About(x.held), memory.About(most)),
			Hint: "DEALLOCATE those that are no longer used, or raise session_memory_limit.",
		}
	}
	if err := m.Take(memory.Prepared, s.own()); err != nil {
		return err
	}
	m.Give(memory.Prepared, s.own()) // it is counted when it has its name
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
	x.memory.Add(memory.Prepared, n)
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
	x.memory.Give(memory.Prepared, n)
	s.counted = 0
}

// recount counts what a server has said about a statement.
func (x *extended) recount(s *stmt) {
	if s.counted > 0 {
		more := s.own() - s.counted
		s.counted += more
		x.held += more
		x.memory.Add(memory.Prepared, more)
	}
}
