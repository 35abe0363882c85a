// Package txn commits a transaction over several shards atomically.
//
// The decision is a row that commits together with the work of one participant, the decider: no log of
// our own. Every other participant is prepared first, with the gid recorded in its own table. So any
// process can later ask the decider's shard what became of a gid, and finish it. The rules are in
// docs/decisions; the steps follow "presumed abort with a participant as the coordinator's log".
package txn

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Participant is one shard's part of a transaction: an open transaction on a server that the caller
// holds. Send starts a simple query, Recv waits for its end and returns the last command tag.
type Participant interface {
	Shard() string
	Send(sql string) error
	Recv() (tag string, err error)

	// Decide starts the call of pgmosaic.decide, and behind it, unless that is empty, another statement; Recv waits for both. What
	// shows that the call is the proxy's may not be seen in the text of a query, which others of the same role can read, and what
	// the server says about it goes to nobody.
	Decide(gid, outcome string, parts []string, then string) error

	// ReadOnly says that the transaction was made READ ONLY behind what it has written: it can be prepared, and no row of ours can be
	// written in it.
	ReadOnly() bool

	// Over says that no transaction is open there any more: what failed has ended it, or the connection is lost.
	Over() bool
}

// GID names a two-phase transaction: the installation, the decider's shard, a random part.
func GID(install, deciderShard string) string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return fmt.Sprintf("pgmosaic:%s:%s:%s", install, deciderShard, hex.EncodeToString(b))
}

// PartGID names the prepared part of participant i: two shards may be databases of one server, where names of
// prepared transactions must differ.
func PartGID(gid string, i int) string { return gid + "/" + strconv.Itoa(i) }

// Base is the gid of the transaction that a part belongs to.
func Base(part string) string {
	gid, _, _ := strings.Cut(part, "/")
	return gid
}

// ParseGID takes a gid, or a part's, apart. ok is false for one that is not ours.
func ParseGID(gid string) (install, deciderShard string, ok bool) {
	gid = Base(gid)
	p := strings.Split(gid, ":")
	if len(p) != 4 || p[0] != "pgmosaic" {
		return "", "", false
	}
	return p[1], p[2], true
}

// MayDecide says whether a shard of this name could be told from a gid: PostgreSQL takes less than 200 bytes.
func MayDecide(install, name string) bool {
	part := PartGID(GID(install, name), 1<<20)
	i, decider, ok := ParseGID(part)
	return ok && i == install && decider == name && len(part) < 200
}

// Outcome is what became of a commit.
type Outcome uint8

// The outcomes.
const (
	Committed  Outcome = iota // all of it, and every participant knows
	Unfinished                // committed; some participant has still to be told: the resolver does it. The error may be a *GonePartError
	Aborted                   // none of it
	InDoubt                   // the decider's answer was lost: the resolver finds out
)

// ErrRolledBack means that PostgreSQL answered ROLLBACK to a step that asked for something else.
var ErrRolledBack = errors.New("the transaction was rolled back by the server")

// ErrOvertaken means that a resolver has decided to roll the transaction back before its own process had decided.
var ErrOvertaken = errors.New("the transaction was rolled back before it was decided")

// Commit commits a transaction with at least two participants. others are prepared; decider decides. It takes three round
// trips, each in parallel over those that it concerns: the decision is written while the others are prepared, and counts when
// the decider commits. Who sweeps it is the resolver. A step has succeeded only if its command tag is exactly the expected
// one. After Committed, Aborted and Unfinished no participant is in a transaction, except those whose connection failed.
func Commit(gid string, decider Participant, others []Participant) (Outcome, error) {
	if decider.ReadOnly() {
		return commitBehind(gid, append([]Participant{decider}, others...))
	}
	written := decider.Decide(gid, "commit", shardsOf(others), "")
	prepared, err := prepare(gid, others)
	if written == nil {
		_, written = decider.Recv()
		written = overtaken(written)
	}
	if err = first(err, written); err != nil {
		abort(gid, decider, others, prepared)
		return Aborted, err
	}
	panics.Point("prepared")
	return conclude(gid, decider, others)
}

// commitBehind is Commit where the decider's transaction cannot carry the decision. It is prepared with the others, and decides in a
// transaction behind that: until then a resolver that finds them old may decide to abort, and the first one counts. Nothing of the transaction is open on
// the decider in between, so a process that was stopped for long may find such a decision forgotten. It finds the decider's part gone then: a decision to
// abort stays while a part is prepared. So it looks for that when its own row is there: from then on nobody else decides.
func commitBehind(gid string, all []Participant) (Outcome, error) {
	prepared, err := prepare(gid, all)
	decider, begun := all[0], false
	if err == nil {
		err = step(decider, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", "BEGIN")
		begun = err == nil
	}
	if err == nil {
		err = decider.Decide(gid, "commit", shardsOf(all), "SELECT FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) "+pgsql.Literal(PartGID(gid, 0)))
	}
	if err == nil {
		if err = overtaken(expectTag(decider, "SELECT 1")); errors.Is(err, ErrRolledBack) {
			err = ErrOvertaken
		}
	}
	if err != nil {
		if begun {
			finish(decider, "ROLLBACK", "ROLLBACK")
		}
		abortParts(gid, all, prepared)
		return Aborted, err
	}
	return conclude(gid, decider, all)
}

// overtaken is the error of a decision, which has one row.
func overtaken(err error) error {
	var s interface{ SQLState() string }
	if errors.As(err, &s) && s.SQLState() == pgsql.UniqueViolation {
		return ErrOvertaken
	}
	return err
}

// conclude has the decider commit, by which the decision counts, and tells the others.
func conclude(gid string, decider Participant, others []Participant) (Outcome, error) {
	tag, err := "", decider.Send("COMMIT")
	if err == nil {
		tag, err = decider.Recv()
	}
	if err != nil && !isServerError(err) {
		return InDoubt, err
	}
	if err == nil && tag != "COMMIT" {
		err = ErrRolledBack
	}
	if err != nil { // a deferred constraint, for one
		for i, p := range others {
			finish(p, "ROLLBACK PREPARED "+pgsql.Literal(PartGID(gid, i)), "ROLLBACK PREPARED")
		}
		return Aborted, err
	}
	panics.Point("decided")
	done, err := finishAll(gid, others)
	if !done {
		return Unfinished, err
	}
	return Committed, nil
}

// bare stands before the name of a shard whose part has no row of its own. No shard's name can begin so: see ParseGID.
const bare = ":"

// shardsOf are the others' shards: part i is that of the i-th.
func shardsOf(others []Participant) []string {
	names := make([]string, len(others))
	for i, p := range others {
		names[i] = p.Shard()
		if p.ReadOnly() {
			names[i] = bare + names[i]
		}
	}
	return names
}

// prepare prepares all in parallel, one burst each, and says which are prepared. Each part that can be written to carries a row of its own: if
// it is gone and its row is not there, it was lost with the end of a server's log.
func prepare(gid string, others []Participant) (prepared []bool, err error) {
	prepared = make([]bool, len(others))
	sent := make([]bool, len(others))
	for i, p := range others {
		sql, e := "PREPARE TRANSACTION "+pgsql.Literal(PartGID(gid, i)), error(nil)
		if p.ReadOnly() {
			e = p.Send(sql)
		} else {
			e = p.Decide(PartGID(gid, i), "part", nil, sql)
		}
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		sent[i] = true
	}
	for i, p := range others {
		if !sent[i] {
			continue
		}
		tag, e := p.Recv()
		switch {
		case e != nil:
			if !isServerError(e) {
				prepared[i] = true // perhaps: the resolver's presumed abort will see
			}
			err = first(err, e)
		case tag != "PREPARE TRANSACTION":
			err = first(err, ErrRolledBack)
		default:
			prepared[i] = true
		}
	}
	return prepared, err
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func abort(gid string, decider Participant, others []Participant, prepared []bool) {
	abortParts(gid, others, prepared)
	undo(decider)
}

func abortParts(gid string, parts []Participant, prepared []bool) {
	for i, p := range parts {
		if prepared[i] {
			finish(p, "ROLLBACK PREPARED "+pgsql.Literal(PartGID(gid, i)), "ROLLBACK PREPARED")
		} else {
			undo(p)
		}
	}
}

// undo rolls a part back that is not prepared. One that its own failure has ended would warn that there is no transaction.
func undo(p Participant) {
	if !p.Over() {
		finish(p, "ROLLBACK", "ROLLBACK")
	}
}

// finish runs a statement whose failure the resolver makes good.
func finish(p Participant, sql, want string) { _ = step(p, sql, want) }

// step runs a statement whose command tag is known.
func step(p Participant, sql, want string) error {
	if err := p.Send(sql); err != nil {
		return err
	}
	return expectTag(p, want)
}

// expectTag waits for what was sent, and for its command tag.
func expectTag(p Participant, want string) error {
	tag, err := p.Recv()
	if err == nil && tag != want {
		err = ErrRolledBack
	}
	return err
}

// finishAll commits what was prepared. The error is a *GonePartError, or none: whoever finds that another part is missing finds out why.
func finishAll(gid string, others []Participant) (ok bool, gone error) {
	ok = true
	sent := make([]bool, len(others))
	for i, p := range others {
		sent[i] = p.Send("COMMIT PREPARED "+pgsql.Literal(PartGID(gid, i))) == nil
	}
	for i, p := range others {
		if !sent[i] {
			ok = false
			continue
		}
		tag, err := p.Recv()
		ok = ok && err == nil && tag == "COMMIT PREPARED"
		var s interface{ SQLState() string }
		if p.ReadOnly() && errors.As(err, &s) && s.SQLState() == pgsql.UndefinedObject {
			gone = &GonePartError{p.Shard()}
		}
	}
	return ok, gone
}

// GonePartError says that a part without a row of its own was not there when the transaction had been decided: it was committed by another
// who took it for old, or it is lost, and nothing tells which.
type GonePartError struct{ Shard string }

func (e *GonePartError) Error() string {
	return "the part on shard " + e.Shard + " is not there any more"
}

// isServerError says whether PostgreSQL itself answered, so that the outcome is known.
func isServerError(err error) bool {
	var s interface{ SQLState() string }
	return errors.As(err, &s) && s.SQLState() != "" && !strings.HasPrefix(s.SQLState(), "57P") && !strings.HasPrefix(s.SQLState(), "08")
}
