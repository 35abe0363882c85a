package cluster

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// attributes make a child run as the server's user and die with us.
func attributes(dieWithUs bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if dieWithUs {
		a.Pdeathsig = syscall.SIGQUIT // PostgreSQL's immediate shutdown
	}
	if uid, gid, ok := serverUser(); ok {
		a.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	return a
}

// serverUser is whom the server runs as when we are root, which PostgreSQL refuses.
func serverUser() (uid, gid uint32, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			n, err1 := strconv.ParseUint(u.Uid, 10, 32)
			g, err2 := strconv.ParseUint(u.Gid, 10, 32)
			if err1 == nil && err2 == nil {
				return uint32(n), uint32(g), true
			}
		}
	}
	return 0, 0, false
}

// childrenOf lists the processes that a postmaster has started.
func childrenOf(pid int) []int {
	var out []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		_, rest, ok := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if ok && len(f) > 1 && f[1] == strconv.Itoa(pid) {
			out = append(out, n)
		}
	}
	return out
}
