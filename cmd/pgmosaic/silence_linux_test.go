package main

import (
	"net"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"golang.org/x/sys/unix"
)

// What bounds the silence of a peer on TCP's level holds for clients and for servers, and a new configuration for those of after it.
func TestSilenceOfPeersIsBounded(t *testing.T) {
	t.Parallel()
	a, m := behind(t, shop(t))
	check := func(what string, port, peer int, idle, interval, count, user time.Duration, on int) {
		t.Helper()
		found := 0
		for fd := range 4096 {
			if at(unix.Getsockname(fd)) != port && port != 0 || at(unix.Getpeername(fd)) != peer && peer != 0 {
				continue
			}
			if _, err := unix.Getpeername(fd); err != nil {
				continue
			}
			get := func(level, option int) time.Duration {
				n, err := unix.GetsockoptInt(fd, level, option)
				if err != nil {
					t.Fatal(err)
				}
				return time.Duration(n)
			}
			if get(unix.SOL_SOCKET, unix.SO_KEEPALIVE) != time.Duration(on) || on == 1 && (get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)*time.Second != idle ||
				get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)*time.Second != interval || get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT) != count) ||
				get(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)*time.Millisecond != user {
				continue
			}
			found++
		}
		if found == 0 {
			t.Errorf("%s: no connection has what was set", what)
		}
	}
	node, own := m.Addr().(*net.TCPAddr).Port, portOf(t, a.Server.Addr())
	for _, x := range []struct {
		set            string
		idle, interval time.Duration
		count, user    time.Duration
		on             int
	}{
		{"", 15 * time.Second, 15 * time.Second, 9, 0, 1},
		{"SET tcp_keepidle = '7s'; SET tcp_keepintvl = '3s'; SET tcp_keepcnt = 2; SET tcp_user_timeout = '1500ms'", 7 * time.Second, 3 * time.Second, 2, 1500 * time.Millisecond, 1},
		{"SET tcp_keepalive = false; SET tcp_user_timeout = 0s", 0, 0, 0, 0, 0},
	} {
		for _, sql := range append(admin.SplitStatements(x.set), "RECONNECT") {
			if _, err := a.Admin.Exec(t.Context(), sql, false); err != nil {
				t.Fatal(err)
			}
		}
		c := connectTo(t, a.dsn())
		mustExec(t, c, "begin; select 1")
		check("a client", own, 0, x.idle, x.interval, x.count, x.user, x.on)
		check("a server", 0, node, x.idle, x.interval, x.count, x.user, x.on)
		mustExec(t, c, "rollback")
	}
}

// at is the port of an address, 0 for none.
func at(a unix.Sockaddr, err error) int {
	if in, ok := a.(*unix.SockaddrInet4); ok && err == nil {
		return in.Port
	}
	return 0
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}
