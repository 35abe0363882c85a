package exec

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// What a server says when its postmaster is no more means the node, whatever a probe says; what a function raises means nothing.
func TestWhatMeansTheNode(t *testing.T) {
	for _, x := range []struct {
		severity, code, routine string
		want                    bool
	}{
		{"FATAL", "57P01", "secure_read", true},
		{"FATAL", "57P01", "secure_write", true},
		{"FATAL", "57P02", "quickdie", true},
		{"FATAL", "57P03", "ProcessStartupPacket", true},
		{"FATAL", "57014", "ProcessInterrupts", false},
		{"ERROR", "57P01", "exec_stmt_raise", false},
		{"ERROR", "57P02", "exec_stmt_raise", false},
	} {
		e := &wire.ErrorResponse{Severity: x.severity, SeverityUnlocalized: x.severity, Code: x.code, Routine: x.routine}
		if got := (&Handler{}).nodeGoes(nil, e); got != x.want {
			t.Errorf("%v: %t", x, got)
		}
	}
}
