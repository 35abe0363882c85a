package cluster

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
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
	if u := rootsServers(); u != nil {
		return u.Uid, u.Gid, true
	}
	return 0, 0, false
}

// rootsServers looks the user up once: a copy of a data folder asks at each file.
var rootsServers = sync.OnceValue(func() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			n, err1 := strconv.ParseUint(u.Uid, 10, 32)
			g, err2 := strconv.ParseUint(u.Gid, 10, 32)
			if err1 == nil && err2 == nil {
				return &syscall.Credential{Uid: uint32(n), Gid: uint32(g)}
			}
		}
	}
	return nil
})

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
