package main

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

// answerWithin bounds how long a request of the page may take that came before the end.
const answerWithin = 10 * time.Second

// share is how this process listens.
func (a *app) share() proxy.Sharing { return proxy.Sharing{On: a.cfg.ReusePort, In: a.inherited} }

// inherit asks a process that is there already for its sockets.
func (a *app) inherit() {
	if a.cfg.ReusePort && !strings.HasSuffix(a.cfg.Listen, ":0") {
		a.inherited = proxy.TakeOver(a.cfg.Listen)
	}
}

// offer tells the other process that this one serves, and offers the sockets to the next.
func (a *app) offer() {
	if !a.cfg.ReusePort {
		return
	}
	if err := a.inherited.Done(); err != nil {
		a.log.Warn("the process that gave its sockets away does not answer", "error", err)
	}
	listeners := map[string]net.Listener{}
	for addr, l := range a.listening {
		listeners[addr] = l
	}
	o, err := proxy.NewOffer(a.cfg.Listen, listeners)
	if err != nil {
		a.log.Warn("the next process cannot take the sockets over: some clients may be refused when it does", "error", err)
		return
	}
	a.offered.Store(o)
}

// awaitReady waits until the process is ready, but not for ever: a shard may be away.
func (a *app) awaitReady(ctx context.Context) {
	for end := time.Now().Add(readyWithin); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if ok, _ := a.ready(); ok {
			return
		}
	}
}

// handOver leaves the ports that are not for clients to the process that listens there beside us: it is the one that is asked
// whether it is ready, and that others send cancel requests to. answered returns when all requests are that had come.
func (a *app) handOver() (answered func()) {
	if a.peers != nil {
		_ = a.peers.Close()
	}
	if a.httpLis == nil {
		return func() {}
	}
	_ = a.httpLis.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
		defer cancel()
		a.board.Finish(ctx, a.http) // what takes longer is cut off
	}()
	return func() { <-done }
}
