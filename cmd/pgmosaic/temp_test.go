package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// ram is where Linux has a file system in memory for everybody. The tests' servers make and drop so many files that ext4 spends a seventh
// of all processor time on finding numbers for new ones.
const ram = "/dev/shm"

// roomForServers is what the data of all servers that run at a time needs, and half as much again.
const roomForServers = 12 << 30

// inMemory says whether the tests' files go into memory: where nobody has named a place, and there is room for all of them.
func inMemory() bool {
	if os.Getenv("TMPDIR") != "" {
		return false
	}
	var fs syscall.Statfs_t
	const tmpfs = 0x01021994 // TMPFS_MAGIC of Linux's magic.h
	if err := syscall.Statfs(ram, &fs); err != nil || int64(fs.Type) != tmpfs || int64(fs.Bavail)*int64(fs.Bsize) < roomForServers {
		return false
	}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return false
	}
	var kB, most int64
	_, rest, _ := strings.Cut(string(b), "MemAvailable:")
	if _, err := fmt.Sscan(rest, &kB); err != nil || kB<<10 < roomForServers {
		return false
	}
	b, err = os.ReadFile("/sys/fs/cgroup/memory.max") // of a container; it says max where there is no limit
	if err != nil {
		return true
	}
	_, err = fmt.Sscan(string(b), &most)
	return err != nil || most >= roomForServers
}
