package exec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/merge"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// execution is an Execute of the extended protocol; nil means the simple protocol.
type execution struct{ portal *portal }

// shape is what servers said about a scattered statement: once for each template.
type shape struct {
	params  []uint32
	visible []wire.Field // as the client gets them
	shard   []wire.Field // as the shards send them, hidden ones included
	keys    []merge.Key
	cols    []merge.Column
	refused *router.Error // its rows do not merge, by their types
}

// shapeKey is the name under which a template has its shape.
const shapeKey = "shape"

// auxKey is the key of what a server told about a template whose parameters have these declared types: the same text with
// others is another statement.
func auxKey(what string, types []uint32) string {
	if !slices.ContainsFunc(types, func(t uint32) bool { return t != 0 }) {
		return what
	}
	b := append(make([]byte, 0, len(what)+4*len(types)), what...)
	for _, t := range types {
		b = binary.BigEndian.AppendUint32(b, t)
	}
	return string(b)
}

func (h *Handler) shapeOf(ctx context.Context, t *router.Template, types []uint32) (*shape, error) {
	key := auxKey(shapeKey, types)
	if s, ok := t.Aux.Load(key); ok {
		return s.(*shape), nil
	}
	whole, err := h.wholeOf(ctx, t, types)
	if err != nil {
		return nil, err
	}
	s := &shape{params: whole.params, visible: whole.fields, shard: whole.fields}
	if (t.Merge.Hidden > 0 || t.Merge.Mode == router.Aggregate) && t.Merge.SQL != t.Stmt.Text { // else that is what was described
		part, err := h.describeText(ctx, h.describer(t), t.Merge.SQL, whole.params)
		if err != nil {
			return nil, err
		}
		s.shard = part.fields
	}
	if err := s.resolve(t.Merge); err != nil && !errors.As(err, &s.refused) {
		return nil, err
	}
	h.e.Planner.Learn(t, key, s)
	return s, nil
}

// resolve finds the comparisons, or refuses a type that Go does not order as PostgreSQL does.
func (s *shape) resolve(m *router.Merge) error {
	base := len(s.visible)
	if len(s.shard) != base+m.Hidden {
		return fmt.Errorf("exec: a shard sends %d columns, %d were expected", len(s.shard), base+m.Hidden)
	}
	typeName := func(i int) string { return typeNames[s.shard[i].DataTypeOID] }
	if m.Mode == router.Aggregate {
		for i, c := range m.Cols {
			mc := merge.Column{Func: merge.Aggregates[c.Func], OID: s.shard[i].DataTypeOID, Result: s.visible[i].DataTypeOID, At: i, Hidden: -1}
			if c.Hidden >= 0 {
				mc.Hidden = base + c.Hidden
			}
			switch {
			case mc.Func == nil:
				if !merge.Groupable(mc.OID) {
					return router.Refuse(router.RuleGroupType, named(typeName(i)))
				}
			case mc.Func.Compares():
				cmp, ok := merge.ComparatorFor(mc.OID, c.Bytes)
				if !ok {
					return router.Refuse(router.RuleAggregateType, named(typeName(i)))
				}
				mc.Compare = cmp
			case !mc.Func.Combines(mc.OID):
				return router.Refuse(router.RuleAggregateType, named(typeName(i)))
			}
			s.cols = append(s.cols, mc)
		}
		for _, k := range m.Sorts {
			cmp, ok := merge.ComparatorFor(s.visible[k.Column].DataTypeOID, k.Bytes)
			if !ok {
				return refuseOrder(s.visible[k.Column].DataTypeOID)
			}
			s.keys = append(s.keys, merge.Key{Column: k.Column, Desc: k.Desc, NullsFirst: k.NullsFirst, Compare: cmp})
		}
		return nil
	}
	for _, k := range m.Sorts {
		oid := s.shard[base+k.Column].DataTypeOID
		cmp, ok := merge.ComparatorFor(oid, k.Bytes)
		if !ok {
			return refuseOrder(oid)
		}
		s.keys = append(s.keys, merge.Key{Column: base + k.Column, Desc: k.Desc, NullsFirst: k.NullsFirst, Compare: cmp})
	}
	return nil
}

// unmerged is why rows of a shape do not merge in this session; nil: they do.
func unmerged(h *Handler, s *shape) *router.Error {
	if s.refused == nil && s.sumsFloats() && !writesShortest(h) {
		return router.Refuse(router.RuleAggregateType, "float, written as extra_float_digits says,")
	}
	return s.refused
}

// sumsFloats says whether floats are written here that no server has written.
func (s *shape) sumsFloats() bool {
	return slices.ContainsFunc(s.cols, func(c merge.Column) bool {
		return c.Func != nil && !c.Func.Compares() && (c.OID == merge.Float4 || c.OID == merge.Float8)
	})
}

// writesShortest says whether the session's servers write the fewest digits of a float that are read as the same one.
func writesShortest(h *Handler) bool {
	const name = "extra_float_digits"
	if slices.ContainsFunc(h.tx.steps, func(s step) bool { return s.kind == stepLocal && s.name == name }) {
		return false // nobody but a server has read what was set
	}
	v, ok := h.settings.Get(name)
	n, err := strconv.Atoi(strings.Trim(v, "'"))
	return !ok || err == nil && n > 0
}

func refuseOrder(oid uint32) error {
	switch oid {
	case merge.Text, merge.Varchar, merge.Bpchar, merge.Name:
		return router.Refuse(router.RuleOrderCollation)
	}
	return router.Refuse(router.RuleOrderType, named(typeNames[oid]))
}

func named(s string) string {
	if s == "" {
		return "of this column"
	}
	return s
}

var typeNames = map[uint32]string{
	25: "text", 1043: "varchar", 1042: "char(n)", 114: "json", 3802: "jsonb", 1186: "interval", 790: "money",
	600: "point", 869: "inet", 650: "cidr", 1266: "timetz", 142: "xml", 1009: "text[]", 1007: "integer[]", 1016: "bigint[]",
}

// stream is one shard's rows, as a merge.Source.
type stream struct {
	h     *Handler
	p     *participant
	vals  [][]byte
	raw   []byte // the row that Next returned last, as it came
	deep  []deepColumn
	done  bool
	hold  *holding // of all rows of the statement that are held at once; nil: they are not counted
	held  int      // of the row that Next returned last
	wide  int      // how many values a row has
	begun bool     // see bound

	answer pool.Answer
	shares *router.Shares // of the text that was sent
}

// wideRow is the size from which a row is counted while it is held.
const wideRow = 1 << 20

// admit counts the row that comes next, if it is wide. One that is too much is passed over.
func (s *stream) admit() error {
	typ, n, err := s.answer.Peek()
	switch {
	case err != nil:
		s.done = true
		return s.h.unread(s.p, &s.answer, err)
	case typ != 'D' || s.hold == nil:
		return nil
	}
	s.hold.give(s.held)
	s.held = 0
	if n < wideRow {
		return nil
	}
	if err = s.hold.take(n); err == nil && n > s.p.Server.Max() {
		err = &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("a row of %s is too wide for a result over several shards", pgsql.SizeText(int64(n))), Hint: "Read it from the one shard that has it."}
	}
	if err == nil {
		s.held = n
		return nil
	}
	s.hold.give(n)
	if e := s.p.Server.Skip(); e != nil {
		s.done = true
		return s.h.unread(s.p, &s.answer, e)
	}
	return err
}

// Next implements merge.Source.
func (s *stream) Next() ([][]byte, error) {
	for {
		if s.done {
			return nil, io.EOF
		}
		var since time.Time
		if !s.p.Server.Buffered() {
			since = time.Now()
		}
		if err := s.admit(); err != nil {
			return nil, err
		}
		m, err := s.answer.Next()
		if !since.IsZero() {
			s.h.request.Blocked += time.Since(since)
		}
		switch {
		case s.answer.Ended:
			return nil, s.over()
		case err != nil:
			s.done = true
			return nil, s.h.unread(s.p, &s.answer, err)
		case m.Type == 'D':
			s.raw = m.Body()
			if s.vals, err = wire.RowValues(s.vals, m.Body()); err == nil && len(s.vals) != s.wide { // nor of this
				return nil, errPlanChanged
			}
			if err == nil && s.deep != nil {
				err = toHome(s.h.typesOf(s.p.shard), s.deep, s.vals)
			}
			return s.vals, err
		}
	}
}

// over is how an answer ended that has been read to its end: io.EOF, or the error that the server told.
func (s *stream) over() error {
	s.done = true
	switch failed := s.answer.Failed; {
	case failed == nil:
		return io.EOF
	case s.h.runsAgain(s.p, failed.Response):
		return &againError{failed}
	case failed.Response.Routine == "PortalSetResultFormat": // it has another number of columns, and nobody here knows of it
		return errPlanChanged
	default:
		return inWhole(failed, s.shares, s.p.shard)
	}
}

// bound reads until the server has planned and begun its statement, once: what fails before that has no columns for the client.
func (s *stream) bound() error {
	if s.begun {
		return nil
	}
	s.begun = true
	if !s.p.Server.Buffered() {
		defer func(since time.Time) { s.h.request.Blocked += time.Since(since) }(time.Now())
	}
	for {
		typ, _, err := s.answer.Peek()
		switch {
		case err != nil:
			s.done = true
			return s.h.unread(s.p, &s.answer, err)
		case typ == 'E':
			_, err := s.Next()
			return err
		case typ != '1' && typ != '2':
			return nil
		}
		if _, err := s.answer.Next(); err != nil {
			s.done = true
			return s.h.unread(s.p, &s.answer, err)
		}
		if typ == '2' {
			return nil
		}
	}
}

// readRest reads the rest of an answer, whose first error it returns.
func (s *stream) readRest() error {
	for {
		_, err := s.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && s.done:
			return err
		}
	}
}

// tellColumns tells the client what the rows are that come, once the first shard has begun.
func tellColumns(h *Handler, streams []*stream, fields []wire.Field) error {
	if len(streams) > 0 {
		if err := streams[0].bound(); err != nil {
			return err
		}
	}
	if err := h.client.Write(rowDescription(fields, nil)); err != nil {
		return clientError{err}
	}
	return nil
}

// scatter runs a SELECT on several shards and merges their rows.
func (h *Handler) scatter(ctx context.Context, p *router.Plan, a *router.Args, x *execution) (err error) {
	t, m := p.Template, p.Merge
	sh, self, err := shapeBefore(ctx, h, p, a, x)
	if err != nil {
		return err
	}
	if why := unmerged(h, sh); why != nil {
		g, err := t.Fallback(why)
		if err != nil {
			return err
		}
		h.count.Scatter.Add(-1)
		h.count.Gather.Add(1)
		return h.gather(ctx, &router.Plan{Template: g, Shards: p.Shards}, a, x)
	}
	w, err := windowOf(m, a)
	if err != nil {
		return err
	}
	var res []int16
	if x != nil {
		res = x.portal.res
	}
	formats := h.shardFormats(sh, m, res)
	var streams []*stream
	var sources []merge.Source
	hold := &holding{h: h}
	defer hold.release()
	defer func() { h.endStreams(streams, isAgain(err)) }()
	if m.Locks && m.Mode == router.Concat {
		turns := &turns{left: -1, ask: func(shard int, rows uint32) (*stream, error) {
			s, err := h.askOne(ctx, p, shard, sh, a, formats, rows)
			if s != nil {
				s.hold = hold
				streams = append(streams, s)
			}
			return s, err
		}}
		if !w.All && w.Limit <= math.MaxInt64-w.Offset {
			turns.left = w.Limit + w.Offset
		}
		for _, shard := range p.Shards {
			sources = append(sources, &turn{turns: turns, shard: shard})
		}
	} else {
		if streams, err = h.start(ctx, p, a, sh, formats); err != nil {
			return err
		}
		for _, s := range streams {
			sources = append(sources, s)
		}
	}
	if self {
		if sh, err = shapeFrom(h, t, streams); err != nil {
			return err
		}
	}
	if x == nil {
		if err := tellColumns(h, streams, sh.visible); err != nil {
			return err
		}
	}
	for _, s := range streams {
		s.hold = hold
	}
	n, err := h.mergeRows(sources, sh, m, res, w)
	for _, s := range streams { // an error behind the last row counts as well. In a transaction no server is cancelled whose client hears of none
		if err == nil && !s.done && (m.Limit == nil || !h.tx.Idle()) {
			err = s.readRest()
		}
	}
	if err != nil {
		return err
	}
	h.client.SendTag(fmt.Sprintf("SELECT %d", n))
	if h.tx.Idle() {
		h.count.Transactions.Add(1)
	}
	return nil
}

// windowOf is what OFFSET and LIMIT say.
func windowOf(m *router.Merge, a *router.Args) (w merge.Window, err error) {
	if w.Limit, w.All, err = a.Int64(m.Limit); err != nil {
		return w, err
	}
	if w.Offset, _, err = a.Int64(m.Offset); err != nil {
		return w, err
	}
	switch {
	case w.Limit < 0 && !w.All:
		err = &pgsql.Error{Code: pgsql.InvalidRowCountInLimitClause, Message: "LIMIT must not be negative"}
	case w.Offset < 0:
		err = &pgsql.Error{Code: pgsql.InvalidRowCountInResultOffsetClause, Message: "OFFSET must not be negative"}
	}
	return w, err
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// shardFormats are the result formats that the shards are asked for: what is compared or combined comes in
// binary, what is passed on as the client wants it.
func (h *Handler) shardFormats(sh *shape, m *router.Merge, res []int16) []int16 {
	out := make([]int16, len(sh.shard))
	for i := range out {
		switch {
		case i >= len(sh.visible):
			out[i] = 1
		case m.Mode == router.Aggregate && sh.cols[i].Func != nil && !sh.cols[i].Func.Compares():
			out[i] = 1
		default:
			out[i] = formatOf(res, i)
		}
	}
	return out
}

// start sends the statement to every shard before it reads from any.
func (h *Handler) start(ctx context.Context, p *router.Plan, a *router.Args, sh *shape, formats []int16) ([]*stream, error) {
	var streams []*stream
	parts := make([]*participant, 0, len(p.Shards))
	unasked := func(from int) {
		for _, part := range parts[from:] {
			if h.tx.Idle() {
				h.finish(part)
			}
		}
	}
	for _, shard := range p.Shards { // all of them before one is asked
		part, err := h.enlist(ctx, shard, p.Template)
		if err == nil {
			parts = append(parts, part)
			_, _, err = h.paramsFor(shard, sh.params, a.Formats, a.Params)
		}
		if err != nil {
			unasked(0)
			return nil, err
		}
	}
	whole := p.ShardText(a)
	for i, part := range parts {
		s, err := h.ask(part, p.TextOn(part.shard, whole), sh.params, sh.shard, a, formats, 0)
		if err != nil {
			unasked(i)
			return streams, err
		}
		s.shares = p.Shares
		streams = append(streams, s)
		if part.Server.Out() > copyBurst { // a long parameter is held for one server at a time
			if err := part.Server.Flush(); err != nil {
				s.done = true
				unasked(i + 1)
				return streams, h.lost(part, err)
			}
		}
	}
	for _, s := range streams {
		if err := s.p.Server.Flush(); err != nil {
			s.done = true
			return streams, h.lost(s.p, err)
		}
	}
	for _, s := range streams {
		if err := h.prologue(s.p); err != nil {
			return streams, err
		}
	}
	return streams, nil
}

// ask gathers a query for a server, whose rows, at most so many unless 0, the stream gives once it is sent. types and
// fields are home's. If fields is nil, nobody knows the columns, and the server tells them before the rows.
func (h *Handler) ask(p *participant, sql string, types []uint32, fields []wire.Field, a *router.Args, formats []int16, rows uint32) (*stream, error) {
	params, _, err := h.paramsFor(p.shard, types, a.Formats, a.Params)
	if err != nil {
		return nil, err
	}
	p.Server.SendParse("", sql, h.typesFor(p.shard, types))
	p.Server.SendBindParts("", a.Formats, params, formats)
	if fields == nil {
		p.Server.SendDescribe('P', "")
	}
	p.Server.SendExecuteRows(rows)
	p.Server.SendSync()
	deep := deepOf(h.typesOf(p.shard), fields, func(i int) int16 { return formatOf(formats, i) })
	return &stream{h: h, p: p, deep: deep, wide: len(fields), answer: h.answer(p)}, nil
}

// endStreams leaves every server clean: what is still running is cancelled, the rest is read. again says that the statement begins again.
func (h *Handler) endStreams(streams []*stream, rerun bool) {
	for _, s := range streams {
		h.endStream(s, rerun)
		if h.tx.Idle() {
			h.finish(s.p)
		}
	}
}

// endStream ends what a server still sends of a query: it is cancelled, and the rest is read. A server of the client's transaction is cancelled only
// where the client is told of an error: what it has done there is undone by that, and COMMIT would be a ROLLBACK.
func (h *Handler) endStream(s *stream, rerun bool) {
	if !s.done && !s.p.Server.Dirty && s.p.Server.Out() == 0 && h.prologue(s.p) == nil {
		if !s.p.Server.Buffered() && (h.tx.Idle() || !rerun) {
			h.client.Leave()
			ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
			_ = s.p.Server.BeginCancel()(ctx) // if it fails, reading on takes longer
			cancel()
		}
		if err := s.readRest(); err != nil && !s.done {
			s.p.Lose()
		}
	}
	if !s.done {
		s.p.Lose()
	}
}

// mergeRows writes the merged rows and returns their number.
func (h *Handler) mergeRows(sources []merge.Source, sh *shape, m *router.Merge, res []int16, w merge.Window) (n int64, err error) {
	visible := len(sh.visible)
	start, blocked := time.Now(), h.request.Blocked
	defer func() { h.request.Merged += time.Since(start) - (h.request.Blocked - blocked) }()
	emit := func(row [][]byte) error {
		panics.Point("merge")
		n++
		h.client.SendRow(row[:visible])
		if h.client.Out() >= 32<<10 {
			if err := h.client.Flush(); err != nil {
				return clientError{err}
			}
		}
		return nil
	}
	switch m.Mode {
	case router.Concat:
		err = merge.Concat(sources, w, emit)
	case router.Ordered:
		err = merge.Ordered(sources, sh.keys, w, emit)
	default:
		cols := append([]merge.Column(nil), sh.cols...)
		for i := range cols {
			cols[i].Binary = formatOf(res, i) == 1
		}
		hold := &holding{h: h}
		defer hold.release()
		err = merge.Groups(sources, cols, sh.keys, w, hold.take, emit)
	}
	if errors.Is(err, merge.ErrOverflow) || errors.Is(err, merge.ErrFloatOverflow) {
		err = &pgsql.Error{Code: pgsql.NumericValueOutOfRange, Message: err.Error()}
	}
	return n, err
}

// rowCount adds up the tags of several shards.
type rowCount struct {
	command string
	rows    int64
	plain   bool // a tag without a number
}

func (c *rowCount) add(tag string) {
	command, n, ok := wire.TagRows(tag)
	if !ok {
		c.command, c.plain = tag, true
		return
	}
	c.command = command
	c.rows += n
}

func (c *rowCount) String() string {
	if c.plain {
		return c.command
	}
	return fmt.Sprintf("%s %d", c.command, c.rows)
}
