package exec

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"

	"github.com/pgmosaic/pgmosaic/proxy/copydata"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// copiedFields are the columns that COPY TO gives of a table.
func copiedFields(p *router.Plan) (out []wire.Field) {
	t := p.Schema.Tables[p.Target.TableName]
	if t == nil {
		return nil
	}
	for i := range t.Columns {
		if c := &t.Columns[i]; p.Stmt.Copy.Columns == nil && !c.Generated {
			out = append(out, wire.Field{DataTypeOID: c.TypeOID})
		}
	}
	for _, n := range p.Stmt.Copy.Columns {
		f := wire.Field{}
		if c, _ := t.Column(n); c != nil {
			f.DataTypeOID = c.TypeOID
		}
		out = append(out, f)
	}
	return out
}

// sendBinary passes a message of COPY TO on, with home's OIDs: without the header if another shard has begun, and without the trailer.
func (h *Handler) sendBinary(p *participant, out *copyOutput, body []byte, begins, headerSent bool) (err error) {
	if begins {
		n := min(len(body), copydata.HeaderSize)
		if !headerSent {
			out.header = bytes.Clone(body[:n])
		}
		body = body[n:]
	}
	if len(body) == 0 || bytes.Equal(body, copydata.Trailer) {
		return nil
	}
	if p.deep != nil { // a row is written as a DataRow is
		if p.vals, err = wire.RowValues(p.vals, body); err != nil {
			return err
		}
		if err = toHome(h.typesOf(p.shard), p.deep, p.vals); err != nil {
			return err
		}
	}
	h.client.SendFrame('d', out.behindHeader(body))
	return nil
}

// behindHeader is a row or the trailer, behind the header if that has not gone out: PostgreSQL sends the header in one message
// with what follows, and clients rely on that (tokio-postgres).
func (out *copyOutput) behindHeader(body []byte) []byte {
	if out.header != nil {
		body, out.header = append(out.header, body...), nil
	}
	return body
}

var copyLine = regexp.MustCompile(`^(COPY .*?, line )(\d+)`)

// located gives an error of the shard at position i the line of the client's input.
func located(s *copydata.Splitter, i int, err error) error {
	var se *pool.ServerError
	if !errors.As(err, &se) {
		return err
	}
	if m := copyLine.FindStringSubmatch(se.Response.Where); m != nil {
		n, _ := strconv.ParseInt(m[2], 10, 64)
		if line, ok := s.InputLine(i, n); ok {
			se.Response.Where = m[1] + strconv.FormatInt(line, 10) + se.Response.Where[len(m[0]):]
		}
	}
	return err
}
