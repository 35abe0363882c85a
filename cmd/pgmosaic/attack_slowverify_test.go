//go:build attack && linux

package main

import (
	"syscall"
	"testing"
	"time"
)

// VERIFY TABLE reads a shard's keys when all shards have sorted theirs. One that takes longer than a node waits for a proxy that has vanished
// does not make it fail.
func TestAttackVerifyOfASlowShard(t *testing.T) {
	d, c := schemesWorld(t, "slowverify")
	mustExec(t, c, "create table loose (id int primary key, k int not null)")
	d.adminExec(t, "CREATE GROUP g IN slowverify KEY (int) BY LIST ((1) ON slowverify_s1, (2) ON slowverify_s2, DEFAULT ON slowverify_s0)")
	d.adminExec(t, "DISTRIBUTE TABLE slowverify.public.loose IN GROUP g KEY (k) ALLOW LOCAL UNIQUE")
	mustExec(t, d.on(t, "slowverify", 0), "insert into loose select i, 7 from generate_series(1, 1500000) i") // more than the buffers between them hold
	mustExec(t, d.on(t, "slowverify", 1), "insert into loose select i, 1 from generate_series(2000001, 2300000) i")
	look := d.on(t, "slowverify", 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			var pid int
			if look.QueryRow(t.Context(), "select pid from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid() and query ~* '^select.*order by 1$' limit 1").Scan(&pid) == nil {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Error(err)
				}
				time.Sleep(70 * time.Second)
				if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
					t.Error(err)
				}
				return
			}
		}
		t.Error("the shard's keys were sorted before anybody saw it")
	}()
	from := time.Now()
	wantVerified(t, d, "slowverify.public.loose")
	t.Log(time.Since(from))
	<-done
}
