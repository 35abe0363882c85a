package wire

// Budget counts the bytes of a connection's read buffers that were made larger for long messages. Whoever uses the connection uses it.
type Budget struct {
	count func(bytes int64) error
	taken int64
}

// Use has f count from now on: it is told of bytes that are taken, and of fewer than none when they are given back. With an error it refuses to
// have them taken; then the message stays unread, as one that is too long does. What was taken before is given back to who counted it. Nil, as at
// first: nobody counts.
func (b *Budget) Use(f func(bytes int64) error) {
	b.give(b.taken)
	b.count = f
}

// take asks for memory.
func (b *Budget) take(n int) error {
	if b.count == nil {
		return nil
	}
	if err := b.count(int64(n)); err != nil {
		return &RefusedError{err}
	}
	b.taken += int64(n)
	return nil
}

func (b *Budget) give(n int64) {
	if n != 0 && b.count != nil {
		b.taken -= n
		_ = b.count(-n) // nobody refuses to be given something back
	}
}

// large is the size of a read buffer, if it is one that counts.
func large(buf []byte) int64 {
	if len(buf) > wideSize {
		return int64(len(buf))
	}
	return 0
}
