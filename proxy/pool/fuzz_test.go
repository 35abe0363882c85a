package pool

import (
	"errors"
	"net"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// hearing is a server that says these bytes and no more.
func hearing(t *testing.T, bytes []byte) *Server {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() { // both end when the reader closes its end
		b := make([]byte, 1<<10)
		for {
			if _, err := theirs.Read(b); err != nil {
				return
			}
		}
	}()
	go func() {
		_ = wire.WriteAll(theirs, bytes)
		_ = theirs.Close()
	}()
	t.Cleanup(func() { _ = ours.Close() })
	return &Server{Conn: wire.New(ours, 1<<16), Params: map[string]string{}}
}

// FuzzServer has a server say anything to what the proxy asks for itself: whoever reads the answer gets what was promised, or an error,
// and the server is used no more if what it said was no answer.
func FuzzServer(f *testing.F) {
	const described = "T\x00\x00\x00\x1a\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00"
	const row, tag, idle = "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011", "C\x00\x00\x00\x0dSELECT 1\x00", "Z\x00\x00\x00\x05I"
	for _, s := range []string{
		described + row + tag + idle, described + tag + idle, row + tag + idle, described + "D\x00\x00\x00\x06\x00\x00" + tag + idle,
		"Z\x00\x00\x00\x04", "C\x00\x00\x00\x04" + idle, "S\x00\x00\x00\x04" + idle, "E\x00\x00\x00\x04" + idle, "N\x00\x00\x00\x04" + idle, "D\x00\x00\x00\x04" + idle, "T\x00\x00\x00\x04" + idle, "Z\x00\x00\x00\x00",
		"E\x00\x00\x00\x09Mx\x00\x00\x00" + idle,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		s := hearing(t, said)
		row, err := s.Row(1, "SELECT 1")
		if err == nil && (len(row) != 1 || s.Dirty) {
			t.Errorf("a row of %d values, dirty %t", len(row), s.Dirty)
		}
		var refused *ServerError
		if err != nil && !errors.As(err, &refused) && !s.Dirty {
			t.Errorf("%v, and it is used on", err)
		}
	})
}
