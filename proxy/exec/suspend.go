package exec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// captured is the answer of a statement over several shards whose rows the client asks for by and by.
type captured struct {
	frames []byte
	limit  int
}

// errTooMuch means that a captured answer is over its limit.
var errTooMuch = errors.New("the captured result is too large")

// captureLimit bounds a captured answer, in bytes.
const captureLimit = 64 << 20

// Write implements io.Writer.
func (c *captured) Write(b []byte) (int, error) {
	if len(c.frames)+len(b) > c.limit {
		return 0, errTooMuch
	}
	c.frames = append(c.frames, b...)
	return len(b), nil
}

// runLimited runs a portal of our own for at most max rows, 0 for all. Rows beyond that are kept, since the
// servers may have other work before the client asks for them.
func (h *Handler) runLimited(ctx context.Context, pt *portal, max int) error {
	if pt.rest == nil {
		if max == 0 {
			return h.run(ctx, pt.plan, &pt.args, &execution{portal: pt})
		}
		c := &captured{limit: captureLimit}
		client := h.client
		h.client = wire.NewSink(c)
		err := h.run(ctx, pt.plan, &pt.args, &execution{portal: pt})
		ferr := h.client.Flush()
		h.client = client
		if errors.Is(err, errTooMuch) || errors.Is(ferr, errTooMuch) {
			return &wire.PgError{
				Code: "54000", Message: fmt.Sprintf("a result over several shards that is fetched in pieces may have %d MB", captureLimit>>20),
				Hint: "Fetch it as a whole, or narrow it.",
			}
		}
		if err != nil {
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
		if typ == 'D' && max > 0 && rows == max {
			pt.rest.frames = b
			return h.client.Write([]byte{'s', 0, 0, 0, 4})
		}
		if typ == 'C' {
			pt.rest.frames = nil
			return h.endPiece(string(b[5:n-1]), rows)
		}
		if err := h.client.Write(b[:n]); err != nil {
			return clientError{err}
		}
		if typ == 'D' {
			rows++
		}
		b = b[n:]
	}
	return h.endPiece("SELECT", 0) // a portal that has run to its end
}

// endPiece writes the tag of the last piece: of a SELECT it counts that piece's rows.
func (h *Handler) endPiece(tag string, rows int) error {
	if command, _, _ := wire.TagRows(tag); command == "SELECT" || tag == "SELECT" {
		tag = fmt.Sprintf("SELECT %d", rows)
	}
	h.client.SendTag(tag)
	return nil
}
