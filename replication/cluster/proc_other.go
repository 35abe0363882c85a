//go:build !linux

package cluster

import "syscall"

func attributes(bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func serverUser() (uid, gid uint32, ok bool) { return 0, 0, false }

func childrenOf(int) []int { return nil } // backends end by themselves when the postmaster is gone
