package reshard

import (
	"fmt"
	"testing"
)

func TestObjectsComeBehindWhatTheyNeed(t *testing.T) {
	at := func(oid uint32) node { return node{1, oid} }
	var all []object
	for _, oid := range []uint32{5, 1, 3, 2, 4} {
		all = append(all, object{node: at(oid)})
	}
	needs := map[node][]node{at(1): {at(4), at(9)}, at(4): {at(5)}, at(2): {at(2), at(3)}, at(3): {at(2)}} // 9 is not ours; 2 and 3 need each other
	var got []uint32
	for _, o := range inOrder(all, needs) {
		got = append(got, o.OID)
	}
	if s := fmt.Sprint(got); s != "[5 4 1 3 2]" {
		t.Errorf("%s", s)
	}
}
