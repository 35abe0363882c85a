package pool

import (
	"context"
	"errors"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// Whose asks a new server, by queries, whether it is a shard's. The zero value is a mistake of ours: no server is used that nobody has asked.
type Whose struct {
	ask func(database, shard string, ask func(sql string) ([][][]byte, error)) error
}

// Asked asks a server; an error is why it is not to be used.
func Asked(ask func(database, shard string, ask func(sql string) ([][][]byte, error)) error) Whose {
	w := Whose{ask}
	w.must()
	return w
}

// Unasked asks nothing, for tests, which say why.
func Unasked(why string) Whose {
	if why == "" {
		panic("pool: no reason not to ask whose a server is")
	}
	return Whose{func(string, string, func(string) ([][][]byte, error)) error { return nil }}
}

func (w Whose) must() {
	if w.ask == nil {
		panic("pool: nobody asks whose a server is")
	}
}

// verify has a new server asked whether it is the shard's, before anybody uses it: a name may mean another address by now. It costs
// each connection one more round trip at its opening.
func (p *Pool) verify(ctx context.Context, s *Server) error {
	deadline, _ := ctx.Deadline()
	if most := time.Now().Add(p.mgr.Options().ConnectTimeout); deadline.IsZero() || most.Before(deadline) {
		deadline = most
	}
	err := s.SetDeadline(deadline)
	stop := whenDone(ctx, s)
	if err == nil {
		err = p.mgr.Options().Verify.ask(p.Database, p.Shard, s.Rows)
	}
	err = errors.Join(stop(), err, s.SetDeadline(time.Time{}))
	if err == nil {
		return nil
	}
	_ = s.Close() // nobody has used it
	return dialError(p, err)
}

// whenDone has whoever reads from a connection, or writes to it, fail when ctx ends. stop ends that; it is an error if ctx was faster.
func whenDone(ctx context.Context, c interface{ SetDeadline(t time.Time) error }) (stop func() error) {
	undo := context.AfterFunc(ctx, func() {
		_ = panics.Catch(panics.Background, func() error { return c.SetDeadline(time.Unix(1, 0)) }, nil) // a closed one has nobody who waits
	})
	return func() error {
		if undo() {
			return nil
		}
		return ctx.Err()
	}
}
