package exec

import (
	"context"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// readsOnly says whether the client's transaction is READ ONLY and a replica may run it: SERIALIZABLE needs the primary.
func (h *Handler) readsOnly() bool {
	return !h.tx.Implicit && saidReadOnly(h, "") && h.isolation() != "serializable"
}

// saidReadOnly says whether the client's transaction is to be READ ONLY, by what it was begun with, SET TRANSACTION or the default that the
// session has SET; else by first, a default that its servers may have.
func saidReadOnly(h *Handler, first string) bool {
	if h.tx.opts.ReadOnly || h.tx.opts.ReadWrite {
		return h.tx.opts.ReadOnly
	}
	return isOn(defaultIn(foundByTx(h), "default_transaction_read_only", first))
}

// foundByTx are the settings that the transaction that runs has found: a default of transactions that is SET in it is for the next one.
func foundByTx(h *Handler) *pool.Settings {
	if h.tx.before != nil {
		return h.tx.before
	}
	return h.settings
}

// defaultIn is what settings say of a default, in lower case. first is what the session began with.
func defaultIn(set *pool.Settings, name, first string) string {
	if v, ok := set.Get(name); ok {
		first = v
	}
	return strings.ToLower(strings.Trim(first, "'"))
}

func isOn(v string) bool { return v == "on" || v == "true" || v == "yes" || v == "1" }

// chained are the modes that AND CHAIN passes on. What was set by name, or by code, a server is asked for.
func chained(ctx context.Context, h *Handler) (sqlparse.Tx, error) {
	opts := explicit(h, h.tx.chained())
	if !h.tx.Modes || !h.tx.Active() || len(h.tx.parts) == 0 {
		return opts, nil
	}
	if err := spread(ctx, h, nil); err != nil {
		return opts, err
	}
	p := h.tx.parts[0]
	if err := h.ready(p); err != nil {
		return opts, err
	}
	row, err := p.Server.Row(3, "select pg_catalog.current_setting('transaction_isolation'), pg_catalog.current_setting('transaction_read_only'), pg_catalog.current_setting('transaction_deferrable')")
	if err != nil {
		return opts, h.lost(p, err)
	}
	only, deferrable := isOn(string(row[1])), isOn(string(row[2]))
	return sqlparse.Tx{Isolation: string(row[0]), ReadOnly: only, ReadWrite: !only, Deferrable: deferrable, NotDeferrable: !deferrable}, nil
}

// explicit are the modes of a transaction with those that defaults have given it which are others now.
func explicit(h *Handler, opts sqlparse.Tx) sqlparse.Tx {
	changed := func(name, first string) (was string, differs bool) {
		was = defaultIn(foundByTx(h), name, first)
		return was, was != defaultIn(h.settings, name, first)
	}
	if was, differs := changed("default_transaction_isolation", h.firstModes.isolation); differs && opts.Isolation == "" {
		opts.Isolation = was
	}
	if was, differs := changed("default_transaction_read_only", h.firstModes.only); differs && !opts.ReadOnly && !opts.ReadWrite {
		opts.ReadOnly, opts.ReadWrite = isOn(was), !isOn(was)
	}
	if was, differs := changed("default_transaction_deferrable", "off"); differs && !opts.Deferrable && !opts.NotDeferrable {
		opts.Deferrable, opts.NotDeferrable = isOn(was), !isOn(was)
	}
	return opts
}

// ofTransactions are the parameters that SET TRANSACTION sets: they end with the transaction, LOCAL or not.
var ofTransactions = map[string]bool{"transaction_isolation": true, readOnlySetting: true, "transaction_deferrable": true}

const readOnlySetting = "transaction_read_only"

// modesUnseen notes that one of them is set by its name. The transaction counts as READ WRITE then: a replica could not undo READ ONLY.
func modesUnseen(h *Handler) {
	if !h.tx.Idle() {
		h.tx.opts.ReadOnly, h.tx.opts.ReadWrite, h.tx.Modes = false, true, true
	}
}

// staysOnReplica says whether a transaction that reads a replica may run a statement there. If not, it goes on on the
// primary, which under READ COMMITTED is no difference. A transaction with one snapshot stays where that is.
func (h *Handler) staysOnReplica(p *participant, t *router.Template) (bool, error) {
	if !p.Replica {
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
	if v == nil || p.node >= len(v.Nodes) || h.e.debts.Has(h.db, st.Info.Name) {
		return false
	}
	st.Still(p.node)
	c := h.choose(v, p.shard, t)
	return c.Node == p.node && !c.Vouch
}

// holdsPortal says whether the client has a portal or cursor on a server that it has not run to its end.
func (h *Handler) holdsPortal(p *participant) bool {
	x := &h.ext
	if x.anonymous != nil && x.anonymous.part == p && x.anonymous.state.MayRun() {
		return true
	}
	for _, pt := range x.portals {
		if pt.part == p && pt.state.MayRun() {
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
