package router

import (
	"reflect"
	"testing"
	"unsafe"
)

// What is too large to be kept is not counted to its end.
func TestSizesAreCountedUpToALimit(t *testing.T) {
	many := make([]*[64]byte, 1000)
	for i := range many {
		many[i] = new([64]byte)
	}
	s := sizer{seen: map[unsafe.Pointer]bool{}, most: 20000}
	s.inside(reflect.ValueOf(many))
	if s.bytes <= s.most || len(s.seen) > 200 {
		t.Errorf("%d allocations of %d bytes were counted", len(s.seen), s.bytes)
	}
	if whole := SizeOf(many); whole < 64*len(many) || sizeUpTo(whole, many) != whole {
		t.Errorf("%d bytes in all, %d up to that", whole, sizeUpTo(whole, many))
	}
}
