package loop

import "golang.org/x/sys/unix"

// descriptor is a number of the kernel's and who has it. The number is told by hold alone, and means this descriptor until drop.
type descriptor struct {
	mark    // what the checking build knows of it: see checked_linux.go
	custody custody
	number  int
}

// own takes over a number that has just been opened.
func (d *descriptor) own(number int) {
	d.number = number
	d.opened(number)
}

// hold keeps the number from being given back until drop. It fails when the descriptor has been given up.
func (d *descriptor) hold() (fd int, ok bool) {
	if !d.custody.enter() {
		return -1, false
	}
	d.used(d.number)
	return d.number, true
}

// drop ends hold, or giveUp.
func (d *descriptor) drop() {
	d.used(d.number)
	if d.custody.leave() {
		d.closes(d.number)
		_ = unix.Close(d.number)
	}
}

// giveUp lets nobody else have the number, which is the caller's until drop. It is true once.
func (d *descriptor) giveUp() (fd int, ok bool) {
	if !d.custody.surrender() {
		return -1, false
	}
	return d.number, true
}

// isClosed says that hold fails.
func (d *descriptor) isClosed() bool { return d.custody.isGivenUp() }

// standing is a descriptor that is open as long as the process lives.
type standing struct {
	mark
	number int
}

func (d *standing) own(number int, err error) error {
	if err == nil {
		d.number = number
		d.opened(number)
	}
	return err
}

func (d *standing) get() int {
	d.used(d.number)
	return d.number
}
