//go:build fdcheck

package loop

import (
	"strings"
	"testing"
	"time"

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

// Who blocks and has not left its loop is told of, with its stack; who has left, or computes, is not.
func TestCheckBlamesWhoBlocks(t *testing.T) {
	said := make(chan string, 10)
	was := blames
	blames = func(stack string) { said <- stack }
	defer func() { blames = was }()
	for name, do := range map[string]func(*Task, chan struct{}){
		"blocks": func(_ *Task, c chan struct{}) { <-c },
		"has left": func(t *Task, c chan struct{}) {
			t.Leave()
			<-c
		},
		"computes": func(_ *Task, c chan struct{}) {
			for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
			}
			for len(c) == 0 {
			}
			<-c // which does not block
		},
	} {
		s, peer := pair(t)
		c, done := make(chan struct{}, 1), make(chan struct{})
		task := NewTask()
		s.OnInput(task, func() {
			defer close(done)
			do(task, c)
		})
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if name == "computes" {
			time.AfterFunc(50*time.Millisecond, func() { c <- struct{}{} })
		}
		patience := 300 * time.Millisecond
		if name == "blocks" { // it is found out, however late that is on a busy machine
			patience = 20 * time.Second
		}
		blamed := ""
		select {
		case blamed = <-said:
		case <-time.After(patience):
		}
		if name != "computes" {
			c <- struct{}{}
		}
		<-done
		if (blamed != "") != (name == "blocks") || blamed != "" && !strings.Contains(blamed, "TestCheckBlamesWhoBlocks") {
			t.Errorf("who %s: %q", name, blamed)
		}
	}
}
