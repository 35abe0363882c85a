package exec

import "github.com/pgmosaic/pgmosaic/proxy/pool"

// welcome is what a new session of a role is told, and its search path.
type welcome struct {
	by         string // the shard that told it
	params     map[string]string
	searchPath []string
	as         string // who its statements run as, by ALTER ROLE .. SET role perhaps
	modes      modes
	login      *pool.Settings
	defaults   *pool.Settings // of the server that was asked
	with       string         // what it began with: see beganSQL
	logins     uint32         // of the engine, then
}

// modes are the defaults of transactions.
type modes struct {
	isolation string // default_transaction_isolation
	only      string // default_transaction_read_only
}

// welcomeKey is what sessions have in common that are told the same.
type welcomeKey struct {
	db, role string
	settings [2]uint64 // of the startup packet
}

// whose are the database and the role: servers begin alike for them.
func (k *welcomeKey) whose() [2]string { return [2]string{k.db, k.role} }

// welcomes are what new sessions are told. The engine's mu guards them.
type welcomes struct {
	of    map[welcomeKey]*welcome
	with  map[[2]string]string // what servers begin with: see beganSQL
	bytes int64

	cleared uint64 // how often they were forgotten
}

// mostWelcomes is how many bytes of them are kept: who asks for something else each time has the server asked each time.
const mostWelcomes = 16 << 20

func (w *welcomes) clear() {
	clear(w.of)
	clear(w.with)
	w.bytes = 0
	w.cleared++
}

// keep keeps what a server has said that was asked when they had been forgotten since times. What sessions begin with may have been changed behind its
// word, if they were forgotten again.
func (w *welcomes) keep(key welcomeKey, x *welcome, since uint64) {
	if w.cleared != since {
		return
	}
	n := 500 + x.login.Size() + x.defaults.Size()
	for name, value := range x.params {
		n += saidCost + int64(len(name)+len(value))
	}
	if w.bytes+n > mostWelcomes {
		w.clear()
	}
	w.of[key], w.with[key.whose()] = x, x.with
	w.bytes += n
}

// forgetWelcomes has the next session of each kind ask a server: ALTER ROLE and ALTER DATABASE change what new sessions begin with.
func (e *Engine) forgetWelcomes() {
	e.mu.Lock()
	e.welcome.clear()
	e.mu.Unlock()
}
