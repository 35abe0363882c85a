package exec

import (
	"context"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// readsOnly says whether the client's transaction is READ ONLY and a replica may run it: SERIALIZABLE needs the primary.
func (h *Handler) readsOnly() bool {
	if h.tx.implicit || h.tx.opts.ReadWrite || h.isolation() == "serializable" {
		return false
	}
	if h.tx.opts.ReadOnly {
		return true
	}
	v, _ := h.settings.Get("default_transaction_read_only")
	switch strings.ToLower(strings.Trim(v, "'")) {
	case "on", "true", "yes", "1":
		return true
	}
	return false
}

// forTransaction leases a server for a READ ONLY transaction's reads. One that has a single snapshot sees everything that
// was written to the shard before it, whatever its first statement reads.
func (h *Handler) forTransaction(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	p, err := h.forReader(ctx, shard, t, h.isolation() != "")
	if err != nil {
		return nil, err
	}
	own := *p // the spare is for statements of their own
	if !own.replica {
		own.node = -1
	}
	return &own, nil
}

// staysOnReplica says whether a transaction that reads a replica may run a statement there. If not, it goes on on the
// primary, which under READ COMMITTED is no difference. A transaction with one snapshot stays where that is.
func (h *Handler) staysOnReplica(p *participant, t *router.Template) (bool, error) {
	if !p.replica {
		return true, nil
	}
	if h.isolation() != "" {
		if t.Stmt == nil { // a setting
			return true, nil
		}
		for _, f := range t.Stmt.Funcs {
			if strings.Contains(f, "advisory") {
				return true, &wire.PgError{
					Code: "0A000", Message: "an advisory lock in a READ ONLY transaction that reads a replica",
					Hint: "Take the lock in a READ WRITE transaction, or SET pgmosaic.read_consistency = strong.",
				}
			}
		}
		return true, nil
	}
	if h.holdsPortal(p) {
		return true, nil
	}
	if !t.Read {
		return false, nil
	}
	st := &h.shards[p.shard]
	v := h.viewOf(st)
	if v == nil || p.node >= len(v.Nodes) {
		return false, nil
	}
	last := st.last
	st.last = p.node
	node, _, vouch := h.choose(v, p.shard, t, false)
	st.last = last
	return node == p.node && !vouch, nil
}

// holdsPortal says whether the client has a portal or cursor open on a server.
func (h *Handler) holdsPortal(p *participant) bool {
	x := &h.ext
	if x.anonymous != nil && x.anonymous.on == p {
		return true
	}
	for _, pt := range x.portals {
		if pt.on == p {
			return true
		}
	}
	for _, q := range h.tx.cursors {
		if q == p {
			return true
		}
	}
	return false
}
