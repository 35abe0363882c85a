package router

import (
	"math"
	"reflect"
	"strings"
	"unsafe"
)

// Slim forgets what only planning needs, and says how many bytes the template holds: more than most, if it does. The statement must belong to it
// alone, and is not planned again.
func (t *Template) Slim(most int) int {
	for x := t; x != nil; x = x.Inner {
		x.Stmt.Slim()
	}
	return sizeUpTo(most, t)
}

// SizeOf is how many bytes hang on pointers, but for what the map and the schema own, which all share. What several hang on counts once.
func SizeOf(ps ...any) int { return sizeUpTo(math.MaxInt, ps...) }

// sizeUpTo is SizeOf that ends its count when it is above most: hundreds of thousands of values take as long to count as to plan.
func sizeUpTo(most int, ps ...any) int {
	s := sizer{seen: map[unsafe.Pointer]bool{}, most: most}
	for _, p := range ps {
		s.inside(reflect.ValueOf(p))
	}
	return s.bytes
}

type sizer struct {
	bytes int
	seen  map[unsafe.Pointer]bool
	most  int // behind which nothing more is counted
}

// count counts an allocation at p, rounded up as the allocator does on average. false: it was counted before.
func (s *sizer) count(p unsafe.Pointer, n int) bool {
	if n == 0 || p == nil || s.bytes > s.most || s.seen[p] {
		return false
	}
	s.seen[p] = true
	s.bytes += max(16, n+n/10)
	return true
}

// inside counts what v points to; v itself is counted with whatever holds it.
func (s *sizer) inside(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if t := v.Type().Elem(); !v.IsNil() && !shared(t) && s.count(v.UnsafePointer(), int(t.Size())) {
			s.inside(v.Elem())
		}
	case reflect.String:
		if v.Len() > 0 {
			s.count(unsafe.Pointer(unsafe.StringData(v.String())), v.Len())
		}
	case reflect.Slice:
		if t := v.Type().Elem(); t.Kind() == reflect.Uint8 { // often a part of a message, with all of that as its capacity
			s.count(v.UnsafePointer(), v.Len())
		} else if v.Cap() > 0 && s.count(v.UnsafePointer(), v.Cap()*int(t.Size())) && points(t.Kind()) {
			for i := 0; i < v.Len() && s.bytes <= s.most; i++ {
				s.inside(v.Index(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			s.inside(v.Index(i))
		}
	case reflect.Map:
		t := v.Type()
		if !v.IsNil() && s.count(v.UnsafePointer(), 48+v.Len()*2*int(t.Key().Size()+t.Elem().Size()+1)) {
			for it := v.MapRange(); s.bytes <= s.most && it.Next(); {
				s.inside(it.Key())
				s.inside(it.Value())
			}
		}
	case reflect.Interface:
		if !v.IsNil() {
			e := v.Elem()
			if e.Kind() != reflect.Pointer {
				s.bytes += int(e.Type().Size())
			}
			s.inside(e)
		}
	case reflect.Struct:
		if strings.HasPrefix(v.Type().PkgPath(), "sync") || strings.HasPrefix(v.Type().PkgPath(), "internal/") {
			return // what the executor puts there it counts itself
		}
		for i := range v.NumField() {
			if points(v.Field(i).Kind()) {
				s.inside(v.Field(i))
			}
		}
	case reflect.Func:
		if !v.IsNil() {
			s.bytes += 128
		}
	}
}

// shared says whether values of a type belong to all.
func shared(t reflect.Type) bool {
	return strings.Contains(t.PkgPath(), "/shardmap")
}

func points(k reflect.Kind) bool {
	return k == reflect.String || k >= reflect.Array && k != reflect.UnsafePointer
}
