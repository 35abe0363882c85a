package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// A move whose target takes nothing ends, with an error that names the node and the setting that bounds the wait; all is as it was, and the
// move can be repeated.
func TestFrozenTargetOfAMoveIsNamed(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE frozen")
	t.Cleanup(func() { d.forget(t, "frozen") })
	for i, more := range []string{"", "&tcp_user_timeout=2000"} {
		node := d.cluster.Node([]string{"s1-a", "s2-a"}[i])
		freshDatabase(t, node, "frozen")
		d.adminExec(t, fmt.Sprintf("CREATE SHARD frozen_s%d IN frozen NODE '%s' NAME frozen_n%d", i, node.DSN("frozen")+more, i))
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "frozen"))
	mustExec(t, c, "create table big (k int primary key, v text)")
	mustExec(t, c, "insert into big select g, repeat('x', 200) from generate_series(1, 400000) g")
	d.adminExec(t, "CREATE GROUP g IN frozen KEY (int) BY HASH")
	target := connectTo(t, d.cluster.Node("s2-a").DSN("frozen"))
	const move = "DISTRIBUTE TABLE frozen.public.big IN GROUP g KEY (k)"
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), move, false)
		done <- err
	}()
	var pid int
	eventually(t, "rows go to the target", func() bool {
		pid = queryOne[int](t, target, "select coalesce(max(pid), 0) from pg_stat_activity where datname = 'frozen' and state = 'active' and query like 'COPY %FROM STDIN%'")
		return pid != 0
	})
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	home := connectTo(t, d.cluster.Node("s1-a").DSN("frozen"))
	eventually(t, "the proxy does not wait for the target any more", func() bool {
		return queryOne[int](t, home, "select count(*) from pg_stat_activity where datname = 'frozen' and state = 'active' and query like 'COPY %TO STDOUT%'") == 0
	})
	_ = syscall.Kill(pid, syscall.SIGCONT)
	err := <-done
	var pe *pgsql.Error
	if !errors.As(err, &pe) || pe.Code != pgsql.ConnectionFailure || !strings.Contains(pe.Message, `node "frozen_s1"`) || !strings.Contains(pe.Message, "tcp_user_timeout") {
		t.Fatalf("the move with a frozen target: %v", err)
	}
	if n := queryOne[int](t, c, "select count(*) from big"); n != 400000 {
		t.Errorf("%d rows", n)
	}
	eventually(t, "the frozen server has ended", func() bool {
		return queryOne[int](t, target, "select count(*) from pg_stat_activity where pid = $1", pid) == 0
	})
	d.adminExec(t, move)
	if n := queryOne[int](t, c, "select count(*) from big"); n != 400000 {
		t.Errorf("%d rows once it has moved", n)
	}
}
