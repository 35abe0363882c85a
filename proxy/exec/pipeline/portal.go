package pipeline

import "fmt"

// State is that of a portal.
type State uint8

// The states of a portal.
const (
	Ready  State = iota // it was bound, and may be run; or it is suspended amid its rows
	Ran                 // to its end, as far as is known here: what is left of its rows may be kept
	Broken              // it was run by the proxy, and has failed
	Dead                // its transaction has failed, with no savepoint behind which it stands
	statesEnd
)

func (s State) String() string { return [...]string{"ready", "ran", "broken", "dead"}[s] }

// Event is what happens to a portal.
type Event uint8

// The events.
const (
	Runs  Event = iota // to its end
	Fails              // while the proxy runs it
	Dies               // with its transaction
	eventsEnd
)

func (e Event) String() string { return [...]string{"runs", "fails", "dies"}[e] }

// States lists what an event makes of each state: docs/states.md is printed from it. One whose Execute was sent before it died may be told of
// its end behind that, and stays dead.
var States = [statesEnd]map[Event]State{
	Ready:  {Runs: Ran, Fails: Broken, Dies: Dead},
	Ran:    {Runs: Ran, Fails: Broken, Dies: Dead},
	Broken: {Dies: Dead},
	Dead:   {Runs: Dead, Fails: Dead, Dies: Dead},
}

// On changes the state, and panics where the table has no such event: that is a fault of ours, which ends the session.
func (s *State) On(e Event) {
	next, ok := States[*s][e]
	if !ok {
		panic(fmt.Sprintf("pipeline: a portal that is %s %s", *s, e))
	}
	*s = next
}

// MayRun says whether it has not run to its end, and may.
func (s State) MayRun() bool { return s == Ready }
