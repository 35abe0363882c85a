//go:build fdcheck

package wire

import (
	"bytes"
	"net"
	"testing"
)

// A message that is not held is unreadable as soon as more is read, and one that is held is not.
func TestAMessageIsSpoiltWithItsBuffer(t *testing.T) {
	for _, held := range []bool{false, true} {
		ours, theirs := net.Pipe()
		go func() { // ends with the pipe
			for _, text := range []string{"first", "second"} {
				_, _ = theirs.Write(Frame(nil, 'Q', []byte(text)))
			}
		}()
		c := New(ours, 1<<20)
		if held {
			c.Hold()
		}
		first, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
		if got := bytes.Equal(first.Body(), []byte("first")); got != held {
			t.Errorf("held %v: the first message is %q", held, first.Body())
		}
		_, _ = ours.Close(), theirs.Close()
	}
}
