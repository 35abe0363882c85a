package instance

import (
	"context"
	"sync"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/peer"
)

// peerKey is the key that the processes share, empty for none.
func (in *Instance) peerKey() []byte {
	key, err := in.config.Load().PeerKey.Reveal()
	if err != nil {
		in.log.Error("peer_key", "error", err)
	}
	return []byte(key)
}

// peerAddress is where a process passes cancel requests on to another.
func (in *Instance) peerAddress(id int) (string, bool) {
	for _, p := range in.config.Load().Peers {
		if p.ID == id {
			return p.Address, true
		}
	}
	return "", false
}

// peerAddresses are where the other processes answer questions; none without the shared key.
func (in *Instance) peerAddresses() (out []string) {
	if len(in.peerKey()) == 0 {
		return nil
	}
	for _, p := range in.config.Load().Peers {
		out = append(out, p.Address)
	}
	return out
}

// askPeers asks the other processes whose server processes are. A process that does not answer knows of none.
func (in *Instance) askPeers(ctx context.Context, list []peer.Process) []peer.Owner {
	out := make([]peer.Owner, len(list))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for from := 0; from < len(list); from += peer.MostProcesses {
		part := list[from:min(from+peer.MostProcesses, len(list))]
		for _, addr := range in.peerAddresses() {
			wg.Add(1)
			panics.Go(panics.Background, func() {
				defer wg.Done()
				owners, err := peer.Ask(ctx, addr, in.peerKey(), part)
				if err != nil {
					in.log.Warn("deadlocks: another process does not answer", "address", addr, "error", err)
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
func (in *Instance) owners(list []peer.Process) []peer.Owner {
	out := make([]peer.Owner, len(list))
	for i, p := range list {
		if out[i].Client = in.Pools.ClientOf(p.Database, p.Shard, p.PID); out[i].Client == 0 {
			continue
		}
		if s := in.Server.SessionOf(out[i].Client); s != nil {
			out[i].Since = s.TxSince()
		}
	}
	return out
}
