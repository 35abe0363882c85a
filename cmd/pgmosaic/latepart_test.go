package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// canceller passes on what a server is sent. The next statement that would finish a prepared part there meets a cancel request.
type canceller struct {
	io.Writer
	armed *atomic.Bool
}

func (x canceller) Write(b []byte) (int, error) {
	if b[0] == 'Q' && bytes.Contains(b, []byte(" PREPARED '")) && x.armed.Swap(false) {
		q := append([]byte("Q\x00\x00\x00\x00select pg_cancel_backend(pg_backend_pid()), pg_sleep(60)"), 0)
		binary.BigEndian.PutUint32(q[1:], uint32(len(q)-1))
		_, err := x.Writer.Write(q)
		return len(b), err
	}
	return x.Writer.Write(b)
}

// A cancel request that comes late, when a prepared part is being finished, leaves none that keeps its locks.
func TestLateCancelLeavesNoPart(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "latepart")
	mustExec(t, c, "create table late (s int, id int, constraint late_key unique (s, id) deferrable initially deferred)")
	d.adminExec(t, "DISTRIBUTE TABLE latepart.public.late IN GROUP g KEY (s)")
	doc := mapOf(d, "latepart")
	var armed atomic.Bool
	changing(t, doc, 1, func(to io.Writer) io.Writer { return canceller{to, &armed} })
	cfg := crashConfig(t, doc)
	cfg.Resolve = config.Duration(time.Hour)
	a := startApp(t, cfg)
	c = connectTo(t, dsnFor("app", "app", a.Server.Addr(), "latepart"))
	other := d.on(t, "latepart", 1)
	for i, code := range []string{"23505", ""} {
		for _, sql := range []string{"begin", "insert into late values (0, 1)", fmt.Sprintf("insert into late values (0, %d)", 1+i), fmt.Sprintf("insert into a values (1, %d)", i)} {
			mustExec(t, c, sql)
		}
		armed.Store(true)
		if _, err := c.Exec(t.Context(), "commit"); code != "" {
			wantCode(t, err, code)
		} else if err != nil {
			t.Error(err)
		}
		if armed.Load() {
			t.Errorf("no part was finished, COMMIT says %q", code)
		}
		if n := queryOne[int](t, other, "select count(*) from pg_prepared_xacts where database = current_database()"); n != 0 {
			t.Errorf("%d parts are left, COMMIT says %q", n, code)
		}
		if n := queryOne[int](t, other, "select count(*) from a"); n != i {
			t.Errorf("%d rows, COMMIT says %q", n, code)
		}
	}
}
