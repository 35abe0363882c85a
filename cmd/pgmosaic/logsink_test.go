package main

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/instance"
)

// disk is a file on a disk that may be full, or may not answer.
type disk struct {
	mu   sync.Mutex
	text string
	room int // bytes
	hang chan struct{}
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	hang := d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(b), d.room)
	d.text += string(b[:n])
	d.room -= n
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *disk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *disk) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text
}

// The log says which lines are not there, as soon as there is room again, and begins a new line behind one that is there in part.
func TestLogOnAFullDisk(t *testing.T) {
	d := &disk{room: 16}
	cfg := config.Default()
	s := newLogSink(d, func(lost int, why error) []byte { return missingLines(cfg, lost, why) })
	log, _ := instance.NewLog(&cfg, s)
	for range 3 {
		log.Info("lost")
	}
	eventually(t, "lines are lost", func() bool { return s.Lost() == 3 })
	d.set(func() { d.room = 1 << 20 })
	log.Info("kept")
	eventually(t, "there is room again", func() bool { return strings.Contains(d.String(), "msg=kept") })
	s.close()
	lines := strings.Split(d.String(), "\n")
	if len(lines) != 4 || len(lines[0]) != 16 || !strings.Contains(lines[1], "lines=3") || !strings.Contains(lines[1], "no space left") || !strings.Contains(lines[2], "msg=kept") {
		t.Errorf("the log is %q", lines)
	}
	log.Info("after the end") // of nobody's interest
}

// A reader of the log that stops reading holds nobody up.
func TestLogThatNobodyReads(t *testing.T) {
	d := &disk{room: 1 << 20, hang: make(chan struct{})}
	cfg := config.Default()
	s := newLogSink(d, func(lost int, why error) []byte { return missingLines(cfg, lost, why) })
	log, _ := instance.NewLog(&cfg, s)
	for range maxLogLines + 100 {
		log.Info("x")
	}
	if s.Lost() < 90 {
		t.Errorf("%d lines are lost", s.Lost())
	}
	d.set(func() { close(d.hang); d.hang = nil })
	eventually(t, "it is read again", func() bool {
		log.Info("again")
		return strings.Contains(d.String(), "msg=again")
	})
	s.close()
	if !strings.Contains(d.String(), "lines of the log are missing here") {
		t.Error("it does not say that lines are missing")
	}
	stuck := &disk{hang: make(chan struct{})}
	defer close(stuck.hang)
	s = newLogSink(stuck, nil)
	_, _ = s.Write([]byte("x\n"))
	done := make(chan struct{})
	go func() { s.close(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the end waits for a reader")
	}
}
