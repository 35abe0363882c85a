package copydata

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// The binary format of COPY: a signature, flags and the length of an extension; rows, each a count of fields and the
// fields with their lengths; a count of -1 ends it. Source: PostgreSQL's documentation of COPY, "Binary Format".
var (
	signature = []byte("PGCOPY\n\xff\r\n\x00")
	// Trailer ends the data.
	Trailer = []byte{0xff, 0xff}
)

// HeaderSize is the length of a header without extension, which is what PostgreSQL sends.
const HeaderSize = 19

func binaryError(message string) error {
	return &pgsql.Error{Code: pgsql.BadCopyFileFormat, Message: message}
}

// binaryRow is the length of what comes next: the header, a row or the trailer; -1 if it is not whole.
func (s *Splitter) binaryRow(b []byte) (int, error) {
	switch {
	case s.ended && len(b) > 0:
		return 0, binaryError("received copy data after EOF marker")
	case !s.began:
		n := min(len(b), len(signature))
		if !bytes.Equal(b[:n], signature[:n]) {
			return 0, binaryError("COPY file signature not recognized")
		}
		if len(b) < HeaderSize {
			return -1, nil
		}
		if binary.BigEndian.Uint32(b[11:])>>16 != 0 {
			return 0, binaryError("unrecognized critical flags in COPY file header")
		}
		ext := int64(binary.BigEndian.Uint32(b[15:]))
		if ext > 1<<20 {
			return 0, binaryError("invalid COPY file header (wrong length)")
		}
		if int64(len(b)) < HeaderSize+ext {
			return -1, nil
		}
		return int(HeaderSize + ext), nil
	case len(b) < 2:
		return -1, nil
	}
	fields := int(int16(binary.BigEndian.Uint16(b)))
	at := 2
	for range fields {
		if len(b) < at+4 {
			return -1, nil
		}
		n := int(int32(binary.BigEndian.Uint32(b[at:])))
		if n < -1 || n > 1<<30 {
			return 0, binaryError("invalid field size")
		}
		at += 4 + max(n, 0)
		if len(b) < at {
			return -1, nil
		}
	}
	return at, nil
}

// AddBinaryRow takes the header, a row or the trailer of the binary format, whole. The row stays the caller's.
func (s *Splitter) AddBinaryRow(row []byte) error {
	if !s.began {
		s.began = true
		for i := range s.out {
			s.out[i] = append(s.out[i], row...)
		}
		return nil
	}
	fields := int(int16(binary.BigEndian.Uint16(row)))
	if fields == -1 {
		s.ended = true
		return nil
	}
	s.line++
	found := 0
	at := 2
	for col := range fields {
		n := int(int32(binary.BigEndian.Uint32(row[at:])))
		at += 4
		if k := slices.Index(s.at, col); k >= 0 {
			if n < 0 {
				return s.badLine(pgsql.NotNullViolation, "null value in key column %q: the row has no shard", s.keys[k].Column)
			}
			var ok bool
			if s.key[k], ok = pghash.ParseBinary(s.places.Group.Keys[k], row[at:at+n]); !ok {
				return s.badLine(pgsql.InvalidBinaryRepresentation, "incorrect binary data format in key column %q of type %s", s.keys[k].Column, s.places.Group.Keys[k])
			}
			s.key[k] = s.keys[k].Held.Held(s.key[k])
			found++
		}
		at += max(n, 0)
	}
	if found < len(s.keys) {
		return s.badLine(pgsql.BadCopyFileFormat, "row field count is %d, and key column %q is not among them", fields, s.keys[len(s.keys)-1].Column)
	}
	return s.put(row, 1)
}

// Held is how many bytes wait to be sent.
func (s *Splitter) Held() (n int) {
	for _, rows := range s.out {
		n += len(rows)
	}
	return n
}

// endBinary ends what every shard got.
func (s *Splitter) endBinary() error {
	switch {
	case !s.began:
		return binaryError("COPY file signature not recognized")
	case len(s.partial) > 0:
		return binaryError("unexpected EOF in COPY data")
	}
	for i := range s.out {
		s.out[i] = append(s.out[i], Trailer...)
	}
	return nil
}
