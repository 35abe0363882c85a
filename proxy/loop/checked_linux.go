//go:build fdcheck

package loop

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// In the build with fdcheck a table says whose each number is. Each system call on a number asks it, before and behind, whether the number is still its
// caller's, and the kernel, whether it still means the socket that it meant. Whoever is found to use what belongs to another ends the process.

// mark is what is known of a number's owner.
type mark struct{ *ownership }

type ownership struct {
	inode          uint64 // of the socket, which no other has
	opened, closed trace
}

var owners = struct {
	sync.Mutex
	of map[int]*ownership
}{of: map[int]*ownership{}}

func (m *mark) opened(fd int) {
	o := &ownership{inode: inodeOf(fd), opened: here()}
	owners.Lock()
	was := owners.of[fd]
	owners.of[fd] = o
	owners.Unlock()
	if was != nil {
		accuse(fd, "was opened, and is on the books as somebody's who has not closed it", was, here())
	}
	m.ownership = o
}

func (m *mark) used(fd int) {
	owners.Lock()
	now := owners.of[fd]
	owners.Unlock()
	switch {
	case now == nil:
		accuse(fd, "is used, and has been closed", m.ownership, here())
	case now != m.ownership:
		accuse(fd, "is used, and is another's", now, here())
	case inodeOf(fd) != m.inode:
		accuse(fd, "is used, and was closed by somebody else: it means another file", m.ownership, here())
	}
}

func (m *mark) closes(fd int) {
	m.used(fd)
	owners.Lock()
	defer owners.Unlock()
	m.closed = here()
	delete(owners.of, fd)
}

// inodeOf identifies what a number means at the moment; zero where it means nothing.
func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// accuse tells both sides of a quarrel about a number. A test puts another one in its place.
var accuse = func(fd int, what string, owner *ownership, user trace) {
	fmt.Fprintf(os.Stderr, "fdcheck: descriptor %d %s\n\nused here:\n%s\nopened here:\n%s\nclosed here:\n%s\n", fd, what, user, owner.opened, owner.closed)
	os.Exit(3)
}

type trace []uintptr

func here() trace {
	pcs := make(trace, 32)
	return pcs[:runtime.Callers(3, pcs)]
}

func (t trace) String() string {
	if len(t) == 0 {
		return "  nowhere\n"
	}
	var b strings.Builder
	for frames := runtime.CallersFrames(t); ; {
		f, more := frames.Next()
		fmt.Fprintf(&b, "  %s\n      %s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return b.String()
		}
	}
}
