package pool

import (
	"context"
	"errors"
	"time"
)

// verify has a new server asked whether it is the shard's, before anybody uses it: a name may mean another address by now. It costs
// each connection one more round trip at its opening.
func (p *Pool) verify(ctx context.Context, s *Server) error {
	ask := p.mgr.Options().Verify
	if ask == nil {
		return nil
	}
	deadline, _ := ctx.Deadline()
	if most := time.Now().Add(p.mgr.Options().ConnectTimeout); deadline.IsZero() || most.Before(deadline) {
		deadline = most
	}
	err := s.SetDeadline(deadline)
	if err == nil {
		err = ask(p.Database, p.Shard, s.Rows)
	}
	err = errors.Join(err, s.SetDeadline(time.Time{}))
	if err == nil {
		return nil
	}
	_ = s.Close() // nobody has used it
	return dialError(p, err)
}
