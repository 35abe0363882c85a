package instance

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
)

// begun is an instance with an empty map, which needs no server.
func begun(t *testing.T, change func(*config.Config)) *Instance {
	t.Helper()
	cfg := config.Default()
	cfg.Store, cfg.Listen, cfg.HTTP = t.TempDir()+"/map.json", "127.0.0.1:0", "127.0.0.1:0"
	change(&cfg)
	in, err := New(t.Context(), cfg, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Stop(0) })
	return in
}

// The garbage collector knows memory_limit, too: what it has not found yet is most of what consumers are not counted for. It is the process's:
// no other test may run beside this one.
func TestTheCollectorKnowsTheMemoryLimit(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(was) })
	const limit = 3 << 30
	begun(t, func(c *config.Config) { c.Memory = limit })
	if got := debug.SetMemoryLimit(-1); got != limit {
		t.Errorf("memory_limit is %d, the collector's %d", limit, got)
	}
	begun(t, func(c *config.Config) { c.Memory = 0 })
	if got := debug.SetMemoryLimit(-1); got != limit {
		t.Errorf("no memory_limit makes the collector's %d", got)
	}
}

// What each consumer holds is measured under its own name.
func TestMetricsOfEveryConsumer(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(was) })
	const limit = 5 << 30
	in := begun(t, func(c *config.Config) { c.Memory = limit })
	held := func(c memory.Consumer) int64 { return int64(c+1) << 20 }
	for c := range memory.Names {
		in.Engine.Memory.Add(memory.Consumer(c), held(memory.Consumer(c)))
	}
	res, err := http.Get("http://" + in.Page() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) int64 {
		t.Helper()
		_, rest, found := strings.Cut(string(text), "\n"+name+" ")
		line, _, _ := strings.Cut(rest, "\n")
		v, err := strconv.ParseFloat(line, 64)
		if !found || err != nil {
			t.Errorf("%s: %q, %v", name, line, err)
		}
		return int64(v)
	}
	for c, name := range memory.Names {
		want := held(memory.Consumer(c))
		if memory.Consumer(c) == memory.Plans {
			want = in.Engine.Memory.Used(memory.Plans) // their cache weighs them
		}
		if got := value(fmt.Sprintf("pgmosaic_memory_bytes{consumer=%q}", name)); got != want {
			t.Errorf("%s: %d bytes, want %d", name, got, want)
		}
	}
	if got := value("pgmosaic_memory_limit_bytes"); got != limit {
		t.Errorf("memory_limit is %d, measured %d", limit, got)
	}
}
