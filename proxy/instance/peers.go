package instance

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/peer"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// peers are the other processes that share this one's clients.
type peers struct {
	config func() *config.Config
	log    *slog.Logger
	pools  *pool.Manager
	server *proxy.Server
	lis    net.Listener // nil: they are not heard
}

func (p *peers) close() {
	if p.lis != nil {
		_ = p.lis.Close()
	}
}

// key is the key that the processes share, empty for none.
func (p *peers) key() []byte {
	key, err := p.config().PeerKey.Reveal()
	if err != nil {
		p.log.Error("peer_key", "error", err)
	}
	return []byte(key)
}

// address is where a process passes cancel requests on to another.
func (p *peers) address(id int) (string, bool) {
	for _, x := range p.config().Peers {
		if x.ID == id {
			return x.Address, true
		}
	}
	return "", false
}

// addresses are where the other processes answer questions; none without the shared key.
func (p *peers) addresses() (out []string) {
	if len(p.key()) == 0 {
		return nil
	}
	for _, x := range p.config().Peers {
		out = append(out, x.Address)
	}
	return out
}

// ask asks the other processes whose server processes are. A process that does not answer knows of none.
func (p *peers) ask(ctx context.Context, list []peer.Process) []peer.Owner {
	out := make([]peer.Owner, len(list))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for from := 0; from < len(list); from += peer.MostProcesses {
		part := list[from:min(from+peer.MostProcesses, len(list))]
		for _, addr := range p.addresses() {
			wg.Add(1)
			panics.Go(panics.Background, func() {
				defer wg.Done()
				owners, err := peer.Ask(ctx, addr, p.key(), part)
				if err != nil {
					p.log.Warn("deadlocks: another process does not answer", "address", addr, "error", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				for i, o := range owners {
					if o.Client != 0 {
						out[from+i] = o
					}
				}
			})
		}
	}
	wg.Wait()
	return out
}

// owners answers the question of another process.
func (p *peers) owners(list []peer.Process) []peer.Owner {
	out := make([]peer.Owner, len(list))
	for i, x := range list {
		if out[i].Client = p.pools.ClientOf(x.Database, x.Shard, x.PID); out[i].Client == 0 {
			continue
		}
		if s := p.server.SessionOf(out[i].Client); s != nil {
			out[i].Since = s.TxSince()
		}
	}
	return out
}
