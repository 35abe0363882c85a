package exec

import (
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Portals that no server runs hold what they were bound with and, once suspended, the rows that their client has not asked for yet. That is the
// proxy's memory: it counts for the process, and for the session.

// smallPortal is what the unnamed portal may be bound with without being counted, in bytes: there is one, and statement after statement has it.
const smallPortal = 4 << 10

// namedPortal is about what a portal with a name is made of, besides its text and what it was bound with; suspended, what one is made of besides
// its rows.
const namedPortal, suspended = 480, 640

// portalsOfSession is how many times session_memory_limit the portals of a session may hold.
const portalsOfSession = 4

// holds counts n bytes more for a portal of the session, or says why it may not have them.
func (x *extended) holds(pt *portal, n int64) error {
	m := x.memory
	if m == nil {
		return nil
	}
	if most := portalsOfSession * m.Session.Load(); most > 0 && x.waiting+n > most {
		return &pgsql.Error{
			Code: pgsql.OutOfMemory, Message: "out of memory",
			Detail: fmt.Sprintf("The session's portals hold %s; they may hold %d times session_memory_limit, %s.", memory.About(x.waiting), portalsOfSession, memory.About(most)),
			Hint:   "Fetch their rows to the end or close them, or raise session_memory_limit.",
		}
	}
	if err := m.Take(memory.Portals, n); err != nil {
		return err
	}
	x.waiting += n
	pt.held += n
	return nil
}

// lets counts n bytes of a portal back.
func (x *extended) lets(pt *portal, n int64) {
	pt.held -= n
	x.reckon()
}

// reckon counts back what portals held that are gone.
func (x *extended) reckon() {
	if x.waiting == 0 {
		return
	}
	there := map[*portal]bool{x.anonymous: true}
	for _, pt := range x.portals {
		there[pt] = true
	}
	for _, c := range x.changes { // it may come back
		there[c.before] = true
	}
	held := int64(0)
	for pt := range there {
		if pt != nil {
			held += pt.held
		}
	}
	x.memory.Give(memory.Portals, x.waiting-held)
	x.waiting = held
}
