package exec

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// listening is a LISTEN or UNLISTEN that waits for COMMIT.
type listening struct {
	channel string // empty: every one
	listens bool
}

// maxIdentifier is PostgreSQL's NAMEDATALEN less one: longer names are cut.
const maxIdentifier = 63

// listenTo runs LISTEN and UNLISTEN. They take effect at COMMIT, and tie the session to no server.
func (h *Handler) listenTo(ctx context.Context, s *sqlparse.Statement) error {
	l := listening{channel: s.Name, listens: s.Kind == sqlparse.Listen}
	if len(l.channel) > maxIdentifier {
		l.channel = l.channel[:maxIdentifier]
	}
	tag := "LISTEN"
	if !l.listens {
		tag = "UNLISTEN"
	}
	if !h.tx.Idle() {
		h.tx.listens = append(h.tx.listens, l)
		h.client.SendTag(tag)
		return nil
	}
	if l.listens {
		if err := h.hear(ctx, l.channel); err != nil {
			return err
		}
	} else if h.listen != nil {
		h.client.Leave()
		h.e.Hub.Unlisten(ctx, h.db, l.channel, h.listen)
	}
	h.client.SendTag(tag)
	return nil
}

// hear returns when every shard's listening connection has the channel.
func (h *Handler) hear(ctx context.Context, channel string) error {
	h.client.Leave()
	if h.listen == nil {
		h.listen = notify.NewSession(h.wake, func(why error) { h.dismiss(missed(why)) }, waits{&h.e.Memory})
	}
	if err := h.e.Hub.Listen(ctx, h.db, channel, h.listen); err != nil {
		var full *pgsql.Error
		if errors.As(err, &full) && full.Code == pgsql.OutOfMemory {
			return full
		}
		return &pgsql.Failure{Code: pgsql.ConnectionFailure, Message: "LISTEN " + channel + ": " + err.Error(), Cause: err}
	}
	return nil
}

// listenBefore makes a transaction's LISTENs heard before its COMMIT, so that nothing is missed behind it. It returns those that are new.
func listenBefore(ctx context.Context, h *Handler) (heard []string, err error) {
	for _, l := range h.tx.listens {
		if l.listens && (h.listen == nil || !h.listen.Has(l.channel)) {
			if err := h.hear(ctx, l.channel); err != nil {
				return heard, err
			}
			heard = append(heard, l.channel)
		}
	}
	return heard, nil
}

// unhear takes back what was listened to for a COMMIT that has failed, with what has come meanwhile.
func unhear(h *Handler, channels []string) {
	if len(channels) == 0 {
		return
	}
	h.client.Leave()
	ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
	defer cancel()
	for _, c := range channels {
		h.e.Hub.Unlisten(ctx, h.db, c, h.listen)
		h.listen.Forget(c)
	}
}

// listenAfter does what a committed transaction said last.
func (h *Handler) listenAfter(ctx context.Context, list []listening) {
	for i, l := range list {
		if l.listens || h.listen == nil {
			continue
		}
		renewed := map[string]bool{}
		for _, later := range list[i+1:] {
			if later.listens {
				renewed[later.channel] = true
			}
		}
		names := []string{l.channel}
		if l.channel == "" {
			names = h.listen.Channels()
		}
		for _, n := range names {
			if !renewed[n] {
				h.client.Leave()
				h.e.Hub.Unlisten(ctx, h.db, n, h.listen)
			}
		}
	}
}

func (h *Handler) unlistenAll() {
	if h.listen != nil {
		h.client.Leave()
		ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
		defer cancel()
		h.e.Hub.Unlisten(ctx, h.db, "", h.listen)
	}
}

// Deliver implements session.Handler: it writes the notifications that came.
func (h *Handler) Deliver() error {
	if h.listen == nil {
		return nil
	}
	for _, n := range h.listen.Take() {
		b := binary.BigEndian.AppendUint32(nil, n.PID)
		b = append(append(b, n.Channel...), 0)
		b = append(append(b, n.Payload...), 0)
		h.client.SendFrame('A', b)
	}
	return nil
}

// hearOwn waits, after the session has notified, until whoever listens in this process has it: their next
// answer brings it, as it would from PostgreSQL.
func (h *Handler) hearOwn() {
	if !h.tx.notifies || !h.tx.Idle() {
		return
	}
	h.tx.notifies = false
	h.client.Leave()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	h.e.Hub.Barrier(ctx, h.db)
}

// notifies says whether a statement may send a notification to its own session.
func notifies(s *sqlparse.Statement) bool {
	if s.Kind == sqlparse.Notify {
		return true
	}
	for _, f := range s.Funcs {
		if f == "pg_notify" {
			return true
		}
	}
	return false
}
