package pool

import "fmt"

// State is in whose hands a server is.
type State uint32

// The states of a server. Whoever has it in hand changes them: the session that leases it, or the pool.
const (
	Leased State = iota // a session's, or on its way to one: the state of a server that was just dialled
	Parked              // a session's that does nothing on it: see Park
	Tested              // given back, and looked at before another session gets it
	Idle                // nobody's
	Closed
)

func (s State) String() string {
	return [...]string{"leased", "parked", "tested", "idle", "closed"}[s]
}

// Transitions lists the allowed changes of state: docs/states.md is printed from it. A server that is given back twice, or parked by a
// session that has given it back, is none: two would have it in hand.
var Transitions = map[State][]State{
	Leased: {Parked, Tested, Idle, Closed},
	Parked: {Leased, Closed},
	Tested: {Leased, Idle, Closed},
	Idle:   {Leased, Closed},
}

// allowed are the Transitions from each state, as bits.
var allowed = func() (bits [Closed + 1]uint32) {
	for from, list := range Transitions {
		for _, to := range list {
			bits[from] |= 1 << to
		}
	}
	return bits
}()

// State is the server's present one. Any goroutine may call it.
func (s *Server) State() State { return State(s.state.Load()) }

// become changes the state, and panics where that is no transition: the fault is the caller's, and no second session gets the server.
func become(s *Server, to State) {
	for {
		from := s.state.Load()
		if allowed[from]&(1<<to) == 0 {
			panic(fmt.Sprintf("pool: a server of node %s that is %s becomes %s", s.Pool.Node, State(from), to))
		}
		if s.state.CompareAndSwap(from, uint32(to)) {
			return
		}
	}
}
