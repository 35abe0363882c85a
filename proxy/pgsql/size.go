package pgsql

import (
	"fmt"
	"strconv"
	"strings"
)

// memoryUnits are PostgreSQL's units of memory.
var memoryUnits = []struct {
	name  string
	shift int
}{{"TB", 40}, {"GB", 30}, {"MB", 20}, {"kB", 10}, {"B", 0}}

// ParseSize reads a number of bytes as PostgreSQL's settings are written: 64MB, 512kB, 0.
func ParseSize(s string) (int64, error) {
	t := strings.TrimSpace(s)
	for _, u := range memoryUnits {
		if len(t) > len(u.name) && strings.EqualFold(t[len(t)-len(u.name):], u.name) {
			n, err := strconv.ParseInt(strings.TrimSpace(t[:len(t)-len(u.name)]), 10, 64)
			if err == nil && n >= 0 && n < 1<<62>>u.shift {
				return n << u.shift, nil
			}
			return 0, fmt.Errorf("%q is no size: write 64MB", s)
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size: write 64MB", s)
	}
	return n, nil
}

// SizeText prints a number of bytes so that ParseSize reads it.
func SizeText(n int64) string {
	for _, u := range memoryUnits {
		if n>>u.shift<<u.shift == n && n > 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return "0"
}
