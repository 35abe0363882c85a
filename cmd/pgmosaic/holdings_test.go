package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// outOfMemory says that an error is 53200, names what it is about, and says what to do.
func outOfMemory(t *testing.T, what string, err error, detail string) {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "53200" || !strings.Contains(pe.Detail, detail) || pe.Hint == "" {
		t.Errorf("%s: %+v", what, err)
	}
}

// untilRefused runs statements until one is refused, at most n.
func untilRefused(t *testing.T, c *pgx.Conn, n int, sql func(i int) string) (ran int, err error) {
	t.Helper()
	for ran = range n {
		if _, err = c.Exec(t.Context(), sql(ran), pgx.QueryExecModeSimpleProtocol); err != nil {
			return ran, err
		}
	}
	return n, nil
}

// A session has settings of as many bytes as session_memory_limit says, however it came by them, and what it has until then.
func TestSettingsHaveALimit(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	a.Engine.Memory.Session.Store(1 << 20)
	long := strings.Repeat("x", 100<<10)
	set := func(i int) string { return fmt.Sprintf("set app.a%d = '%s'", i, long) }
	config := func(i int) string { return fmt.Sprintf("select set_config('app.a%d', '%s', false)", i, long) }
	for what, sql := range map[string]func(i int) string{"SET": set, "set_config": config} {
		c := connectTo(t, a.dsn())
		n, err := untilRefused(t, c, 30, sql)
		if n < 8 || n > 10 {
			t.Errorf("%s: %d settings of 100 kB", what, n)
		}
		outOfMemory(t, what, err, "session_memory_limit")
		for i := range n {
			if got := queryOne[int](t, c, fmt.Sprintf("select length(current_setting('app.a%d'))", i)); got != len(long) {
				t.Errorf("%s: app.a%d has %d bytes", what, i, got)
			}
		}
		if got := queryOne[string](t, c, fmt.Sprintf("select coalesce(current_setting('app.a%d', true), '')", n)); got != "" {
			t.Errorf("%s: what was refused has %d bytes", what, len(got))
		}
		mustExec(t, c, set(0)) // in place of what it was
		mustExec(t, c, "set app.a1 = 'short'")
		mustExec(t, c, set(n))
		mustExec(t, c, "reset all")
		if n, _ := untilRefused(t, c, 8, set); n < 8 {
			t.Errorf("%s: %d settings after RESET ALL", what, n)
		}
	}
}
