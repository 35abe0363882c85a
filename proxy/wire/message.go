package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// The messages that the edges decode or make. The codec belongs to this package alone.
type (
	// ErrorResponse is PostgreSQL's error message with all its fields.
	ErrorResponse = pgproto3.ErrorResponse
	// NoticeResponse is a warning or notice.
	NoticeResponse = pgproto3.NoticeResponse
	// RowDescription names and types the columns of the rows that follow.
	RowDescription = pgproto3.RowDescription
	// Field is one column of a RowDescription.
	Field = pgproto3.FieldDescription
	// ParameterDescription lists the types of a statement's parameters.
	ParameterDescription = pgproto3.ParameterDescription
	// Bind makes a portal.
	Bind = pgproto3.Bind
	// Parse makes a prepared statement.
	Parse = pgproto3.Parse
	// Startup is the first message of a session.
	Startup = pgproto3.StartupMessage
)

// Request codes that stand in the place of a protocol version.
const (
	CancelCode = 80877102
	SSLCode    = 80877103
	GSSCode    = 80877104
	Version3   = 196608
)

// MaxStartup is PostgreSQL's own bound on the first packet.
const MaxStartup = 10000

// ReadStartup reads one untyped first packet: its code and the bytes behind it, valid until the next read.
func (c *Conn) ReadStartup() (code uint32, body []byte, err error) {
	if err := c.fill(4); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(c.buf[c.pos:])
	if n < 8 || n > MaxStartup {
		return 0, nil, fmt.Errorf("%w: a startup packet of %d bytes", ErrMalformed, n)
	}
	if err := c.fill(int(n)); err != nil {
		return 0, nil, unexpected(err)
	}
	b := c.buf[c.pos : c.pos+int(n)]
	c.pos += int(n)
	return binary.BigEndian.Uint32(b[4:]), b[8:], nil
}

// ParseStartup reads the parameters of a version 3 startup packet. minor is the minor version asked for.
func ParseStartup(code uint32, body []byte) (params map[string]string, minor int, err error) {
	if code>>16 != 3 {
		return nil, 0, fmt.Errorf("unsupported frontend protocol %d.%d: server supports 3.0", code>>16, code&0xffff)
	}
	src := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(src, Version3)
	if len(body) == 0 || body[len(body)-1] != 0 {
		return nil, 0, errors.New("invalid startup packet layout: expected terminator as last byte")
	}
	var m Startup
	if err := m.Decode(append(src, body...)); err != nil {
		return nil, 0, fmt.Errorf("invalid startup packet: %w", err)
	}
	return m.Parameters, int(code & 0xffff), nil
}

// Encoder is a message that can be appended to a buffer.
type Encoder interface {
	Encode(dst []byte) ([]byte, error)
}

// Send gathers a typed message. One that is too long for the protocol is our own mistake.
func (c *Conn) Send(m Encoder) {
	out, err := m.Encode(c.out)
	if err != nil {
		panic("wire: " + err.Error())
	}
	c.out = out
}

// Frame appends a message of the given type and body.
func Frame(dst []byte, typ byte, body []byte) []byte {
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}

// SendFrame gathers a message of the given type and body.
func (c *Conn) SendFrame(typ byte, body []byte) { c.out = Frame(c.out, typ, body) }

// SendReady gathers ReadyForQuery.
func (c *Conn) SendReady(status byte) { c.out = append(c.out, 'Z', 0, 0, 0, 5, status) }

// SendTag gathers CommandComplete.
func (c *Conn) SendTag(tag string) {
	if c.held != nil {
		*c.held = tag
		return
	}
	c.out = append(c.out, 'C')
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(tag)+5))
	c.out = append(append(c.out, tag...), 0)
}

// HoldTag keeps what SendTag sends back until ReleaseTag: whether a command is complete may be known later than its answer.
func (c *Conn) HoldTag() { c.held = new(string) }

// HoldsTag says whether tags are kept back.
func (c *Conn) HoldsTag() bool { return c.held != nil }

// ReleaseTag sends the tag that was kept back, or drops it.
func (c *Conn) ReleaseTag(send bool) {
	held := c.held
	c.held = nil
	if send && held != nil && *held != "" {
		c.SendTag(*held)
	}
}

// SendQuery gathers a simple Query.
func (c *Conn) SendQuery(sql string) {
	c.out = append(c.out, 'Q')
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(sql)+5))
	c.out = append(append(c.out, sql...), 0)
}

// SendParse gathers Parse.
func (c *Conn) SendParse(name, sql string, types []uint32) {
	c.out = append(c.out, 'P')
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(4+len(name)+1+len(sql)+1+2+4*len(types)))
	c.out = append(append(c.out, name...), 0)
	c.out = append(append(c.out, sql...), 0)
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(len(types)))
	for _, t := range types {
		c.out = binary.BigEndian.AppendUint32(c.out, t)
	}
}

// SendDescribe gathers Describe of a statement ('S') or portal ('P').
func (c *Conn) SendDescribe(kind byte, name string) { c.named('D', kind, name) }

// SendClose gathers Close of a statement ('S') or portal ('P').
func (c *Conn) SendClose(kind byte, name string) { c.named('C', kind, name) }

func (c *Conn) named(typ, kind byte, name string) {
	c.out = append(c.out, typ)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(4+1+len(name)+1))
	c.out = append(append(append(c.out, kind), name...), 0)
}

// SendExecute gathers Execute of the unnamed portal without a row limit.
func (c *Conn) SendExecute() { c.SendExecuteRows(0) }

// SendExecuteRows is SendExecute for at most so many rows; 0 is all.
func (c *Conn) SendExecuteRows(rows uint32) {
	c.out = binary.BigEndian.AppendUint32(append(c.out, 'E', 0, 0, 0, 9, 0), rows)
}

// SendSync gathers Sync.
func (c *Conn) SendSync() { c.out = append(c.out, 'S', 0, 0, 0, 4) }

// SendFlush gathers Flush.
func (c *Conn) SendFlush() { c.out = append(c.out, 'H', 0, 0, 0, 4) }

// SendRow gathers a DataRow; nil is NULL.
func (c *Conn) SendRow(values [][]byte) {
	at := len(c.out)
	c.out = append(c.out, 'D', 0, 0, 0, 0)
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			c.out = append(c.out, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(v)))
		c.out = append(c.out, v...)
	}
	binary.BigEndian.PutUint32(c.out[at+1:], uint32(len(c.out)-at-1))
}

// SendError gathers an ErrorResponse with PostgreSQL's usual fields.
func (c *Conn) SendError(severity, code, message, detail, hint string, pos int) {
	c.Send(&ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message, Detail: detail, Hint: hint, Position: int32(pos)})
}

// ParseError decodes the body of an ErrorResponse.
func ParseError(body []byte) *ErrorResponse {
	e := &ErrorResponse{}
	if err := e.Decode(body); err != nil {
		return &ErrorResponse{Severity: "ERROR", Code: pgsql.ProtocolViolation, Message: "the server's error message could not be read"}
	}
	return e
}

// ParseRowDescription decodes a RowDescription, whose bytes it copies.
func ParseRowDescription(body []byte) ([]Field, error) {
	var m RowDescription
	if err := m.Decode(append([]byte(nil), body...)); err != nil {
		return nil, fmt.Errorf("row description: %w", err)
	}
	if m.Fields == nil { // no columns is not the same as no rows
		m.Fields = []Field{}
	}
	return m.Fields, nil
}

// EachField walks a RowDescription's body without copying: f gets each column's OID of table and type, which it may
// change, and its format.
func EachField(body []byte, f func(i int, table, oid []byte, format int16)) error {
	if len(body) < 2 {
		return fmt.Errorf("%w: RowDescription", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for i := range n {
		_, rest, err := CString(body)
		if err != nil || len(rest) < 18 {
			return fmt.Errorf("%w: RowDescription", ErrMalformed)
		}
		f(i, rest[:4:4], rest[6:10:10], int16(binary.BigEndian.Uint16(rest[16:])))
		body = rest[18:]
	}
	return nil
}

// ParseParameterTypes decodes a ParameterDescription.
func ParseParameterTypes(body []byte) ([]uint32, error) {
	var m ParameterDescription
	if err := m.Decode(body); err != nil {
		return nil, fmt.Errorf("parameter description: %w", err)
	}
	return m.ParameterOIDs, nil
}

// ParameterTypes encodes a ParameterDescription. There may be 65535 of them.
func ParameterTypes(oids []uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'t'}, uint32(6+4*len(oids)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(oids)))
	for _, o := range oids {
		b = binary.BigEndian.AppendUint32(b, o)
	}
	return b
}

// RowValues splits a DataRow's body into into, which it reuses. The values point into body.
func RowValues(into [][]byte, body []byte) ([][]byte, error) {
	into = into[:0]
	if len(body) < 2 {
		return nil, fmt.Errorf("%w: DataRow", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for range n {
		if len(body) < 4 {
			return nil, fmt.Errorf("%w: DataRow", ErrMalformed)
		}
		l := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if l < 0 {
			into = append(into, nil)
			continue
		}
		if int(l) > len(body) {
			return nil, fmt.Errorf("%w: DataRow", ErrMalformed)
		}
		into = append(into, body[:l:l])
		body = body[l:]
	}
	return into, nil
}

// CString cuts a zero-terminated string off b.
func CString(b []byte) (s, rest []byte, err error) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], nil
		}
	}
	return nil, nil, fmt.Errorf("%w: unterminated string", ErrMalformed)
}

// BindParts is a Bind message taken apart without copying.
type BindParts struct {
	Portal, Statement []byte
	Rest              []byte // all that follows the statement's name
	Formats           []int16
	Params            [][]byte
	Results           []int16
}

// Decode fills p from a Bind's body, reusing its slices. They point into body.
func (p *BindParts) Decode(body []byte) (err error) {
	if p.Portal, body, err = CString(body); err != nil {
		return err
	}
	if p.Statement, body, err = CString(body); err != nil {
		return err
	}
	p.Rest = body
	if p.Formats, body, err = int16s(p.Formats[:0], body); err != nil {
		return err
	}
	p.Params, body, err = bindValues(p.Params[:0], body)
	if err != nil {
		return err
	}
	p.Results, _, err = int16s(p.Results[:0], body)
	return err
}

// BindRest encodes what follows the names of a Bind.
func BindRest(p *BindParts) []byte {
	out := binary.BigEndian.AppendUint16(nil, uint16(len(p.Formats)))
	for _, f := range p.Formats {
		out = binary.BigEndian.AppendUint16(out, uint16(f))
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(p.Params)))
	for _, v := range p.Params {
		if v == nil {
			out = append(out, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(v))), v...)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(p.Results)))
	for _, f := range p.Results {
		out = binary.BigEndian.AppendUint16(out, uint16(f))
	}
	return out
}

func bindValues(into [][]byte, b []byte) ([][]byte, []byte, error) {
	if len(b) < 2 {
		return into, nil, fmt.Errorf("%w: Bind", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range n {
		if len(b) < 4 {
			return into, nil, fmt.Errorf("%w: Bind", ErrMalformed)
		}
		l := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if l < 0 {
			into = append(into, nil)
			continue
		}
		if int(l) > len(b) {
			return into, nil, fmt.Errorf("%w: Bind", ErrMalformed)
		}
		into = append(into, b[:l:l])
		b = b[l:]
	}
	return into, b, nil
}

func int16s(into []int16, b []byte) ([]int16, []byte, error) {
	if len(b) < 2 {
		return into, nil, fmt.Errorf("%w: format codes", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if len(b) < 2*n {
		return into, nil, fmt.Errorf("%w: format codes", ErrMalformed)
	}
	for i := range n {
		into = append(into, int16(binary.BigEndian.Uint16(b[2*i:])))
	}
	return into, b[2*n:], nil
}

// SendBind gathers a Bind of the unnamed portal.
func (c *Conn) SendBind(portal, statement string, rest []byte) {
	c.out = append(c.out, 'B')
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(4+len(portal)+1+len(statement)+1+len(rest)))
	c.out = append(append(c.out, portal...), 0)
	c.out = append(append(c.out, statement...), 0)
	c.out = append(c.out, rest...)
}

// SendBindParts gathers a Bind of the unnamed portal and statement with these parameters and formats.
func (c *Conn) SendBindParts(statement string, formats []int16, params [][]byte, results []int16) {
	c.Send(&Bind{PreparedStatement: statement, ParameterFormatCodes: formats, Parameters: params, ResultFormatCodes: results})
}

// ParseParts is a Parse message taken apart; the strings are copies.
type ParseParts struct {
	Name, SQL string
	Types     []uint32
}

// DecodeParse reads a Parse's body.
func DecodeParse(body []byte) (p ParseParts, err error) {
	name, rest, err := CString(body)
	if err != nil {
		return p, err
	}
	sql, rest, err := CString(rest)
	if err != nil {
		return p, err
	}
	p.Name, p.SQL = string(name), string(sql)
	if len(rest) < 2 || len(rest) != 2+4*int(binary.BigEndian.Uint16(rest)) {
		return p, fmt.Errorf("%w: Parse", ErrMalformed)
	}
	for i := 2; i < len(rest); i += 4 {
		p.Types = append(p.Types, binary.BigEndian.Uint32(rest[i:]))
	}
	return p, nil
}

// IsParse says whether a Parse's body is of this name, text and types.
func IsParse(body []byte, name, sql string, types []uint32) bool {
	if len(body) != len(name)+1+len(sql)+1+2+4*len(types) {
		return false
	}
	n, rest := body[:len(name)], body[len(name):]
	t, rest := rest[1:1+len(sql)], rest[1+len(sql):]
	if string(n) != name || string(t) != sql || body[len(name)] != 0 || rest[0] != 0 || int(binary.BigEndian.Uint16(rest[1:])) != len(types) {
		return false
	}
	for i, oid := range types {
		if binary.BigEndian.Uint32(rest[3+4*i:]) != oid {
			return false
		}
	}
	return true
}

// TagRows is the number of rows that a command tag ends with.
func TagRows(tag string) (command string, rows int64, ok bool) {
	for i := len(tag) - 1; i >= 0; i-- {
		if tag[i] == ' ' {
			n, err := strconv.ParseInt(tag[i+1:], 10, 64)
			return tag[:i], n, err == nil
		}
	}
	return tag, 0, false
}

// CancelRequest is the packet that cancels what the server with this key is doing.
func CancelRequest(pid uint32, key []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	b = binary.BigEndian.AppendUint32(b, CancelCode)
	b = binary.BigEndian.AppendUint32(b, pid)
	return append(b, key...)
}

// SendCancel sends a cancel request to an address and waits until it has been taken.
func SendCancel(addr string, pid uint32, key []byte) error {
	network := "tcp"
	if len(addr) > 0 && addr[0] == '/' {
		network = "unix"
	}
	nc, err := net.DialTimeout(network, addr, cancelTimeout)
	if err != nil {
		return err
	}
	defer nc.Close() // the peer closes it
	_ = nc.SetDeadline(time.Now().Add(cancelTimeout))
	if err := WriteAll(nc, CancelRequest(pid, key)); err != nil {
		return err
	}
	var b [1]byte
	_, _ = nc.Read(b[:])
	return nil
}

const cancelTimeout = 5 * time.Second

// WriteAll writes b to w, for packets outside a Conn.
func WriteAll(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

// SendQueryBytes gathers a simple Query.
func (c *Conn) SendQueryBytes(sql []byte) {
	c.out = append(c.out, 'Q')
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(sql)+5))
	c.out = append(append(c.out, sql...), 0)
}
