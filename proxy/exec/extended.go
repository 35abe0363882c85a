package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// bound is what a Bind says, decoded.
type bound struct {
	parts wire.BindParts
	args  router.Args
}

// extended is the session's side of the extended protocol.
type extended struct {
	account
	named     map[string]*stmt
	unnamed   *stmt
	portals   map[string]*portal
	anonymous *portal      // the unnamed portal
	own       *portal      // the last, to be used again
	count     atomic.Int32 // of named

	cur       *participant // the server that holds messages not yet answered
	ops       []op         // what its answers are, in order
	locals    int          // about how many bytes of our own are among them
	compared  int          // the place behind the last of ops that compares with what the client was told; any place where there is none
	unjudged  *stmt        // parsed, and ParseComplete is not sent yet
	batches   uint64       // that have come
	changes   []change     // what messages behind some of ops have made of statements
	dropped   []*stmt      // by SQL in a batch that may be run again; nil outside of one
	post      []post       // executed: what they entail is done at the pipeline's end
	copy      copying      // of the batch
	wrote     bool         // this pipeline, so far in autocommit, ran something that was no read
	skipping  bool         // after an error, to the next Sync
	behind    behind       // the message of the batch that is handled
	executing bool         // a result of our own has been described already

	bound  *bound // nil while the session rests
	reread time.Time
}

// stmt is a client's prepared statement. Servers know it by a name of ours, or not yet.
type stmt struct {
	name       string
	sql        string
	types      []uint32
	key        pool.StmtKey
	formats    string // by which it is keyed: see client.Told.Formats
	tmpl       *router.Template
	space      [8]byte
	batch      uint64 // that its Parse came in
	asked      uint64 // the batch in which a server was asked last for desc, amid the pipeline
	unanswered bool   // ParseComplete has not been sent to the client
	desc       *described
	likened    *router.Template // planned by which it gives that, or was parsed
	counted    int64            // bytes, of one that has a name
}

// described is what a server said about a statement.
type described struct {
	params []uint32
	fields []wire.Field // nil: no rows
	form   pool.StmtKey // see formOf
}

// portal is a bound statement: on a server, or waiting here for Execute.
type portal struct {
	name    string // empty: the unnamed one
	aside   bool   // the server has it as suspendedPortal
	stmt    *stmt
	part    *participant // where the server's portal is
	plan    *router.Plan // else what Execute runs
	args    router.Args
	res     []int16
	level   int // how many savepoints its transaction had; of those that were released since, it is the outer one's
	state   pipeline.State
	rest    *captured    // rows of our own that Execute has not asked for yet
	deep    []deepColumn // of a server portal
	configs []setting
	held    int64 // bytes that are counted for it
}

// waits says that a portal, if there is one, has yet to run on shards that were found when it was bound.
func (pt *portal) waits() bool {
	return pt != nil && pt.plan != nil && pt.plan.Class != router.Control && pt.state.MayRun()
}

// op is one expected answer.
type op struct {
	kind    pipeline.Answer
	local   []byte // for pipeline.Own: what is written to the client at this place
	tmpl    *router.Template
	key     pool.StmtKey // of a Parse of a statement with a name, and of pipeline.Compared
	portal  *portal      // that is executed
	parsed  *stmt        // whose Parse it is, if the client waits for its answer; that is described, for pipeline.Compared
	configs []setting    // what set_config calls set
	closes  string       // the statement of the server's that is closed, for one that nobody else would close
	deep    []deepColumn // of its rows: those with OIDs inside
}

// post is a statement that was executed in a pipeline.
type post struct {
	tmpl    *router.Template
	configs []setting
}

// maxNamed bounds a session's prepared statements.
const maxNamed = 20000

func (x *extended) forget() {
	for _, s := range x.named {
		x.mayReturn(s)
		x.drop(s)
	}
	clear(x.named)
	x.unnamed = nil
}

// mayReturn notes a statement that a batch drops: it is back if that is run again.
func (x *extended) mayReturn(s *stmt) {
	if x.dropped != nil {
		x.dropped = append(x.dropped, s)
	}
}

func (x *extended) closePortals() {
	if len(x.portals) > 0 {
		clear(x.portals)
	}
	x.anonymous = nil
	x.reckon()
}

// killPortals keeps portals of a transaction that has failed from being run, also those that would end it: all that were bound behind its last savepoint.
// To what is outside of that it may go back.
func (x *extended) killPortals(saves int) {
	x.eachPortal(func(pt *portal) {
		if pt.level >= saves {
			pt.state.On(pipeline.Dies)
		}
	})
}

func (x *extended) eachPortal(f func(*portal)) {
	if x.anonymous != nil {
		f(x.anonymous)
	}
	for _, pt := range x.portals {
		f(pt)
	}
}

// releasePortals makes portals that were bound behind a savepoint which is released those of what is outside of it.
func releasePortals(x *extended, at int) {
	x.eachPortal(func(pt *portal) { pt.level = min(pt.level, at) })
}

// dropPortals ends the portals that were bound behind a savepoint to which the transaction has gone back.
func dropPortals(x *extended, at int) {
	x.eachPortal(func(pt *portal) {
		if pt.level > at {
			x.setPortal(pt.name, nil)
		}
	})
}

// closePortalsIf ends the portals where the transaction has ended.
func (x *extended) closePortalsIf(ended bool) {
	if ended && (x.anonymous != nil || len(x.portals) > 0) {
		x.closePortals()
	}
}

// change is a statement or portal that a message has made or closed, while answers to messages before it are still to come.
type change struct {
	behind int  // that many of them
	kind   byte // S or P, as in Close
	name   string
	was    *stmt
	before *portal
}

// put gives a name a statement, nil for none, until an answer says that it does not come to that.
func (x *extended) put(name string, s *stmt) {
	if len(x.ops) > 0 {
		x.changes = append(x.changes, change{behind: len(x.ops), kind: 'S', name: name, was: x.statement([]byte(name))})
	}
	x.set(name, s)
}

func (x *extended) set(name string, s *stmt) {
	if name != "" {
		if was := x.named[name]; was != s {
			x.drop(was)
		}
		if s != nil {
			x.hold(s)
		}
	}
	setNamed(&x.named, &x.unnamed, name, s)
}

func (x *extended) setPortal(name string, pt *portal) {
	fresh := name != "" && x.portals[name] == nil // nothing goes: who binds many portals does not pay for all of them each time
	setNamed(&x.portals, &x.anonymous, name, pt)
	if !fresh {
		x.reckon()
	}
}

// setNamed gives a name a value, nil for none; the empty name has a place of its own.
func setNamed[T any](named *map[string]*T, unnamed **T, name string, v *T) {
	switch {
	case name == "":
		*unnamed = v
	case v == nil:
		delete(*named, name)
	default:
		if *named == nil {
			*named = map[string]*T{}
		}
		(*named)[name] = v
	}
}

// putPortal is put for a portal.
func (x *extended) putPortal(name string, pt *portal) {
	if len(x.ops) > 0 {
		x.changes = append(x.changes, change{behind: len(x.ops), kind: 'P', name: name, before: x.portal([]byte(name))})
	}
	x.setPortal(name, pt)
}

// skipped undoes what came of the messages behind the i-th of ops, which has failed: they are skipped. A Parse that fails
// leaves no statement. Of custom parameters that were set something may be left. Where it is a comparison that has failed, only the client's
// side skips them: the server has done what they say, and has what it parsed.
func (x *extended) skipped(srv *pool.Server, ops []op, i int) {
	x.undone(srv)
	for _, c := range slices.Backward(x.changes) {
		switch {
		case c.behind <= i:
		case c.kind == 'S':
			x.set(c.name, c.was)
		default:
			x.setPortal(c.name, c.before)
		}
	}
	if s := ops[i].parsed; s != nil && ops[i].kind != pipeline.Compared && x.statement([]byte(s.name)) == s {
		x.set(s.name, nil)
	}
	ran := ops[i].kind == pipeline.Compared
	for _, o := range ops[i:] {
		failed(srv, o.configs)
		if o.closes != "" { // where it was not skipped, to close it again is no error
			pool.StillHas(srv, o.closes)
		}
		switch {
		case o.key == (pool.StmtKey{}):
		case ran || o.kind == pipeline.Compared: // the server may have it, and nobody knows what it gives
			srv.Drop(o.key)
		default:
			srv.Forget(o.key)
		}
	}
}

// undone notes on the server of a pipeline that what was executed in it comes to nothing.
func (x *extended) undone(srv *pool.Server) {
	for _, before := range x.post {
		failed(srv, before.configs)
	}
}

func (x *extended) statement(name []byte) *stmt {
	if len(name) == 0 {
		return x.unnamed
	}
	return x.named[string(name)]
}

func (x *extended) portal(name []byte) *portal {
	if len(name) == 0 {
		return x.anonymous
	}
	return x.portals[string(name)]
}

// portalName is the name of a portal as PostgreSQL knows it, which cuts it by bytes.
func portalName(name []byte) []byte { return name[:min(len(name), maxIdentifier)] }

// Messages of one fixed answer.
var (
	parseComplete = []byte{'1', 0, 0, 0, 4}
	bindComplete  = []byte{'2', 0, 0, 0, 4}
	closeComplete = []byte{'3', 0, 0, 0, 4}
	noData        = []byte{'n', 0, 0, 0, 4}
)

// Batch implements session.Handler.
func (h *Handler) Batch(ctx context.Context, msgs []wire.Message, sync bool, waited time.Duration) error {
	x := &h.ext
	idle := h.tx.Idle()
	size := 0
	for _, m := range msgs {
		size += len(m.Raw)
	}
	h.beginRequest(size)
	x.copy = copying{}
	x.batches++
	if !x.skipping {
		if late := h.overdue(waited); late != nil {
			err := h.batch(ctx, parsesOf(msgs), false) // what came before the pause was done by then
			if err == nil {
				err = late
			}
			if err := h.failBatch(ctx, err); err != nil {
				return err
			}
		}
	}
	if !x.skipping {
		if err := h.batchTwice(ctx, msgs, sync); err != nil {
			if err := h.failBatch(ctx, err); err != nil {
				return err
			}
		}
	}
	h.timed(idle)
	x.count.Store(int32(len(x.named)))
	if x.copy.answered == 0 && (!sync || x.copy.begun) { // a COPY has read the Sync: the client sends another
		return nil
	}
	x.skipping, x.wrote, h.signals = false, false, false
	h.held.End()
	if h.tx.Active() && h.tx.Implicit {
		if err := h.commitImplicit(ctx); err != nil {
			if err := h.report(err, ""); err != nil {
				return err
			}
		}
	}
	x.closePortalsIf(h.tx.Idle())
	h.sendReady()
	for i := 1; i < x.copy.answered; i++ {
		h.client.SendReady(h.tx.Status().Byte())
	}
	return nil
}

// parsesOf are the Parse messages at the beginning of a pipeline.
func parsesOf(msgs []wire.Message) []wire.Message {
	n := 0
	for n < len(msgs) && msgs[n].Type == 'P' {
		n++
	}
	return msgs[:n]
}

// failBatch tells the client and makes every server ready again; the rest of the pipeline is skipped.
func (h *Handler) failBatch(ctx context.Context, err error) error {
	x := &h.ext
	relayed := errors.Is(err, errRelayed)
	if !relayed && x.cur != nil && !x.cur.Server.Dirty { // what came before the mistake is answered first
		if e := h.drain(ctx, false); e != nil {
			err, relayed = e, errors.Is(e, errRelayed)
		}
	}
	if err := h.report(err, string(h.request.Text())); err != nil {
		return err
	}
	if s := x.unjudged; s != nil && s.unanswered && x.statement([]byte(s.name)) == s { // nobody will answer its Parse any more
		x.set(s.name, nil)
	}
	x.skipping, x.unjudged = true, nil
	if p := x.cur; p != nil {
		x.undone(p.Server)
		doubtPin(h, p)
		x.cur, x.ops, x.changes = nil, x.ops[:0], x.changes[:0]
		if !p.Server.Dirty {
			if !relayed { // the pipeline is one transaction: make the server fail it as well
				p.Server.SendBindParts("pgmosaic: the pipeline failed", nil, nil, nil)
			}
			p.Resync()
		}
		if h.tx.Idle() {
			h.finish(p)
		}
	}
	x.post = x.post[:0]
	if h.tx.Implicit {
		h.rollback()
	}
	return nil
}

func closesStatement(m wire.Message) bool {
	return m.Type == 'C' && len(m.Body()) > 0 && m.Body()[0] == 'S'
}

// batchTwice runs a batch, and again if it only read and what it read from is gone. Only a pipeline that begins with the
// batch can be run again.
func (h *Handler) batchTwice(ctx context.Context, msgs []wire.Message, sync bool) error {
	x := &h.ext
	status, settings, own, unnamed := h.tx.Status(), h.settings, h.own, x.unnamed
	h.attempt.Repeatable = x.cur == nil && x.anonymous == nil && len(x.portals) == 0 && !slices.ContainsFunc(msgs, closesStatement)
	x.dropped = []*stmt{}
	defer func() { x.dropped = nil }()
	err := h.batch(ctx, msgs, sync)
	if err == nil {
		return nil
	}
	var rerun *againError
	if !errors.As(err, &rerun) {
		return err
	}
	if x.wrote || x.copy.begun || h.tx.Status() != status || h.settings != settings || h.own != own {
		return rerun.cause
	}
	x.unjudged, x.post, x.ops, x.changes = nil, x.post[:0], x.ops[:0], x.changes[:0]
	if p := x.cur; p != nil {
		x.cur = nil
		if !p.Server.Dirty {
			p.Resync()
		}
		if h.tx.Idle() {
			h.finish(p)
		}
	}
	h.dropFailed()
	x.closePortals()
	x.unprepare(unnamed)
	x.batches++ // what servers were asked amid it, they are asked again
	h.beginAgain()
	return h.batch(ctx, msgs, sync)
}

// unprepare has the statements be those of before the batch, with its unnamed one.
func (x *extended) unprepare(unnamed *stmt) {
	for name, s := range x.named {
		if s.batch == x.batches {
			x.set(name, nil)
		}
	}
	for _, s := range x.dropped {
		if s.batch != x.batches {
			x.set(s.name, s)
		}
	}
	x.unnamed = unnamed
}

func (h *Handler) batch(ctx context.Context, msgs []wire.Message, sync bool) error {
	x := &h.ext
	if x.cur == nil {
		if err := h.current(ctx); err != nil {
			return err
		}
	}
	for i, m := range msgs {
		if err := h.judgeFirst(ctx, m); err != nil {
			return err
		}
		x.behind = behind{msgs[i+1:], sync}
		err := h.message(ctx, m)
		for try := 0; errors.Is(err, errReplan) && try < 3 && (m.Type == 'B' || m.Type == 'D') && !keepsMap(h); try++ { // nothing was sent
			if err = h.refresh(ctx); err == nil {
				err = h.message(ctx, m)
			}
		}
		if err == nil && x.copy.executed {
			err = takeCopy(ctx, h)
		}
		if err == nil && x.gathered() > mostGathered {
			err = h.drain(ctx, false)
		}
		if err != nil {
			return err
		}
	}
	if err := h.judgeParsed(ctx); err != nil {
		return err
	}
	if sync && mayUndo(h) && !x.copy.begun {
		if err := h.drain(ctx, false); err != nil {
			return err
		}
	}
	return h.drain(ctx, sync && !x.copy.begun)
}

// mostGathered is how much a pipeline's server is to be sent, or its client to be told, before that is done. It may be a lot more than what the client has
// sent: an unnamed statement's text goes with each Bind, and a Describe is answered with all parameters and columns.
const mostGathered = 1 << 20

// gathered is about how many bytes there are that wait for drain.
func (x *extended) gathered() int {
	if x.cur == nil {
		return x.locals
	}
	return x.locals + x.cur.Server.Out()
}

// mayUndo says whether what a pipeline has written by itself may have to be undone, because a statement of it turns out to give other columns than its
// client was told: its Sync, which commits it, waits for that.
func mayUndo(h *Handler) bool {
	return h.ext.wrote && h.tx.Idle() && mayRefuse(&h.ext)
}

// mayRefuse says whether a description is still to come that may be another than what its client was told.
func mayRefuse(x *extended) bool {
	if x.compared == 0 || x.compared > len(x.ops) {
		return false
	}
	o := &x.ops[x.compared-1]
	return o.kind == pipeline.Compared && o.parsed.desc != nil
}

// longestShort is how long a message may be that names something and holds nothing, in bytes, with its length and without its type. It is PostgreSQL's bound.
const longestShort = 10000

func (h *Handler) message(ctx context.Context, m wire.Message) error {
	if m.Type != 'P' && m.Type != 'B' && len(m.Raw)-1 > longestShort { // a server would end its session
		return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: fmt.Sprintf("invalid message length: %d bytes of type %q", len(m.Raw)-1, m.Type)}
	}
	switch m.Type {
	case 'P':
		return h.parseMsg(ctx, m.Body())
	case 'B':
		return h.bindMsg(ctx, m)
	case 'D':
		return h.describeMsg(ctx, m)
	case 'E':
		return h.executeMsg(ctx, m)
	}
	return h.closeMsg(ctx, m)
}

// parseMsg plans a statement. A server sees it when it is bound or described, or at the batch's end.
func (h *Handler) parseMsg(ctx context.Context, body []byte) error {
	x := &h.ext
	h.count.ClientParses.Add(1)
	s := x.sameUnnamed(body)
	if s == nil {
		var err error
		if s, err = h.newStmt(body); err != nil {
			return err
		}
	}
	s.unanswered, s.desc, s.batch = true, nil, x.batches
	if s.name == "" {
		x.put("", nil) // gone, also if this fails
	} else { // the unnamed one is parsed anew by each server
		h.keyed(s)
	}
	h.request.About(bytesOf(s.sql))
	if err := h.replan(ctx, s); err != nil {
		return err
	}
	s.likened = s.tmpl
	if err := h.mayRun(s.tmpl.Stmt); err != nil {
		return err
	}
	if s.name != "" && x.named[s.name] != nil {
		return h.twice(ctx, s)
	}
	x.put(s.name, s)
	if s.tmpl.Class == router.Control {
		h.parsed(s)
		return nil
	}
	x.unjudged = s
	return nil
}

// twice refuses a statement whose name is taken, or for what a server finds wrong in it, which comes first.
func (h *Handler) twice(ctx context.Context, s *stmt) error {
	if s.tmpl.Class != router.Control {
		if err := judged(ctx, h, s); err != nil {
			return err
		}
	}
	return &pgsql.Error{Code: pgsql.DuplicatePreparedStatement, Message: fmt.Sprintf("prepared statement %q already exists", s.name)}
}

// newStmt reads a Parse's body.
func (h *Handler) newStmt(body []byte) (*stmt, error) {
	x := &h.ext
	pp, err := wire.DecodeParse(body)
	if err != nil {
		return nil, &pgsql.Error{Code: pgsql.ProtocolViolation, Message: err.Error()}
	}
	if pp.Name != "" && len(x.named) >= maxNamed {
		return nil, &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("a session may have %d prepared statements", maxNamed), Hint: "DEALLOCATE those that are no longer used."}
	}
	s := &stmt{name: pp.Name, sql: pp.SQL, types: pp.Types}
	if s.name != "" {
		if err := x.fits(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// sameUnnamed is the unnamed statement, if a Parse's body says the same and nothing is left of what it was used for: drivers that
// prepare nothing send the same text time after time.
func (x *extended) sameUnnamed(body []byte) *stmt {
	if s := x.unnamed; s != nil && x.anonymous == nil && len(x.portals) == 0 && x.unjudged == nil && len(x.ops) == 0 && wire.IsParse(body, "", s.sql, s.types) {
		return s
	}
	return nil
}

// mayRun refuses what a failed transaction does not run. A text that cannot be read is said to be so even then.
func (h *Handler) mayRun(s *sqlparse.Statement) error {
	switch {
	case !h.tx.Failed() || endsTx(s):
		return nil
	case s.Syntax != nil:
		return &router.Error{Code: pgsql.SyntaxError, Message: s.Syntax.Message, Pos: s.Syntax.Position}
	}
	return errFailedTx
}

func endsTx(s *sqlparse.Statement) bool {
	return s.Kind == sqlparse.Commit || s.Kind == sqlparse.Rollback || s.Kind == sqlparse.RollbackTo || s.Kind == sqlparse.Empty
}

// replan plans a statement for the session's present circumstances, which is two compares if they are
// those of last time.
func (h *Handler) replan(ctx context.Context, s *stmt) error {
	if err := seesPath(ctx, h); err != nil {
		return err
	}
	space := h.planner.Space()
	if s.tmpl != nil && s.space == space && h.cacheable() && !h.tx.defined {
		return h.outdated(s.tmpl.Stmt)
	}
	p, multi, err := h.plan(ctx, bytesOf(s.sql))
	for h.awaitMove(ctx, err) {
		space = h.planner.Space()
		p, multi, err = h.plan(ctx, bytesOf(s.sql))
	}
	if err != nil {
		return err
	}
	if multi != nil {
		return &pgsql.Error{Code: pgsql.SyntaxError, Message: "cannot insert multiple commands into a prepared statement"}
	}
	// The statement keeps its own text; a template shared with other literals would need them numbered.
	if len(p.Literals) > 0 {
		if p.Template, err = h.planner.PlanExactly((*planning)(h), s.sql); err != nil {
			return err
		}
	}
	s.tmpl, s.space = p.Template, space
	if !h.cacheable() { // it means something else when the transaction has ended, or the temporary table is gone
		s.space = [8]byte{}
	}
	return nil
}

// local queues bytes of our own at this place of the answer.
func (h *Handler) local(b []byte) {
	if h.ext.cur == nil && len(h.ext.ops) == 0 {
		_ = h.client.Write(b) // an error shows at the next flush
		return
	}
	h.ext.ops = append(h.ext.ops, op{kind: pipeline.Own, local: b})
	h.ext.locals += len(b)
}

// parsed answers a Parse at this place of the answer.
func (h *Handler) parsed(s *stmt) {
	s.unanswered = false
	h.local(parseComplete)
}

// switchTo makes p the server of what follows, ending the work of another one first.
func (h *Handler) switchTo(ctx context.Context, p *participant) error {
	x := &h.ext
	if x.cur != nil && x.cur != p {
		if err := h.drain(ctx, !h.tx.Idle()); err != nil {
			return err
		}
	}
	if h.tx.unseen.by != nil {
		if err := spreadTo(ctx, h, p.shard, nil); err != nil {
			return err
		}
	}
	x.cur = p
	return nil
}

// judgeFirst keeps answers in order: a Parse is answered before whatever is not about its statement.
func (h *Handler) judgeFirst(ctx context.Context, m wire.Message) error {
	s := h.ext.unjudged
	if s == nil {
		return nil
	}
	if !s.unanswered {
		h.ext.unjudged = nil
		return nil
	}
	if m.Type == 'B' {
		if _, rest, err := wire.CString(m.Body()); err == nil {
			if name, _, err := wire.CString(rest); err == nil && string(name) == s.name {
				return nil
			}
		}
	}
	return h.judgeParsed(ctx)
}

// judgeParsed lets a server judge a statement that was parsed and not used yet.
func (h *Handler) judgeParsed(ctx context.Context) error {
	x := &h.ext
	s := x.unjudged
	x.unjudged = nil
	if s == nil || !s.unanswered {
		return nil
	}
	if err := h.drain(ctx, false); err != nil {
		return err
	}
	if err := judged(ctx, h, s); err != nil {
		x.set(s.name, nil)
		return err
	}
	h.parsed(s)
	return nil
}

// judged has a server describe a statement, by a newer map if need be.
func judged(ctx context.Context, h *Handler, s *stmt) error {
	_, err := h.describe(ctx, s)
	for try := 0; errors.Is(err, errReplan) && try < 3 && !keepsMap(h); try++ { // nothing was sent
		if err = h.refresh(ctx); err == nil {
			err = h.replan(ctx, s)
		}
		if err == nil {
			_, err = h.describe(ctx, s)
		}
	}
	return err
}
