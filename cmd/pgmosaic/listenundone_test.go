package main

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// LISTEN and UNLISTEN come and go with what they belong to, as in PostgreSQL: a savepoint, a pipeline that fails, a COMMIT that fails.
func TestListenIsUndoneWithItsTransaction(t *testing.T) {
	t.Parallel()
	d := shop(t)
	direct := d.cluster.Node("s1-a").DSN("shop")
	server := connectTo(t, direct)
	mustExec(t, server, "create table listened (n int unique deferrable initially deferred); grant all on listened to public")
	defer mustExec(t, server, "drop table listened")
	for name, dsn := range map[string]string{"PostgreSQL": direct, "one shard": small(t, d, 2, nil).dsn(), "two shards": d.shopDSN()} {
		c, sender, other := connectTo(t, dsn), connectTo(t, dsn), connectTo(t, direct)
		hears := func(channel string) (heard bool) { // what comes on sure comes last
			t.Helper()
			mustExec(t, sender, "notify "+channel)
			mustExec(t, sender, "notify sure")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for {
				n, err := c.WaitForNotification(ctx)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if n.Channel == "sure" {
					return heard
				}
				heard = heard || n.Channel == channel
			}
		}
		piped := func(sql ...string) error {
			b := &pgconn.Batch{}
			for _, s := range sql {
				b.ExecParams(s, nil, nil, nil, nil)
			}
			_, err := c.PgConn().ExecBatch(t.Context(), b).ReadAll()
			return err
		}
		mustExec(t, c, "listen sure; listen news; listen more")
		mustExec(t, c, "begin; savepoint x; unlisten news; rollback to x; commit")
		mustExec(t, c, "begin; savepoint x; listen back; rollback to x; listen kept; savepoint x; listen released; release x; commit")
		wantCode(t, piped("unlisten more", "listen failed", "select 1/0"), "22012")
		if err := piped("listen piped", "select 1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		mustExec(t, other, "begin; delete from listened; insert into listened values (1)")
		mustExec(t, c, "begin; listen late; insert into listened values (1)")
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "commit")
			done <- err
		}()
		eventually(t, "COMMIT waits for the other's row", func() bool {
			return queryOne[bool](t, server, "select exists (select from pg_stat_activity where datname = 'shop' and lower(query) = 'commit' and wait_event = 'transactionid')")
		})
		mustExec(t, sender, "notify late")
		mustExec(t, other, "commit")
		wantCode(t, <-done, "23505")
		for channel, want := range map[string]bool{"news": true, "more": true, "back": false, "kept": true, "released": true, "failed": false, "piped": true, "late": false} {
			if got := hears(channel); got != want {
				t.Errorf("%s: %s is heard: %t", name, channel, got)
			}
		}
		mustExec(t, c, "unlisten *")
	}
}
