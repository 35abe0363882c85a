package branch

import (
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// Attempt is a run of a request. Until something of its answer has gone to the client it may be run again, once.
type Attempt struct {
	Repeatable bool // nothing of it keeps it from being run again

	repeated bool
	sent     int64 // what had gone to the client when it began
	out      int   // what was written to the client then, and had not gone
}

// Attempted is the first run of a request that begins now.
func Attempted(sent int64, out int) Attempt { return Attempt{Repeatable: true, sent: sent, out: out} }

// Unsent says that nothing of the answer has gone to the client, to which so much was sent: it can be taken back.
func (a *Attempt) Unsent(sent int64) bool { return sent == a.sent }

// MayRepeat says whether the request may begin anew unnoticed.
func (a *Attempt) MayRepeat(sent int64) bool { return a.Repeatable && !a.repeated && a.Unsent(sent) }

// Repeat notes that the request begins anew: its reads go to primaries now.
func (a *Attempt) Repeat() { a.repeated = true }

// Repeated says whether it has been run again.
func (a *Attempt) Repeated() bool { return a.repeated }

// Out is where the answer begins in what is written to the client.
func (a *Attempt) Out() int { return a.out }

// Repeat is whether a statement may be run again, on another node.
type Repeat uint8

// The answers.
const (
	No       Repeat = iota
	IfItGoes        // if the error means that the node goes, and not just this one of its servers
	Yes
)

// Repeats says whether a statement that failed on the branch with an error, or with its connection for nil, may be run again on another
// node: it only read, and nothing of the transaction is lost with its server.
func (b *Branch) Repeats(e *wire.ErrorResponse) Repeat {
	alone := b.Reads || b.Replica && !b.Used
	switch {
	case b.Wrote() || !alone:
		return No
	case e == nil:
		return Yes
	}
	switch e.Code {
	case pgsql.AdminShutdown, pgsql.CrashShutdown, pgsql.CannotConnectNow:
		return IfItGoes
	case pgsql.IdleSessionTimeout: // it was idle for too long, and had gone before it read the statement
		if Fatal(e) {
			return Yes
		}
	case pgsql.ReadOnlySQLTransaction, pgsql.FeatureNotSupported, pgsql.SerializationFailure, pgsql.DeadlockDetected, pgsql.ObjectNotInPrerequisiteState: // what recovery forbids, and its conflicts
		if b.Replica {
			return Yes
		}
	}
	return No
}

// Orphaned says whether a server ended because its postmaster is no more. Its code and, in other languages, its text are those
// of a server that was told to go: what differs is the function that says it, of PostgreSQL's be-secure.c.
func Orphaned(e *wire.ErrorResponse) bool {
	return e.Routine == "secure_read" || e.Routine == "secure_write"
}
