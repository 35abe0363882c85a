package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Clients that leave while a statement of theirs goes on have given their descriptors back: the numbers are other connections' by then.

// packDescriptors fills the gaps among the open descriptors until the test ends: a number that is given back is the next one taken.
func packDescriptors(t *testing.T) {
	t.Helper()
	const many = 512
	last := -1
	for range many {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		fd := int(f.Fd())
		if fd < last {
			t.Fatalf("descriptor %d was opened after %d", fd, last)
		}
		t.Cleanup(func() { _ = f.Close() })
		if list, err := os.ReadDir("/proc/self/fd"); err != nil {
			t.Fatal(err)
		} else if len(list) <= fd+2 { // with the one of the listing: there is none above
			return
		}
		last = fd
	}
	t.Fatalf("the gaps are not filled by %d files", many)
}

// A node's process that does not answer keeps the session of a client that is gone. Nobody else may notice.
func TestFrozenServerOfADeadClientHurtsNobody(t *testing.T) {
	d := shop(t)
	const frozen = 4
	a := small(t, d, frozen+3, nil)
	defer leaks(t, a)()
	node := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	packDescriptors(t)
	var dead []*pgx.Conn
	for range frozen {
		c := connectTo(t, a.dsn())
		dead = append(dead, c)
		go func() { _, _ = c.PgConn().Exec(context.Background(), "select pg_sleep(300)").ReadAll() }()
	}
	running := func() []int {
		return queryOne[[]int](t, node, "select coalesce(array_agg(pid), '{}') from pg_stat_activity where query = 'select pg_sleep(300)' and state = 'active'")
	}
	eventually(t, "the statements run", func() bool { return len(running()) == frozen })
	pids := running()
	thaw := func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	defer thaw()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range dead {
		_ = c.PgConn().Conn().Close() // no Terminate
	}
	failed := 0
	for i := range 60 {
		if err := visit(a, fmt.Sprintf("select %d from pg_sleep(0.05)", i), fmt.Sprint(i)); err != nil {
			failed++
			t.Log(err)
		}
	}
	if failed > 0 {
		t.Errorf("%d of 60 clients failed", failed)
	}
	thaw()
	eventually(t, "the statements of the dead clients are cancelled", func() bool { return len(running()) == 0 })
}

// visit is a client that asks one thing.
func visit(a *app, sql, want string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, a.dsn())
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	var got string
	if err := c.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s: %q", sql, got)
	}
	return nil
}

// A function that goes on after a cancel request keeps the session of a client that is gone, too. Who only opens a connection hears nothing of others.
func TestSilentConnectionsReceiveNothing(t *testing.T) {
	d := shop(t)
	a := small(t, d, 8, nil)
	defer leaks(t, a)()
	node := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, node, `create or replace function stubborn() returns void language plpgsql as $$
		begin
			while clock_timestamp() < statement_timestamp() + interval '1 min' loop
				begin
					perform pg_sleep(1);
				exception when query_canceled then null;
				end;
			end loop;
		end $$`)
	defer mustExec(t, node, "drop function stubborn()")
	packDescriptors(t)
	for i := range 2 {
		dead := connectTo(t, a.dsn())
		go func() { _, _ = dead.PgConn().Exec(context.Background(), "select stubborn()").ReadAll() }()
		eventually(t, "it sleeps", func() bool { // where a cancel request is caught
			return queryOne[int](t, node, "select count(*) from pg_stat_activity where query = 'select stubborn()' and wait_event = 'PgSleep'") > i
		})
		_ = dead.PgConn().Conn().Close()
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 20 {
				secret := fmt.Sprintf("secret-%d-%d", i, j)
				if err := visit(a, "select '"+secret+"' from pg_sleep(0.1)", secret); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 10 {
				nc, err := net.Dial("tcp", a.Server.Addr())
				if err != nil {
					t.Error(err)
					return
				}
				_ = nc.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
				b := make([]byte, 1<<16)
				if n, err := nc.Read(b); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("a connection that says nothing received %q, %v", b[:n], err)
				}
				_ = nc.Close()
			}
		})
	}
	all.Wait()
	if n := queryOne[int](t, node, "select count(pg_terminate_backend(pid)) from pg_stat_activity where query = 'select stubborn()' and state = 'active'"); n == 0 {
		t.Error("no statement of a dead client outlived the others'")
	}
}

// A statement that no cancel request ends does not keep the session of a client that is gone.
func TestDeadClientsStatementIsCutOff(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	node := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	const endless = `do $$
		begin
			loop
				begin
					perform pg_sleep(1);
				exception when query_canceled then null;
				end;
			end loop;
		end $$`
	running := func() []int {
		return queryOne[[]int](t, node, "select coalesce(array_agg(pid), '{}') from pg_stat_activity where query = $1 and state = 'active'", endless)
	}
	defer func() {
		mustExec(t, node, "select pg_terminate_backend(pid) from unnest($1::int[]) pid", running())
	}()
	dead := connectTo(t, a.dsn())
	go func() { _, _ = dead.PgConn().Exec(context.Background(), endless).ReadAll() }()
	eventually(t, "it runs", func() bool { return len(running()) == 1 })
	_ = dead.PgConn().Conn().Close()
	eventually(t, "its session ends", func() bool { return len(a.Server.Sessions()) == 0 })
	eventually(t, "its server is given up", func() bool {
		for _, p := range a.Pools.All() {
			if s := p.Stats(); s.Active > 0 || s.Idle > 0 && len(running()) > 0 { // a cancel request that comes where none is caught ends it: the server is as good as new
				return false
			}
		}
		return true
	})
	if err := visit(a, "select 1", "1"); err != nil {
		t.Error(err)
	}
}
