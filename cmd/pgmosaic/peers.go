package main

import (
	"context"
	"sync"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/peer"
)

// peerKey is the key that the processes share, empty for none.
func (a *app) peerKey() []byte {
	key, err := secret(a.config.Load().PeerKey)
	if err != nil {
		a.log.Error("peer_key", "error", err)
	}
	return []byte(key)
}

// peerAddresses are where the other processes answer questions; none without the shared key.
func (a *app) peerAddresses() (out []string) {
	if len(a.peerKey()) == 0 {
		return nil
	}
	for _, p := range a.config.Load().Peers {
		out = append(out, p.Address)
	}
	return out
}

// askPeers asks the other processes whose server processes are. A process that does not answer knows of none.
func (a *app) askPeers(ctx context.Context, list []peer.Process) []peer.Owner {
	out := make([]peer.Owner, len(list))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for from := 0; from < len(list); from += peer.MostProcesses {
		part := list[from:min(from+peer.MostProcesses, len(list))]
		for _, addr := range a.peerAddresses() {
			wg.Add(1)
			panics.Go(panics.Background, func() {
				defer wg.Done()
				owners, err := peer.Ask(ctx, addr, a.peerKey(), part)
				if err != nil {
					a.log.Warn("deadlocks: another process does not answer", "address", addr, "error", err)
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
func (a *app) owners(list []peer.Process) []peer.Owner {
	out := make([]peer.Owner, len(list))
	for i, p := range list {
		if out[i].Client = a.pools.ClientOf(p.Database, p.Shard, p.PID); out[i].Client == 0 {
			continue
		}
		if s := a.server.SessionOf(out[i].Client); s != nil {
			out[i].Since = s.TxSince()
		}
	}
	return out
}
