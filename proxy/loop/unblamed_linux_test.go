//go:build !fdcheck && linux

package loop

import "testing"

// unblamed lets a test block a loop on purpose: only the build with fdcheck minds.
func unblamed(*testing.T) {}
