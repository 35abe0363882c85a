package exec

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// account is what a session holds, as far as it counts.
type account struct {
	memory  *memory.Ledger // nil: nothing is counted
	texts   *texts
	held    int64 // bytes of prepared statements
	waiting int64 // bytes that are counted for portals
	kept    kept
}

// kept is what a session keeps of its own: its settings, and what its transaction has set and saved for servers that join it later, and
// to go back to. Its settings are counted as far as they are not those that sessions like it begin with.
type kept struct {
	settings, tx int64 // bytes that are counted as Settings and Transactions

	// Of the transaction: how many of its steps, savepoints and LISTENs are in bytes.
	steps, saves, listens int
	bytes                 int64
	old                   int64 // of settings to which it may go back, besides those before it
	fresh                 int64 // of the settings that it has now, and that none of those have
}

// What the parts of a transaction cost besides their texts; lists have room to grow.
const (
	stepCost   = int64(unsafe.Sizeof(step{}))*9/8 + 16
	saveCost   = int64(unsafe.Sizeof(savepoint{}))*9/8 + 16
	listenCost = int64(unsafe.Sizeof(listening{})) * 9 / 8
	longBegin  = 64 // what is no longer is not counted
	saidCost   = 44 // one that the client was told
	cursorCost = 32
	customCost = 48 // a custom parameter that a transaction knows of
	mapCost    = 96
)

func (s *step) size() int64 {
	n := stepCost + int64(len(s.name)+len(s.sql))
	if isCustom(s.name) {
		n += customCost
	}
	if s.seen != nil {
		n += s.seen.Size()
	}
	if s.off != nil {
		n += s.off.size()
	}
	for _, v := range s.vars {
		n += 16 + int64(len(v))
	}
	return n
}

// size is what a savepoint costs besides its settings; before is the one before it, nil for none.
func (s *savepoint) size(before *savepoint) int64 {
	n := saveCost + int64(len(s.name))
	if len(s.told) > 0 {
		n += mapCost + saidCost*int64(max(8, len(s.told)))
	}
	if len(s.cursors) > 0 {
		n += mapCost + cursorCost*int64(max(8, len(s.cursors)))
	}
	if before == nil || unsafe.SliceData(s.path) != unsafe.SliceData(before.path) {
		for _, name := range s.path {
			n += 16 + int64(len(name))
		}
	}
	if s.view.Schema != nil && (before == nil || before.view.Schema != s.view.Schema) {
		n += schemaSize(s.view.Schema)
	}
	return n
}

// schemaSize is about what a schema costs that only one transaction sees.
func schemaSize(s *schema.Snapshot) int64 {
	const table, column, function = 500, 250, 250
	n := int64(0)
	for _, t := range s.Tables {
		n += table + column*int64(len(t.Columns)) + int64(len(t.View))
	}
	for _, list := range s.Funcs {
		for _, f := range list {
			n += function + int64(len(f.Body))
		}
	}
	return n
}

// adopt gives the session other settings.
func adopt(h *Handler, next *pool.Settings) {
	if next == h.settings {
		return
	}
	if !h.tx.Idle() {
		h.ext.kept.fresh += h.settings.More(next, h.tx.latest())
	}
	h.settings = next
	reckonKept(h)
}

// latest are the settings to which the transaction would go back from here.
func (tx *transaction) latest() *pool.Settings {
	if n := len(tx.saves); n > 0 {
		return tx.saves[n-1].settings
	}
	return tx.before
}

// reckonKept counts what the session keeps.
func reckonKept(h *Handler) {
	k, tx := &h.ext.kept, &h.tx
	if k.steps > len(tx.steps) || k.saves > len(tx.saves) || k.listens > len(tx.listens) {
		reckonAnew(h)
		return
	}
	for ; k.steps < len(tx.steps); k.steps++ {
		k.bytes += tx.steps[k.steps].size()
	}
	for ; k.saves < len(tx.saves); k.saves++ {
		var before *savepoint
		if k.saves > 0 {
			before = &tx.saves[k.saves-1]
		}
		k.bytes += tx.saves[k.saves].size(before)
		k.old += k.fresh // it goes back to all that there is
		k.fresh = 0
	}
	for ; k.listens < len(tx.listens); k.listens++ {
		k.bytes += listenCost + int64(len(tx.listens[k.listens].channel))
	}
	settings, own := h.settings.Size(), int64(0)
	if !tx.Idle() {
		settings, own = tx.before.Size()+k.old+k.fresh, k.bytes
		if n := len(tx.begin); n > longBegin {
			own += int64(n)
		}
	}
	if h.settings != h.login {
		settings = max(0, settings-h.login.Size())
	} else if tx.Idle() {
		settings = 0
	}
	h.ext.tally(settings, own)
}

// rewind counts what the session keeps when it has gone back to a savepoint, or forgotten one: what it kept before it, and what there is
// besides, fresh bytes of settings among it.
func rewind(h *Handler, before kept, fresh int64) {
	k := &h.ext.kept
	before.settings, before.tx = k.settings, k.tx
	before.fresh += fresh
	*k = before
	reckonKept(h)
}

// reckonAnew counts what the session keeps when its transaction has begun or ended.
func reckonAnew(h *Handler) {
	k, tx := &h.ext.kept, &h.tx
	*k = kept{settings: k.settings, tx: k.tx}
	if !tx.Idle() {
		last := tx.before
		for i := range tx.saves {
			k.old += last.More(tx.saves[i].settings, last)
			last = tx.saves[i].settings
		}
		k.fresh = last.More(h.settings, last)
	}
	fresh := k.fresh
	k.fresh = 0
	for i := range tx.saves {
		var before *savepoint
		if i > 0 {
			before = &tx.saves[i-1]
		}
		k.bytes += tx.saves[i].size(before)
	}
	k.saves, k.fresh = len(tx.saves), fresh
	reckonKept(h)
}

// tally counts what is kept by now.
func (a *account) tally(settings, tx int64) {
	k := &a.kept
	if a.memory != nil && settings != k.settings { // all sessions count there
		a.memory.Add(memory.Settings, settings-k.settings)
	}
	if a.memory != nil && tx != k.tx {
		a.memory.Add(memory.Transactions, tx-k.tx)
	}
	k.settings, k.tx = settings, tx
}

// mayKeep says whether the session may keep n bytes more for a consumer, or why not.
func (a *account) mayKeep(c memory.Consumer, n int64) error {
	m, k := a.memory, &a.kept
	if m == nil || n <= 0 {
		return nil
	}
	if most := m.Session.Load(); most > 0 && k.settings+k.tx+n > most {
		return &pgsql.Error{
			Code: pgsql.OutOfMemory, Message: "out of memory",
			Detail: fmt.Sprintf("%s more for %s; the session's settings hold %s, what its transaction has set and saved %s; session_memory_limit is %s.", memory.About(n), c.Words(), memory.About(k.settings), memory.About(k.tx), memory.About(most)),
			Hint:   "RESET what is no longer used, end the transaction, or raise session_memory_limit.",
		}
	}
	if err := m.Take(c, n); err != nil {
		return err
	}
	m.Give(c, n) // it is counted when it is there
	return nil
}

// mayControl says whether the session may keep what a statement of its own affair sets or saves.
func mayControl(h *Handler, s *sqlparse.Statement) error {
	inTx := !h.tx.Idle()
	switch s.Kind {
	case sqlparse.Set:
		v := s.Var
		if strings.HasPrefix(v.Name, "pgmosaic.") {
			return nil
		}
		if !v.Local && !v.Default && !v.Special {
			if err := h.ext.mayKeep(memory.Settings, moreToKeep(h, v.Name, v.Value)); err != nil {
				return err
			}
		}
		if inTx {
			return h.ext.mayKeep(memory.Transactions, stepCost+int64(len(s.Text)+len(v.Name)))
		}
	case sqlparse.Savepoint:
		return h.ext.mayKeep(memory.Transactions, stepCost+saveCost+int64(len(`SAVEPOINT "99 "`)+2*len(s.Name))+saidCost*int64(h.told.Count())+cursorCost*int64(len(h.tx.cursors)))
	case sqlparse.Listen, sqlparse.Unlisten:
		if inTx {
			return h.ext.mayKeep(memory.Transactions, listenCost+int64(len(s.Name)))
		}
	case sqlparse.Constraints:
		return h.ext.mayKeep(memory.Transactions, stepCost+int64(len(s.Text))+puttingOffBy(s).size())
	case sqlparse.Begin:
		return h.ext.mayKeep(memory.Transactions, stepCost+int64(len(s.Text)))
	default: // nothing of it is kept
	}
	return nil
}

// countMessage counts bytes of a client's message, or of fewer than none that are given back.
func (a *account) countMessage(n int64) error {
	switch {
	case a.memory == nil:
	case n < 0:
		a.memory.Give(memory.Messages, -n)
	default:
		return a.memory.Take(memory.Messages, n)
	}
	return nil
}

// moreToKeep is how many bytes more the session's settings hold with a parameter's value. In a transaction what the parameter was is
// there still, to go back to.
func moreToKeep(h *Handler, name, value string) int64 {
	n := pool.ParameterSize(name, value)
	if was, ok := h.settings.Get(name); ok && h.tx.Idle() {
		n -= pool.ParameterSize(name, was)
	}
	return n
}

// mayConfigure says whether the session may keep what a statement's set_config calls set.
func mayConfigure(h *Handler, list []setting) error {
	n, step := int64(0), int64(0)
	for _, c := range list {
		if !c.local && !c.reset {
			n += moreToKeep(h, c.name, c.value)
		}
		step += stepCost + int64(len(c.name)+len(c.value))
	}
	if err := h.ext.mayKeep(memory.Settings, n); err != nil || h.tx.Idle() {
		return err
	}
	return h.ext.mayKeep(memory.Transactions, step)
}

// most is how many bytes of settings the session may have.
func (a *account) most() int64 {
	if a.memory == nil || a.memory.Session.Load() == 0 {
		return math.MaxInt64
	}
	return a.memory.Session.Load()
}

// ended begins the message to a session that ends.
const ended = "terminating connection: "

// setTooMuch is what a client is told whose session has no room for what a function has set.
func setTooMuch(what string) *pgsql.Error {
	return &pgsql.Error{
		Code: pgsql.OutOfMemory, Message: what + "a function has set more than the session may keep",
		Detail: "The settings of a session may hold session_memory_limit, and those of all their part of memory_limit.",
		Hint:   "Keep in tables what is long, RESET what is no longer used, or raise session_memory_limit.",
	}
}

// leave counts back what a session kept that has ended, and what waited for it.
func leave(h *Handler) {
	h.ext.tally(0, 0)
	if h.listen != nil {
		h.listen.Close()
	}
}
