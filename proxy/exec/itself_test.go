package exec

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// What merges by its types, locks rows in turn or takes parameters is described first; what is only passed on is not.
func TestWhatDescribesItself(t *testing.T) {
	for name, x := range map[string]struct {
		merge  router.Merge
		params int
		want   bool
	}{
		"passed on":     {merge: router.Merge{Mode: router.Concat}, want: true},
		"hidden column": {merge: router.Merge{Mode: router.Concat, Hidden: 1}},
		"locks":         {merge: router.Merge{Mode: router.Concat, Locks: true}},
		"ordered":       {merge: router.Merge{Mode: router.Ordered}},
		"aggregate":     {merge: router.Merge{Mode: router.Aggregate}},
		"a parameter":   {merge: router.Merge{Mode: router.Concat}, params: 1},
	} {
		if got := describesItself(&router.Template{Stmt: &sqlparse.Statement{Params: x.params}}, &x.merge); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
