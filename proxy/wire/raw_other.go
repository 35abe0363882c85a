//go:build !linux

package wire

import "net"

type rawIO struct{}

func newRaw(net.Conn, *Conn) *rawIO { return nil }

func (*rawIO) read([]byte) (int, error)     { panic("wire: no raw sockets here") }
func (*rawIO) writeNow([]byte) (int, error) { panic("wire: no raw sockets here") }
func (*rawIO) write([]byte) (int, error)    { panic("wire: no raw sockets here") }

func (*rawIO) wait() {}
