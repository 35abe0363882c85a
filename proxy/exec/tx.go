package exec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// transaction is the client's transaction over the shards that it has reached so far. BEGIN is answered at
// once and sent to a shard only with the first statement that needs it.
type transaction struct {
	status   byte // I, T, E
	implicit bool // made by us for one statement or pipeline, not by the client
	begin    string
	opts     sqlparse.Tx
	parts    []*participant
	saves    []savepoint
	local    []string                // SET LOCAL, for those who come late
	before   *pool.Settings          // at BEGIN
	cursors  map[string]*participant // where each SQL cursor is
	held     []*gathering            // whose copies a cursor reads
	ddl      bool
	locks    bool        // it may hold locks that shut even readers out, or made what others cannot see
	listens  []listening // LISTEN and UNLISTEN, done at COMMIT
	notifies bool        // it may have sent notifications
	since    time.Time
	told     map[string]string // what the client had been told before it
	own      ownInTx
	base     beforeDDL
	defined  bool // something, since the schema was read
}

type savepoint struct {
	name     string
	settings *pool.Settings
	told     map[string]string
	own      ownSettings
	kept     ownSettings
	cursors  map[string]*participant
	db       *shardmap.DB
	schema   *schema.Snapshot
	defined  bool
}

// begin opens a transaction without telling any server.
func (h *Handler) begin(sql string, opts sqlparse.Tx, implicit bool) {
	h.tx = transaction{status: 'T', implicit: implicit, begin: sql, opts: opts, before: h.settings, parts: h.tx.parts[:0], since: h.now, told: maps.Clone(h.told), notifies: h.tx.notifies, own: ownInTx{h.own, h.own}}
}

// join returns the transaction's participant on a shard, making it one if need be.
func (h *Handler) join(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	for _, p := range h.tx.parts {
		if p.shard == shard {
			if stays, err := h.staysOnReplica(p, t); err != nil {
				return nil, err
			} else if !stays {
				h.leaveReplica(p)
				break
			}
			if err := h.mayWrite(p, t); err != nil {
				return nil, err
			}
			p.used = true
			return p, nil
		}
	}
	if len(h.tx.parts) > 0 && !h.own.apart {
		if iso := h.isolation(); iso != "" {
			return nil, router.Refuse("isolation", strings.ToUpper(iso))
		}
	}
	var p *participant
	if h.pinned != nil && h.pinned.shard == shard {
		p = h.pinned
	} else {
		var err error
		if t.Read && h.readsOnly() {
			if p, err = h.forReader(ctx, shard, t); err == nil && !p.replica {
				p.node = -1
			}
		} else {
			var s *pool.Server
			s, err = h.lease(ctx, shard)
			p = &participant{shard: shard, srv: s, node: -1}
		}
		if err != nil {
			if errors.Is(err, errReplan) && len(h.tx.parts) > 0 {
				return nil, errTxMapChanged
			}
			return nil, err
		}
	}
	drop := func() {
		if p != h.pinned {
			h.free(p.srv)
			h.unload(p)
		}
	}
	if err := h.mayWrite(p, t); err != nil {
		drop()
		return nil, err
	}
	if err := h.adapt(p); err != nil {
		drop()
		return nil, err
	}
	before := func(sql string) {
		p.srv.SendParse("", sql, nil)
		p.srv.SendBindParts("", nil, nil, nil)
		p.srv.SendExecute()
		p.prologue++
	}
	before(h.tx.begin)
	for _, l := range h.tx.local {
		before(l)
	}
	for _, s := range h.tx.saves {
		before("SAVEPOINT " + pool.QuoteName(s.name))
	}
	h.tx.parts = append(h.tx.parts, p)
	p.open = true
	return p, nil
}

// isolation is the transaction's level if all its statements see one snapshot: what BEGIN says, else the session's
// default. Empty for READ COMMITTED.
func (h *Handler) isolation() string {
	iso := h.tx.opts.Isolation
	if iso == "" {
		iso = h.firstIso
		if v, ok := h.settings.Get("default_transaction_isolation"); ok {
			iso = strings.ToLower(strings.Trim(v, "'"))
		}
	}
	if iso == "serializable" || iso == "repeatable read" {
		return iso
	}
	return ""
}

// mayWrite marks a participant as a writer, unless the statement is a read. A second writer needs
// two-phase commit.
func (h *Handler) mayWrite(p *participant, t *router.Template) error {
	p.bound = p.bound || t.Temp || t.Stmt != nil && (notifies(t.Stmt) || h.namesTemp(t.Stmt))
	if t.Read {
		return nil
	}
	if !p.wrote {
		for _, o := range h.tx.parts {
			if o != p && o.wrote && h.own.commit == CommitRefuse {
				return router.Refuse("no-two-phase", "pgmosaic.multi_shard_commit is refuse")
			}
		}
	}
	p.wrote = true
	h.tx.locks = h.tx.locks || t.DDL || t.Stmt.Kind == sqlparse.Truncate || t.Stmt.Kind == sqlparse.Lock
	p.keys = h.writeKeys(p.keys, p.shard, t)
	return nil
}

// namesTemp says whether a statement names a temporary table of the session's.
func (h *Handler) namesTemp(s *sqlparse.Statement) bool {
	return len(h.env.Temp) > 0 && slices.ContainsFunc(s.Tables, func(r sqlparse.TableRef) bool {
		return h.env.Temp[r.Name] && (r.Schema == "" || r.Schema == "pg_temp")
	})
}

// joinAll has every shard of a statement join the transaction before anything is sent to one of them: a shard that cannot
// join leaves no answer behind that nobody reads.
func (h *Handler) joinAll(ctx context.Context, shards []int, t *router.Template) ([]*participant, error) {
	parts := make([]*participant, len(shards))
	for i, shard := range shards {
		var err error
		if parts[i], err = h.join(ctx, shard, t); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// ready sends BEGIN and its kin to a participant that joined for a statement which was never sent.
func (h *Handler) ready(p *participant) error {
	if p.prologue == 0 {
		return nil
	}
	p.srv.SendFlush()
	if err := p.srv.Flush(); err != nil {
		return h.lost(p, err)
	}
	return h.prologue(p)
}

// prologue swallows the answers to BEGIN and its kin. They were sent by the extended protocol without a Sync: had
// one failed (a cancel request may hit BEGIN), the server would have skipped what was sent behind it, a simple
// query too, and nothing would have run outside of the transaction. Such a server is given up.
func (h *Handler) prologue(p *participant) error {
	for p.prologue > 0 {
		m, err := p.srv.Next()
		if err != nil {
			p.prologue = 0
			return h.lost(p, err)
		}
		switch m.Type {
		case 'C':
			p.prologue--
			p.srv.TxStatus = 'T'
		case 'S':
			p.srv.NoteParam(m.Body())
		case 'E':
			p.prologue = 0
			p.srv.Dirty = true
			return &pool.ServerError{Response: wire.ParseError(m.Body())}
		}
	}
	return nil
}

// commit ends the transaction. tag is what the client is told: COMMIT, or ROLLBACK for a failed one.
func (h *Handler) commit(ctx context.Context) (tag string, err error) {
	if h.tx.status == 'E' {
		h.rollback()
		return "ROLLBACK", nil
	}
	var writers, readers []*participant
	for _, p := range h.tx.parts {
		if err := h.ready(p); err != nil {
			h.rollback()
			return "", err
		}
		if p.wrote {
			writers = append(writers, p)
		} else {
			readers = append(readers, p)
		}
		for _, k := range p.keys {
			h.e.Horizon.Sent(k)
			p.inFlight = append(p.inFlight, k)
		}
	}
	if err := decidesFirst(writers); err != nil && h.own.commit != CommitBestEffort {
		h.rollback()
		return "", err
	}
	h.count.Transactions.Add(1)
	if err := h.listenBefore(ctx); err != nil {
		h.rollback()
		return "", err
	}
	tag = "COMMIT"
	switch {
	case len(writers) > 1 && h.own.commit == CommitBestEffort:
		err = h.commitEach(writers)
	case len(writers) > 1:
		err = h.commitMany(writers)
	default:
		for _, p := range writers {
			tag, err = p.srv.Exec("COMMIT")
			err = h.commitError(p, err)
		}
	}
	if err == nil {
		for _, p := range readers {
			if t, e := p.srv.Exec("COMMIT"); e != nil && len(writers) == 0 {
				err = h.commitError(p, e)
			} else if e == nil && t != "COMMIT" && len(writers) == 0 {
				tag = t
			}
		}
	}
	if err != nil && len(h.tx.parts) == 1 && h.tx.parts[0].srv.TxStatus == 'E' && !h.tx.parts[0].srv.Dirty && !h.tx.implicit {
		return "", err // COMMIT itself was cancelled: the transaction has failed and waits for ROLLBACK
	}
	h.count.Ended(len(writers), outcomeOf(tag, err))
	if err == nil && tag == "COMMIT" {
		for _, p := range h.tx.parts {
			p.srv.SetSettings(h.settings)
		}
		h.own = h.tx.own.kept
	} else {
		h.settings, h.own = h.tx.before, h.tx.own.before
		h.retell(h.tx.told)
	}
	ddl, listens, notified := h.tx.ddl, h.tx.listens, h.tx.notifies
	h.endTx()
	if err == nil && tag == "COMMIT" {
		h.listenAfter(ctx, listens)
		h.tx.notifies = notified
		if ddl {
			h.afterDDL(ctx)
		}
	}
	return tag, err
}

// outcomeOf is what became of a transaction whose COMMIT was answered so.
func outcomeOf(tag string, err error) metrics.Outcome {
	var s interface{ SQLState() string }
	switch {
	case err == nil && tag == "COMMIT":
		return metrics.Committed
	case errors.As(err, &s) && s.SQLState() == "08007":
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
	p.srv.Dirty = true
	return &hintError{
		"08007", "the connection to shard " + h.shards[p.shard].info.Name + " was lost during COMMIT: it is not known whether the transaction was committed",
		"Look for its effects before you run it again.",
	}
}

// Commit is how a transaction commits that has written to several shards.
type Commit uint8

// The ways. Two-phase is the default.
const (
	CommitTwoPhase   Commit = iota // atomically
	CommitRefuse                   // not at all: a second writing shard is refused
	CommitBestEffort               // one shard after the other
)

// Commits are the names of the ways, as multi_shard_commit has them.
var Commits = []string{"two_phase", "refuse", "best_effort"}

// decidesFirst puts the writer that cannot be prepared in front: who decides is not prepared. Only one can.
func decidesFirst(writers []*participant) error {
	slices.SortStableFunc(writers, func(a, b *participant) int {
		switch {
		case a.bound == b.bound:
			return 0
		case a.bound:
			return -1
		}
		return 1
	})
	if len(writers) > 1 && writers[1].bound {
		return router.Refuse("two-bound")
	}
	return nil
}

// commitEach commits one shard after the other, as multi_shard_commit = best_effort asks for. What has committed stays so.
func (h *Handler) commitEach(writers []*participant) error {
	for i, p := range writers {
		tag, err := p.srv.Exec("COMMIT")
		if err == nil && tag != "COMMIT" {
			err = txn.ErrRolledBack
		}
		if err == nil {
			continue
		}
		err = h.commitError(p, err)
		for _, rest := range writers[i+1:] {
			h.abort(rest)
		}
		if i == 0 {
			return err
		}
		done := make([]string, i)
		for j, d := range writers[:i] {
			done[j] = h.shards[d.shard].info.Name
		}
		return &hintError{
			"40003", fmt.Sprintf("the transaction was committed on shard %s, and not from shard %s on: %v", strings.Join(done, ", "), h.shards[p.shard].info.Name, err),
			"pgmosaic.multi_shard_commit is best_effort. Undo or repeat by hand what is missing.",
		}
	}
	return nil
}

// part is a participant as the coordinator sees it.
type part struct {
	*participant
	name string
}

func (p part) Shard() string { return p.name }
func (p part) Send(sql string) error {
	p.srv.SendQuery(sql)
	err := p.srv.Flush()
	if err != nil {
		p.srv.Dirty = true
	}
	return err
}
func (p part) Recv() (string, error) { return p.srv.ReadTag() }

// commitMany commits several writers in two phases. The first that wrote decides.
func (h *Handler) commitMany(writers []*participant) error {
	decider := part{writers[0], h.shards[writers[0].shard].info.Name}
	var others []txn.Participant
	for _, p := range writers[1:] {
		others = append(others, part{p, h.shards[p.shard].info.Name})
	}
	gid := txn.GID(h.snap.Install, decider.name)
	outcome, err := txn.Commit(gid, decider, others)
	switch outcome {
	case txn.Committed:
		h.count.TwoPhase.Add(1)
		return nil
	case txn.Unfinished, txn.InDoubt:
		return h.settleCommit(gid, decider.name, outcome, writers)
	}
	h.count.TwoPhaseAborted.Add(1)
	var se *pool.ServerError
	if errors.As(err, &se) {
		if se.Response.Code == "55000" && strings.Contains(se.Response.Message, "prepared transactions are disabled") {
			return router.Refuse("no-two-phase", "max_prepared_transactions is 0 on one of its shards")
		}
		return err
	}
	if errors.Is(err, txn.ErrRolledBack) {
		return &wire.PgError{Code: "40000", Message: "a shard rolled the transaction back at COMMIT"}
	}
	return &hintError{"40001", "a shard was lost before the commit over several shards was decided: the transaction was rolled back", "Run the transaction again."}
}

// settleCommit finds out, within a few seconds, what became of a commit whose answer was lost, so that nobody
// misses a write that is there.
func (h *Handler) settleCommit(gid, decider string, outcome txn.Outcome, writers []*participant) error {
	for _, p := range writers {
		if outcome == txn.InDoubt {
			p.srv.Dirty = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	committed, err := h.e.Settle(ctx, h.db, gid)
	var damage *txn.DamagedError
	for err != nil && !errors.As(err, &damage) && ctx.Err() == nil { // a shard that is away may be back, or have another primary
		select {
		case <-ctx.Done():
		case <-time.After(settleAgain):
			committed, err = h.e.Settle(ctx, h.db, gid)
		}
	}
	switch {
	case errors.As(err, &damage):
		h.count.InDoubt.Add(1)
		h.e.Log.Error("a committed transaction has lost a part", "gid", gid, "shard", damage.Shard)
		return &hintError{
			"08007", "the transaction was committed, and its part on shard " + damage.Shard + " is lost: the shard's server was replaced by one that did not have it",
			"Mend the rows by hand. SHOW TRANSACTIONS shows it: " + gid,
		}
	case outcome == txn.Unfinished || err == nil && committed:
		if err != nil {
			h.e.Log.Warn("a committed transaction has still to be finished on a shard, before anything else runs there", "gid", gid, "error", err)
			for _, p := range writers[1:] {
				h.e.owed.owe(h.db, h.shards[p.shard].info.Name, gid)
			}
		}
		h.count.TwoPhase.Add(1)
		return nil
	case err == nil:
		h.count.TwoPhaseAborted.Add(1)
		return &hintError{"40001", "shard " + decider + " was lost before it had decided the commit: the transaction was rolled back", "Run the transaction again."}
	}
	h.count.InDoubt.Add(1)
	h.e.Log.Error("commit in doubt", "gid", gid, "error", err)
	return &hintError{
		"08007", "the connection to shard " + decider + " was lost during COMMIT: it is not known whether the transaction was committed",
		"SHOW TRANSACTIONS shows it until the resolver has found out: " + gid,
	}
}

const (
	settleTimeout = 5 * time.Second
	settleAgain   = 100 * time.Millisecond
)

// rollback ends the transaction everywhere. Servers that do not answer are closed.
func (h *Handler) rollback() {
	writers := 0
	for _, p := range h.tx.parts {
		if p.wrote {
			writers++
		}
		h.abort(p)
	}
	h.count.Ended(writers, metrics.RolledBack)
	if h.tx.before != nil {
		h.settings, h.own = h.tx.before, h.tx.own.before
		h.retell(h.tx.told)
	}
	h.count.Transactions.Add(1)
	h.endTx()
}

func (h *Handler) abort(p *participant) {
	if p.srv.Dirty {
		return
	}
	if h.ready(p) != nil {
		p.srv.Dirty = true
		return
	}
	if _, err := p.srv.Exec("ROLLBACK"); err != nil {
		p.srv.Dirty = true
	}
}

// endTx gives the transaction's servers back.
func (h *Handler) endTx() {
	if !h.tx.since.IsZero() {
		h.count.XactNanos.Add(int64(time.Since(h.tx.since)))
	}
	h.forgetDDL()
	for _, g := range h.tx.held {
		g.close()
	}
	for _, p := range h.tx.parts {
		p.keys, p.open, p.bound = p.keys[:0], false, false
		if p.srv.Dirty && p == h.pinned {
			h.pinned = nil
			h.setPin("")
		}
		h.finish(p)
	}
	h.tx = transaction{status: 'I', parts: h.tx.parts[:0]}
	h.ext.closePortals()
	h.env.SearchPath = h.searchPath()
	h.stale = true
}

// abandon rolls back for a client that is gone.
func (h *Handler) abandon() {
	if h.tx.status != 'I' {
		h.rollback()
	}
}

// escalate makes a transaction of an autocommit pipeline that needs a second shard: BEGIN amid a pipeline
// keeps the statements before it.
func (h *Handler) escalate(p *participant) error {
	s := p.srv
	s.SendParse("", "BEGIN", nil)
	s.SendBindParts("", nil, nil, nil)
	s.SendExecute()
	s.SendSync()
	if err := s.Flush(); err != nil {
		return h.lost(p, err)
	}
	if _, err := s.ReadTag(); err != nil {
		return h.lost(p, err)
	}
	h.begin("BEGIN", sqlparse.Tx{}, true)
	p.open = true
	p.keys = append(p.keys, p.inFlight...) // they are sent already; commit counts them once more, and ends both
	h.tx.parts = append(h.tx.parts, p)
	return nil
}

// control runs a statement that is the session's own affair and writes its answer, without ReadyForQuery.
func (h *Handler) control(ctx context.Context, s *sqlparse.Statement) error {
	if h.tx.status == 'E' {
		switch s.Kind {
		case sqlparse.Commit, sqlparse.Rollback, sqlparse.RollbackTo, sqlparse.Empty:
		default:
			return errFailedTx
		}
	}
	switch s.Kind {
	case sqlparse.Empty:
		h.client.SendFrame('I', nil)
		return nil
	case sqlparse.Begin:
		return h.beginClient(s)
	case sqlparse.Commit, sqlparse.Rollback:
		return h.end(ctx, s)
	case sqlparse.Savepoint, sqlparse.Release, sqlparse.RollbackTo:
		return h.savepoint(s)
	case sqlparse.Set:
		return h.set(ctx, s)
	case sqlparse.Show:
		return h.showOwn(ctx, s)
	case sqlparse.Explain:
		if s.NameAt.End > 0 {
			return h.executeInside(ctx, s)
		}
		return h.explainRoute(ctx, s)
	case sqlparse.Discard:
		return h.discard(ctx, s)
	case sqlparse.Deallocate:
		return h.deallocate(ctx, s)
	case sqlparse.Listen, sqlparse.Unlisten:
		return h.listenTo(ctx, s)
	case sqlparse.Prepare:
		return h.prepareSQL(ctx, s)
	case sqlparse.Execute:
		return h.executeSQL(ctx, s)
	}
	if s.NameAt.End > 0 {
		return h.executeInside(ctx, s)
	}
	return fmt.Errorf("exec: statement kind %d is not the session's", s.Kind)
}

var errFailedTx = &wire.PgError{Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}

func (h *Handler) beginClient(s *sqlparse.Statement) error {
	if h.tx.status == 'T' && !h.tx.implicit {
		h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "25001", Message: "there is already a transaction in progress"})
		h.client.SendTag("BEGIN")
		return nil
	}
	text := strings.TrimSuffix(strings.TrimSpace(s.Text), ";")
	if h.tx.status == 'T' { // BEGIN behind other statements of one string: theirs becomes the client's
		h.tx.implicit = false
		if len(h.tx.parts) == 0 {
			h.tx.begin, h.tx.opts = text, s.Tx
		} else if set := s.Tx.Set(); set != "" {
			if err := h.everyPartQuiet(set); err != nil {
				return err
			}
		}
		h.client.SendTag("BEGIN")
		return nil
	}
	h.begin(strings.TrimSuffix(strings.TrimSpace(s.Text), ";"), s.Tx, false)
	h.client.SendTag("BEGIN")
	return nil
}

func (h *Handler) end(ctx context.Context, s *sqlparse.Statement) error {
	verb := "COMMIT"
	if s.Kind == sqlparse.Rollback {
		verb = "ROLLBACK"
	}
	if h.tx.status == 'I' {
		if s.Tx.Chain {
			return &wire.PgError{Code: "25P01", Message: verb + " AND CHAIN can only be used in transaction blocks"}
		}
		h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "25P01", Message: "there is no transaction in progress"})
		h.client.SendTag(verb)
		return nil
	}
	begin, opts := h.tx.begin, h.tx.opts
	tag := verb
	if s.Kind == sqlparse.Rollback {
		h.rollback()
	} else {
		var err error
		if tag, err = h.commit(ctx); err != nil {
			return err
		}
	}
	if s.Tx.Chain { // the next transaction begins at once, with the same modes
		h.begin(begin, opts, false)
	}
	h.client.SendTag(tag)
	return nil
}

func (h *Handler) savepoint(s *sqlparse.Statement) error {
	if h.tx.status == 'I' || h.tx.implicit {
		return &wire.PgError{Code: "25P01", Message: strings.ToUpper(verbOf(s.Kind)) + " can only be used in transaction blocks"}
	}
	at := -1
	for i, sp := range h.tx.saves {
		if sp.name == s.Name {
			at = i
		}
	}
	if s.Kind != sqlparse.Savepoint && at < 0 {
		return &wire.PgError{Code: "3B001", Message: fmt.Sprintf("savepoint %q does not exist", s.Name)}
	}
	sql := verbOf(s.Kind) + " " + pool.QuoteName(s.Name)
	if err := h.everyPartQuiet(sql); err != nil {
		return err
	}
	switch s.Kind {
	case sqlparse.Savepoint:
		h.tx.saves = append(h.tx.saves, savepoint{s.Name, h.settings, maps.Clone(h.told), h.own, h.tx.own.kept, maps.Clone(h.tx.cursors), h.dbmap, h.schema, h.tx.defined})
		h.client.SendTag("SAVEPOINT")
	case sqlparse.Release:
		h.tx.saves = h.tx.saves[:at]
		h.client.SendTag("RELEASE")
	default:
		h.settings, h.own, h.tx.own.kept = h.tx.saves[at].settings, h.tx.saves[at].own, h.tx.saves[at].kept
		maps.DeleteFunc(h.tx.cursors, func(name string, p *participant) bool { return h.tx.saves[at].cursors[name] != p }) // those are gone
		h.retell(h.tx.saves[at].told)
		h.dbmap, h.schema, h.tx.defined = h.tx.saves[at].db, h.tx.saves[at].schema, h.tx.saves[at].defined
		h.env.SearchPath = h.searchPath()
		h.stale = true
		h.tx.saves = h.tx.saves[:at+1]
		h.tx.status = 'T'
		h.client.SendTag("ROLLBACK")
	}
	return nil
}

func verbOf(k sqlparse.Kind) string {
	switch k {
	case sqlparse.Savepoint:
		return "SAVEPOINT"
	case sqlparse.Release:
		return "RELEASE SAVEPOINT"
	}
	return "ROLLBACK TO SAVEPOINT"
}

// afterDDL makes this and other sessions see a changed schema, and waits for no replica.
func (h *Handler) afterDDL(ctx context.Context) {
	if _, err := h.e.RefreshSchema(ctx, h.dbmap); err != nil {
		h.e.Log.Warn("schema", "database", h.db, "error", err)
	}
	now := time.Now()
	for i := range h.shards {
		h.e.Horizon.Sent(h.shards[i].whole)
		h.e.Horizon.Acked(h.shards[i].whole, now)
	}
}
