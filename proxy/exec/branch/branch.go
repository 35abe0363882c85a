package branch

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// Branch is a server that a session has leased for a statement or a transaction, and how far the client's transaction is there. What is
// written to the server for the transaction's sake is written here: where it begins and ends, the state changes with it.
type Branch struct {
	Server *pool.Server

	state State
	owes  int // answers to statements of ours before the client's that were not read: of BEGIN, what was set, savepoints
	Ending

	Replica bool // of a node that was a replica when it was leased
	Reads   bool // leased for one statement that only reads
	Used    bool // a statement of the transaction has run on it
}

// Ending is how a branch may commit with others.
type Ending struct {
	Bound  bool // it cannot be prepared: it has touched temporary objects, notifies or has a cursor WITH HOLD
	Only   bool // it was made READ ONLY behind what it has written
	Failed bool // it was to commit by itself, and has not
}

// Of is the branch on a server that was just leased.
func Of(s *pool.Server) Branch { return Branch{Server: s} }

// On changes the branch's state.
func (b *Branch) On(e Event) { b.state.On(e, b.Server.Dirty) }

// State is the branch's present one.
func (b *Branch) State() State {
	if b.Server.Dirty {
		return Lost | b.state&Wrote
	}
	return b.state
}

// Wrote says whether something was sent that may have written, and its outcome was not noted yet.
func (b *Branch) Wrote() bool { return b.state.HasWritten() }

// Over says whether the transaction has ended on the branch, or is nothing that a statement of ours could end.
func (b *Branch) Over() bool { return b.Server.Dirty || b.state.Phase() == Done }

// Lose gives the server up: nothing is asked of it any more, and it is closed when it is given back.
func (b *Branch) Lose() { b.Server.Dirty = true }

// First has the server run a statement before those that come; Answered swallows its answer.
func (b *Branch) First(sql string) {
	s := b.Server
	s.SendParse("", sql, nil)
	s.SendBindParts("", nil, nil, nil)
	s.SendExecute()
	b.owes++
}

// asidePortal is the portal of what a server runs amid a client's pipeline or transaction, whose own unnamed one may be open.
const asidePortal = "pgmosaic aside"

// SendAside sends a statement of ours that leaves the client's portals alone. It is answered by four messages, the last of which is to its Close.
func SendAside(s *pool.Server, sql string) {
	s.SendParse("", sql, nil)
	s.SendBind(asidePortal, "", []byte{0, 0, 0, 0, 0, 0})
	s.SendFrame('E', append([]byte(asidePortal), 0, 0, 0, 0, 0))
	s.SendClose('P', asidePortal)
}

// Aside is First for a server that has been at work in the transaction or pipeline.
func (b *Branch) Aside(sql string) {
	SendAside(b.Server, sql)
	b.owes += 2
}

// Closes has the server close a portal with what is sent next; Answered swallows the answer.
func (b *Branch) Closes(portal string) {
	b.Server.SendClose('P', portal)
	b.owes++
}

// Begin has the server begin a transaction before the statement that comes.
func (b *Branch) Begin(sql string) {
	b.On(Begins)
	b.First(sql)
}

// Owes says whether there are answers that Answered has to swallow.
func (b *Branch) Owes() bool { return b.owes > 0 }

// Answered swallows the answers to BEGIN and its kin, which are on their way. They were sent by the extended protocol without a Sync: had
// one failed (a cancel request may hit BEGIN), the server would have skipped what was sent behind it, a simple query too, and nothing would have
// run outside of the transaction. Such a server is given up.
func (b *Branch) Answered() error {
	if b.owes == 0 {
		return nil
	}
	a := pool.Answer{Server: b.Server, Open: true}
	for b.owes > 0 {
		m, err := a.Next()
		switch {
		case a.Failed != nil:
			b.owes = 0
			b.Lose()
			return a.Failed
		case err != nil:
			b.owes = 0
			b.Lose()
			return err
		case m.Type == 'C':
			b.owes--
			b.Server.TxStatus = 'T'
		case m.Type == '3': // of what was sent aside, or closed
			b.owes--
		}
	}
	b.begun()
	return nil
}

// begun notes that the answers to BEGIN and its kin are read, if there was a BEGIN among them.
func (b *Branch) begun() {
	if b.state.Phase() == Opening {
		b.On(Begun)
	}
}

// Resync ends the server's pipeline and reads what it still says. One that is lost is dirty.
func (b *Branch) Resync() {
	b.owes = 0 // those answers are among what is read
	b.begun()
	b.Server.SendSync()
	if err := b.Server.Flush(); err != nil {
		b.Lose()
		return
	}
	_, _ = b.Server.ReadTag() // an error that it reports is of the pipeline; a loss marks it
}

// Rollback ends the transaction there. A server that does not answer is given up.
func (b *Branch) Rollback() {
	if b.AskRollback() {
		b.RolledBack()
	}
}

// AskRollback sends ROLLBACK; RolledBack waits for what comes of it. It is false where the server is lost.
func (b *Branch) AskRollback() bool {
	b.Server.SendQuery("ROLLBACK")
	if b.Server.Flush() != nil {
		b.Lose()
		return false
	}
	return true
}

// RolledBack reads the answer to ROLLBACK. A server that gives another is given up.
func (b *Branch) RolledBack() {
	if tag, err := b.Server.ReadTag(); err != nil || tag != "ROLLBACK" {
		b.Lose()
	}
	b.On(Ends)
}

// Clear ends a transaction of the proxy's own that has failed, or what one of the client's has left: each of its statements, the last one, too,
// may have met a cancel request for the client's statement. A server on which that cannot be done is given up.
func (b *Branch) Clear() {
	const tries = 5
	for try := 0; b.Server.TxStatus != 'I' && !b.Server.Dirty; try++ {
		if tag, err := b.Server.Exec("ROLLBACK"); err == nil && tag == "ROLLBACK" || Cancelled(err) && try < tries {
			continue
		}
		b.Lose()
	}
}

// Cancelled says whether a server has cancelled what it was asked.
func Cancelled(err error) bool {
	var se *pool.ServerError
	return errors.As(err, &se) && se.Response.Code == pgsql.QueryCanceled
}
