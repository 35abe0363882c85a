package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Names that are not UTF-8 are told apart, and break nothing.
func TestNamesOfAnyEncoding(t *testing.T) {
	m := New(time.Time{})
	names := []string{"plain", "é", "\xe9", `\xe9`, "\xe9\xe8"}
	m.AddGauges(func(emit func(name, help string, value float64, labels ...string)) {
		for i, n := range names {
			emit("named", "A gauge.", float64(i), "role", n)
		}
	})
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "pgmosaic_named" && len(f.Metric) == len(names) {
			return
		}
	}
	t.Error("not every name has its own")
}
