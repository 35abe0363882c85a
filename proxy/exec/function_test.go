package exec

import (
	"slices"
	"testing"
)

func TestNamesInCall(t *testing.T) {
	call := "\x00\x00\x08\x1e" + "\x00\x01\x00\x00" + "\x00\x04" + "\x00\x00\x00\x05App.a" + "\xff\xff\xff\xff" + "\x00\x00\x00\x03one" + "\x00\x00\x00\x01f" + "\x00\x00"
	if got := namesIn([]byte(call)); !slices.Equal(got, []string{"app.a"}) {
		t.Errorf("%q", got)
	}
	for n := range call { // cut off anywhere
		namesIn([]byte(call[:n]))
	}
}
