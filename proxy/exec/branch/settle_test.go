package branch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

// A commit that was decided is never told to be undone, and one of which nobody knows never to be anything.
func TestWhatBecameOfACommit(t *testing.T) {
	away := errors.New("it is away")
	damaged := &txn.DamagedError{Shard: "s2"}
	open := fmt.Errorf("s2 is away: %w", txn.ErrUndecided)
	type said struct {
		committed bool
		err       error
	}
	for name, c := range map[string]struct {
		outcome txn.Outcome
		says    []said // in turn; the last one again and again
		want    Fate
		asked   int // 0: until the time is over
	}{
		"in doubt, committed":                  {txn.InDoubt, []said{{true, nil}}, Whole, 1},
		"in doubt, rolled back":                {txn.InDoubt, []said{{false, nil}}, Undone, 1},
		"in doubt, back later, committed":      {txn.InDoubt, []said{{false, away}, {false, away}, {true, nil}}, Whole, 3},
		"in doubt, back later, rolled back":    {txn.InDoubt, []said{{false, away}, {false, nil}}, Undone, 2},
		"in doubt, and nobody answers":         {txn.InDoubt, []said{{false, away}}, Unknown, 0},
		"in doubt, committed, and an error":    {txn.InDoubt, []said{{true, away}}, Unknown, 0},
		"in doubt, and forgotten":              {txn.InDoubt, []said{{false, txn.ErrForgotten}}, Unknown, 1},
		"in doubt, and damaged":                {txn.InDoubt, []said{{false, damaged}}, Damaged, 1},
		"decided, and finished":                {txn.Unfinished, []said{{true, nil}}, Whole, 1},
		"decided, and rolled back since":       {txn.Unfinished, []said{{false, nil}}, Reversed, 1},
		"decided, back later, rolled back":     {txn.Unfinished, []said{{false, away}, {false, nil}}, Reversed, 2},
		"decided, and its shard stays away":    {txn.Unfinished, []said{{false, away}}, Owed, 0},
		"decided, and its shard is back":       {txn.Unfinished, []said{{false, away}, {true, nil}}, Whole, 2},
		"decided, and forgotten":               {txn.Unfinished, []said{{false, txn.ErrForgotten}}, Reversed, 1},
		"decided, and not, as far as is seen":  {txn.Unfinished, []said{{false, open}}, Reversed, 1},
		"decided, then forgotten at the end":   {txn.Unfinished, []said{{true, txn.ErrForgotten}}, Reversed, 1},
		"decided, finished in part":            {txn.Unfinished, []said{{true, away}}, Owed, 0},
		"in doubt, and not decided yet":        {txn.InDoubt, []said{{false, open}}, Unknown, 0},
		"in doubt, not yet, then rolled back":  {txn.InDoubt, []said{{false, open}, {false, nil}}, Undone, 2},
		"in doubt, not yet, then committed":    {txn.InDoubt, []said{{false, open}, {true, nil}}, Whole, 2},
		"decided, away at first, then damaged": {txn.Unfinished, []said{{false, away}, {false, damaged}}, Damaged, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				asked, begun := 0, time.Now()
				got, err := Settle(ctx, c.outcome, func(context.Context) (bool, error) {
					s := c.says[min(asked, len(c.says)-1)]
					asked++
					return s.committed, s.err
				})
				if got != c.want || c.asked > 0 && asked != c.asked || c.asked == 0 && time.Since(begun) != 5*time.Second {
					t.Errorf("it is %s, not %s: %v, asked %d times in %s", got, c.want, err, asked, time.Since(begun))
				}
			})
		})
	}
}

// A commit is told as done where every shard has it or will before anything else runs there, and as rolled back only where it is.
func TestWhatIsToldOfFates(t *testing.T) {
	for f := range Fate(len(Fates)) {
		if done := f == Whole || f == Owed; done != (f.Code() == "") || (f == Undone) != (f.Code() == pgsql.SerializationFailure) || f.String() == "" || Fates[f].Means == "" {
			t.Errorf("%s is told as %q", f, f.Code())
		}
	}
}
