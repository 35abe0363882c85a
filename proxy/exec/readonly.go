package exec

import (
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
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
				return true, &pgsql.Error{
					Code: pgsql.FeatureNotSupported, Message: "an advisory lock in a READ ONLY transaction that reads a replica",
					Hint: "Take the lock in a READ WRITE transaction, or SET pgmosaic.read_consistency = strong.",
				}
			}
		}
		return true, nil
	}
	if t.Read && h.stillFit(p, t) {
		return true, nil
	}
	if h.holdsPortal(p) { // it would be gone
		return true, h.onPrimaries()
	}
	return false, nil
}

// stillFit says whether the replica that a session reads may answer one more statement: what that reads may have been written
// since.
func (h *Handler) stillFit(p *participant, t *router.Template) bool {
	st := h.shards.At(p.shard)
	v := st.View()
	if v == nil || p.node >= len(v.Nodes) {
		return false
	}
	st.Still(p.node)
	c := h.choose(v, p.shard, t)
	return c.Node == p.node && !c.Vouch
}

// holdsPortal says whether the client has a portal or cursor on a server that it has not run to its end.
func (h *Handler) holdsPortal(p *participant) bool {
	x := &h.ext
	if x.anonymous != nil && x.anonymous.on == p && !x.anonymous.ran {
		return true
	}
	for _, pt := range x.portals {
		if pt.on == p && !pt.ran {
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
