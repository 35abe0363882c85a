//go:build !linux

package loop

import (
	"net"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// Socket is a connection that a loop waits for. There are none here: Go's own poller waits for connections.
type Socket struct{ net.Conn }

// Adopt returns nc.
func Adopt(nc net.Conn) net.Conn { return nc }

func (*Socket) SetTask(*Task)                    {}
func (*Socket) SetAside(bool)                    {}
func (*Socket) OnInput(_ *Task, f func())        { panics.Go(panics.Session, f) }
func (*Socket) Run(_ *Task, f func())            { panics.Go(panics.Session, f) }
func (*Socket) Dry() bool                        { return false }
func (*Socket) WaitRead() error                  { return nil }
func (s *Socket) TryRead(b []byte) (int, error)  { return s.Read(b) }
func (s *Socket) WriteNow(b []byte) (int, error) { return s.Write(b) }
