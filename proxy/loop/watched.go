//go:build fdcheck && linux

package loop

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// In the build with fdcheck whoever blocks without Leave ends the process, too: its loop goes on without it, but milliseconds late.

// witness knows the goroutine of a task's coroutine, and when a loop runs it.
type witness struct {
	goroutine atomic.Pointer[string]
	turns     atomic.Uint64 // odd while a loop runs it
}

func (w *witness) begins() {
	var buf [64]byte
	head, _, _ := strings.Cut(string(buf[:runtime.Stack(buf[:], false)]), "[")
	w.goroutine.Store(&head)
}

// watcher knows whom a loop runs.
type watcher struct{ task atomic.Pointer[Task] }

func (w *watcher) runs(t *Task) {
	t.witness.turns.Add(1)
	w.task.Store(t)
}

func (w *watcher) ran(t *Task) { t.witness.turns.Add(1) }

// caught looks at a task that has run for too long. It may compute, or be one of many that want the processor: it is at fault if it waits, and
// still does a while later.
func (w *watcher) caught() {
	t := w.task.Load()
	head, turn := t.witness.goroutine.Load(), t.witness.turns.Load()
	if head == nil || turn&1 == 0 {
		return
	}
	first := waiting(*head)
	if first == "" {
		return
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		if again := waiting(*head); again == first && t.witness.turns.Load() == turn { // it is the loop's still
			blames(first)
		}
	}()
}

// waitStates are the states of goroutines that wait for something which may take long. A lock that another has is none.
var waitStates = []string{"IO wait", "chan receive", "chan send", "select", "sleep", "sync.WaitGroup.Wait", "sync.Cond.Wait"}

// waiting is the stack of a goroutine that waits; empty for one that does not.
func waiting(head string) string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	at := bytes.Index(buf, []byte(head+"["))
	if at < 0 {
		return ""
	}
	stack, _, _ := strings.Cut(string(buf[at:]), "\n\n")
	state := strings.TrimPrefix(stack, head+"[")
	for _, s := range waitStates {
		if strings.HasPrefix(state, s) {
			return strings.TrimSpace(stack)
		}
	}
	return ""
}

// blames tells of a task that waits on its loop. A test puts another one in its place.
var blames = func(stack string) {
	fmt.Fprintf(os.Stderr, "fdcheck: a task blocks and has not left its loop\n\n%s\n", stack)
	os.Exit(3)
}
