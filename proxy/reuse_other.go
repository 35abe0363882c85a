//go:build !linux

package proxy

import (
	"errors"
	"syscall"
)

func reusePort(_, _ string, _ syscall.RawConn) error {
	return errors.New("so_reuseport is for Linux only")
}
