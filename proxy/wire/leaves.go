//go:build !fdcheck

package wire

// spoil leaves a buffer as it is: only the build with fdcheck looks for whom it still matters to.
func spoil([]byte) {}
