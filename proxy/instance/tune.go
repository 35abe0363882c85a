package instance

import (
	"os"
	"runtime"
	"runtime/debug"
)

// Tune sets the Go runtime for a process that is a proxy and nothing else. It gives the collector room: a proxy's live heap is small, so by default it would collect all the time.
// On one or two processors, which it mostly shares with a server, one is enough for it: threads that wake
// each other cost more than they win there. GOGC and GOMAXPROCS overrule both.
func Tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMAXPROCS") == "" && runtime.NumCPU() <= 2 {
		runtime.GOMAXPROCS(1)
	}
}
