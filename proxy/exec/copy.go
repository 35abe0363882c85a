package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// copy runs COPY of a distributed table, one COPY for each shard.
func (h *Handler) copy(ctx context.Context, p *router.Plan) error {
	if h.ext.executing && p.Stmt.Copy.From {
		return router.Refuse("pipeline-copy")
	}
	if !p.Stmt.Copy.From {
		return h.copyOut(ctx, p)
	}
	var rows int64
	if p.Fills != nil && (len(p.Fills.Left(p.Names)) > 0 || p.Fills.ReadsTimes(p.Names) && p.Stmt.Copy.Options["format"] != "binary") {
		rows, err := h.copyOnce(ctx, p)
		if err == nil {
			h.client.SendTag(fmt.Sprintf("COPY %d", rows))
		}
		return err
	}
	err := h.atomically(ctx, func() (err error) {
		if p.Ref {
			if err := h.lockReference(ctx, p, p.Shards); err != nil {
				return err
			}
		}
		rows, err = h.copySplit(ctx, p)
		return err
	})
	if err != nil {
		return err
	}
	h.client.SendTag(fmt.Sprintf("COPY %d", rows))
	return nil
}

// copyOut passes the rows of each shard on in turn.
func (h *Handler) copyOut(ctx context.Context, p *router.Plan) error {
	var total rowCount
	opened := false
	for _, shard := range p.Shards {
		part, err := h.on(ctx, shard, p.Template)
		if err != nil {
			return err
		}
		err = h.copyOutOf(part, p.Stmt, &opened, &total)
		if h.tx.status == 'I' {
			h.finish(part)
		}
		if err != nil {
			return err
		}
	}
	if p.Stmt.Copy.Options["format"] == "binary" {
		h.client.SendFrame('d', binaryTrailer)
	}
	h.client.SendFrame('c', nil)
	h.client.SendTag(total.String())
	return nil
}

// copyOutOf passes one shard's rows on. The header is the first shard's, the trailer of the binary format comes at the end.
func (h *Handler) copyOutOf(p *participant, s *sqlparse.Statement, opened *bool, total *rowCount) error {
	binary := s.Copy.Options["format"] == "binary"
	o := s.Copy.Options["header"]
	again := *opened                            // another shard has sent the header
	begins := binary || o != "" && o != "false" // the next message holds the header
	p.srv.SendQuery(s.Text)
	if err := p.srv.Flush(); err != nil {
		return h.lost(p, err)
	}
	if err := h.prologue(p); err != nil {
		return err
	}
	a := h.answer(p)
	for {
		typ, _, err := p.srv.Peek()
		if err != nil && a.Failed == nil {
			return h.lost(p, err)
		}
		if typ == 'd' && !binary && !(begins && again) || typ == 'H' && !*opened {
			*opened = true
			if err := p.srv.Forward(h.client); err != nil {
				return h.lostOrGone(p, err)
			}
			continue
		}
		m, err := a.Next()
		switch {
		case a.Ended && a.Failed != nil:
			return a.Failed
		case a.Ended:
			total.add(a.Tag)
			return nil
		case err != nil:
			return h.unread(p, &a, err)
		case m.Type == 'd':
			if binary {
				h.sendBinary(m.Body(), begins, again)
			}
			begins = false
			if h.client.Out() >= 32<<10 {
				if err := h.client.Flush(); err != nil {
					return clientError{err}
				}
			}
		}
	}
}

// copySplit takes the client's rows apart and sends each to its shard, or all to every copy.
func (h *Handler) copySplit(ctx context.Context, p *router.Plan) (rows int64, err error) {
	parts, said, err := h.openCopies(ctx, p, p.Stmt.Text)
	if err != nil {
		return 0, err
	}
	h.client.SendFrame('G', said) // the columns are the same on all
	if err := h.client.Flush(); err != nil {
		return 0, clientError{err}
	}
	sp := newSplitter(p.Target, p.Key, &p.Stmt.Copy, p.Shards)
	feed := h.feed(p, sp, parts)
	ends, ferr := h.finishCopies(parts, feed, sp)
	if ferr != nil {
		return 0, ferr
	}
	for i, n := range ends {
		if !p.Ref || p.Shards[i] == h.dbmap.Home.Index {
			rows += n
		}
	}
	return rows, nil
}

// openCopies begins the same COPY FROM STDIN on every shard of a plan. said is the body of a CopyInResponse.
func (h *Handler) openCopies(ctx context.Context, p *router.Plan, text string) (parts []*participant, said []byte, err error) {
	if parts, err = h.joinAll(ctx, p.Shards, p.Template); err != nil {
		return nil, nil, err
	}
	texts := make([]string, len(parts))
	for i := range parts {
		if texts[i], err = h.marked(ctx, p, parts[i], text); err != nil {
			return nil, nil, err
		}
	}
	for i := range parts {
		parts[i].srv.SendQuery(texts[i])
		if err := parts[i].srv.Flush(); err != nil {
			h.closeCopies(parts[:i], nil)
			return nil, nil, h.lost(parts[i], err)
		}
	}
	for i, part := range parts {
		if err = h.prologue(part); err == nil {
			said, err = h.awaitCopyIn(part)
		}
		if err != nil {
			h.closeCopies(parts[i+1:], parts[:i])
			return nil, nil, err
		}
	}
	return parts, said, nil
}

// awaitCopyIn reads up to CopyInResponse, whose body it returns.
func (h *Handler) awaitCopyIn(p *participant) ([]byte, error) {
	a := h.answer(p)
	for {
		m, err := a.Next()
		switch {
		case err == nil && m.Type == 'G':
			return slices.Clone(m.Body()), nil
		case a.Ended && a.Failed != nil:
			return nil, a.Failed
		case err != nil:
			return nil, h.unread(p, &a, err)
		}
	}
}

// closeCopies fails the copies that are open, so that their servers are ready for ROLLBACK.
func (h *Handler) closeCopies(unread, open []*participant) {
	for _, p := range unread {
		if p.srv.Dirty || h.prologue(p) != nil {
			continue
		}
		if _, err := h.awaitCopyIn(p); err != nil {
			continue
		}
		open = append(open, p)
	}
	for _, p := range open {
		p.srv.SendFrame('f', []byte("another shard failed\x00"))
		if p.srv.Flush() != nil {
			p.srv.Dirty = true
			continue
		}
		if _, err := p.srv.ReadTag(); err != nil {
			var se *pool.ServerError
			if !errors.As(err, &se) {
				p.srv.Dirty = true
			}
		}
	}
}

// copySender sends data of a COPY to the parts, in bursts.
func (h *Handler) copySender(parts []*participant) func(i int, rows []byte) error {
	return func(i int, rows []byte) error {
		s := parts[i].srv
		s.SendFrame('d', rows)
		if s.Out() < 64<<10 {
			return nil
		}
		if err := s.Flush(); err != nil {
			return h.lost(parts[i], err)
		}
		return nil
	}
}

// feed reads the client's data to its end and passes the rows on. The error is the client's CopyFail, or a
// row that cannot be placed.
func (h *Handler) feed(p *router.Plan, sp *splitter, parts []*participant) error {
	var failed error
	send := h.copySender(parts)
	h.keepText()
	h.client.Release()
	for {
		m, err := h.client.Next()
		if err != nil {
			return clientError{err}
		}
		switch m.Type {
		case 'd':
			if failed != nil {
				continue
			}
			if p.Ref {
				for i := range parts {
					failed = first(failed, send(i, m.Body()))
				}
				sp.line++
				continue
			}
			failed = sp.add(m.Body(), send)
		case 'c':
			if failed == nil {
				failed = sp.end(send)
			}
			return failed
		case 'f':
			msg, _, _ := wire.CString(m.Body())
			return &wire.PgError{Code: "57014", Message: "COPY from stdin failed: " + string(msg)}
		case 'H', 'S':
		default:
			return clientError{&wire.PgError{Code: "08P01", Message: "unexpected message during COPY from stdin"}}
		}
	}
}

// finishCopies ends the copies on all shards: with failed set, in vain.
func (h *Handler) finishCopies(parts []*participant, failed error, sp *splitter) (rows []int64, err error) {
	for _, p := range parts {
		if p.srv.Dirty {
			continue
		}
		if failed != nil {
			p.srv.SendFrame('f', []byte("the proxy gave the COPY up\x00"))
		} else {
			p.srv.SendFrame('c', nil)
		}
		if e := p.srv.Flush(); e != nil {
			err = first(err, h.lost(p, e))
		}
	}
	rows = make([]int64, len(parts))
	for i, p := range parts {
		if p.srv.Dirty {
			continue
		}
		tag, e := h.read(p, nil)
		if e != nil {
			err = first(err, sp.located(i, e))
			continue
		}
		_, rows[i], _ = wire.TagRows(tag)
	}
	if failed != nil {
		return nil, failed
	}
	return rows, err
}

// splitter finds the rows in COPY data and the shard of each.
type splitter struct {
	group   *shardmap.GroupInfo
	columns []string     // the key columns
	at      []int        // where they stand in a row
	key     []pghash.Key // of the row at hand
	vals    []keyField
	csv     bool
	delim   byte
	quote   byte
	escape  byte
	null    string
	header  bool
	line    int64

	forceNull, forceNotNull []bool // of the key columns

	partial []byte
	place   map[int]int // shard index to position
	out     [][]byte
	sent    []lineLog
	dflt    *string // DEFAULT: a field of this text takes the column's default
	binary  bool
	began   bool // binary: the header has passed
	ended   bool // binary: the trailer has come
}

// newSplitter makes a splitter for a COPY of a table. at are the positions of the key columns in a row.
func newSplitter(t *shardmap.TableInfo, at []int, c *sqlparse.CopyInfo, shards []int) *splitter {
	n, o := len(shards), c.Options
	s := &splitter{at: at, columns: t.Keys, group: t.Group, key: make([]pghash.Key, len(at)), vals: make([]keyField, len(at)), csv: o["format"] == "csv", delim: '\t', quote: '"', null: `\N`, place: map[int]int{}, out: make([][]byte, n)}
	if s.csv {
		s.delim, s.null = ',', ""
	}
	if d := o["delimiter"]; d != "" {
		s.delim = d[0]
	}
	if v, ok := o["null"]; ok {
		s.null = v
	}
	if v, ok := o["default"]; ok {
		s.dflt = &v
	}
	s.binary, s.sent = o["format"] == "binary", make([]lineLog, n)
	if q := o["quote"]; q != "" {
		s.quote = q[0]
	}
	s.escape = s.quote
	if e := o["escape"]; e != "" {
		s.escape = e[0]
	}
	s.header = o["header"] != "" && o["header"] != "false"
	forced := func(option, key string) bool {
		return slices.Contains(c.Lists[option], key) || slices.Contains(c.Lists[option], "*")
	}
	for _, k := range t.Keys {
		s.forceNull, s.forceNotNull = append(s.forceNull, forced("force_null", k)), append(s.forceNotNull, forced("force_not_null", k))
	}
	for i, shard := range shards {
		s.place[shard] = i
	}
	return s
}

// add takes more data in and sends whole rows, gathered by shard.
func (s *splitter) add(data []byte, send func(int, []byte) error) error {
	if len(s.partial) > 0 {
		data = append(s.partial, data...)
	}
	for i := range s.out {
		s.out[i] = s.out[i][:0]
	}
	for {
		n, err := s.rowEnd(data)
		if err != nil {
			return err
		}
		if n < 0 {
			break
		}
		if err := s.row(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	s.partial = append(s.partial[:0:0], data...)
	if len(s.partial) > 1<<30 {
		return &wire.PgError{Code: "54000", Message: "a row of COPY is longer than 1 GB"}
	}
	return s.flush(send)
}

func (s *splitter) flush(send func(int, []byte) error) error {
	for i, rows := range s.out {
		if len(rows) > 0 {
			if err := send(i, rows); err != nil {
				return err
			}
			s.out[i] = rows[:0]
		}
	}
	return nil
}

// end takes a last row without a line end.
func (s *splitter) end(send func(int, []byte) error) error {
	if s.binary {
		if err := s.endBinary(); err != nil {
			return err
		}
		return s.flush(send)
	}
	if len(s.partial) > 0 {
		if err := s.row(append(s.partial, '\n')); err != nil {
			return err
		}
	}
	return s.flush(send)
}

// rowEnd is the length of the first row, with its line end if it has one; -1 if it is not whole.
func (s *splitter) rowEnd(b []byte) (int, error) {
	if s.binary {
		return s.binaryRow(b)
	}
	return s.lineEnd(b), nil
}

func (s *splitter) lineEnd(b []byte) int {
	if !s.csv {
		from := 0
		for {
			i := bytes.IndexByte(b[from:], '\n')
			if i < 0 {
				return -1
			}
			i += from
			slashes := 0
			for k := i - 1; k >= 0 && b[k] == '\\'; k-- {
				slashes++
			}
			if slashes%2 == 0 {
				return i + 1
			}
			from = i + 1
		}
	}
	in := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case in && c == s.escape && s.escape != s.quote && i+1 < len(b):
			i++
		case c == s.quote:
			in = !in
		case c == '\n' && !in:
			return i + 1
		}
	}
	return -1
}

func (s *splitter) row(row []byte) error {
	if s.binary {
		return s.rowBinary(row)
	}
	lines := int64(1)
	if s.csv {
		lines = int64(max(bytes.Count(row, []byte{'\n'}), 1))
	}
	s.line += lines
	body := bytes.TrimRight(row, "\r\n")
	if s.header && s.line == 1 {
		for i := range s.out {
			s.out[i] = append(s.out[i], row...) // each shard skips one line
			s.sent[i].add(1, s.line)
		}
		return nil
	}
	if !s.csv && string(body) == `\.` || s.csv && string(body) == `\.` {
		return nil
	}
	s.fields(body)
	bad := s.badLine
	for i, v := range s.vals {
		switch {
		case !v.found:
			return bad("22P04", "missing data for column %q", s.columns[i])
		case v.null:
			return bad("23502", "null value in key column %q: the row has no shard", s.columns[i])
		case s.dflt != nil && v.text == *s.dflt:
			return bad("23502", "no value for key column %q: the row has no shard", s.columns[i])
		}
		var ok bool
		if s.key[i], ok = pghash.ParseText(s.group.Keys[i], v.text); !ok {
			return bad("22P02", "invalid input syntax for key column %q of type %s: %q", s.columns[i], s.group.Keys[i], v.text)
		}
	}
	return s.put(row, lines)
}

// put sends a row, whose key has been read, to its shard.
func (s *splitter) put(row []byte, lines int64) error {
	if s.group == nil { // every copy of a reference table
		for i := range s.out {
			s.out[i] = append(s.out[i], row...)
			s.sent[i].add(lines, s.line)
		}
		return nil
	}
	shard, ok := s.group.Place(s.key)
	if !ok {
		return s.badLine("23514", "no list of group %s names the value of key column %q: the row has no shard", s.group.Name, s.columns[0])
	}
	i := s.place[shard]
	s.out[i] = append(s.out[i], row...)
	s.sent[i].add(lines, s.line)
	return nil
}

// keyField is a key column's value in a row.
type keyField struct {
	text        string
	null, found bool
}

// fields finds the values of the key columns.
func (s *splitter) fields(row []byte) {
	clear(s.vals)
	left := len(s.vals)
	col, start, in := 0, 0, false
	for i := 0; i <= len(row); i++ {
		if i < len(row) {
			c := row[i]
			if !s.csv && c == '\\' && i+1 < len(row) {
				i++
				continue
			}
			if s.csv && in && c == s.escape && s.escape != s.quote && i+1 < len(row) {
				i++
				continue
			}
			if s.csv && c == s.quote {
				in = !in
			}
			if c != s.delim || in {
				continue
			}
		}
		if k := slices.Index(s.at, col); k >= 0 {
			s.vals[k] = s.decode(k, row[start:min(i, len(row))])
			if left--; left == 0 {
				return
			}
		}
		col++
		start = i + 1
	}
}

// decode reads the field of key column k. What FORCE_NULL and FORCE_NOT_NULL do is that of CopyReadAttributesCSV and
// NextCopyFrom of PostgreSQL.
func (s *splitter) decode(k int, raw []byte) keyField {
	if string(raw) == s.null && !s.forceNotNull[k] {
		return keyField{null: true, found: true}
	}
	if s.csv {
		if !bytes.ContainsRune(raw, rune(s.quote)) {
			return keyField{text: string(raw), found: true}
		}
		var out []byte
		in := false
		for i := 0; i < len(raw); i++ {
			c := raw[i]
			switch {
			case in && c == s.escape && i+1 < len(raw) && (raw[i+1] == s.quote || raw[i+1] == s.escape):
				i++
				out = append(out, raw[i])
			case c == s.quote:
				in = !in
			default:
				out = append(out, c)
			}
		}
		return keyField{text: string(out), found: true, null: s.forceNull[k] && string(out) == s.null}
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return keyField{text: string(raw), found: true}
	}
	return keyField{text: unescape(raw), found: true}
}

// unescape reads the backslash sequences of COPY's text format.
func unescape(raw []byte) string {
	var out []byte
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '\\' || i+1 >= len(raw) {
			out = append(out, c)
			continue
		}
		i++
		switch c = raw[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'v':
			out = append(out, '\v')
		case 'x':
			n, v := 0, byte(0)
			for n < 2 && i+1 < len(raw) && hexVal(raw[i+1]) >= 0 {
				v = v<<4 | byte(hexVal(raw[i+1]))
				i++
				n++
			}
			if n == 0 {
				v = 'x'
			}
			out = append(out, v)
		default:
			if c < '0' || c > '7' {
				out = append(out, c)
				continue
			}
			v, n := c-'0', 1
			for n < 3 && i+1 < len(raw) && raw[i+1] >= '0' && raw[i+1] <= '7' {
				v = v<<3 | (raw[i+1] - '0')
				i++
				n++
			}
			out = append(out, v)
		}
	}
	return string(out)
}

func hexVal(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
