package branch

import (
	"slices"
	"testing"
)

// allStates are all phases, with and without what was written.
func allStates() (all []State) {
	for s := range phases {
		all = append(all, s, s|Wrote)
	}
	return all
}

// everyEvent are all events.
func everyEvent() (all []Event) {
	for e := range events {
		all = append(all, e)
	}
	return all
}

func TestABranchChangesAsTheTableSays(t *testing.T) {
	for _, from := range allStates() {
		for _, e := range everyEvent() {
			s := from
			why := panicked(func() { s.On(e, false) })
			to, ok := from.Next(e)
			switch {
			case ok && (why != "" || s != to):
				t.Errorf("%s, %s: it is %s, not %s: %s", from, e, s, to, why)
			case !ok && (why == "" || s != from):
				t.Errorf("%s, %s: it is %s, and nobody is told", from, e, s)
			}
			if phase, listed := Phases[from.Phase()][e]; ok && (!listed || to.Phase() != phase) {
				t.Errorf("%s, %s: to %s, which the table does not say", from, e, to)
			}
		}
	}
}

// What may never be, whatever happens in whatever order. A state is reached by the events before it; from each that can be reached, each event is
// tried.
func TestNoOrderOfEventsLosesACommit(t *testing.T) {
	reached := map[State][]Event{Leased: nil, Lost: nil}
	for queue := []State{Leased, Lost}; len(queue) > 0; queue = queue[1:] {
		from := queue[0]
		for _, e := range everyEvent() {
			to, ok := from.Next(e)
			if !ok {
				continue
			}
			by := append(slices.Clone(reached[from]), e)
			switch {
			case from.Phase() == Lost && to.Phase() != Lost:
				t.Errorf("%v: what is lost is %s", by, to)
			case (from.Phase() == Done || from.Phase() == Prepared) && (e == Runs || e == Writes || e == Begins || e == Joins):
				t.Errorf("%v: something runs behind the transaction's end", by)
			case (from.Phase() == Opening || from.Phase() == Open) && (e == Begins || e == Joins):
				t.Errorf("%v: a transaction begins in another", by)
			case to.Phase() == Prepared && from.Phase() != Prepared && (from != Open|Wrote || e != Prepares):
				t.Errorf("%v: it is prepared, and was %s", by, from)
			case from.Phase() == Prepared && to.Phase() != Prepared && e != Finishes && e != Returns:
				t.Errorf("%v: it is not prepared any more, and was not finished", by)
			case from.HasWritten() && !to.HasWritten() && e != Settles && e != HasRead:
				t.Errorf("%v: what it has written is forgotten", by)
			case !from.HasWritten() && to.HasWritten() && e != Writes:
				t.Errorf("%v: it has written, and nothing was sent", by)
			case e == Returns && (to.HasWritten() || to.Phase() != Leased && to.Phase() != Lost):
				t.Errorf("%v: it is given back when it is %s", by, from)
			}
			if _, known := reached[to]; !known {
				reached[to] = by
				queue = append(queue, to)
			}
		}
	}
	for _, s := range allStates() {
		if _, ok := reached[s]; !ok {
			t.Errorf("nothing leads to %s", s)
		}
	}
}

// server is PostgreSQL, as far as a branch is about it.
type server struct {
	block, asked bool // in a transaction block; asked for one, and the answer was not read
	prepared     bool
}

// does is what a server does behind an event, and whether it is right to let it happen.
func (p server) does(e Event, ended bool) (server, bool) {
	switch e {
	case Runs, Writes:
		return p, !p.prepared && !ended
	case Begins:
		return server{asked: true}, !p.block && !p.asked && !p.prepared && !ended
	case Begun:
		return server{block: true}, p.asked
	case Joins:
		return server{block: true}, !p.block && !p.asked && !p.prepared && !ended
	case HasRead:
		return p, p.block
	case Prepares:
		return server{prepared: true}, p.block
	case Ends:
		return server{prepared: p.prepared}, p.block || p.asked || p.prepared || ended
	case Finishes:
		return server{}, p.prepared
	case Returns:
		return server{}, true
	default: // what the session knows of it
		return p, true
	}
}

// All interleavings of events: a branch says what its server is at, and lets happen what its server may be asked.
func TestABranchKnowsWhatItsServerIsAt(t *testing.T) {
	var walk func(s State, p server, ended bool, by []Event)
	walk = func(s State, p server, ended bool, by []Event) {
		at := Leased
		switch {
		case p.prepared:
			at = Prepared
		case p.block:
			at = Open
		case p.asked:
			at = Opening
		case ended:
			at = Done
		}
		if s.Phase() != at {
			t.Fatalf("%v: it is %s, and its server %s", by, s, at)
		}
		for _, e := range everyEvent() {
			after, may := p.does(e, ended)
			if e == Prepares && !s.HasWritten() || e == Returns && s.HasWritten() {
				may = false
			}
			next, ok := s.Next(e)
			if ok != may {
				t.Fatalf("%v, then %s: %v, and its server %v", by, e, ok, may)
			}
			if ok && len(by) < 7 {
				walk(next, after, (e == Ends && !after.prepared || e == Finishes || ended) && e != Returns, append(by[:len(by):len(by)], e))
			}
		}
	}
	walk(Leased, server{}, false, nil)
}

// A branch whose server is lost takes everything, and remembers only what it has written: its transaction is as far as it was.
func TestALostBranchStaysLost(t *testing.T) {
	for _, from := range allStates() {
		for _, e := range everyEvent() {
			s := from
			switch why := panicked(func() { s.On(e, true) }); {
			case e == Returns && from.HasWritten():
				if why == "" {
					t.Errorf("%s is given back, and its writes were not noted", from)
				}
			case why != "" || s.Phase() != from.Phase() || s.HasWritten() != (e == Writes || from.HasWritten() && e != HasRead && e != Settles):
				t.Errorf("%s, %s: %s, %s", from, e, s, why)
			}
		}
	}
}
