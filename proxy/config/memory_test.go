package config

import "testing"

func TestMemoryOfMachineAndCgroup(t *testing.T) {
	t.Parallel()
	const info = "MemTotal:       16384 kB\nMemFree:         1 kB\n"
	for _, c := range []struct {
		meminfo, cgroup string
		want            int64
	}{
		{info, "", 16 << 20},
		{info, "max\n", 16 << 20},
		{info, "1048576\n", 1 << 20},
		{info, "1073741824\n", 16 << 20},
		{"", "4096", 4096},
		{"", "", 0},
	} {
		if got := memoryOf(c.meminfo, c.cgroup); got != c.want {
			t.Errorf("%q, %q: %d, want %d", c.meminfo, c.cgroup, got, c.want)
		}
	}
}
