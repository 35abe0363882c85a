package exec

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/router"
)

// commit ends the transaction. tag is what the client is told: COMMIT, or ROLLBACK for a failed one.
func (h *Handler) commit(ctx context.Context) (tag string, err error) {
	if h.tx.Failed() {
		h.rollback()
		return "ROLLBACK", nil
	}
	writers, readers, err := sides(h)
	if err != nil {
		h.rollback()
		return "", err
	}
	for _, p := range h.tx.parts {
		from := len(p.inFlight)
		p.inFlight, p.Failed = append(p.inFlight, p.keys...), false
		h.sending(p, from)
	}
	twoPhase := len(writers) > 1 && h.own.Commit != client.CommitBestEffort
	if twoPhase {
		if err := mayCommit(writers); err != nil {
			h.rollback()
			return "", err
		}
	}
	h.count.Transactions.Add(1)
	heard, err := listenBefore(ctx, h)
	if err != nil {
		unhear(h, heard)
		h.rollback()
		return "", err
	}
	switch {
	case twoPhase:
		err = h.commitMany(ctx, writers)
	case len(writers) > 1:
		err = h.commitEach(writers)
	default:
		for _, p := range writers {
			err = commitAlone(h, p)
		}
	}
	if err == nil {
		err = commitReaders(h, readers, len(writers) == 0)
	}
	if err != nil {
		unhear(h, heard)
	}
	if err != nil && len(h.tx.parts) == 1 && h.tx.parts[0].Server.TxStatus == 'E' && !h.tx.parts[0].Server.Dirty && !h.tx.Implicit {
		return "", err // COMMIT itself was cancelled: the transaction has failed and waits for ROLLBACK
	}
	h.count.Ended(len(writers), outcomeOf(err))
	if err == nil {
		for _, p := range h.tx.parts {
			if p.Failed { // it has what it had before the transaction
				p.Server.Dirty = p.Server.Dirty || p != h.pinned
				continue
			}
			p.Server.SetSettings(h.settings)
		}
		h.own = h.tx.own.kept
	} else {
		stayBehind(h)
		takeBack(h)
	}
	ddl, logins, listens, notified := h.tx.ddl, h.tx.logins, h.tx.listens, h.tx.notifies
	h.endTx()
	if err != nil {
		return "", err
	}
	h.listenAfter(ctx, listens)
	h.tx.notifies = notified
	if ddl {
		h.afterDDL(ctx)
	}
	if logins {
		h.e.newLogins()
	}
	return "COMMIT", nil
}

// commitAlone commits a participant by itself. One that answers with another tag had failed, and nobody was told: nothing of it is there.
func commitAlone(h *Handler, p *participant) error {
	tag, err := p.Commit(h.saidAnyway)
	if p.Failed = err != nil || tag != "COMMIT"; err == nil && p.Failed {
		return errRolledBack
	}
	return h.commitError(p, err)
}

// commitReaders ends the participants that have only read. Unless they are all that there are, the transaction is committed by now, whatever they say.
func commitReaders(h *Handler, readers []*participant, all bool) (err error) {
	for _, p := range readers {
		if e := commitAlone(h, p); all {
			err = first(err, e)
		}
	}
	return err
}

var errRolledBack = &pgsql.Error{Code: pgsql.TransactionRollback, Message: "a shard rolled the transaction back at COMMIT"}

// takeBack gives the session the settings back that it had before its transaction, and tells the client.
func takeBack(h *Handler) {
	adopt(h, h.tx.before)
	h.own = h.tx.own.before
	h.told.Back(h.tx.told, h.sendParam)
}

// stayBehind sees to what a transaction over several servers has SET that came to nothing: a part that was prepared, or committed by itself, has it still.
// Nobody else may have such a server; the one that the session is tied to is looked at.
func stayBehind(h *Handler) {
	if len(h.tx.parts) < 2 {
		return
	}
	for _, p := range h.tx.parts {
		switch {
		case h.settings.Same(h.tx.before) && !p.Server.IsSuspect():
		case p == h.pinned:
			p.Server.Suspect(nil, false)
		default:
			p.Lose()
		}
	}
}

// outcomeOf is what became of a transaction by the error of its COMMIT.
func outcomeOf(err error) metrics.Outcome {
	var s interface{ SQLState() string }
	switch {
	case err == nil:
		return metrics.Committed
	case errors.As(err, &s) && s.SQLState() == pgsql.TransactionResolutionUnknown:
		return metrics.Unknown
	}
	return metrics.Aborted
}

func (h *Handler) commitError(p *participant, err error) error {
	if err == nil {
		return nil
	}
	var se *pool.ServerError
	if errors.As(err, &se) {
		return err
	}
	p.Lose()
	if !p.Wrote() {
		return &pgsql.Error{
			Code: pgsql.ConnectionFailure, Message: "the connection to shard " + h.shards.Name(p.shard) + " (node " + p.Server.Pool.Node + ") was lost at the end of a transaction that only read",
			Hint: "Nothing was to be committed. Run the transaction again if its end matters.",
		}
	}
	return &pgsql.Error{
		Code: pgsql.TransactionResolutionUnknown, Message: "the connection to shard " + h.shards.Name(p.shard) + " was lost during COMMIT: it is not known whether the transaction was committed",
		Hint: lookHint,
	}
}

const lookHint = "Look for its effects before you run it again."

// mayCommit puts the writer that decides in front, and refuses those that cannot commit together.
func mayCommit(writers []*participant) error {
	switch err := branch.DecidesFirst(writers); {
	case errors.Is(err, branch.ErrTwoBound):
		return router.Refuse(router.RuleTwoBound)
	case errors.Is(err, branch.ErrBoundReadOnly):
		return router.Refuse(router.RuleBoundReadOnly)
	}
	return nil
}

// commitEach commits one shard after the other, as multi_shard_commit = best_effort asks for. What has committed stays so.
func (h *Handler) commitEach(writers []*participant) error {
	for i, p := range writers {
		err := commitAlone(h, p)
		if err == nil {
			continue
		}
		for _, rest := range writers[i+1:] {
			h.abort(rest)
		}
		if i == 0 {
			return err
		}
		done := make([]string, i)
		for j, d := range writers[:i] {
			done[j] = h.shards.Name(d.shard)
		}
		return &pgsql.Error{
			Code: pgsql.StatementCompletionUnknown, Message: fmt.Sprintf("the transaction was committed on shard %s, and not from shard %s on: %v", strings.Join(done, ", "), h.shards.Name(p.shard), err),
			Hint: "pgmosaic.multi_shard_commit is best_effort. Undo or repeat by hand what is missing.",
		}
	}
	return nil
}

// partOf makes a participant one that can decide, on a shard that knows the proxy.
func (h *Handler) partOf(ctx context.Context, p *participant) (*branch.Part, error) {
	secret, err := h.secretOf(ctx, p)
	if err != nil {
		return nil, err
	}
	return &branch.Part{Branch: &p.Branch, Name: h.shards.Name(p.shard), Secret: secret, Settings: h.settings, Hear: h.saidAnyway}, nil
}

// secretOf is what a participant's shard knows the proxy by.
func (h *Handler) secretOf(ctx context.Context, p *participant) (txn.Secret, error) {
	name := h.shards.Name(p.shard)
	secret, err := h.e.Turns.Secret(ctx, h.db, name, h.client.Leave)
	var refused interface{ SQLState() string }
	switch {
	case err != nil && !errors.As(err, &refused):
		return secret, &pgsql.Error{Code: pgsql.SerializationFailure, Message: "shard " + name + " was lost before the commit over several shards was decided: the transaction was rolled back", Hint: "Run the transaction again."}
	case err != nil:
		return secret, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: "shard " + name + " is not ready for commits over several shards: " + err.Error(), Hint: "The role of the node's connection string must own schema pgmosaic there."}
	}
	return secret, nil
}

// commitMany commits several writers in two phases. The first that wrote decides.
func (h *Handler) commitMany(ctx context.Context, writers []*participant) error {
	decider, err := h.partOf(ctx, writers[0])
	var others []txn.Participant
	for _, p := range writers[1:] {
		var o *branch.Part
		if err == nil {
			o, err = h.partOf(ctx, p)
		}
		others = append(others, o)
	}
	if err != nil {
		h.count.TwoPhaseAborted.Add(1)
		for _, p := range writers {
			h.abort(p)
		}
		return err
	}
	gid := txn.GID(h.planner.Map.Install, decider.Name)
	panics.Point("commit")
	outcome, err := txn.Commit(gid, decider, others)
	switch outcome {
	case txn.Committed:
		h.count.TwoPhase.Add(1)
		return nil
	case txn.Unfinished, txn.InDoubt:
		parts := writers[1:]
		if writers[0].Only {
			parts = writers
		}
		var gone *txn.GonePartError
		if e := h.settleCommit(gid, decider.Name, outcome, parts); e != nil || !errors.As(err, &gone) {
			return e
		}
		h.count.InDoubt.Add(1)
		h.e.Log.Error("a committed transaction may have lost a part", "gid", gid, "shard", gone.Shard)
		return &pgsql.Error{
			Code: pgsql.TransactionResolutionUnknown, Message: "the transaction was committed, and it is not known whether its part on shard " + gone.Shard + " was: it is not there any more", Hint: lookHint,
		}
	case txn.Aborted:
	}
	h.count.TwoPhaseAborted.Add(1)
	var se *pool.ServerError
	if errors.As(err, &se) {
		if se.Response.Code == pgsql.ObjectNotInPrerequisiteState && strings.Contains(se.Response.Message, "prepared transactions are disabled") {
			return router.Refuse(router.RuleNoTwoPhase, "max_prepared_transactions is 0 on one of its shards")
		}
		if se.Response.Code == pgsql.InsufficientPrivilege && strings.HasPrefix(se.Response.Message, "only pgmosaic decides") { // a shard is another one than before
			h.e.Turns.Forget(h.db)
			return &pgsql.Error{Code: pgsql.SerializationFailure, Message: "a shard no longer knows this process: the transaction was rolled back", Hint: "Run the transaction again."}
		}
		return err
	}
	if errors.Is(err, txn.ErrOvertaken) {
		return &pgsql.Error{Code: pgsql.SerializationFailure, Message: "the commit over several shards was not decided within resolver_grace: the transaction was rolled back", Hint: "Run the transaction again."}
	}
	if errors.Is(err, txn.ErrRolledBack) {
		return errRolledBack
	}
	return &pgsql.Error{Code: pgsql.SerializationFailure, Message: "a shard was lost before the commit over several shards was decided: the transaction was rolled back", Hint: "Run the transaction again."}
}

// settleCommit finds out, within a few seconds, what became of a commit whose answer was lost, so that nobody
// misses a write that is there. parts are those that were prepared.
func (h *Handler) settleCommit(gid, decider string, outcome txn.Outcome, parts []*participant) error {
	for _, p := range h.tx.parts {
		if outcome == txn.InDoubt && p.Wrote() {
			p.Lose()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.e.SettleWithin)
	defer cancel()
	h.client.Leave()
	fate, err := branch.Settle(ctx, outcome, func(ctx context.Context) (bool, error) { return h.e.Settle(ctx, h.db, gid) })
	switch fate {
	case branch.Damaged:
		var damage *txn.DamagedError
		errors.As(err, &damage)
		h.count.InDoubt.Add(1)
		h.e.Log.Error("a committed transaction has lost a part", "gid", gid, "shard", damage.Shard)
		return &pgsql.Error{
			Code: fate.Code(), Message: "the transaction was committed, and its part on shard " + damage.Shard + " is lost: the shard's server was replaced by one that did not have it",
			Hint: "Mend the rows by hand. SHOW TRANSACTIONS shows it: " + gid,
		}
	case branch.Owed:
		h.e.Log.Warn("a committed transaction has still to be finished on a shard, before anything else runs there", "gid", gid, "error", err)
		for _, p := range parts {
			h.e.debts.Owe(h.db, h.shards.Name(p.shard), gid)
			h.shards.At(p.shard).Owed()
		}
		fallthrough
	case branch.Whole:
		h.count.TwoPhase.Add(1)
		return nil
	case branch.Reversed:
		h.count.InDoubt.Add(1)
		h.e.Log.Error("a committed transaction has lost its decision", "gid", gid, "shard", decider, "error", err)
		return &pgsql.Error{
			Code: fate.Code(), Message: "the transaction was committed, and shard " + decider + ", which had decided that, does not know it any more: its server was replaced by one that did not have it",
			Hint: "What it did there is lost, and may be rolled back on other shards. " + lookHint,
		}
	case branch.Undone:
		h.count.TwoPhaseAborted.Add(1)
		return &pgsql.Error{Code: fate.Code(), Message: "shard " + decider + " was lost before it had decided the commit: the transaction was rolled back", Hint: "Run the transaction again."}
	case branch.Unknown:
	}
	h.count.InDoubt.Add(1)
	h.e.Log.Error("commit in doubt", "gid", gid, "error", err)
	hint := "SHOW TRANSACTIONS shows it until the resolver has found out: " + gid
	if errors.Is(err, txn.ErrForgotten) {
		hint = lookHint
	}
	return &pgsql.Error{Code: fate.Code(), Message: "the connection to shard " + decider + " was lost during COMMIT: it is not known whether the transaction was committed", Hint: hint}
}
