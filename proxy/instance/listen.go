package instance

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/proxy/tcp"
)

// counting counts the bytes of a consumer: more, or fewer.
func counting(in *Instance, as memory.Consumer) func(bytes int64) error {
	return func(bytes int64) error {
		if bytes < 0 {
			in.Engine.Memory.Give(as, -bytes)
			return nil
		}
		return in.Engine.Memory.Take(as, bytes)
	}
}

// buildServer makes what accepts clients, and listens for them and for peers.
func (in *Instance) buildServer() error {
	cfg := &in.cfg
	in.Server = &proxy.Server{
		Session: session.Config{
			Backend: backend{in.Gate, in}, TLS: func() *tls.Config { return in.Gate.Access().TLS }, LoginTimeout: cfg.Login.Value(),
			MaxStatement: int(cfg.MaxStatement), Memory: counting(in, memory.Messages), Log: in.log, Proxied: func(from netip.Addr) bool { return in.Gate.Access().Proxied(from) },
		},
		Log: in.log, Peer: cfg.PeerID, Others: in.peers.address, Owners: in.peers.owners, PeerKey: in.peers.key,
	}
	if in.Server.Peer == 0 { // nobody knows us: only be unlike the others
		in.Server.Peer = 1 + rand.IntN(proxy.Peers-1)
	}
	in.Server.SetOptions(limits(cfg))
	if err := in.Server.Listen(cfg.Listen, 0, in.door.sharing()); err != nil {
		return err
	}
	in.door.listeners[cfg.Listen] = in.Server.Listeners()[0]
	if cfg.UnixDir != "" {
		mode, err := cfg.SocketMode()
		if err != nil {
			return err
		}
		_, port, err := net.SplitHostPort(in.Server.Addr())
		if err != nil {
			return err
		}
		path := filepath.Join(cfg.UnixDir, ".s.PGSQL."+port)
		if err := in.Server.Listen(path, mode, in.door.sharing()); err != nil {
			in.Server.Stop()
			return err
		}
		in.door.listeners[path] = in.Server.Listeners()[1]
	}
	if cfg.PeerListen != "" {
		l, err := in.door.listen(cfg.PeerListen)
		if err != nil {
			in.Server.Stop()
			return fmt.Errorf("peer_listen: %w", err)
		}
		in.peers.lis = l
	}
	in.peers.server = in.Server
	return nil
}

// limits are what clients may take.
func limits(c *config.Config) proxy.Options {
	return proxy.Options{MaxClients: c.MaxClients, TCP: bySilence(c), Limits: session.Limits{
		ClientIdle: c.ClientIdle.Value(), IdleTransaction: c.IdleTx.Value(), Transaction: c.Transaction.Value(), Query: c.Query.Value(),
	}}
}

// bySilence is when a peer that is silent on TCP's level is given up.
func bySilence(c *config.Config) tcp.Options {
	return tcp.Options{Off: !c.KeepAlive, Idle: c.KeepIdle.Value(), Interval: c.KeepIntvl.Value(), Count: c.KeepCount, UserTimeout: c.UserTimeout.Value()}
}
