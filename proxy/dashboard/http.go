package dashboard

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds are what keeps a stranger from using the port up.
type Bounds struct {
	Header  time.Duration // for the head of a request to come
	Request time.Duration // for the whole of it, and for its answer to be taken
	Idle    time.Duration // between requests
	Conns   int           // connections; beyond them one of somebody who has not logged in is closed, the oldest first
	Streams int           // of states; half of them for those who have not logged in
}

// DefaultBounds are for a page that some people look at, and a few programs.
func DefaultBounds() Bounds {
	return Bounds{Header: 10 * time.Second, Request: 30 * time.Second, Idle: time.Minute, Conns: 256, Streams: 64}
}

// HTTP is the server. config, which may be nil for none, makes it speak TLS.
func (s *Server) HTTP(config *tls.Config) *http.Server {
	c := &s.conns
	c.most = s.Bounds.Conns
	return &http.Server{
		Handler: s.Handler(), TLSConfig: config, Protocols: http1(),
		ReadHeaderTimeout: s.Bounds.Header, ReadTimeout: s.Bounds.Request, WriteTimeout: s.Bounds.Request, IdleTimeout: s.Bounds.Idle, MaxHeaderBytes: maxRequest,
		ConnState: c.changed,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, func() { c.welcome(nc) })
		},
	}
}

// Finish returns when every request is answered that had come, or ctx ends. The listener must be closed. It is called once. Unlike
// http.Server.Shutdown it answers what was on its way, too.
func (s *Server) Finish(ctx context.Context, h *http.Server) {
	close(s.ending) // streams do not end by themselves
	h.SetKeepAlivesEnabled(false)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.conns.count() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// http1 is what is spoken: with more requests at a time on a connection, connections would bound nothing.
func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// lasting lets a request take its time: its own rules bound it.
func lasting(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // what cannot keep a deadline has none
	_ = rc.SetWriteDeadline(time.Time{})
}

type connKey struct{}

// letIn notes that a request was one of somebody who has logged in: its connection is not closed in favour of others.
func letIn(r *http.Request) {
	if f, ok := r.Context().Value(connKey{}).(func()); ok {
		f()
	}
}

// conns are the open connections, at most so many.
type conns struct {
	most int

	mu    sync.Mutex // guards the rest
	open  map[net.Conn]*list.Element
	order list.List // of net.Conn: strangers, the oldest first
}

// changed follows a connection through its life.
func (c *conns) changed(nc net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		if c.open == nil {
			c.open = map[net.Conn]*list.Element{}
		}
		if len(c.open) >= c.most {
			victim := nc
			if first := c.order.Front(); first != nil {
				victim = c.order.Remove(first).(net.Conn)
				delete(c.open, victim)
			}
			_ = raw(victim).Close()
			if victim == nc {
				return
			}
		}
		c.open[nc] = c.order.PushBack(nc)
	case http.StateClosed, http.StateHijacked:
		if e := c.open[nc]; e != nil {
			c.order.Remove(e)
		}
		delete(c.open, nc)
	}
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// welcome makes a stranger's connection one that stays.
func (c *conns) welcome(nc net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.open[nc]; e != nil {
		c.order.Remove(e)
		c.open[nc] = nil
	}
}

// raw is the connection under TLS, whose farewell would wait for the other side.
func raw(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return t.NetConn()
	}
	return nc
}
