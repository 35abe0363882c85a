package proxy

import (
	"container/list"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/session"
)

const (
	// AdminReserve is how many administrators are let in beyond max_client_conn.
	AdminReserve = 10
	// MostStrangers is how many connections beyond both may be there that have not logged in. They have the places that are free,
	// besides; where there is none, the oldest makes way for the newest.
	MostStrangers = 200
)

// room is who is there: those who have logged in are counted, the others wait in their order.
type room struct {
	clients   int
	strangers list.List // of *session.Session
	places    map[*session.Session]*list.Element
}

// arrive adds a connection. Where there are too many it gives the one to be closed; limit 0 is none.
func (r *room) arrive(s *session.Session, limit int) (victim *session.Session) {
	if limit > 0 && r.clients+r.strangers.Len() >= limit+AdminReserve+MostStrangers && r.strangers.Len() > 0 {
		victim = r.strangers.Front().Value.(*session.Session)
		r.leave(victim)
	}
	if r.places == nil {
		r.places = map[*session.Session]*list.Element{}
	}
	r.places[s] = r.strangers.PushBack(s)
	return victim
}

// full says whether there is no place for one more.
func (r *room) full(limit int, admin bool) bool {
	if admin {
		limit += AdminReserve
	}
	return r.clients >= limit
}

// enter makes a stranger a client.
func (r *room) enter(s *session.Session) {
	if e := r.places[s]; e != nil {
		r.strangers.Remove(e)
		r.places[s] = nil
		r.clients++
	}
}

// leave removes a connection, whatever it was. One that is not there is no matter.
func (r *room) leave(s *session.Session) {
	e, there := r.places[s]
	switch {
	case !there:
		return
	case e != nil:
		r.strangers.Remove(e)
	default:
		r.clients--
	}
	delete(r.places, s)
}

// Clients counts the connections that have logged in, and those that have not.
func (s *Server) Clients() (clients, strangers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.room.clients, s.room.strangers.Len()
}

// admit says whether there is room for a client. It has its place when it has logged in: until then its name is a claim.
func (s *Server) admit(sess *session.Session, admin, loggedIn bool) error {
	limit := s.opts.Load().MaxClients
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit > 0 && s.room.full(limit, admin) {
		e := &pgsql.Error{Code: pgsql.TooManyConnections, Message: fmt.Sprintf("no more connections allowed (max_client_conn = %d)", limit), Hint: "SHOW CLIENTS on the admin database shows who is connected."}
		if admin {
			e.Message = fmt.Sprintf("no more connections allowed (max_client_conn = %d, and %d beyond it for administrators)", limit, AdminReserve)
		}
		return e
	}
	if loggedIn {
		s.room.enter(sess)
	}
	return nil
}
