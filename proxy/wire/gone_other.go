//go:build !linux

package wire

import "net"

// Gone says whether the peer has closed its side. It cannot be told here without reading.
func Gone(net.Conn) bool { return false }
