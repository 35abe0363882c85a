package proxy

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// waiting takes what a listener's kernel queue holds: connections that are made, and that its close would reset.
func waiting(l net.Listener) (out []net.Conn) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			nfd, _, err := unix.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if err != nil {
				return
			}
			f := os.NewFile(uintptr(nfd), "client")
			if nc, err := net.FileConn(f); err == nil {
				out = append(out, nc)
			}
			_ = f.Close() // FileConn has a copy of its own
		}
	})
	return out
}
