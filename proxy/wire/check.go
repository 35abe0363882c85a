package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// CheckServer says what is wrong with the form of a message of a server: nil if whoever reads it finds in it what its type promises. It
// is pure. What the values in it mean is not looked at.
func CheckServer(m Message) error {
	b := m.Body()
	ok := true
	switch m.Type {
	case 'Z':
		ok = len(b) == 1 && (b[0] == 'I' || b[0] == 'T' || b[0] == 'E')
	case 'C':
		ok = bytes.IndexByte(b, 0) == len(b)-1 && len(b) > 0
	case 'S':
		ok = texts(b, 2)
	case 'A':
		ok = len(b) >= 4 && texts(b[4:], 2)
	case 'E', 'N':
		ok = (&ErrorResponse{}).Decode(b) == nil && len(b) > 0 && b[len(b)-1] == 0
	case 'T':
		ok = EachField(b, func(int, []byte, []byte, int16) {}) == nil
	case 't':
		ok = len(b) >= 2 && len(b)%4 == 2 && uint16((len(b)-2)/4) == binary.BigEndian.Uint16(b) // of 65,536 parameters PostgreSQL says 0
	case 'D':
		ok = isRow(b)
	case 'G', 'H', 'W':
		ok = len(b) >= 3 && len(b) == 3+2*int(binary.BigEndian.Uint16(b[1:]))
	case 'R':
		ok = len(b) >= 4
	case 'K':
		ok = len(b) >= 8
	}
	if ok {
		return nil
	}
	return fmt.Errorf("%w: type %q and %d bytes", ErrMalformed, m.Type, len(b))
}

// texts says whether a body is so many strings and nothing else.
func texts(b []byte, n int) bool {
	for range n {
		at := bytes.IndexByte(b, 0)
		if at < 0 {
			return false
		}
		b = b[at+1:]
	}
	return len(b) == 0
}

// isRow says whether a body is that of a DataRow. It is asked of every row that is read rather than passed on.
func isRow(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range n {
		if len(b) < 4 {
			return false
		}
		l := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		switch {
		case l < 0:
		case int(l) > len(b):
			return false
		default:
			b = b[l:]
		}
	}
	return len(b) == 0
}
