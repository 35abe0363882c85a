package branch

import (
	"context"
	"errors"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

// Fate is what became of a commit in two phases that has not gone to its end.
type Fate uint8

// The fates.
const (
	Unknown  Fate = iota // nobody could say in time
	Whole                // it was committed, and every shard knows
	Owed                 // it was committed, and some shard has still to be told, before anything else runs there
	Undone               // it was rolled back
	Damaged              // it was committed, and a part of it is lost: the error is a *txn.DamagedError
	Reversed             // it was committed, and its decision is lost: what was still prepared is rolled back, or will be
)

// Fates lists what each fate means and what COMMIT is told: an SQLSTATE, or that it is done. docs/states.md is printed from it.
var Fates = [...]struct {
	Name, Code, Means string
}{
	Unknown:  {"unknown", pgsql.TransactionResolutionUnknown, "nobody could say in time whether it was committed; the resolver finds out"},
	Whole:    {"whole", "", "it was committed, and every shard knows"},
	Owed:     {"owed", "", "it was committed, and some shard has still to be told, before anything else runs there"},
	Undone:   {"undone", pgsql.SerializationFailure, "it was rolled back everywhere"},
	Damaged:  {"damaged", pgsql.TransactionResolutionUnknown, "it was committed, and a part of it is lost"},
	Reversed: {"reversed", pgsql.TransactionResolutionUnknown, "it was committed, and its decision is lost: what was still prepared is rolled back, or will be"},
}

func (f Fate) String() string { return Fates[f].Name }

// Code is the SQLSTATE that COMMIT is told; empty where it is told that it is done.
func (f Fate) Code() string { return Fates[f].Code }

// settleAgain is how long one that settles waits before it asks again: a shard that is away may be back, or have another primary.
const settleAgain = 100 * time.Millisecond

// Settle finds out what became of a commit, asking again until ctx ends, so that nobody misses a write that is there. outcome is as far as its
// coordinator knew it: unfinished or in doubt. ask says whether it was committed, and has finished it then. The error is the last one.
func Settle(ctx context.Context, outcome txn.Outcome, ask func(ctx context.Context) (committed bool, err error)) (Fate, error) {
	committed, err := ask(ctx)
	for err != nil && !final(outcome, err) && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(settleAgain):
			committed, err = ask(ctx)
		}
	}
	return fate(outcome, committed, err), err
}

// final says whether asking again would give the same.
func final(outcome txn.Outcome, err error) bool {
	var damage *txn.DamagedError
	return errors.As(err, &damage) || errors.Is(err, txn.ErrForgotten) || lost(outcome, true, err)
}

// lost says that a decision which had been made is not there: one to abort stands in its place, or none does. The sweep takes it away only long
// after the commit is whole.
func lost(outcome txn.Outcome, committed bool, err error) bool {
	return outcome == txn.Unfinished && (err == nil && !committed || errors.Is(err, txn.ErrForgotten) || errors.Is(err, txn.ErrUndecided))
}

func fate(outcome txn.Outcome, committed bool, err error) Fate {
	var damage *txn.DamagedError
	switch {
	case errors.As(err, &damage):
		return Damaged
	case lost(outcome, committed, err):
		return Reversed
	case err == nil && committed:
		return Whole
	case outcome == txn.Unfinished:
		return Owed
	case err == nil:
		return Undone
	}
	return Unknown
}
