package exec

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// A statement that a server was to close in a pipeline, and whose Close was skipped, is closed later: nobody else would, for as long as the server lives.
func TestAStatementWhoseCloseWasSkippedIsClosedLater(t *testing.T) {
	srv := &pool.Server{Pool: pool.NewManager(pool.Options{MaxPrepared: 2, Verify: pool.Unasked("a test")}).Pool("shop", "s1", "s1-a", "host=node.test", "app")}
	srv.ForgetAll()
	for i := range uint64(2) {
		srv.Prepare(pool.StmtKey{1, i})
	}
	_, evict := srv.Prepare(pool.StmtKey{1, 2})
	x := &extended{}
	x.skipped(srv, []op{{}, {kind: pipeline.Hidden, closes: evict}, {kind: pipeline.Completed, key: pool.StmtKey{1, 2}}}, 0)
	if _, name := srv.Prepare(pool.StmtKey{1, 2}); name != evict {
		t.Errorf("%q is closed, and %q is still there", name, evict)
	}
	_, evict = srv.Prepare(pool.StmtKey{1, 3}) // a comparison fails, and behind it the server has an error of its own: it skips the Close
	x.skipped(srv, []op{{kind: pipeline.Compared, key: pool.StmtKey{1, 2}}, {}, {kind: pipeline.Hidden, closes: evict}, {kind: pipeline.Completed, key: pool.StmtKey{1, 3}}}, 0)
	closed := map[string]bool{}
	for i := range uint64(3) {
		_, name := srv.Prepare(pool.StmtKey{2, i})
		closed[name] = true
	}
	if !closed[evict] {
		t.Errorf("behind a comparison: %q is never closed: %v", evict, closed)
	}
}
