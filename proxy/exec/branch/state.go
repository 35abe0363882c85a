package branch

import "fmt"

// State is how far the client's transaction is on one server: a phase, and whether something was sent that may write, Wrote. A statement
// by itself may write as well, and what was written counts until it is noted, also behind the end of its transaction: so that is no phase.
type State uint8

// The phases.
const (
	Leased   State = iota // in no transaction of the client's: statements run by themselves
	Opening               // BEGIN is sent, or is to be sent with the next statement; its answer was not read
	Open                  // in the transaction
	Prepared              // in the second phase of its commit
	Done                  // the transaction has ended there
	Lost                  // nothing is asked of the server any more: it is closed when it is given back
	phases

	Wrote State = 8 // beside a phase
)

// Event is what happens to a branch.
type Event uint8

// The events.
const (
	Runs     Event = iota // a statement is to run in the transaction
	Writes                // one may write
	Begins                // BEGIN is to be sent
	Begun                 // its answer was read
	Joins                 // BEGIN was answered amid a pipeline: what ran by itself is the transaction's
	HasRead               // the server says that nothing was written
	Settles               // what became of its writes was noted
	Prepares              // PREPARE TRANSACTION was answered
	Ends                  // COMMIT or ROLLBACK was answered
	Finishes              // COMMIT PREPARED or ROLLBACK PREPARED was answered
	Returns               // its server is given back, or kept by the session for what comes
	events
)

func (s State) String() string {
	name := [...]string{"leased", "opening", "open", "prepared", "done", "lost"}[s.Phase()]
	if s.HasWritten() {
		name += ", wrote"
	}
	return name
}

func (e Event) String() string {
	return [...]string{"runs", "writes", "begins", "begun", "joins", "has read", "settles", "prepares", "ends", "finishes", "returns"}[e]
}

// Phase is the state without Wrote.
func (s State) Phase() State { return s &^ Wrote }

// HasWritten says whether something was sent that may have written, and its outcome was not noted yet.
func (s State) HasWritten() bool { return s&Wrote != 0 }

// Phases lists what an event makes of each phase: docs/states.md is printed from it. Nothing runs or is written where the transaction has
// ended or is prepared, and none begins where one is open. A branch that is lost stays so.
var Phases = map[State]map[Event]State{
	Leased:   {Runs: Leased, Writes: Leased, Begins: Opening, Joins: Open, Settles: Leased, Returns: Leased},
	Opening:  {Runs: Opening, Writes: Opening, Begun: Open, Settles: Opening, Ends: Done, Returns: Leased},
	Open:     {Runs: Open, Writes: Open, HasRead: Open, Settles: Open, Prepares: Prepared, Ends: Done, Returns: Leased},
	Prepared: {Settles: Prepared, Ends: Prepared, Finishes: Done, Returns: Leased}, // what ends is the decision's own transaction
	Done:     {Settles: Done, Ends: Done, Returns: Leased},
	Lost: {
		Runs: Lost, Writes: Lost, Begins: Lost, Begun: Lost, Joins: Lost, HasRead: Lost, Settles: Lost, Prepares: Lost, Ends: Lost, Finishes: Lost,
		Returns: Lost,
	},
}

// Next is what an event makes of a state; ok is false where it cannot happen. Only what has written is prepared, and no server is given back whose
// writes were not noted: reads could miss them.
func (s State) Next(e Event) (next State, ok bool) {
	next, ok = Phases[s.Phase()][e]
	switch {
	case !ok,
		e == Prepares && !s.HasWritten() && s.Phase() != Lost,
		e == Returns && s.HasWritten():
		return s, false
	case e == Writes:
		return next | Wrote, true
	case e == HasRead || e == Settles:
		return next, true
	}
	return next | s&Wrote, true
}

// refused stands in after for what cannot happen.
const refused State = 0xff

// after is Next, for the query path.
var after = func() (after [16][16]State) {
	for s := range after {
		for e := range after[s] {
			after[s][e] = refused
		}
	}
	for s := range phases {
		for e := range events {
			for _, from := range []State{s, s | Wrote} {
				if next, ok := from.Next(e); ok {
					after[from][e] = next
				}
			}
		}
	}
	return after
}()

// On changes the state, and panics where that cannot happen. lost says that the branch's server is lost: of such a branch only what it has
// written still changes.
func (s *State) On(e Event, lost bool) {
	from := *s
	if lost {
		from = Lost | from&Wrote
	}
	next := after[from%16][e%16]
	switch {
	case next == refused:
		panic(fmt.Sprintf("branch: a branch that is %s cannot take the event %q", from, e))
	case lost:
		next = s.Phase() | next&Wrote
	}
	*s = next
}
