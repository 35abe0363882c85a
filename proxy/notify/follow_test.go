package notify

import (
	"log/slog"
	"testing"
)

type unbounded struct{}

func (unbounded) Hold(int64, int64) error { return nil }
func (unbounded) Let(int64)               {}

// Who listens by way of an address that his node's name does not mean any more is told so, and nobody else: the server there may live on.
func TestWhoListensLeavesAnAddressThatTheNameLeft(t *testing.T) {
	t.Parallel()
	h := &Hub{Log: slog.New(slog.DiscardHandler)}
	h.Init(t.Context())
	lost, stopped := map[string]int{}, map[string]bool{}
	for _, db := range []string{"shop", "other"} {
		s := NewSession(func() {}, func(error) { lost[db]++ }, unbounded{})
		d := h.databaseLocked(db)
		d.sessions["x"] = map[*Session]bool{s: true}
		d.conns["s1"] = &conn{shard: "s1", dsn: "host=" + db + ".test", addr: "192.0.2.1:5432", halt: func() { stopped[db] = true }}
	}
	means := func(ip string) func(string) bool {
		return func(addr string) bool { return addr == ip+":5432" }
	}
	h.Led("host=shop.test", means("192.0.2.1"))
	h.Led("host=nobody.test", means("192.0.2.2"))
	if len(lost) != 0 || len(h.dbs) != 2 {
		t.Errorf("ended for nothing: %v", lost)
	}
	h.Led("host=shop.test", means("192.0.2.2"))
	if lost["shop"] != 1 || lost["other"] != 0 || !stopped["shop"] || stopped["other"] || len(h.dbs) != 1 {
		t.Errorf("ended %v, stopped %v", lost, stopped)
	}
}
