package branch

import (
	"errors"
	"slices"
)

// What keeps writers from committing together.
var (
	ErrTwoBound      = errors.New("two writers cannot be prepared")
	ErrBoundReadOnly = errors.New("the writer that cannot be prepared cannot be written to either")
)

// DecidesFirst puts the writer that cannot be prepared in front: who decides is not prepared. There are several; only one can be
// like that. Else it is one that can still be written to. Those that were made READ ONLY are prepared without a row of theirs, and where all were,
// the decision comes behind.
func DecidesFirst[W interface{ ending() *Ending }](writers []W) error {
	slices.SortStableFunc(writers, func(a, b W) int { return a.ending().rank() - b.ending().rank() })
	first, second := writers[0].ending(), writers[1].ending()
	switch {
	case second.Bound:
		return ErrTwoBound
	case first.Bound && first.Only:
		return ErrBoundReadOnly
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
