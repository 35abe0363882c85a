package pool

// drawn is whose a server's knowledge of sequences is: what currval and lastval say there.
type drawn struct {
	by  uint64 // who has drawn there since it was last forgotten: 0 is nobody, several are more than one
	now uint64 // which of their draws was the last
}

const several = ^uint64(0)

// Drew notes that a session may have drawn a value of a sequence on the server, or set one. now is the draw, before the one before it of the
// session: if that was elsewhere, the server knows older values than the other one does.
func (d *drawn) Drew(by, before, now uint64) {
	if d.by != 0 && (d.by != by || d.now != before) {
		by = several
	}
	*d = drawn{by, now}
}

// DrewUnknown notes the same of nobody in particular.
func (d *drawn) DrewUnknown() { *d = drawn{by: several} }

// Knows says whether what the server knows of sequences is a session's own and no one else's, last being its last draw, or nobody's.
func (d *drawn) Knows(by, last uint64) bool {
	return d.by == 0 || *d == drawn{by, last}
}

// Forgotten notes that the server has forgotten what was drawn.
func (d *drawn) Forgotten() { *d = drawn{} }

// Recall notes that sessions of the pool ask by currval or lastval what they have drawn.
func (p *Pool) Recall() {
	if !p.recalls.Load() {
		p.recalls.Store(true)
	}
}

// Recalls says whether they do.
func (p *Pool) Recalls() bool { return p.recalls.Load() }
