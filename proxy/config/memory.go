package config

import (
	"os"
	"strconv"
	"strings"
)

// MemoryLimit is memory_limit in bytes, 0 for none: by default three quarters of what the process may have.
func (c *Config) MemoryLimit() int64 {
	if c.Memory != Unset {
		return int64(c.Memory)
	}
	meminfo, _ := os.ReadFile("/proc/meminfo") // nothing is known where there is none
	cgroup, _ := os.ReadFile("/sys/fs/cgroup/memory.max")
	return memoryOf(string(meminfo), string(cgroup)) / 4 * 3
}

// memoryOf is what a machine has, or lets a cgroup have; 0 if neither says so.
func memoryOf(meminfo, cgroup string) int64 {
	total := int64(0)
	for line := range strings.Lines(meminfo) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			total = n << 10
		}
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(cgroup), 10, 64); err == nil && (total == 0 || n < total) {
		total = n
	}
	return total
}
