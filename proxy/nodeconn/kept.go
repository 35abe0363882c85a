package nodeconn

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// idleFor is how long a connection is kept that nobody needs: who comes by regularly comes more often.
const idleFor = time.Minute

// keptMost is how many connections are kept for one purpose and connection string: what a move uses at once on a node.
const keptMost = 3

// Kept keeps connections for each purpose and connection string between uses, for what leaves nothing on a connection: no setting, role, lock
// or temporary object. Any number of goroutines may use it: who finds all that are kept in use opens another. The zero value is
// ready for use, and a nil one keeps nothing.
type Kept struct {
	mu     sync.Mutex // guards the rest
	idle   map[lentFor][]idleConn
	gone   map[string]int // connection strings of what was lent, by when the node was let go: its number of drops; 0: it was not
	drops  int            // how often Drop or Retain was called
	first  int            // what was lent before so many drops is not kept: gone has forgotten whose it was
	closed bool           // Run has ended: nothing is kept any more
}

// goneMost bounds what is remembered of nodes that were let go.
const goneMost = 1000

// lentFor is what a connection is kept for.
type lentFor struct {
	purpose string
	dsn     string
}

type idleConn struct {
	c     *pgx.Conn
	since time.Time
}

// Lend lends f a connection, one that was kept or a new one, which has been asked whose it is. f leaves nothing on the connection, or fails
// or panics: then it is closed. The error is f's, whose's or that of opening it.
func (k *Kept) Lend(ctx context.Context, dsn string, p Purpose, whose Whose, f func(context.Context, *pgx.Conn) error) error {
	c, _, err := k.Borrow(ctx, dsn, p, whose)
	if err != nil {
		return err
	}
	fit := false
	defer func() {
		if fit {
			k.Return(c)
		} else {
			closeConn(c)
		}
	}()
	err = f(ctx, c)
	fit = err == nil
	return err
}

// pingWait is how long one that was kept may take for an answer: where a server is frozen, a new one says so.
const pingWait = 3 * time.Second

// Borrow gives the caller a connection that was kept, or a new one, and says which. Either has just been asked whose it is. He closes it, or
// gives it to Return if he leaves nothing on it.
func (k *Kept) Borrow(ctx context.Context, dsn string, p Purpose, whose Whose) (c *pgx.Conn, kept bool, err error) {
	whose.must()
	u := lentFor{p.name, dsn}
	c, drops := k.take(u)
	if c != nil && !whose.still(ctx, c) { // it broke while nobody used it, or is another's: a new one tells why
		closeConn(c)
		c = nil
	}
	if kept = c != nil; !kept {
		if c, err = Open(ctx, dsn, p, whose); err != nil {
			return nil, false, err
		}
	}
	c.PgConn().CustomData()[loanKey] = loan{u, drops}
	return c, kept, nil
}

// loan is what Return has to know of a connection; it stands under loanKey.
type loan struct {
	lentFor lentFor
	drops   int
}

const loanKey = "pgmosaic: loan"

// Spoil has a connection be closed when it is given back, because somebody else's code has run on it.
func Spoil(c *pgx.Conn) { delete(c.PgConn().CustomData(), loanKey) }

// Return keeps a connection that was borrowed, unless it is broken or spoilt, in a transaction, its node was let go meanwhile, or enough are kept:
// then it is closed.
func (k *Kept) Return(c *pgx.Conn) {
	l, ok := c.PgConn().CustomData()[loanKey].(loan)
	if ok && !c.IsClosed() && c.PgConn().TxStatus() == 'I' {
		c = k.put(l.lentFor, c, l.drops)
	}
	closeConn(c)
}

// take returns a connection that is kept, the one that was used last, or nil, and how often Drop has been called.
func (k *Kept) take(u lentFor) (c *pgx.Conn, drops int) {
	if k == nil {
		return nil, 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone == nil {
		k.gone, k.idle = map[string]int{}, map[lentFor][]idleConn{}
	}
	k.gone[u.dsn] += 0 // it is known from here on
	if all := k.idle[u]; len(all) > 0 {
		c = all[len(all)-1].c
		k.keep(u, all[:len(all)-1])
	}
	return c, k.drops
}

// keep sets what is kept for a use. mu is held.
func (k *Kept) keep(u lentFor, all []idleConn) {
	if len(all) == 0 {
		delete(k.idle, u)
		return
	}
	k.idle[u] = all
}

// put keeps a connection, or returns the one that is too many.
func (k *Kept) put(u lentFor, c *pgx.Conn, drops int) (over *pgx.Conn) {
	if k == nil {
		return c
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || drops < k.first || drops < k.gone[u.dsn] || c.IsClosed() || len(k.idle[u]) >= keptMost {
		return c
	}
	k.idle[u] = append(k.idle[u], idleConn{c, time.Now()})
	return nil
}

// Drop closes the connections to a node, which is no longer to be trusted with work. One that is lent is closed when it is given back.
func (k *Kept) Drop(dsn string) { k.Retain(func(other string) bool { return other != dsn }) }

// Retain closes the connections to nodes of which keep is false, as Drop does.
func (k *Kept) Retain(keep func(dsn string) bool) {
	k.mu.Lock()
	k.drops++
	for dsn := range k.gone {
		if !keep(dsn) {
			k.gone[dsn] = k.drops
		}
	}
	if len(k.gone) > goneMost {
		clear(k.gone)
		k.first = k.drops
	}
	old := k.takeOut(func(u lentFor, _ idleConn) bool { return !keep(u.dsn) }) // under the same lock: who took one now would be taken to have it from after this
	k.mu.Unlock()
	closeAll(old)
}

// Led closes the idle connections to a node that are at no address that its names mean now. One that is lent is judged the next time.
func (k *Kept) Led(dsn string, means func(addr string) bool) {
	k.close(func(u lentFor, i idleConn) bool {
		return u.dsn == dsn && !means(i.c.PgConn().Conn().RemoteAddr().String())
	})
}

// Run closes connections that nobody needs, and when ctx ends all.
func (k *Kept) Run(ctx context.Context) error {
	tick := time.NewTicker(idleFor / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.mu.Lock()
			k.closed = true
			k.mu.Unlock()
			k.close(func(lentFor, idleConn) bool { return true })
			return nil
		case now := <-tick.C:
			k.close(func(_ lentFor, i idleConn) bool { return now.Sub(i.since) >= idleFor })
		}
	}
}

// close closes those that are idle and of which it is true.
func (k *Kept) close(which func(u lentFor, i idleConn) bool) {
	k.mu.Lock()
	old := k.takeOut(which)
	k.mu.Unlock()
	closeAll(old)
}

// takeOut takes those that are idle and of which it is true. mu is held.
func (k *Kept) takeOut(which func(u lentFor, i idleConn) bool) (old []*pgx.Conn) {
	for u, all := range k.idle {
		k.keep(u, slices.DeleteFunc(all, func(i idleConn) bool {
			if !which(u, i) {
				return false
			}
			old = append(old, i.c)
			return true
		}))
	}
	return old
}

func closeAll(all []*pgx.Conn) {
	for _, c := range all {
		closeConn(c)
	}
}

// closeConn closes a connection that nobody uses.
func closeConn(c *pgx.Conn) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // nothing is left on it
}
