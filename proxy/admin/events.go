package admin

import (
	"sync"
	"time"
)

// Event is something that happened by itself: a failover, a replica that lags, a map that cannot be used.
type Event struct {
	At                    time.Time
	Level                 string
	Database, Shard, Node string
	What, Reason          string
}

// keptEvents is how many are remembered.
const keptEvents = 500

type events struct {
	mu   sync.Mutex
	list []Event
}

// Note remembers an event for SHOW EVENTS. Any goroutine may call it.
func (a *Admin) Note(e Event) {
	a.events.mu.Lock()
	defer a.events.mu.Unlock()
	if len(a.events.list) >= keptEvents {
		a.events.list = append(a.events.list[:0], a.events.list[1:]...)
	}
	a.events.list = append(a.events.list, e)
}

type eventRow struct {
	At                                          time.Time
	Level, Database, Shard, Node, Event, Reason string
}

// showEvents lists the newest first.
func showEvents(a *Admin) (out []eventRow) {
	a.events.mu.Lock()
	defer a.events.mu.Unlock()
	for i := len(a.events.list) - 1; i >= 0; i-- {
		e := a.events.list[i]
		out = append(out, eventRow{At: e.At, Level: e.Level, Database: e.Database, Shard: e.Shard, Node: e.Node, Event: e.What, Reason: e.Reason})
	}
	return out
}
