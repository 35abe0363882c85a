// Package branch holds what a client's transaction is made of: its status, as the client is told it, and its branches, one on each
// shard that it has reached.
//
// Each has one function that changes its state, by a table; docs/states.md is printed from both. A change that is not in its table is a
// fault of ours, and panics: it ends the session, with its servers. Else a statement could run outside of its transaction, or a commit
// be lost, and nobody would be told.
package branch

import "fmt"

// Status is that of a client's transaction, as ReadyForQuery says it.
type Status uint8

// The statuses.
const (
	Idle   Status = iota // there is none
	Active               // it is open
	Failed               // it is open, and runs nothing any more
)

func (s Status) String() string { return [...]string{"idle", "active", "failed"}[s] }

// Byte is the status in ReadyForQuery.
func (s Status) Byte() byte { return "ITE"[s] }

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

// Tx is a client's transaction. Its zero value is none.
type Tx struct {
	status Status

	Implicit bool // made by us for one statement or pipeline, not by the client

	// What it may have done.
	Changes bool // a statement that may change something has run: it was not READ ONLY, or notified or used temporary tables
	Writes  bool // a statement has run while it was not known to be READ ONLY
	Modes   bool // it may have been made READ ONLY where no SET TRANSACTION says so
}

// Status is the transaction's present one.
func (t *Tx) Status() Status { return t.status }

// Idle says that there is no transaction.
func (t *Tx) Idle() bool { return t.status == Idle }

// Active says that it is open, and may run something.
func (t *Tx) Active() bool { return t.status == Active }

// Failed says that it is open, and runs nothing any more.
func (t *Tx) Failed() bool { return t.status == Failed }

// Begin begins a transaction.
func (t *Tx) Begin(implicit bool) {
	t.status.On(Begin)
	*t = Tx{status: t.status, Implicit: implicit}
}

// Fail notes that the client was told of an error.
func (t *Tx) Fail() { t.status.On(Fail) }

// Resume goes back to a savepoint.
func (t *Tx) Resume() { t.status.On(Resume) }

// End ends it, committed or not.
func (t *Tx) End() {
	t.status.On(End)
	*t = Tx{}
}

// Writer says whether a branch has to commit with the others: it may have written, in a transaction that may change something.
func (t *Tx) Writer(b *Branch) bool { return b.Wrote() && t.Changes }
