package instance

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy"
)

// With so_reuseport a process may be started beside another one, with the same configuration: it takes the listening sockets
// over, says when it is ready to serve, and the other may be stopped. See docs/decisions/0020-the-door.md.

// readyWithin is how long the page's port waits for the process to be ready: the other one answers there until then.
const readyWithin = 5 * time.Second

// AnswerWithin bounds how long a request of the page may take that came before the end.
const AnswerWithin = 10 * time.Second

// door is how this process listens: alone, or with so_reuseport beside a process that was there and one that may follow.
type door struct {
	shared    bool   // so_reuseport
	at        string // listen
	inherited *proxy.Inherited
	listeners map[string]net.Listener // by address, for the next process
	offered   atomic.Pointer[proxy.Offer]
}

// openDoor asks a process that is there already for its sockets.
func openDoor(shared bool, at string) *door {
	d := &door{shared: shared, at: at, listeners: map[string]net.Listener{}}
	if shared && !strings.HasSuffix(at, ":0") {
		d.inherited = proxy.TakeOver(at)
	}
	return d
}

func (d *door) sharing() proxy.Sharing { return proxy.Sharing{On: d.shared, In: d.inherited} }

// listen listens at an address.
func (d *door) listen(addr string) (net.Listener, error) {
	l, err := proxy.Listen(addr, 0, d.sharing())
	if err == nil {
		d.listeners[addr] = l
	}
	return l, err
}

// offer tells the other process that this one serves, and offers the sockets to the next.
func (d *door) offer(log *slog.Logger) {
	if !d.shared {
		return
	}
	if err := d.inherited.Done(); err != nil {
		log.Warn("the process that gave its sockets away does not answer", "error", err)
	}
	o, err := proxy.NewOffer(d.at, maps.Clone(d.listeners))
	if err != nil {
		log.Warn("the next process cannot take the sockets over: some clients may be refused when it does", "error", err)
		return
	}
	d.offered.Store(o)
}

// taken says whether another process has taken the sockets over.
func (d *door) taken() bool { return d.offered.Load().Taken() }

// close offers nothing any more.
func (d *door) close() { d.offered.Load().Close() }

// awaitReady waits until the process is ready, but not for ever: a shard may be away.
func (in *Instance) awaitReady(ctx context.Context) {
	for end := time.Now().Add(readyWithin); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if ok, _ := in.Ready(); ok {
			return
		}
	}
}

// handOver leaves the ports that are not for clients to the process that listens there beside us: it is the one that is asked
// whether it is ready, and that others send cancel requests to. answered returns when all requests are that had come.
func (in *Instance) handOver() (answered func()) {
	in.peers.close()
	return in.page.finish()
}
