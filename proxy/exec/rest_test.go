package exec

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
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
