package branch

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

func TestWhatIsRunAgain(t *testing.T) {
	lost := (*wire.ErrorResponse)(nil)
	of := func(code, severity string) *wire.ErrorResponse {
		return &wire.ErrorResponse{Code: code, Severity: severity, SeverityUnlocalized: severity}
	}
	const read, replica, used, wrote = 1, 2, 4, 8
	all := func(Branch) Repeat { return No }
	for name, c := range map[string]struct {
		e    *wire.ErrorResponse
		want func(b Branch) Repeat // of one that has not written, and that no statement depends on
	}{
		"its connection":       {lost, func(Branch) Repeat { return Yes }},
		"its server goes":      {of(pgsql.AdminShutdown, "FATAL"), func(Branch) Repeat { return IfItGoes }},
		"its node has crashed": {of(pgsql.CrashShutdown, "FATAL"), func(Branch) Repeat { return IfItGoes }},
		"it was idle":          {of(pgsql.IdleSessionTimeout, "FATAL"), func(Branch) Repeat { return Yes }},
		"a function says so":   {of(pgsql.IdleSessionTimeout, "ERROR"), all},
		"a conflict": {of(pgsql.SerializationFailure, "ERROR"), func(b Branch) Repeat {
			if b.Replica {
				return Yes
			}
			return No
		}},
		"a division by zero": {of("22012", "ERROR"), all},
	} {
		for is := range 16 {
			b := Branch{Server: &pool.Server{}, Reads: is&read != 0, Replica: is&replica != 0, Used: is&used != 0}
			if is&wrote != 0 {
				b.On(Writes)
			}
			want := No
			if is&wrote == 0 && (b.Reads || b.Replica && !b.Used) {
				want = c.want(b)
			}
			if got := b.Repeats(c.e); got != want {
				t.Errorf("%s, where it reads %t, is a replica %t, was used %t, has written %t: %d, not %d", name, b.Reads, b.Replica, b.Used, is&wrote != 0, got, want)
			}
		}
	}
}

func TestARequestIsRunAgainOnce(t *testing.T) {
	a := Attempted(100, 7)
	if !a.MayRepeat(100) || a.MayRepeat(101) || a.Out() != 7 {
		t.Error("it may be run again until something has gone to its client")
	}
	a.Repeatable = false
	if a.MayRepeat(100) || !a.Unsent(100) {
		t.Error("what is not repeatable is run again")
	}
	a.Repeatable = true
	a.Repeat()
	if a.MayRepeat(100) || !a.Repeated() {
		t.Error("it is run again twice")
	}
}
