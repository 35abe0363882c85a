package notify

import (
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"
)

// Message is what was notified. All sessions that it waits for share it.
type Message struct {
	Channel, Payload string

	waits atomic.Int32 // for so many sessions
}

// Memory counts what sessions hold.
type Memory interface {
	// Hold counts n bytes more for a session that holds so many, or says why it may not have them.
	Hold(n, held int64) error
	// Let counts n bytes back.
	Let(n int64)
}

// What is counted: for a session, as if it were alone with its messages; in all, a message once.
const (
	waitCost    = int64(unsafe.Sizeof(Notification{})) * 5 / 4 // in a queue with room to grow
	messageCost = int64(unsafe.Sizeof(Message{})) + 16
	channelCost = 450 // of one that nobody else listens to
)

func (m *Message) size() int64 { return messageCost + int64(len(m.Channel)+len(m.Payload)) }

// queued puts a notification into the queue, if the session listens to its channel, or says why it does not.
func (s *Session) queued(n Notification) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.channels[n.Channel] {
		return nil
	}
	if len(s.queue) >= maxQueued {
		return fmt.Errorf("%d notifications wait for the session", len(s.queue))
	}
	first := n.waits.Add(1) == 1
	more := waitCost
	if first {
		more += n.size()
	}
	if err := s.memory.Hold(more, s.held+waitCost+n.size()-more); err != nil {
		if n.waits.Add(-1) == 0 && !first { // the others have taken it meanwhile, and left that to the last
			s.memory.Let(n.size())
		}
		return err
	}
	s.held += waitCost + n.size()
	s.queue = append(s.queue, n)
	return nil
}

func (s *Session) takeLocked() []Notification {
	q := s.queue
	s.queue = nil
	for _, n := range q {
		s.letLocked(n)
	}
	return q
}

// letLocked counts back a notification that has left the queue.
func (s *Session) letLocked(n Notification) {
	s.held -= waitCost + n.size()
	back := waitCost
	if n.waits.Add(-1) == 0 {
		back += n.size()
	}
	s.memory.Let(back)
}

// Forget takes what has come on a channel out of the queue.
func (s *Session) Forget(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(n Notification) bool {
		if n.Channel == channel {
			s.letLocked(n)
		}
		return n.Channel == channel
	})
}

// listens gives the session a channel.
func (s *Session) listens(channel string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[channel] {
		return nil
	}
	n := channelCost + int64(len(channel))
	if err := s.memory.Hold(n, s.held); err != nil {
		return err
	}
	s.held += n
	s.channels[channel] = true
	return nil
}

// unlisten takes a channel from the session.
func (s *Session) unlisten(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[channel] {
		n := channelCost + int64(len(channel))
		s.held -= n
		s.memory.Let(n)
		delete(s.channels, channel)
	}
}

// Close forgets what has come; nothing comes any more.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.takeLocked()
	n := s.held // of channels, if the hub could not be told
	s.held = 0
	s.memory.Let(n)
	clear(s.channels)
}
