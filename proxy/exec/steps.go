package exec

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// step is what a transaction has set or saved, for servers that join it later: they are told all of it, in its order.
type step struct {
	kind stepKind
	name string // of the parameter, in lower case; empty if it is none's
	sql  string
	seen *pool.Carried // for stepSeen, with
	vars []string      // the custom parameters that are looked at
	off  *puttingOff   // for stepPutOff
}

type stepKind uint8

const (
	stepSet    stepKind = iota // SET, which outlives the transaction
	stepLocal                  // SET LOCAL
	stepModes                  // SET TRANSACTION
	stepSave                   // SAVEPOINT
	stepSeen                   // what functions have set: see spread
	stepPutOff                 // SET CONSTRAINTS: see putOff
)

// step notes what servers that join later have to be told. name is that of the parameter, or empty.
func (tx *transaction) step(kind stepKind, name string, sql ...string) {
	if tx.Idle() {
		return
	}
	tx.unseen.customs.add(name)
	for _, s := range sql {
		tx.steps = append(tx.steps, step{kind: kind, name: name, sql: strings.Clone(s)}) // it may be a part of a long text
	}
}

// customs are custom parameters, each once.
type customs struct {
	list  []string
	known map[string]bool // nil while they are few
}

// add adds a parameter, if it is a custom one.
func (c *customs) add(name string) {
	const few = 16
	if !isCustom(name) || c.known[name] || c.known == nil && slices.Contains(c.list, name) {
		return
	}
	c.list = append(c.list, name)
	switch {
	case c.known != nil:
		c.known[name] = true
	case len(c.list) > few:
		c.known = map[string]bool{}
		for _, n := range c.list {
			c.known[n] = true
		}
	}
}

// isCustom says whether a parameter is nobody's, and there only because somebody has set it.
func isCustom(name string) bool { return strings.Contains(name, ".") }

// emptied are the settings of who has set custom parameters. PostgreSQL keeps one that was set for a transaction only, or in one that was
// rolled back, as an empty text: it is never again as if it had not been, which policies tell.
func emptied(s *pool.Settings, names ...string) *pool.Settings {
	for _, n := range names {
		if _, ok := s.Get(n); !ok && isCustom(n) {
			s = s.With(n, "''")
		}
	}
	return s
}

// released forgets a savepoint and those behind it, whose work stays. As in PostgreSQL, the modes of the transaction are again
// what they were before it.
func (tx *transaction) released(at int) {
	save := &tx.saves[at]
	kept := tx.steps[:save.steps-1]
	for _, s := range tx.steps[save.steps-1:] {
		if s.kind != stepModes && s.kind != stepSave {
			kept = append(kept, s)
		}
	}
	tx.steps, tx.opts, tx.saves = kept, save.opts, tx.saves[:at]
}

// backTo undoes what came behind a savepoint, which stays. Of custom parameters that were set there an empty text is left.
func (tx *transaction) backTo(at int) {
	save := &tx.saves[at]
	tx.steps, tx.opts, tx.saves, tx.listens = tx.steps[:save.steps], save.opts, tx.saves[:at+1], tx.listens[:save.listens]
	if len(tx.unseen.customs.list) == 0 {
		return
	}
	set := map[string]bool{}
	for i := range tx.steps {
		set[tx.steps[i].name] = true
	}
	for _, n := range tx.unseen.customs.list {
		if _, had := tx.before.Get(n); !had && !set[n] {
			tx.step(stepLocal, n, "SET LOCAL "+pgsql.Setting(n)+" TO ''")
		}
	}
}

// chained are the modes that AND CHAIN passes on. A transaction that has failed has only those that it was begun with in the
// same way; of one that failed behind a savepoint they are as they were there.
func (tx *transaction) chained() sqlparse.Tx {
	switch n := len(tx.saves); {
	case !tx.Failed():
		return tx.opts
	case n > 0:
		return tx.saves[n-1].opts
	}
	return tx.inherited
}

// resets is the SQL that gives a server what RESET, or SET .. TO DEFAULT, means for a session: the value of its startup
// packet, which a server does not know.
func resets(v sqlparse.Var, login *pool.Settings) (out []string) {
	set := "SET "
	if v.Local {
		set = "SET LOCAL "
	}
	if v.Name != "all" {
		value, ok := login.Get(v.Name)
		if !ok {
			value = "DEFAULT"
		}
		return []string{set + pgsql.Setting(v.Name) + " TO " + value}
	}
	out = []string{"RESET ALL"}
	for _, n := range login.Names() {
		value, _ := login.Get(n)
		out = append(out, "SET "+pgsql.Setting(n)+" TO "+value)
	}
	return out
}

// afterReset are the settings of a session that has reset one of them, or all. Who it is stays, and a parameter of an
// extension, or nobody's, that was set once has an empty value, as in PostgreSQL.
func afterReset(name string, now, login *pool.Settings) *pool.Settings {
	names := []string{name}
	if name == "all" {
		names = now.Others().Names()
	}
	next := now
	for _, n := range names {
		value, ok := login.Get(n)
		_, had := now.Get(n)
		switch {
		case ok:
			next = next.With(n, value)
		case had && isCustom(n):
			next = next.With(n, "''")
		default:
			next = next.Without(n)
		}
	}
	if name == "all" {
		next = next.Over(login.Others())
	}
	return next
}

// reported replaces the value that a session has given a parameter by what a server that took it reports, if it reports it. A
// text may say half of the value, as SET datestyle does, and leave the rest as it was.
func reported(s *pool.Server, set *pool.Settings, name string) *pool.Settings {
	if v, ok := s.Reported(name); ok {
		return set.With(name, pgsql.SettingValue(name, v)) // PostgreSQL 18 reports the search_path, a list
	}
	return set
}
