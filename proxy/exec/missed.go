package exec

import (
	"errors"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// lostNotifications is what a session is told whose listening connection was lost.
var lostNotifications = &pgsql.Error{
	Code: pgsql.AdminShutdown, Message: "terminating connection: the server connection that listens for notifications was lost, and some may have been missed",
	Hint: "Connect again, LISTEN again and look at what the notifications are about.",
}

// missed is why a session ends that may have missed notifications; why is nil where their connection was lost.
func missed(why error) *pgsql.Error {
	if why == nil {
		return lostNotifications
	}
	e := &pgsql.Error{
		Code: pgsql.OutOfMemory, Message: "terminating connection: there is no memory for the notifications that wait for this session, and some were missed", Detail: why.Error(),
		Hint: "Connect again, LISTEN again and look at what the notifications are about. End transactions sooner, read what comes, UNLISTEN what is of no use, or raise session_memory_limit.",
	}
	var full *pgsql.Error
	if errors.As(why, &full) {
		e.Detail = full.Detail
	}
	return e
}

// waits counts what waits for sessions that LISTEN, and the channels that they listen to.
type waits struct{ m *memory.Ledger }

var _ notify.Memory = waits{}

// Hold implements notify.Memory.
func (w waits) Hold(n, held int64) error {
	if most := w.m.Session.Load(); most > 0 && held+n > most {
		return &pgsql.Error{
			Code: pgsql.OutOfMemory, Message: "out of memory",
			Detail: fmt.Sprintf("The channels of the session and the notifications that wait for it hold %s; session_memory_limit is %s.", memory.About(held), memory.About(most)),
			Hint:   "UNLISTEN what is of no use, end transactions sooner, or raise session_memory_limit.",
		}
	}
	return w.m.Take(memory.Notifications, n)
}

// Let implements notify.Memory.
func (w waits) Let(n int64) { w.m.Give(memory.Notifications, n) }
