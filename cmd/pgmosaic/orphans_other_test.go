//go:build !linux

package main

import "syscall"

// diesWithUs is known to Linux only.
func diesWithUs() *syscall.SysProcAttr { return nil }
