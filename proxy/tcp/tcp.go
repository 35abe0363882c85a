// Package tcp says how long a peer may be silent on TCP's level: a machine that is gone, or a firewall that has forgotten the connection,
// closes nothing.
package tcp

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options are PgBouncer's settings of the same names. A zero value is Go's default: the first probe after 15 s without traffic, then one
// every 15 s, and after nine without an answer the connection is gone.
type Options struct {
	Off      bool          // tcp_keepalive is off: an idle peer is not asked whether it is there
	Idle     time.Duration // tcp_keepidle: before the first question
	Interval time.Duration // tcp_keepintvl: between questions
	Count    int           // tcp_keepcnt: so many without an answer end the connection

	UserTimeout time.Duration // tcp_user_timeout: how long what was sent may be unacknowledged; 0: the system's limit, some 15 minutes. Linux only
}

// Own are for the proxy's own connections to nodes: a dead one is given up after a minute or so, unless the node's connection string says
// otherwise.
var Own = Options{Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4, UserTimeout: time.Minute}

func (o Options) config() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: !o.Off, Idle: o.Idle, Interval: o.Interval, Count: o.Count}
}

// Dial connects, and sets the options before the first byte is sent. A network without TCP has none.
func (o Options) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: o.config(), KeepAlive: -1, ControlContext: func(_ context.Context, network, _ string, c syscall.RawConn) error {
		if network == "unix" {
			return nil
		}
		return setUserTimeout(c, o.UserTimeout)
	}}
	return d.DialContext(ctx, network, addr)
}

// Set sets the options of a connection that has been accepted. One without TCP is left alone.
func (o Options) Set(nc net.Conn) error {
	c, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	if err := c.SetKeepAliveConfig(o.config()); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return setUserTimeout(raw, o.UserTimeout)
}

// ErrSilent means that the peer has taken nothing, or has not been heard of, for as long as UserTimeout or keepalives allow.
var ErrSilent = errors.New("nothing was taken for as long as tcp_user_timeout")

// DialExplained is Dial for a connection of which every error tells whether it was lost because the peer was silent, as ErrSilent.
func (o Options) DialExplained(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := o.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &explained{Conn: nc}, nil
}

// explained remembers why it was lost: the system says so once only, to the reader or the writer.
type explained struct {
	net.Conn
	writing sync.RWMutex // held for reading while something is written
	silent  atomic.Bool
}

func (c *explained) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && !late(err) { // a write that is under way fails now, too, and may be told the reason
		c.writing.Lock()
		defer c.writing.Unlock()
	}
	return n, c.why(err)
}

func (c *explained) Write(b []byte) (int, error) {
	c.writing.RLock()
	defer c.writing.RUnlock()
	n, err := c.Conn.Write(b)
	return n, c.why(err)
}

// late says whether an error is that of a deadline.
func late(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}

// why is an error's, or that of the connection's end.
func (c *explained) why(err error) error {
	if errors.Is(err, syscall.ETIMEDOUT) {
		c.silent.Store(true)
	}
	if err != nil && c.silent.Load() {
		return ErrSilent
	}
	return err
}
