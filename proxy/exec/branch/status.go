// Package branch holds what a client's transaction is made of: its status, as the client is told it, and its branches, one on each
// shard that it has reached.
//
// Each has one function that changes its state, by a table; docs/states.md is printed from both. A change that is not in its table is a
// fault of ours, and panics: it ends the session, with its servers. Else a statement could run outside of its transaction, or a commit
// be lost, and nobody would be told.
package branch

import "fmt"

// Status is that of a client's transaction, as ReadyForQuery says it.
type Status byte

// The statuses.
const (
	Idle   Status = 'I' // there is none
	Active Status = 'T' // it is open
	Failed Status = 'E' // it is open, and runs nothing any more
)

func (s Status) String() string {
	switch s {
	case Idle:
		return "idle"
	case Active:
		return "active"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("%q", byte(s))
}

// Change is what happens to a transaction.
type Change uint8

// The changes of a transaction.
const (
	Begin  Change = iota // the client's BEGIN, or one of our own for a pipeline or a statement
	Fail                 // the client was told of an error
	Resume               // ROLLBACK TO a savepoint
	End                  // it was committed or rolled back, or has failed at that
	changes
)

func (c Change) String() string {
	return [...]string{"begin", "fail", "resume", "end"}[c]
}

// Statuses lists what a change makes of each status: docs/states.md is printed from it.
var Statuses = map[Status]map[Change]Status{
	Idle:   {Begin: Active},
	Active: {Fail: Failed, Resume: Active, End: Idle},
	Failed: {Resume: Active, End: Idle},
}

// On changes the status, and panics where the table has no such change.
func (s *Status) On(c Change) {
	next, ok := Statuses[*s][c]
	if !ok {
		panic(fmt.Sprintf("branch: a transaction that is %s cannot %s", *s, c))
	}
	*s = next
}
