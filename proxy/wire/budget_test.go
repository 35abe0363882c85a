package wire

import (
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
)

// Long messages are counted while their bytes are kept, and one for which there is no memory is left unread, so that the connection goes on
// behind it.
func TestLongMessagesAreCounted(t *testing.T) {
	frame := func(n int) []byte {
		b := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(n+4))
		return append(b, strings.Repeat("x", n)...)
	}
	errFull := errors.New("full")
	for _, held := range []bool{false, true} {
		ours, theirs := net.Pipe()
		go func() { // ends with the pipe
			for _, n := range []int{10, 1 << 20, 3 << 20, 20 << 20, 10, 1 << 20} {
				_, _ = theirs.Write(frame(n))
			}
			_ = theirs.Close()
		}()
		c := New(ours, 1<<30)
		var used, most int64
		limit := int64(16 << 20)
		c.Memory.Use(func(n int64) error {
			if n > 0 && used+n > limit {
				return errFull
			}
			used += n
			most = max(most, used)
			return nil
		})
		next := func(want int) {
			t.Helper()
			if held {
				c.Hold()
			}
			m, err := c.Next()
			if err != nil || len(m.Body()) != want {
				t.Fatalf("held %v: %d bytes, error %v", held, len(m.Raw), err)
			}
		}
		next(10)
		if used != 0 {
			t.Errorf("held %v: %d bytes are counted for a short message", held, used)
		}
		next(1 << 20)
		if used < 1<<20 || used > 4<<20 {
			t.Errorf("held %v: %d bytes are counted for one of 1 MB", held, used)
		}
		next(3 << 20)
		if used < 3<<20 || most > limit {
			t.Errorf("held %v: %d bytes are counted for one of 3 MB, %d at most", held, used, most)
		}
		c.Release()
		var refused *RefusedError
		if m, err := c.Next(); !errors.As(err, &refused) || !errors.Is(err, errFull) || m.Type != 'Q' {
			t.Fatalf("held %v: one of 20 MB: %q %v", held, m.Type, err)
		}
		if err := c.Skip(); err != nil {
			t.Fatal(err)
		}
		next(10)
		next(1 << 20)
		c.Release()
		if _, err := c.Next(); err == nil {
			t.Error("there is one more")
		}
		if used != 0 {
			t.Errorf("held %v: %d bytes are counted when nothing is kept", held, used)
		}
		limit = 0
		c.Memory.Use(nil)
		if used != 0 || c.Memory.taken != 0 {
			t.Errorf("held %v: %d bytes stay on the books", held, used)
		}
	}
}

// What a connection has taken is given back when its budget ends, amid a message, too.
func TestABudgetEndsWithItsConnection(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Write(binary.BigEndian.AppendUint32([]byte{'Q'}, 1<<20))
		_, _ = theirs.Write(make([]byte, 500<<10))
		_ = theirs.Close()
	}()
	c := New(ours, 1<<30)
	var used int64
	c.Memory.Use(func(n int64) error { used += n; return nil })
	if _, err := c.Next(); err == nil {
		t.Fatal("half a message is one")
	}
	if used < 500<<10 {
		t.Errorf("%d bytes are counted", used)
	}
	c.Memory.Use(nil)
	if used != 0 {
		t.Errorf("%d bytes stay on the books", used)
	}
}
