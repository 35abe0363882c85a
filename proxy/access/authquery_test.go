package access

import (
	"strconv"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
)

// asks are questions with a clock and a count of what they hold.
type asks struct {
	*questions
	clock time.Time
	held  int64
}

func newAsks() *asks {
	a := &asks{clock: time.Unix(1e9, 0)}
	a.questions = newQuestions(func() time.Time { return a.clock }, func(n int64) error { a.held += n; return nil })
	return a
}

func (a *asks) knows(key string) bool {
	_, ok := a.remembered(key)
	return ok
}

// An answer of auth_query is good for ten seconds, whether or not it names a user: after that a password that was changed, and a role
// that was made, are asked for.
func TestAnswersAreForgotten(t *testing.T) {
	a := newAsks()
	a.remember("shop\x00app", auth.Credential{}, true)
	a.remember("shop\x00nobody", auth.Credential{}, false)
	for _, x := range []struct {
		after time.Duration
		known bool
	}{{0, true}, {askedFor - 1, true}, {1, false}} {
		a.clock = a.clock.Add(x.after)
		if a.knows("shop\x00app") != x.known || a.knows("shop\x00nobody") != x.known {
			t.Errorf("%s later: known %v, unknown %v", x.after, a.knows("shop\x00app"), a.knows("shop\x00nobody"))
		}
	}
	a.remember("shop\x00app", auth.Credential{}, true) // asked again
	if !a.knows("shop\x00app") {
		t.Error("a second answer is not remembered")
	}
	if a.clock = a.clock.Add(askedFor); a.knows("shop\x00app") {
		t.Error("a second answer is not forgotten")
	}
	a.forget(a.clock)
	if n := len(a.known) + len(a.unknown); n > 0 || a.held != 0 {
		t.Errorf("%d answers are held that hold no longer, of %d bytes", n, a.held)
	}
}

// Whoever tries many names fills what is kept of names that do not exist, up to a bound, and makes no user forgotten.
func TestAnswersAreBounded(t *testing.T) {
	a := newAsks()
	a.remember("shop\x00app", auth.Credential{}, true)
	const most = 10000
	for i := range 3*most + 5 {
		a.remember("shop\x00nobody"+strconv.Itoa(i), auth.Credential{}, false)
		if len(a.unknown) > most {
			t.Fatalf("%d answers", len(a.unknown))
		}
	}
	if len(a.unknown) != 5 || !a.knows("shop\x00app") || !a.knows("shop\x00nobody"+strconv.Itoa(3*most)) {
		t.Errorf("%d answers of names that do not exist are left; the user is known: %v", len(a.unknown), a.knows("shop\x00app"))
	}
	a.forget(a.clock.Add(askedFor))
	if a.held != 0 {
		t.Errorf("%d bytes are counted of nothing", a.held)
	}
}
