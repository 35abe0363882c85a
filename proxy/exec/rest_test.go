package exec

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/router"
)

// A session that rests while its pipeline is open still knows what it has executed in it: what that has set is the session's, and not the next client's.
func TestARestForgetsNothingOfAnOpenPipeline(t *testing.T) {
	h := &Handler{request: (&observe.Observer{}).Open(observe.Client{Count: &metrics.Database{}})}
	h.ext.post = append(h.ext.post, post{tmpl: &router.Template{}})
	h.Rest()
	if len(h.ext.post) != 1 {
		t.Error("what was executed is forgotten")
	}
	h.ext.post = h.ext.post[:0]
	h.Rest()
	if h.ext.post != nil {
		t.Error("a session at rest keeps memory that only work needs")
	}
}

// What a session is counted for is counted back when it ends, also where its end fails halfway.
func TestAnEndThatFailsCountsBack(t *testing.T) {
	h := &Handler{}
	h.ext.memory = &memory.Ledger{}
	h.ext.tally(1000, 10)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a session without a client has ended well: the test sees nothing")
			}
		}()
		h.Close()
	}()
	if n := h.ext.memory.Used(memory.Settings) + h.ext.memory.Used(memory.Transactions); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}
