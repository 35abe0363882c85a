package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// An admin statement that copies rows from one server to another names the one that was lost.
func TestTheLostServerOfACopyIsNamed(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "named")
	mustExec(t, c, "create table wide (k int primary key, v text)")
	mustExec(t, c, "insert into wide select g, repeat(md5(g::text), 30) from generate_series(1, 60000) g")
	d.adminExec(t, "CREATE GROUP g IN named KEY (int) BY HASH")
	for lost, doing := range map[int]string{0: "COPY % TO STDOUT%", 1: "COPY % FROM STDIN%"} {
		killer := d.on(t, "named", lost)
		ctx, over := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			defer over()
			_, err := d.Admin.Exec(context.Background(), "DISTRIBUTE TABLE named.public.wide IN GROUP g KEY (k)", false)
			done <- err
		}()
		for ctx.Err() == nil { // the copy has begun, and ends soon
			if queryOne[int](t, killer, "select count(*) from (select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'active' and query ilike '"+doing+"') k") > 0 {
				break
			}
		}
		err := <-done
		var e *pgsql.Error
		if !errors.As(err, &e) {
			t.Fatalf("it was not interrupted: %v", err)
		}
		if want := fmt.Sprintf("named_s%d", lost); !strings.Contains(e.Message, want) {
			t.Errorf("the server of %s was lost: %s", want, e.Message)
		}
		eventually(t, "it is settled", func() bool { return len(d.Catalog.Current().Databases["named"].Tables) == 0 })
	}
}
