//go:build fdcheck

package loop

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The checking build finds out who uses or closes what is not theirs.
func TestCheckAccuses(t *testing.T) {
	var said []string
	was := accuse
	accuse = func(_ int, what string, owner *ownership, user trace) {
		said = append(said, what)
		if !strings.Contains(owner.opened.String(), ".own") || !strings.Contains(user.String(), "TestCheckAccuses") {
			t.Errorf("%s: the stacks are\n%s\nand\n%s", what, owner.opened, user)
		}
	}
	defer func() { accuse = was }()
	accused := func(want string) {
		t.Helper()
		if len(said) == 0 || !strings.Contains(said[0], want) {
			t.Errorf("said %q, it should be that it %s", said, want)
		}
		said = nil
	}

	s, _ := pair(t)
	fd, _ := s.fd.hold()
	s.fd.drop()
	if len(said) > 0 {
		t.Error(said)
	}
	_ = unix.Close(fd) // as somebody else would
	s.fd.hold()
	accused("was closed by somebody else")
	s.fd.drop()
	said = nil

	again, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if again != fd {
		if err := unix.Dup3(again, fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(again)
	}
	var other descriptor
	other.own(fd)
	accused("who has not closed it")
	s.fd.used(fd)
	accused("is another's")
	owners.Lock()
	delete(owners.of, fd)
	owners.Unlock()
	s.fd.used(fd)
	accused("has been closed")
	_ = s.Close()
	said = nil
}
