package nodeconn

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Whose asks whose the database is that a connection leads to: a name may mean another address by now, and a database be restored or adopted.
// No connection is used before it has been asked, and none is opened without one. The zero value opens nothing.
type Whose struct {
	ask func(context.Context, *pgconn.PgConn) error
}

// Asked asks a connection; an error is why it is not to be used.
func Asked(ask func(context.Context, *pgconn.PgConn) error) Whose {
	if ask == nil {
		panic("nodeconn: nobody asks whose a database is")
	}
	return Whose{ask}
}

// Unasked is for databases of which there is nothing to ask yet; why says so. A test lists who may.
func Unasked(why string) Whose {
	if why == "" {
		panic("nodeconn: no reason not to ask whose a database is")
	}
	return Whose{func(context.Context, *pgconn.PgConn) error { return nil }}
}

// Ask asks a connection that has been open for a while again.
func (w Whose) Ask(ctx context.Context, c *pgconn.PgConn) error { return w.ask(ctx, c) }

// must refuses the zero value, which is a mistake of ours.
func (w Whose) must() {
	if w.ask == nil {
		panic("nodeconn: it is not said whose the database must be")
	}
}

// first asks a connection that has just been opened, and closes one that is not to be used.
func (w Whose) first(ctx context.Context, c *pgconn.PgConn) error {
	err := w.ask(ctx, c)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(ctx) // nothing was done on it
	}
	return err
}

// still says whether one that was kept answers, and what it should.
func (w Whose) still(ctx context.Context, c *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, pingWait)
	defer cancel()
	return c.Ping(ctx) == nil && w.ask(ctx, c.PgConn()) == nil
}
