//go:build fdcheck && linux

package loop

import (
	"testing"
	"time"
)

// unblamed lets a test block a loop on purpose, which else ends the process.
func unblamed(t *testing.T) {
	was := blames
	blames = func(string) {}
	t.Cleanup(func() {
		time.Sleep(100 * time.Millisecond) // whoever was seen waiting is looked at once more
		blames = was
	})
}
