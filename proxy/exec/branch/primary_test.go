package branch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/replication"
)

// waiter is a session that waits, and what it sees: all of it by the time that has passed.
type waiter struct {
	begun                      time.Time
	served, paused, superseded time.Duration // from when on, until when, from when on; 0: never
	ended                      context.Context
	answered                   time.Duration // when the primary's last probe was sent
}

func (w *waiter) since() time.Duration { return time.Since(w.begun) }

func (w *waiter) View() *replication.View {
	v := &replication.View{Primary: 0, Since: w.begun, Nodes: []replication.NodeView{{Name: "a", Primary: true}}}
	if w.served > 0 && w.since() >= w.served {
		v.Nodes[0].Sample.Alive, v.Nodes[0].Sample.Sent = true, w.begun.Add(max(w.answered, w.served))
	}
	return v
}

func (w *waiter) Paused() bool     { return w.since() < w.paused }
func (w *waiter) Superseded() bool { return w.superseded > 0 && w.since() >= w.superseded }
func (w *waiter) Waits(ctx context.Context) (context.Context, func()) {
	if w.ended != nil {
		return w.ended, func() {}
	}
	return ctx, func() {}
}
func (w *waiter) WhyEnded(context.Context, error) error { return errCancelled }

var errCancelled = errors.New("it was cancelled")

func TestWhoWaitsForAPrimary(t *testing.T) {
	for name, c := range map[string]struct {
		waiter
		after   time.Duration
		refused string // what the error says; empty for none
		replan  bool
		waited  time.Duration
	}{
		"it serves soon":              {waiter: waiter{served: 300 * time.Millisecond}, waited: 300 * time.Millisecond},
		"it never serves":             {refused: "failover_buffer is 1s", waited: time.Second},
		"it serves too late":          {waiter: waiter{served: 2 * time.Second}, refused: "failover_buffer is 1s", waited: time.Second},
		"it has answered before":      {waiter: waiter{served: 100 * time.Millisecond}, after: 200 * time.Millisecond, refused: "failover_buffer is 1s", waited: time.Second},
		"an operator has paused it":   {waiter: waiter{paused: 3 * time.Second, served: 3500 * time.Millisecond}, waited: 3500 * time.Millisecond},
		"the map has other nodes now": {waiter: waiter{superseded: 500 * time.Millisecond}, replan: true, waited: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rooms Rooms
				w, count := c.waiter, &metrics.Database{}
				w.begun = time.Now()
				n := Need{Database: "shop", Shard: "s1", Size: 10, Count: count}
				if c.after > 0 {
					n.After = w.begun.Add(c.after)
				}
				v, err := rooms.Await(t.Context(), Failover{time.Second, 2, 20}, n, &w)
				switch {
				case c.replan && !errors.Is(err, ErrReplan), c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)), c.refused == "" && !c.replan && (err != nil || !v.Serves()):
					t.Errorf("%v", err)
				case w.since() < c.waited || w.since() > c.waited+2*LookAgain:
					t.Errorf("it has waited %s, not %s", w.since(), c.waited)
				}
				if n, bytes := rooms.Waiting("shop", "s1"); n != 0 || bytes != 0 {
					t.Errorf("%d requests of %d bytes are still counted", n, bytes)
				}
			})
		})
	}
}

func TestARoomIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rooms Rooms
		begun, count := time.Now(), &metrics.Database{}
		enter := func(shard string, size int64) chan error {
			told := make(chan error, 1)
			go func() {
				w := &waiter{begun: begun, served: 500 * time.Millisecond}
				_, err := rooms.Await(t.Context(), Failover{time.Second, 2, 20}, Need{Database: "shop", Shard: shard, Size: size, Count: count}, w)
				told <- err
			}()
			synctest.Wait()
			return told
		}
		first := enter("s1", 10)
		if err := <-enter("s1", 11); err == nil || !strings.Contains(err.Error(), "wait for it already") {
			t.Errorf("too many bytes: %v", err)
		}
		second := enter("s1", 10)
		if err := <-enter("s1", 0); err == nil {
			t.Error("too many requests")
		}
		other := enter("s2", 20)
		if n, bytes := rooms.Waiting("shop", "s1"); n != 2 || bytes != 20 {
			t.Errorf("%d requests of %d bytes wait", n, bytes)
		}
		for _, told := range []chan error{first, second, other} {
			if err := <-told; err != nil {
				t.Error(err)
			}
		}
		if n, bytes := rooms.Waiting("shop", "s1"); n != 0 || bytes != 0 || count.FailoverRefused.Load() != 2 || count.FailoverWaits.Load() != 3 {
			t.Errorf("%d requests of %d bytes are still counted; %d refused, %d waited", n, bytes, count.FailoverRefused.Load(), count.FailoverWaits.Load())
		}
	})
}

func TestAWaitForAPrimaryIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rooms Rooms
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		w := &waiter{begun: time.Now(), ended: ctx}
		_, err := rooms.Await(t.Context(), Failover{time.Second, 2, 20}, Need{Database: "shop", Shard: "s1", Count: &metrics.Database{}}, w)
		if !errors.Is(err, errCancelled) || w.since() != 300*time.Millisecond {
			t.Errorf("%v after %s", err, w.since())
		}
	})
}
