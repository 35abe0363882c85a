package branch

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router"
)

// DecidesFirst puts the writer that cannot be prepared in front: who decides is not prepared. There are several; only one can be
// like that. Else it is one that can still be written to. Those that were made READ ONLY are prepared without a row of theirs, and where all were,
// the decision comes behind.
func DecidesFirst[W interface{ ending() *Ending }](writers []W) error {
	slices.SortStableFunc(writers, func(a, b W) int { return a.ending().rank() - b.ending().rank() })
	first, second := writers[0].ending(), writers[1].ending()
	switch {
	case second.Bound:
		return router.Refuse(router.RuleTwoBound)
	case first.Bound && first.Only:
		return router.Refuse(router.RuleBoundReadOnly)
	}
	return nil
}

func (e *Ending) ending() *Ending { return e }

func (e *Ending) rank() int {
	switch {
	case e.Bound:
		return 0
	case e.Only:
		return 2
	}
	return 1
}
