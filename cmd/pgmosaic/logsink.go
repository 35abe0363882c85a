package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/instance"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// logSink writes the log, and holds nobody up: a disk may be full, and who reads a pipe may stop reading. Lines that find no room
// are counted, and the log says so when it can be written again.
type logSink struct {
	to    io.Writer
	say   func(lost int, why error) []byte
	lines chan []byte
	ended chan struct{}

	mu     sync.Mutex // guards the rest
	lost   int        // since the log was written last
	all    int
	why    error
	closed bool
}

// maxLogLines is how many lines may wait to be written.
const maxLogLines = 4096

// closeWithin is how long the last lines are waited for.
const closeWithin = time.Second

func newLogSink(to io.Writer, say func(lost int, why error) []byte) *logSink {
	s := &logSink{to: to, say: say, lines: make(chan []byte, maxLogLines), ended: make(chan struct{})}
	panics.Go(panics.Background, func() {
		defer close(s.ended)
		_ = panics.Keep(context.Background(), "log", func(context.Context) error { s.run(); return nil })
	})
	return s
}

// missingLines is a line of the log that says how many are not there.
func missingLines(cfg config.Config, lost int, why error) []byte {
	var b bytes.Buffer
	cfg.LogLevel = "warn"
	log, _ := instance.NewLog(&cfg, &b)
	log.Warn("lines of the log are missing here", "lines", lost, "error", why)
	return b.Bytes()
}

// Write takes a line. It never waits and never fails. Any goroutine may call it.
func (s *logSink) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return len(line), nil
	}
	select {
	case s.lines <- bytes.Clone(line):
	default:
		s.loseLocked(errSlow)
	}
	return len(line), nil
}

var errSlow = fmt.Errorf("nothing was read of it for %d lines", maxLogLines)

func (s *logSink) loseLocked(why error) {
	s.lost++
	s.all++
	s.why = why
}

// Lost is how many lines could not be written.
func (s *logSink) Lost() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

func (s *logSink) run() {
	torn := false // the last line was written in part
	for line := range s.lines {
		s.mu.Lock()
		lost, why := s.lost, s.why
		s.mu.Unlock()
		out := line
		if lost > 0 {
			out = append(s.say(lost, why), line...)
		}
		if torn {
			out = append([]byte("\n"), out...)
		}
		n, err := s.to.Write(out)
		torn = torn && n == 0 || n > 0 && n < len(out)
		s.mu.Lock()
		if err != nil {
			s.loseLocked(err)
		} else {
			s.lost -= lost
		}
		s.mu.Unlock()
	}
}

// close waits a moment for what has been taken to be written.
func (s *logSink) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.lines)
	}
	s.mu.Unlock()
	select {
	case <-s.ended:
	case <-time.After(closeWithin):
	}
}
