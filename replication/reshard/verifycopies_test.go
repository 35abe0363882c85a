package reshard

import (
	"slices"
	"testing"
)

func TestSuspectBucketsAreReadInFewPasses(t *testing.T) {
	sums := []map[int]bucket{{1: {n: 3}, 2: {n: 2 * passRows}, 3: {n: 1}, 4: {n: passRows - 5}, 5: {n: 5}}, {1: {n: 4}, 5: {n: 1}}}
	for _, c := range []struct{ suspect, want []int }{
		{[]int{1}, []int{1}},
		{[]int{1, 3, 5}, []int{1, 3, 5}},
		{[]int{2, 3}, []int{2}}, // a bucket that is too large for any pass has one of its own
		{[]int{1, 2, 3}, []int{1}},
		{[]int{4, 5}, []int{4, 5}},
		{[]int{4, 5, 3}, []int{4, 5}},
		{[]int{1, 4, 5}, []int{1, 4}}, // the copy with the most rows counts
		{nil, nil},
	} {
		if got := onePass(c.suspect, sums); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.suspect, got, c.want)
		}
	}
}
