package exec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// captured is the answer of a statement over several shards whose rows the client asks for by and by.
type captured struct {
	frames []byte
	size   int // of all of it, as it is counted
	holds  func(n int) error
	why    error // it may not be larger
}

// errTooMuch means that a captured answer is over its limit.
var errTooMuch = errors.New("the captured result is too large")

// captureLimit bounds a captured answer, in bytes.
const captureLimit = 64 << 20

// Write implements io.Writer.
func (c *captured) Write(b []byte) (int, error) {
	if len(c.frames)+len(b) > captureLimit {
		c.why = &pgsql.Error{
			Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("a result over several shards that is fetched in pieces may have %d MB", captureLimit>>20),
			Hint: "Fetch it as a whole, or narrow it.",
		}
	} else {
		c.why = c.holds(len(b))
	}
	if c.why != nil {
		return 0, errTooMuch
	}
	c.frames = append(c.frames, b...)
	c.size += len(b)
	return len(b), nil
}

// runLimited runs a portal of our own for at most max rows, 0 for all. Rows beyond that are kept, since the
// servers may have other work before the client asks for them.
func (h *Handler) runLimited(ctx context.Context, pt *portal, max int) error {
	if pt.rest == nil {
		if !pt.state.MayRun() {
			return h.ranOut(pt)
		}
		pt.state.On(pipeline.Runs)
		if max == 0 || pt.plan.Class == router.Copy { // it has no rows to stop behind, and may read from the client
			return h.run(ctx, pt.plan, &pt.args, &execution{portal: pt})
		}
		c := &captured{size: suspended, holds: func(n int) error { return h.ext.holds(pt, int64(n)) }}
		if err := c.holds(c.size); err != nil {
			return err
		}
		client := h.client
		h.client = wire.NewSink(c)
		h.client.SetTask(client.Task()) // who waits for servers
		err := h.run(ctx, pt.plan, &pt.args, &execution{portal: pt})
		ferr := h.client.Flush()
		h.client = client
		if errors.Is(err, errTooMuch) || errors.Is(ferr, errTooMuch) {
			err = c.why
		}
		if err != nil {
			h.ext.lets(pt, int64(c.size))
			return err
		}
		pt.rest = c
	}
	return h.handOut(pt, max)
}

// handOut passes on up to max rows of what was captured, 0 for all, and what ends them.
func (h *Handler) handOut(pt *portal, max int) error {
	rows := 0
	b := pt.rest.frames
	for len(b) >= 5 {
		n := int(binary.BigEndian.Uint32(b[1:])) + 1
		typ := b[0]
		if max > 0 && rows == max { // also if none is left: PostgreSQL does not look either
			pt.rest.frames = b
			return h.client.Write([]byte{'s', 0, 0, 0, 4})
		}
		if typ == 'C' {
			pt.rest.frames = nil
			h.ext.lets(pt, int64(pt.rest.size))
			pt.rest.size = 0
			tag := string(b[5 : n-1])
			if command, _, ok := wire.TagRows(tag); ok && pt.givesRows() { // it counts the last piece's
				tag = fmt.Sprintf("%s %d", command, rows)
			}
			h.client.SendTag(tag)
			return nil
		}
		if err := h.client.Write(b[:n]); err != nil {
			return clientError{err}
		}
		if typ == 'D' {
			rows++
		}
		b = b[n:]
	}
	return h.ranOut(pt)
}

// ranOut answers for a portal that has run to its end: one that gives rows has none left.
func (h *Handler) ranOut(pt *portal) error {
	if !pt.givesRows() {
		return cannotRun(pt)
	}
	tag := "SELECT 0"
	switch pt.stmt.tmpl.Stmt.Kind {
	case sqlparse.Insert:
		tag = "INSERT 0 0"
	case sqlparse.Update:
		tag = "UPDATE 0"
	case sqlparse.Delete:
		tag = "DELETE 0"
	default: // a query, whatever wrote in it
	}
	h.client.SendTag(tag)
	return nil
}

func (pt *portal) givesRows() bool { return pt.stmt.desc != nil && pt.stmt.desc.fields != nil }

func cannotRun(pt *portal) error {
	return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("portal %q cannot be run", pt.name)}
}
