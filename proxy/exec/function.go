package exec

import (
	"context"
	"encoding/binary"
	"regexp"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// callText stands for a call where a statement is named.
var callText = []byte("fast-path function call")

// Function implements session.Handler: a call by the fast-path protocol goes to home, where large objects
// are, which is what it is used for. As a simple query it ends a pipeline that has not seen its Sync, and is part of that.
func (h *Handler) Function(ctx context.Context, m wire.Message) error {
	if h.ext.skipping {
		return nil
	}
	h.beginRequest(len(m.Raw))
	h.request.About(callText)
	idle := h.tx.Idle()
	err := h.joinPipeline(ctx)
	joined := h.tx.Implicit
	if err == nil {
		err = byNewerMap(ctx, h, func() error { return h.function(ctx, m) })
	}
	if err = endPipeline(ctx, h, joined, err); err != nil {
		if err := h.report(err, string(callText)); err != nil {
			return err
		}
	}
	endRequest(h, idle)
	return nil
}

func (h *Handler) function(ctx context.Context, m wire.Message) error {
	if h.tx.Failed() {
		return errFailedTx
	}
	if err := h.current(ctx); err != nil {
		return err
	}
	t := &router.Template{Class: router.Single, Stmt: &sqlparse.Statement{Kind: sqlparse.Other}, DB: h.planner.DB, Home: true, Whole: true, Hidden: &router.Hidden{Vars: namesIn(m.Body()), Modes: true}, Counts: router.Draws | router.Recalls}
	p, err := h.enlist(ctx, h.planner.DB.Home.Index, t)
	if err != nil {
		return err
	}
	p.Server.GatherCall(m.Raw)
	var r relayed
	if err = p.Server.Flush(); err != nil {
		err = h.lost(p, err)
	} else if err = h.prologue(p); err == nil {
		r, err = h.relay(p)
	}
	return h.ended(ctx, p, t, r, err)
}

// namesIn lists the arguments of a call that could be names of custom parameters: by its number it may be set_config that is called.
func namesIn(call []byte) (names []string) {
	skip := func(n int) {
		call = call[min(max(n, 0), len(call)):]
	}
	count := func() (n int) {
		if len(call) >= 2 {
			n = int(binary.BigEndian.Uint16(call))
		}
		skip(2)
		return n
	}
	skip(4)           // whose number
	skip(2 * count()) // formats
	for range count() {
		if len(call) < 4 {
			break
		}
		n := int(int32(binary.BigEndian.Uint32(call)))
		skip(4)
		if arg := call[:min(max(n, 0), len(call))]; customName.Match(arg) {
			names = append(names, strings.ToLower(string(arg)))
		}
		skip(n)
	}
	return names
}

var customName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z0-9_$]+)+$`)
