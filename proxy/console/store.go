package console

import (
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// store is what a session of the console keeps by name, its statements or its portals. It counts for the process, and may hold so many times
// session_memory_limit.
type store[T any] struct {
	memory *memory.Ledger
	as     memory.Consumer
	times  int64
	held   int64
	list   map[string]stored[T]
}

type stored[T any] struct {
	what   T
	weight int64
}

// nameWeight is what is held for a name besides its letters.
const nameWeight = 100

func (s *store[T]) get(name string) (T, bool) {
	x, ok := s.list[name]
	return x.what, ok
}

// put keeps something in place of what had its name, or nothing if that would be too much.
func (s *store[T]) put(name string, what T, weight int64) error {
	s.drop(name)
	weight += int64(len(name)) + nameWeight
	if most := s.times * s.memory.Session.Load(); most > 0 && s.held+weight > most {
		return &pgsql.Error{
			Code: pgsql.OutOfMemory, Message: "out of memory", Detail: fmt.Sprintf("The session's %s hold %s; they may hold %s.", s.as.Words(), memory.About(s.held), memory.About(most)),
			Hint: "Close those that are no longer used, or raise session_memory_limit.",
		}
	}
	if err := s.memory.Take(s.as, weight); err != nil {
		return err
	}
	s.held += weight
	if s.list == nil {
		s.list = map[string]stored[T]{}
	}
	s.list[name] = stored[T]{what, weight}
	return nil
}

func (s *store[T]) drop(name string) {
	x, ok := s.list[name]
	if !ok {
		return
	}
	delete(s.list, name)
	s.held -= x.weight
	s.memory.Give(s.as, x.weight)
}

func (s *store[T]) clear() {
	clear(s.list)
	s.memory.Give(s.as, s.held)
	s.held = 0
}

// What a cell of a result holds, besides its letters, and a row besides its cells.
const cellWeight, rowWeight = 32, 24

func weightOf(r *admin.Result) (n int64) {
	for _, row := range r.Rows {
		n += rowWeight + cellWeight*int64(len(row))
		for _, v := range row {
			if s, ok := v.(string); ok {
				n += int64(len(s))
			}
		}
	}
	return n
}
