package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
)

// What a session of the admin console keeps counts like that of others: for the session, for the process, and no longer than it is there.
func TestTheConsolesMemoryIsCounted(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	m := &a.Engine.Memory
	m.Session.Store(1 << 20)
	c, err := pgx.Connect(t.Context(), a.consoleDSN())
	if err != nil {
		t.Fatal(err)
	}
	long := "SHOW VERSION" + strings.Repeat(" ", 100<<10)
	n := 0
	for ; n < 30 && err == nil; n++ {
		_, err = c.PgConn().Prepare(t.Context(), fmt.Sprintf("s%d", n), long, nil)
	}
	if n < 9 || n > 11 {
		t.Errorf("%d statements of 100 kB", n)
	}
	outOfMemory(t, "Parse", err, "prepared statements hold 10")
	if held := m.Used(memory.Prepared); held < 900<<10 || held > 1<<20 {
		t.Errorf("%d bytes are counted", held)
	}
	if err := c.PgConn().Deallocate(t.Context(), "s0"); err != nil { // a Close message
		t.Error(err)
	}
	if _, err := c.PgConn().Prepare(t.Context(), "again", long, nil); err != nil {
		t.Errorf("after another is closed: %v", err)
	}
	_ = c.Close(t.Context())
	eventually(t, "its statements are counted back", func() bool { return m.Used(memory.Prepared) == 0 })

	m.Session.Store(20 << 10)
	r := rawTo(t, a.consoleDSN())
	r.SendParse("s", "SHOW CONFIG", nil)
	for i := range 100 {
		r.SendFrame('B', append([]byte(fmt.Sprintf("p%d\x00s\x00", i)), 0, 0, 0, 0, 0, 0))
	}
	r.SendFlush()
	if got := r.until('E'); !strings.HasPrefix(got, "12222") || !strings.HasSuffix(got, "E[53200]") || len(got) > 40 {
		t.Errorf("portals: %s", got)
	}
	if held := m.Used(memory.Portals); held < 40<<10 || held > 80<<10 {
		t.Errorf("%d bytes are counted for portals", held)
	}
	r.SendSync()
	r.want('Z', "ZI")
	if held := m.Used(memory.Portals); held != 0 {
		t.Errorf("%d bytes are counted for portals behind Sync", held)
	}
}

// So do the answers of auth_query; where there is no room, names are asked again.
func TestAnswersOfAuthQueryAreCounted(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, func(c *config.Config) { c.AuthQuery = "select rolname, rolpassword from pg_authid where rolname = $1" })
	m := &a.Engine.Memory
	for i := range 10 {
		factors(t, a, fmt.Sprintf("nobody%d", i), "shop")
	}
	held := m.Used(memory.Logins)
	if held < 10*400 || held > 10*600 {
		t.Errorf("%d bytes are counted for ten names", held)
	}
	for i := range 10 { // again
		factors(t, a, fmt.Sprintf("nobody%d", i), "shop")
	}
	if again := m.Used(memory.Logins); again != held {
		t.Errorf("%d bytes for the same names, %d before", again, held)
	}
	cfg := a.Config()
	cfg.AuthQuery += " and true"
	if err := a.Apply(&cfg); err != nil {
		t.Fatal(err)
	}
	if left := m.Used(memory.Logins); left != 0 {
		t.Errorf("%d bytes are counted of what is forgotten", left)
	}
	limit := m.Limit.Swap(1)
	factors(t, a, "nobody", "shop")
	m.Limit.Store(limit)
	if held := m.Used(memory.Logins); held != 0 {
		t.Errorf("%d bytes beyond memory_limit", held)
	}
}
