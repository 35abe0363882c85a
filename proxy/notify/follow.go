package notify

import "context"

// How the hub follows the map and the monitor. Who listens hears every shard of his database, or is ended: so a session is given a channel
// only in the same moment in which there is a connection, which has it, for each shard of the map at the primary that the monitor knows, and
// what changes that is told to the hub behind the change: by Left of a node, by Led of a node's name, and by Follow of a map and of a primary. Then all who
// listen in the database are ended, since they may have missed something: they have it in 57P01, and LISTEN again. Only a shard that joins by
// this process's own doing ends nobody: Join listens there before the map has it.

// Left means that a node is no longer to be trusted with work, or is another server than before. It does not block.
func (h *Hub) Left(dsn string) {
	h.mu.Lock()
	h.lefts++
	if h.busy > 0 {
		h.left[dsn] = h.lefts
	}
	all := h.endThoseLocked(func(c *conn) bool { return c.dsn == dsn }, "its node is no longer the shard's primary, or another server")
	h.mu.Unlock()
	h.tell(all)
}

// Led means that the names of a node's connection string have been looked up, and mean certain addresses. A server at another one lives on, perhaps,
// and is not the node any more. What is on its way there now is judged the next time. It does not block.
func (h *Hub) Led(dsn string, means func(addr string) bool) {
	h.mu.Lock()
	all := h.endThoseLocked(func(c *conn) bool { return c.dsn == dsn && !means(c.addr) }, "its node's name leads to another address")
	h.mu.Unlock()
	h.tell(all)
}

// endThoseLocked is endLocked for the databases that have such a connection.
func (h *Hub) endThoseLocked(such func(c *conn) bool, why string) (all []ending) {
	for db, d := range h.dbs {
		for _, c := range d.conns {
			if such(c) {
				all = append(all, h.endLocked(db, c.shard, why))
				break
			}
		}
	}
	return all
}

// Follow means that the map or a primary is another now. It does not block.
func (h *Hub) Follow() {
	h.mu.Lock()
	var all []ending
	for db, d := range h.dbs {
		if shard, why := h.differsLocked(db, d); why != "" && len(d.sessions) > 0 {
			all = append(all, h.endLocked(db, shard, why))
		}
	}
	h.mu.Unlock()
	h.tell(all)
}

// differsLocked says which shard of a database is not listened to as it should be, and why; "" for none.
func (h *Hub) differsLocked(db string, d *database) (shard, why string) {
	there := map[string]bool{}
	for _, sh := range h.Now(db) {
		there[sh.Name] = true
		switch c := d.conns[sh.Name]; {
		case c == nil:
			return sh.Name, "the map has a shard more"
		case sh.DSN != "" && sh.DSN != c.dsn:
			return sh.Name, "the shard has another primary"
		}
	}
	for name := range d.conns {
		if _, joins := h.joining[place{db, name}]; !there[name] && !joins {
			return name, "the map has the shard no more"
		}
	}
	return "", ""
}

// ending are sessions that are to be told that they may have missed something, and why.
type ending struct {
	database, shard, why string
	sessions             map[*Session]bool
}

// endLocked closes a database's connections and takes their channels from all who listen there. They must be told.
func (h *Hub) endLocked(db, shard, why string) ending {
	e := ending{db, shard, why, map[*Session]bool{}}
	d := h.dbs[db]
	for _, set := range d.sessions {
		for s := range set {
			e.sessions[s] = true
		}
	}
	for _, c := range d.conns {
		c.stop()
	}
	delete(h.dbs, db)
	return e
}

// tell ends sessions that may have missed something. mu is not held.
func (h *Hub) tell(all []ending) {
	for _, e := range all {
		if len(e.sessions) == 0 {
			continue
		}
		h.Log.Warn("notifications may have been missed: the sessions that listen are ended", "database", e.database, "shard", e.shard, "sessions", len(e.sessions), "why", e.why)
		for s := range e.sessions {
			s.lost(nil)
		}
	}
}

// end ends all who listen in a database.
func (h *Hub) end(db, shard, why string) {
	h.mu.Lock()
	var all []ending
	if h.dbs[db] != nil {
		all = append(all, h.endLocked(db, shard, why))
	}
	h.mu.Unlock()
	h.tell(all)
}

// place is a shard of a database.
type place struct{ database, shard string }

// Join listens on a shard that the map is about to have, before anybody is sent there: for those who listen in its database, and those who begin to
// until done is called. That is called when the map has it, or is not to have it after all. After an error who listens is
// ended when the shard joins.
func (h *Hub) Join(ctx context.Context, db string, sh Shard) (done func(), err error) {
	since := h.begin()
	defer h.finish()
	h.ops.Lock()
	defer h.ops.Unlock()
	h.mu.Lock()
	h.joining[place{db, sh.Name}] = sh
	anybody := h.dbs[db] != nil && len(h.dbs[db].sessions) > 0
	h.mu.Unlock()
	if anybody {
		_, err = h.reach(ctx, db, sh, "", since)
	}
	return func() { h.joined(db, sh.Name) }, err
}

// joined ends a Join.
func (h *Hub) joined(db, shard string) {
	h.mu.Lock()
	delete(h.joining, place{db, shard})
	has := false
	for _, sh := range h.Now(db) {
		has = has || sh.Name == shard
	}
	if d := h.dbs[db]; d != nil && !has && d.conns[shard] != nil { // nobody has been sent there
		d.conns[shard].stop()
		delete(d.conns, shard)
	}
	h.mu.Unlock()
	h.Follow()
}

// joiningTo lists the shards that join a database, but for those that are listed already.
func (h *Hub) joiningTo(db string, listed []Shard) []Shard {
	h.mu.Lock()
	defer h.mu.Unlock()
	have := map[string]bool{}
	for _, sh := range listed {
		have[sh.Name] = true
	}
	for at, sh := range h.joining {
		if at.database == db && !have[sh.Name] {
			listed = append(listed, sh)
		}
	}
	return listed
}

// begin has Left remember nodes until finish; what it gives tells which of them were let go since.
func (h *Hub) begin() (since int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy++
	return h.lefts
}

func (h *Hub) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy--; h.busy == 0 {
		clear(h.left)
	}
}

// reach sees to it that a shard's connection listens to what its database listens to, and to one channel more unless it is "". It is false if
// there is another connection by now than the shard needs, or none to its node: ask again where the shard is. ops is held.
func (h *Hub) reach(ctx context.Context, db string, sh Shard, channel string, since int) (ok bool, err error) {
	c, names := h.connOf(db, sh.Name)
	switch {
	case c != nil && (c.dead() || c.dsn != sh.DSN):
		h.end(db, sh.Name, "the shard's connection was lost, or is another's")
		return false, nil
	case c != nil && (channel == "" || names[channel]):
		return true, nil
	case c != nil:
		return true, c.listen(ctx, channel)
	}
	if c, err = h.open(ctx, db, sh); err != nil {
		return false, err
	}
	if channel != "" {
		names[channel] = true
	}
	for name := range names {
		if err := c.listen(ctx, name); err != nil {
			c.stop()
			return false, err
		}
	}
	return h.keep(db, c, since), nil
}

// keep has a connection be the shard's, unless its node has been let go meanwhile.
func (h *Hub) keep(db string, c *conn, since int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left[c.dsn] > since || c.dead() {
		c.stop()
		return false
	}
	h.databaseLocked(db).conns[c.shard] = c
	return true
}

// register gives a session a channel, if there is a connection for each shard of the map at its primary by now.
func (h *Hub) register(db, channel string, s *Session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.databaseLocked(db)
	if _, why := h.differsLocked(db, d); why != "" {
		return false
	}
	if d.sessions[channel] == nil {
		d.sessions[channel] = map[*Session]bool{}
	}
	d.sessions[channel][s] = true
	return true
}
