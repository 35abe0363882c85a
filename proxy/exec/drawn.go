package exec

import (
	"context"
	"sync/atomic"

	"github.com/pgmosaic/pgmosaic/router"
)

// What currval and lastval say is the server's: the last values that were drawn there, by whatever client. So a server has in its books whose they
// are, and each session which of its draws was the last. What is not the session's alone, or older than what it has drawn elsewhere, is forgotten
// before it is asked for, and PostgreSQL says that nothing was drawn. In a transaction that is done before the session draws, together with
// BEGIN, so that what is drawn there is known to its end. Outside of one it would cost each INSERT a round trip: it is done where clients of the pool ask.

// forgetSQL has a server forget what was drawn there.
const forgetSQL = "DISCARD SEQUENCES"

// drawing is what a session has drawn.
type drawing struct {
	by    uint64 // what servers know the session by; another one when it has forgotten what it had drawn
	last  uint64 // its draws so far
	asked uint64 // the draw of which a statement asks that wants a server; 0: of none
}

var drawings atomic.Uint64

// anew is what a session has drawn that begins, or has forgotten it, as by DISCARD: what servers know it by is not its own any more.
func anew(d drawing) drawing { return drawing{by: drawings.Add(1), last: d.last} }

// drawsKey is how the proxy's own drawing of a key counts.
var drawsKey = &router.Template{Counts: router.Draws}

// counts sees to what a server knows of sequences, for a statement that is about to run there.
func counts(ctx context.Context, h *Handler, p *participant, t *router.Template) error {
	if t.Counts == 0 {
		return nil
	}
	s, st := p.Server, h.shards.At(p.shard)
	if !s.Knows(h.drawn.by, st.Drawn) && (t.Counts&router.Recalls != 0 || !h.tx.Idle() || s.Pool.Recalls()) {
		if err := forgets(ctx, h, p); err != nil {
			return err
		}
	}
	if t.Counts&router.Asks != 0 {
		s.Pool.Recall()
	}
	if t.Counts&router.Draws != 0 {
		before := st.Drawn
		h.drawn.last++
		st.Drawn = h.drawn.last
		s.Drew(h.drawn.by, before, st.Drawn)
	}
	return nil
}

// forgets has a server forget what was drawn there: with what is sent next, in a transaction or amid a pipeline.
func forgets(ctx context.Context, h *Handler, p *participant) error {
	amid := p == h.ext.cur
	if amid && len(h.ext.ops) > 0 { // what came before is answered before
		if err := h.drain(ctx, false); err != nil {
			return err
		}
	}
	if amid || !h.tx.Idle() {
		p.Aside(forgetSQL)
	} else if _, err := p.Server.Exec(forgetSQL); err != nil {
		return h.lost(p, err)
	}
	p.Server.Forgotten()
	return nil
}

// countsCopies is counts for the server of a gathering's copies, where only functions draw: whoever asks there what was drawn is told that nothing was.
func countsCopies(g *gathering) error {
	s := g.on.Server
	if g.t.Counts&router.Recalls != 0 {
		if err := g.exec(forgetSQL); err != nil {
			return err
		}
		s.Forgotten()
	}
	if g.t.Counts&router.Draws != 0 {
		s.DrewUnknown()
	}
	return nil
}
