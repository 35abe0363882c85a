package loop

import "sync/atomic"

// custody is who has a descriptor: how many use it at the moment, and whether it has been given up. A word that is given up only falls, so it comes to
// nobody once: whoever leaves last closes the descriptor, and nobody uses its number from then on, because it is another connection's soon.
type custody struct{ word atomic.Uint64 }

// givenUp is the bit of a word above the number of those who use the descriptor.
const givenUp = 1 << 32

// entered is the word with one user more. Nobody enters what has been given up.
func entered(w uint64) (next uint64, ok bool) {
	if w&givenUp != 0 {
		return w, false
	}
	return w + 1, true
}

// left is the word with one user less. last says that the descriptor is to be closed, by the caller.
func left(w uint64) (next uint64, last bool) {
	if w&^givenUp == 0 {
		panic("loop: a descriptor is left by somebody who has not entered")
	}
	return w - 1, w-1 == givenUp
}

// surrendered is the word of a descriptor that is given up; whoever does that is one of its users until it leaves. It happens once.
func surrendered(w uint64) (next uint64, ok bool) {
	if w&givenUp != 0 {
		return w, false
	}
	return w + givenUp + 1, true
}

func (c *custody) enter() bool {
	for {
		w := c.word.Load()
		next, ok := entered(w)
		if !ok || c.word.CompareAndSwap(w, next) {
			return ok
		}
	}
}

func (c *custody) leave() (last bool) {
	for {
		w := c.word.Load()
		next, last := left(w)
		if c.word.CompareAndSwap(w, next) {
			return last
		}
	}
}

func (c *custody) surrender() bool {
	for {
		w := c.word.Load()
		next, ok := surrendered(w)
		if !ok || c.word.CompareAndSwap(w, next) {
			return ok
		}
	}
}

// isGivenUp says that nobody enters any more.
func (c *custody) isGivenUp() bool { return c.word.Load()&givenUp != 0 }
