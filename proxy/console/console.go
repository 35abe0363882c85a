// Package console is the admin database's side of the protocol: it takes statements of both protocols to the admin, and answers in text.
package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// Console is the admin database of one client: it speaks both protocols and answers in text. It implements
// session.Handler.
type Console struct {
	admin    *admin.Admin
	client   *wire.Conn
	readOnly bool
	cancel   context.CancelFunc
	ctx      context.Context

	stmts    store[string]
	portals  store[*admin.Result]
	skipping bool

	mu   sync.Mutex // guards stop
	stop context.CancelFunc
}

// New makes the handler of an admin session. readOnly is for users that may only look.
func New(a *admin.Admin, client *wire.Conn, m *memory.Ledger, readOnly bool) *Console {
	ctx, cancel := context.WithCancel(context.Background())
	return &Console{
		admin: a, client: client, readOnly: readOnly, ctx: ctx, cancel: cancel,
		stmts: store[string]{memory: m, as: memory.Prepared, times: 1}, portals: store[*admin.Result]{memory: m, as: memory.Portals, times: 4},
	}
}

// TxStatus implements session.Handler: the console has no transactions.
func (c *Console) TxStatus() byte { return 'I' }

// Cancel implements session.Handler. A change that has begun is finished or undone, never left; a wait ends.
func (c *Console) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		c.stop()
	}
}

// exec runs one statement, which Cancel may end.
func (c *Console) exec(sql string) (*admin.Result, error) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.mu.Lock()
	c.stop = cancel
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.stop = nil
		c.mu.Unlock()
	}()
	return c.admin.Exec(ctx, sql, c.readOnly)
}

// Rest implements session.Handler.
func (c *Console) Rest() {}

// Deliver implements session.Handler: nothing comes by itself.
func (c *Console) Deliver() error { return nil }

// Fail implements session.Handler.
func (c *Console) Fail(_ context.Context, err error, ready bool) error {
	c.client.Send(wire.ErrorFor("ERROR", err))
	c.skipping = !ready
	if ready {
		c.client.SendReady('I')
	}
	return nil
}

// Function implements session.Handler.
func (c *Console) Function(context.Context, wire.Message) error {
	c.client.Send(wire.ErrorFor("ERROR", &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "the admin console has no functions"}))
	c.client.SendReady('I')
	return nil
}

// Abandon implements session.Handler.
func (c *Console) Abandon() { c.cancel() }

// Close implements session.Handler.
func (c *Console) Close() {
	c.cancel()
	c.stmts.clear()
	c.portals.clear()
}

// Query implements session.Handler.
func (c *Console) Query(_ context.Context, sql []byte) error {
	c.client.Leave()
	for _, s := range admin.SplitStatements(string(sql)) {
		res, err := c.exec(s)
		if err != nil {
			c.client.Send(wire.ErrorFor("ERROR", err))
			break
		}
		if res.Columns == nil && res.Tag == "" {
			c.client.SendFrame('I', nil)
			continue
		}
		if res.Columns != nil {
			c.client.Send(&wire.RowDescription{Fields: fields(res)})
		}
		c.rows(res)
	}
	c.client.SendReady('I')
	return nil
}

// fields describes a result: integers as bigint, booleans as boolean, the rest as text.
func fields(res *admin.Result) []wire.Field {
	out := make([]wire.Field, len(res.Columns))
	for i, name := range res.Columns {
		oid, size := uint32(25), int16(-1)
		for _, r := range res.Rows {
			switch r[i].(type) {
			case nil:
				continue
			case int, int64, uint32:
				oid, size = 20, 8
			case bool:
				oid, size = 16, 1
			}
			break
		}
		out[i] = wire.Field{Name: []byte(name), DataTypeOID: oid, DataTypeSize: size, TypeModifier: -1}
	}
	return out
}

func (c *Console) rows(res *admin.Result) {
	vals := make([][]byte, len(res.Columns))
	for _, r := range res.Rows {
		for i, v := range r {
			if v == nil {
				vals[i] = nil
			} else {
				vals[i] = []byte(admin.Text(v))
			}
		}
		c.client.SendRow(vals)
	}
	c.client.SendTag(res.Tag)
}

// Batch implements session.Handler. A statement runs when it is bound, so that Describe knows its columns.
func (c *Console) Batch(_ context.Context, msgs []wire.Message, sync bool, _ time.Duration) error {
	c.client.Leave()
	for _, m := range msgs {
		if c.skipping {
			break
		}
		if err := c.message(m); err != nil {
			c.client.Send(wire.ErrorFor("ERROR", err))
			c.skipping = true
		}
	}
	if sync {
		c.skipping = false
		c.portals.clear() // they end with their transaction, and there is none
		c.client.SendReady('I')
	}
	return nil
}

var errMessage = &pgsql.Error{Code: pgsql.ProtocolViolation, Message: "invalid message format"}

func (c *Console) message(m wire.Message) error {
	switch m.Type {
	case 'P':
		p, err := wire.DecodeParse(m.Body())
		if err != nil {
			return errMessage
		}
		if err := c.stmts.put(p.Name, p.SQL, int64(len(p.SQL))); err != nil {
			return err
		}
		c.client.SendFrame('1', nil)
	case 'B':
		return c.bind(m)
	case 'D':
		return c.describe(m.Body())
	case 'E':
		name, _, err := wire.CString(m.Body())
		if err != nil {
			return errMessage
		}
		res, _ := c.portals.get(string(name))
		if res == nil {
			return &pgsql.Error{Code: pgsql.InvalidCursorName, Message: fmt.Sprintf("portal %q does not exist", name)}
		}
		if res.Tag == "" {
			c.client.SendFrame('I', nil)
			return nil
		}
		c.rows(res)
	case 'C':
		c.client.SendFrame('3', nil)
		if b := m.Body(); len(b) > 1 {
			name := strings.TrimRight(string(b[1:]), "\x00")
			if b[0] == 'S' {
				c.stmts.drop(name)
			} else {
				c.portals.drop(name)
			}
		}
	}
	return nil
}

func (c *Console) bind(m wire.Message) error {
	var b wire.BindParts
	if err := b.Decode(m.Body()); err != nil {
		return errMessage
	}
	sql, ok := c.stmts.get(string(b.Statement))
	if !ok {
		return &pgsql.Error{Code: pgsql.InvalidSQLStatementName, Message: fmt.Sprintf("prepared statement %q does not exist", b.Statement)}
	}
	if len(b.Params) > 0 {
		return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "admin statements take no parameters", Hint: "Write the values into the statement."}
	}
	for _, f := range b.Results {
		if f != 0 {
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "the admin console answers in text format only", Hint: "Use the simple query protocol or text results."}
		}
	}
	res, err := c.exec(sql)
	if err != nil {
		return err
	}
	if err := c.portals.put(string(b.Portal), res, weightOf(res)); err != nil {
		return err
	}
	c.client.SendFrame('2', nil)
	return nil
}

// describe of a statement shows the columns of views, which are known without running anything.
func (c *Console) describe(body []byte) error {
	if len(body) < 2 {
		return errMessage
	}
	name := strings.TrimRight(string(body[1:]), "\x00")
	if body[0] == 'P' {
		res, _ := c.portals.get(name)
		if res == nil {
			return &pgsql.Error{Code: pgsql.InvalidCursorName, Message: fmt.Sprintf("portal %q does not exist", name)}
		}
		c.describeResult(res)
		return nil
	}
	sql, ok := c.stmts.get(name)
	if !ok {
		return &pgsql.Error{Code: pgsql.InvalidSQLStatementName, Message: fmt.Sprintf("prepared statement %q does not exist", name)}
	}
	c.client.SendFrame('t', []byte{0, 0})
	res, err := c.columnsOf(sql)
	if err != nil {
		return err
	}
	c.describeResult(res)
	return nil
}

func (c *Console) describeResult(res *admin.Result) {
	if res.Columns == nil {
		c.client.SendFrame('n', nil)
		return
	}
	f := fields(res)
	for i := range f { // binary was not asked for: text keeps every driver content
		f[i].DataTypeOID, f[i].DataTypeSize = 25, -1
	}
	c.client.Send(&wire.RowDescription{Fields: f})
}

// columnsOf gives a statement's columns: reads are run, changes answer with the map's version.
func (c *Console) columnsOf(sql string) (*admin.Result, error) {
	res, err := c.admin.Exec(c.ctx, sql, true)
	var e *pgsql.Error
	if !errors.As(err, &e) || e.Code != pgsql.InsufficientPrivilege {
		return res, err
	}
	words := strings.Fields(strings.ToLower(strings.TrimRight(sql, "; \t\r\n")))
	switch {
	case len(words) == 0:
		return &admin.Result{}, nil
	case words[0] == "verify":
		return &admin.Result{Columns: []string{"shard", "key", "difference"}}, nil
	case slices.Contains([]string{"pause", "resume", "reconnect", "kill_client", "kill", "disable", "enable", "wait_close", "reload", "shutdown", "set", "cancel"}, words[0]):
		return &admin.Result{}, nil
	case len(words) > 2 && words[len(words)-2] == "dry" && words[len(words)-1] == "run":
		return &admin.Result{Columns: []string{"would_be_map_version"}}, nil
	}
	return &admin.Result{Columns: []string{"map_version"}}, nil
}
