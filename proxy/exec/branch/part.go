package branch

import (
	"errors"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// Hear is told what a server says beside its answer: notices, and parameters as they change.
type Hear func(m wire.Message) error

// Commit commits the branch by itself. Another tag than COMMIT means that it had failed, and nobody was told: nothing of it is there.
func (b *Branch) Commit(hear Hear) (tag string, err error) {
	tag, err = b.commits("COMMIT", hear)
	if b.Server.TxStatus == 'I' { // else it was cancelled, has ended nothing, and waits for ROLLBACK
		b.On(Ends)
	}
	return tag, err
}

// commits runs COMMIT and its kin. The client hears of it if it can, and is not asked.
func (b *Branch) commits(sql string, hear Hear) (tag string, err error) {
	b.Server.SendQuery(sql)
	if err := b.Server.Flush(); err != nil {
		b.Lose()
		return "", err
	}
	return b.committed(hear)
}

func (b *Branch) committed(hear Hear) (tag string, err error) {
	a := pool.Answer{Server: b.Server, Hear: hear}
	err = a.Read(nil)
	if err != nil && !a.Ended && a.Failed != nil && endedIdle(a.Failed.Response) {
		e := a.Failed.Response
		e.Severity, e.SeverityUnlocalized = "ERROR", "ERROR"
		if e.Detail == "" {
			e.Detail = "This came from shard " + b.Server.Pool.Shard + " (node " + b.Server.Pool.Node + ")."
		}
		return "", a.Failed
	}
	return a.Tag, err
}

// endedIdle says whether a server had ended before it read what it was sent, so that it has not done it: its timeouts for idle
// clients, and a standby's recovery, end it only then.
func endedIdle(e *wire.ErrorResponse) bool {
	switch e.Code {
	case pgsql.IdleInTransactionSessionTimeout, pgsql.IdleSessionTimeout, pgsql.SerializationFailure:
		return Fatal(e)
	}
	return false
}

// Fatal says whether a server goes with an error, behind which nothing follows.
func Fatal(e *wire.ErrorResponse) bool {
	return e.Severity == "FATAL" || e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC"
}

// Part is a branch in a commit in two phases, as the coordinator sees it.
type Part struct {
	*Branch
	Name     string         // of the shard
	Secret   txn.Secret     // what the shard knows the proxy by
	Settings *pool.Settings // the session's
	Hear     Hear

	deciding bool   // what comes next is the answer to Decide
	sent     string // what Send has sent last
}

var _ txn.Participant = (*Part)(nil)

// Shard implements txn.Participant.
func (p *Part) Shard() string { return p.Name }

// ReadOnly implements txn.Participant.
func (p *Part) ReadOnly() bool { return p.Only }

// Send implements txn.Participant.
func (p *Part) Send(sql string) error {
	p.sent = sql
	p.Server.SendQuery(sql)
	err := p.Server.Flush()
	if err != nil {
		p.Lose()
	}
	return err
}

// Recv implements txn.Participant.
func (p *Part) Recv() (tag string, err error) {
	switch {
	case p.deciding:
		p.deciding = false
		tag, err = p.decided()
	default:
		if tag, err = p.committed(p.Hear); err != nil {
			tag, err = p.finished(err)
		}
	}
	switch {
	case err == nil:
		p.told(tag)
	case !p.Server.Dirty && p.Server.TxStatus == 'I' && p.state.Phase() == Open: // what failed has ended it
		p.On(Ends)
	}
	return tag, err
}

// told notes the tag of a step that was done.
func (p *Part) told(tag string) {
	switch tag {
	case "PREPARE TRANSACTION":
		p.On(Prepares)
	case "COMMIT", "ROLLBACK":
		p.On(Ends)
	case "COMMIT PREPARED", "ROLLBACK PREPARED":
		p.On(Finishes)
	}
}

// decided reads the answer to Decide.
func (p *Part) decided() (tag string, err error) {
	a := pool.Answer{Server: p.Server}
	a.Hear = func(m wire.Message) error {
		if m.Type == 'N' && a.Tag == "" {
			return nil // about the call
		}
		return p.Hear(m)
	}
	err = a.Read(nil)
	var se *pool.ServerError
	if errors.As(err, &se) {
		se.Response.Where = "" // with log_parameter_max_length_on_error it shows what the call was made with
	}
	return a.Tag, err
}

// finished runs what should have finished a prepared part, and has failed, once more, if it may not fail again: a cancel request may come late, for the
// statement before, and SET LOCAL ROLE may have made the part another role's. Else it would keep its locks until a resolver comes.
func (p *Part) finished(err error) (tag string, _ error) {
	const tries = 5
	_, gid, ok := strings.Cut(p.sent, " PREPARED ")
	for try := 0; ok && try < tries && Cancelled(err); try++ {
		tag, err = p.commits(p.sent, p.Hear)
	}
	var refused interface{ SQLState() string }
	if ok && errors.As(err, &refused) && refused.SQLState() == pgsql.InsufficientPrivilege {
		return p.asOwner(gid, err)
	}
	return tag, err
}

// asOwner finishes a prepared part as the role that has prepared it, where the session is another one: SET LOCAL ROLE has ended since.
func (p *Part) asOwner(gid string, refused error) (tag string, err error) {
	rows, err := p.Server.RowsOf(1, "SELECT owner FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) "+gid)
	switch {
	case err != nil:
		return "", err
	case len(rows) != 1:
		return "", refused
	}
	if _, err := p.Server.Exec("SET ROLE " + pgsql.Ident(string(rows[0][0]))); err != nil {
		return "", err
	}
	tag, err = p.commits(p.sent, p.Hear)
	back := "RESET ROLE"
	if role, ok := p.Settings.Get("role"); ok { // PREPARE TRANSACTION has left it so
		back = "SET " + pgsql.Setting("role") + " TO " + role
	}
	if _, e := p.Server.Exec(back); e != nil {
		p.Lose()
	}
	return tag, err
}

// Decide implements txn.Participant. It sends the call by the extended protocol, so that only the server reads its parameters.
func (p *Part) Decide(gid, outcome string, parts []string, then string) error {
	p.deciding = true
	s := p.Server
	sql, params := p.Secret.Call(gid, outcome, parts, s.PID)
	s.SendParse("", sql, nil)
	s.SendBindParts("", nil, params, nil)
	s.SendExecute()
	if then != "" {
		s.SendParse("", then, nil)
		s.SendBindParts("", nil, nil, nil)
		s.SendExecute()
	}
	s.SendSync()
	err := s.Flush()
	if err != nil {
		p.Lose()
	}
	return err
}
