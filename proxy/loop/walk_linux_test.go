package loop

import (
	"fmt"
	"strings"
	"testing"
)

// The walk goes through every order in which actors can do their atomic operations on one descriptor: it is held, used, dropped, closed and waited for
// while somebody else opens a connection that gets its number. What an operation makes of the state word, and of a side's seat, is asked of the functions that
// the sockets use.

// socketID says whose something is.
type socketID byte

const (
	nobody   socketID = iota
	first             // the socket of the walk
	stranger          // who opens a connection as soon as the number is free
)

// world is all that the actors share, and where each of them is.
type world struct {
	word    uint64
	seat    *waiter
	expired bool
	woken   bool     // the waiter has been sent its wake
	kernel  socketID // whose the number is
	table   socketID // whose the number is by the table
	closed  int8     // how often the first has been closed
	actors  [7]actor
}

// actor is where an actor is, and what it remembers.
type actor struct {
	at, then place
	was      uint64
	seat     *waiter
	again    int8
}

// place is an atomic operation, which is the next one of an actor.
type place byte

const (
	end place = iota
	enterLoad
	enterSwap
	use
	leaveLoad
	leaveSwap
	closeNumber
	giveUpLoad
	giveUpSwap
	clearTable
	rouseLoad
	rouseSwap
	waitWord
	waitExpired
	waitLoad
	waitSeat
	againWord
	againExpired
	standUp
	parked
	eventFind
	eventLoad
	eventSwap
	expire
	strangerOpens
	strangerRegisters
	strangerUses
	strangerHears
)

// rules are what is walked: those of the sockets, or broken ones, which the walk must find out.
type rules struct {
	entered, left, surrendered func(uint64) (uint64, bool)
	entersAnyway               bool // who may not enter is counted for a moment
	clearsLast                 bool // the table is told when the number has been given back
	looksOnce                  bool // a waiter does not look again once it has its seat
}

func ours() rules { return rules{entered: entered, left: left, surrendered: surrendered} }

var walker = new(waiter)

// step is the next operation of actor i. It is false where the actor has to wait, or has ended.
func (r rules) step(w world, i int) (next world, moved bool, fault string) {
	a := &w.actors[i]
	swap := func(after uint64, retry, then place) bool {
		same := w.word == a.was
		if a.at, a.was = retry, 0; same {
			w.word, a.at = after, then
		}
		return same
	}
	reseat := func(retry place, after *waiter, then place) bool {
		same := w.seat == a.seat
		if a.at, a.seat = retry, nil; same {
			w.seat, a.at = after, then
		}
		return same
	}
	wake := func(who *waiter) {
		if who != nil {
			w.woken = true
		}
	}
	switch a.at {
	case end:
		return w, false, ""
	case enterLoad:
		a.was, a.at = w.word, enterSwap
	case enterSwap:
		after, ok := r.entered(a.was)
		switch {
		case ok:
			swap(after, enterLoad, use)
		case r.entersAnyway:
			swap(after, enterLoad, leaveLoad)
		default:
			a.done(enterLoad)
		}
	case use:
		if w.kernel != first {
			return w, true, "a number is used that is another's"
		}
		a.at = leaveLoad
	case leaveLoad:
		a.was, a.at = w.word, leaveSwap
	case leaveSwap:
		after, last := r.left(a.was)
		if swap(after, leaveLoad, end) {
			if last {
				a.at = closeNumber
			} else {
				a.done(enterLoad)
			}
		}
	case closeNumber:
		if w.kernel != first {
			return w, true, "a number is closed that is another's"
		}
		w.kernel = nobody
		w.closed++
		if r.clearsLast {
			a.at = clearTable
		} else {
			a.done(enterLoad)
		}
	case giveUpLoad:
		a.was, a.at = w.word, giveUpSwap
	case giveUpSwap:
		after, ok := r.surrendered(a.was)
		switch {
		case !ok:
			a.at = end
		case r.clearsLast:
			swap(after, giveUpLoad, rouseLoad)
		default:
			swap(after, giveUpLoad, clearTable)
		}
		a.then = leaveLoad
	case clearTable:
		w.table = nobody
		if a.at = rouseLoad; r.clearsLast {
			a.at = end
		}
	case rouseLoad:
		a.seat, a.at = w.seat, rouseSwap
	case rouseSwap:
		after, who := taken(a.seat, false)
		if reseat(rouseLoad, after, a.then) {
			wake(who)
		}
	case waitWord, againWord:
		closed := w.word&givenUp != 0
		switch {
		case a.at == againWord && closed:
			a.at = standUp
		case a.at == againWord:
			a.at = againExpired
		case closed:
			a.at = end
		default:
			a.at = waitExpired
		}
	case waitExpired:
		if a.at = waitLoad; w.expired {
			a.at = end
		}
	case waitLoad:
		a.seat, a.at = w.seat, waitSeat
	case waitSeat:
		after, waits := seated(a.seat, walker)
		if after == a.seat {
			return w, true, "somebody else has the seat"
		}
		then := end
		switch {
		case waits && r.looksOnce:
			then = parked
		case waits:
			then = againWord
		}
		reseat(waitWord, after, then)
	case againExpired:
		if a.at = parked; w.expired {
			a.at = standUp
		}
	case standUp:
		a.seat = walker
		reseat(parked, nil, waitWord)
	case parked:
		if !w.woken {
			return w, false, ""
		}
		w.woken, a.at = false, waitWord
	case eventFind:
		if a.at = eventLoad; w.table != first {
			a.at = end
		}
	case eventLoad:
		a.seat, a.at = w.seat, eventSwap
	case eventSwap:
		after, who := taken(a.seat, true)
		if reseat(eventLoad, after, end) {
			wake(who)
		}
	case expire:
		w.expired, a.at, a.then = true, rouseLoad, end
	case strangerOpens:
		if w.kernel != nobody {
			return w, false, ""
		}
		w.kernel, a.at = stranger, strangerRegisters
	case strangerRegisters:
		w.table, a.at = stranger, strangerUses
	case strangerUses:
		if w.kernel != stranger {
			return w, true, "the stranger's number was closed"
		}
		a.at = strangerHears
	case strangerHears:
		if w.table != stranger {
			return w, true, "an event of the stranger's is lost"
		}
		a.at = end
	}
	return w, true, ""
}

// done ends the actor's round.
func (a *actor) done(start place) {
	if a.again > 0 {
		*a = actor{at: start, again: a.again - 1}
	} else {
		*a = actor{}
	}
}

// rest is what is wrong where nobody can go on.
func (w *world) rest() string {
	for _, a := range w.actors {
		if a.at == parked && (w.word&givenUp != 0 || w.expired || w.seat == ready) {
			return "somebody waits for ever"
		}
	}
	switch {
	case w.word&givenUp != 0 && w.closed == 0:
		return "a descriptor was never given back"
	case w.kernel == stranger && w.table != stranger:
		return "the stranger is not in the table"
	}
	return ""
}

// walk visits all that the actors can come to. It returns the first fault with the way there.
func (r rules) walk(actors ...actor) (visited int, fault string) {
	start := world{kernel: first, table: first}
	copy(start.actors[:], actors)
	seen := map[world]bool{}
	var way []string
	var visit func(w world) string
	visit = func(w world) string {
		if seen[w] {
			return ""
		}
		seen[w] = true
		still := true
		for i := range w.actors {
			next, moved, fault := r.step(w, i)
			if !moved {
				continue
			}
			still = false
			if a := &next.actors[i]; a.at == end {
				*a = actor{} // ends alike are one
			}
			way = append(way, fmt.Sprintf("%d:%d", i, w.actors[i].at))
			if fault == "" {
				fault = visit(next)
			} else {
				fault += " by " + strings.Join(way, " ")
			}
			if fault != "" {
				return fault
			}
			way = way[:len(way)-1]
		}
		if still {
			if fault := w.rest(); fault != "" {
				return fault + " by " + strings.Join(way, " ")
			}
		}
		return ""
	}
	fault = visit(start)
	return len(seen), fault
}

var (
	user   = actor{at: enterLoad}
	twice  = actor{at: enterLoad, again: 1}
	closer = actor{at: giveUpLoad}
	waits  = actor{at: waitWord}
	event  = actor{at: eventFind}
	timer  = actor{at: expire}
	other  = actor{at: strangerOpens}
)

var casts = map[string][]actor{
	"two users, two who close":          {twice, user, closer, closer, other},
	"three users, two who close":        {user, user, user, closer, closer, other},
	"a waiter, an event and a deadline": {waits, event, timer, closer, user, other},
	"a waiter, two events and a user":   {waits, event, event, closer, user, other},
}

func TestEveryOrderOfUsesAndCloses(t *testing.T) {
	for name, cast := range casts {
		visited, fault := ours().walk(cast...)
		if fault != "" {
			t.Errorf("%s: %s", name, fault)
		}
		t.Logf("%s: %d states", name, visited)
	}
}

// The walk finds what is wrong with rules that are.
func TestWalkFindsFaults(t *testing.T) {
	for name, x := range map[string]struct {
		change func(*rules)
		want   string
	}{
		"who may not enter leaves, and closes once more": {func(r *rules) {
			r.entersAnyway = true
			r.entered = func(w uint64) (uint64, bool) { return w + 1, w&givenUp == 0 }
		}, "a number is closed that is another's"},
		"whoever comes is let in": {func(r *rules) {
			r.entered = func(w uint64) (uint64, bool) { return w + 1, true }
		}, "a number is used that is another's"},
		"who closes does not wait for users": {func(r *rules) {
			r.left = func(w uint64) (uint64, bool) { return w - 1, w&givenUp != 0 }
		}, "another's"},
		"each of two closes": {func(r *rules) {
			r.surrendered = func(w uint64) (uint64, bool) { return w | givenUp + 1, true }
		}, "another's"},
		"nobody is the last": {func(r *rules) {
			r.left = func(w uint64) (uint64, bool) { return w - 1, false }
		}, "a descriptor was never given back"},
		"the table is told too late": {func(r *rules) { r.clearsLast = true }, "the stranger"},
		"a waiter looks once":        {func(r *rules) { r.looksOnce = true }, "somebody waits for ever"},
	} {
		r, found := ours(), ""
		x.change(&r)
		for _, cast := range casts {
			if found == "" {
				if _, fault := r.walk(cast...); strings.Contains(fault, x.want) {
					found = fault
				}
			}
		}
		if found == "" {
			t.Errorf("%s: the walk does not find that %s", name, x.want)
		}
	}
}
