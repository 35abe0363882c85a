package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Gone says whether the peer has closed its side, without reading anything: what PostgreSQL looks at under
// client_connection_check_interval. Any goroutine may call it.
func Gone(nc net.Conn) bool {
	sc, ok := socket(nc).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, e := unix.Poll(p, 0)
		gone = e == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || gone
}
