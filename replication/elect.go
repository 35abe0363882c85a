package replication

// candidate is what a node says of itself, as an election sees it.
type candidate struct {
	Claims   bool // it answers, and is not in recovery
	Barred   bool // the admin has said that it is not the primary
	Other    bool // of another system than the one that served
	Timeline uint32
}

// elect finds a shard's primary. It is pure.
//
// A promotion begins a new timeline, so of several that claim to be the primary the one on the highest is the newest. But
// if the node that served until now still answers beside it, nobody knows which of them clients elsewhere write to: then
// nobody is elected until one is gone or the admin has said which (rivals are those nodes). A claim on a timeline below
// least is an old primary's, and is worth nothing, also if it is made where the shard was served until now: its address
// leads elsewhere then. A promotion keeps the system: a claim of another one counts only in the place of the node that
// served, which was restored, and timelines say nothing about it. served is -1 if no node has served yet, and stays the
// primary while nobody claims to be it. Who has not seen a shard served yet does not believe a claim below followed, the highest
// timeline that a replica of the shard is on: it is an old primary's that came back while the new one is away.
func elect(nodes []candidate, served int, least, followed uint32) (primary int, rivals []int) {
	var claims []int
	for i, n := range nodes {
		if n.Claims && !n.Barred && (!n.Other && n.Timeline >= least || n.Other && i == served) {
			claims = append(claims, i)
		}
	}
	if len(claims) == 0 {
		if served >= 0 && nodes[served].Claims && !nodes[served].Barred {
			return -1, nil
		}
		return served, nil
	}
	best := claims[0]
	for _, i := range claims {
		if nodes[i].Timeline > nodes[best].Timeline || nodes[i].Timeline == nodes[best].Timeline && i == served {
			best = i
		}
	}
	for _, i := range claims {
		same := nodes[i].Timeline == nodes[best].Timeline
		if i != best && (same || i == served || served < 0) {
			rivals = append(rivals, i)
		}
	}
	switch {
	case len(rivals) > 0:
		return -1, append([]int{best}, rivals...)
	case served < 0 && nodes[best].Timeline < followed:
		return -1, nil
	}
	return best, nil
}
