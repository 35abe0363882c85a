package wire

import "sync"

// Read buffers come from pools of two sizes. One that was made larger for a long message goes to the
// collector.
var (
	smallBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}
	wideBuffers  = sync.Pool{New: func() any { return new([wideSize]byte) }}
	outBuffers   = sync.Pool{New: func() any { return new(outBuffer) }}
)

// outBuffer is the pool's hold on the gathered output of a frugal connection, which keeps it empty meanwhile.
type outBuffer struct{ b []byte }

// takeBuffer gives an empty connection a read buffer.
func (c *Conn) takeBuffer() {
	if c.wide {
		c.buf = wideBuffers.Get().(*[wideSize]byte)[:]
	} else {
		c.buf = smallBuffers.Get().(*[readSize]byte)[:]
	}
	if c.frugal && c.out == nil {
		o := outBuffers.Get().(*outBuffer)
		c.out, o.b, c.outBox = o.b, nil, o
	}
	c.pos, c.end = 0, 0
}

// dropBuffer gives the read buffer back. Nothing may be unread.
func (c *Conn) dropBuffer() {
	c.Memory.give(large(c.buf))
	spoil(c.buf)
	switch len(c.buf) {
	case readSize:
		smallBuffers.Put((*[readSize]byte)(c.buf))
	case wideSize:
		wideBuffers.Put((*[wideSize]byte)(c.buf))
	}
	c.buf, c.pos, c.end = nil, 0, 0
}

// rest is called when the connection is about to wait for input with nothing unread.
func (c *Conn) rest() {
	c.dropBuffer()
	if c.frugal && len(c.out) == 0 && cap(c.out) > 0 {
		o := c.outBox
		if o == nil {
			o = new(outBuffer)
		}
		o.b = c.out
		outBuffers.Put(o)
		c.out, c.outBox = nil, nil
	}
}
