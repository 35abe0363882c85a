// Package panics keeps a fault of our own code to the work that shows it.
//
// The work of one client, or of one request, runs in Catch, and what goes on as long as the process lives runs in Keep: no goroutine of the proxy's runs outside
// of the two if it does more than wait. Each panic is counted, and logged with its stack. What held a lock lets go of it by defer.
package panics

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Part is the kind of work that has panicked.
type Part int

// The kinds of work.
const (
	Session    Part = iota // of one client, who is told
	Dashboard              // of one HTTP request, which is answered 500
	Background             // of nobody: it is begun again
)

// Parts are the names of the kinds, for metrics.
var Parts = [...]string{Session: "session", Dashboard: "dashboard", Background: "background"}

func (p Part) String() string { return Parts[p] }

// A panic says that the program is wrong, whichever proxy of the process shows it: the counts and the log are the process's.
var (
	counts [len(Parts)]atomic.Uint64
	log    atomic.Pointer[slog.Logger]
)

// LogTo says where panics are logged; before, it is the default logger.
func LogTo(l *slog.Logger) { log.Store(l) }

// Count is how many panics of a kind there have been.
func Count(p Part) uint64 { return counts[p].Load() }

// Error is a panic that was caught, for those who wait for the work. It holds nothing that a client must not see.
type Error struct{}

func (*Error) Error() string { return "internal error of the proxy" }

// SQLState is PostgreSQL's internal_error.
func (*Error) SQLState() string { return pgsql.InternalError }

// ErrorHint says where to look.
func (*Error) ErrorHint() string {
	return "The proxy's log has the details. Other sessions are not concerned."
}

// Is says whether an error is a panic that was caught.
func Is(err error) bool {
	var p *Error
	return errors.As(err, &p)
}

// Catch runs f, and returns what f does, or an *Error if it panics. about adds to the log what the work was; it may be nil.
func Catch(p Part, f func() error, about func() []any) (err error) {
	defer func() {
		if v := recover(); v != nil {
			note(p, v, about)
			err = &Error{}
		}
	}()
	return f()
}

// Go runs f on a goroutine of its own, and catches its panic.
func Go(p Part, f func()) {
	go func() { _ = Catch(p, func() error { f(); return nil }, nil) }()
}

// The pause before work in the background begins again grows from the one to the other.
const (
	firstPause = 100 * time.Millisecond
	longest    = 30 * time.Second
)

// Keep runs f until it returns; if it panics, once more after a pause, unless ctx has ended. name is for the log.
func Keep(ctx context.Context, name string, f func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, longest) {
		begun := time.Now()
		err := Catch(Background, func() error { return f(ctx) }, func() []any { return []any{"task", name} })
		if !Is(err) {
			return err
		}
		if time.Since(begun) > longest {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// note counts a panic and logs it, with the stack that shows it: it is called while that unwinds.
func note(p Part, v any, about func() []any) {
	counts[p].Add(1)
	l := log.Load()
	if l == nil {
		l = slog.Default()
	}
	attrs := []any{"part", p.String(), "panic", v, "stack", string(debug.Stack())}
	if about != nil {
		attrs = append(attrs, whatIs(about)...)
	}
	l.Error("panic", attrs...)
}

// whatIs asks about the work, which may be in no state to answer.
func whatIs(about func() []any) (attrs []any) {
	defer func() {
		if v := recover(); v != nil {
			attrs = []any{"about", v}
		}
	}()
	return about()
}
