package panics

import "sync/atomic"

// provoked is asked at each Point; nil but in tests.
var provoked atomic.Pointer[func(stage string)]

// Point is where a test may have the work panic.
func Point(stage string) {
	if f := provoked.Load(); f != nil {
		(*f)(stage)
	}
}

// Test is a testing.TB, of which there is none in production.
type Test interface {
	Helper()
	Cleanup(func())
}

// Provoke has f called at each Point until the test ends; what f panics with, the work there does.
func Provoke(t Test, f func(stage string)) {
	t.Helper()
	provoked.Store(&f)
	t.Cleanup(func() { provoked.Store(nil) })
}
