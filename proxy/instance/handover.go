package instance

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy"
)

// With so_reuseport a process may be started beside another one, with the same configuration: it takes the listening sockets
// over, says when it is ready to serve, and the other may be stopped. See docs/decisions/0020-the-door.md.

// readyWithin is how long the page's port waits for the process to be ready: the other one answers there until then.
const readyWithin = 5 * time.Second

// AnswerWithin bounds how long a request of the page may take that came before the end.
const AnswerWithin = 10 * time.Second

// share is how this process listens.
func (in *Instance) share() proxy.Sharing {
	return proxy.Sharing{On: in.cfg.ReusePort, In: in.inherited}
}

// inherit asks a process that is there already for its sockets.
func (in *Instance) inherit() {
	if in.cfg.ReusePort && !strings.HasSuffix(in.cfg.Listen, ":0") {
		in.inherited = proxy.TakeOver(in.cfg.Listen)
	}
}

// offer tells the other process that this one serves, and offers the sockets to the next.
func (in *Instance) offer() {
	if !in.cfg.ReusePort {
		return
	}
	if err := in.inherited.Done(); err != nil {
		in.log.Warn("the process that gave its sockets away does not answer", "error", err)
	}
	listeners := map[string]net.Listener{}
	for addr, l := range in.listening {
		listeners[addr] = l
	}
	o, err := proxy.NewOffer(in.cfg.Listen, listeners)
	if err != nil {
		in.log.Warn("the next process cannot take the sockets over: some clients may be refused when it does", "error", err)
		return
	}
	in.offered.Store(o)
}

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
	if in.peers != nil {
		_ = in.peers.Close()
	}
	if in.httpLis == nil {
		return func() {}
	}
	_ = in.httpLis.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), AnswerWithin)
		defer cancel()
		in.board.Finish(ctx, in.http) // what takes longer is cut off
	}()
	return func() { <-done }
}
