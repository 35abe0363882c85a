package exec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// The binary format of COPY: a signature, flags and the length of an extension; rows, each a count of fields and the
// fields with their lengths; a count of -1 ends it. Source: PostgreSQL's documentation of COPY, "Binary Format".
var (
	binarySignature = []byte("PGCOPY\n\xff\r\n\x00")
	binaryTrailer   = []byte{0xff, 0xff}
)

// binaryHeader is the length of a header without extension, which is what PostgreSQL sends.
const binaryHeader = 19

// sendBinary passes a message of COPY TO on: without the header if another shard has sent one, and without the trailer,
// which comes by itself, or behind the header if there are no rows.
func (h *Handler) sendBinary(body []byte, begins, again bool) {
	if begins {
		n := min(len(body), binaryHeader)
		if !again {
			h.client.SendFrame('d', body[:n])
		}
		body = body[n:]
	}
	if len(body) > 0 && !bytes.Equal(body, binaryTrailer) {
		h.client.SendFrame('d', body)
	}
}

func binaryError(format string, args ...any) error {
	return &wire.PgError{Code: "22P04", Message: fmt.Sprintf(format, args...)}
}

// binaryRow is the length of what comes next: the header, a row or the trailer; -1 if it is not whole.
func (s *splitter) binaryRow(b []byte) (int, error) {
	switch {
	case s.ended && len(b) > 0:
		return 0, binaryError("received copy data after EOF marker")
	case !s.began:
		n := min(len(b), len(binarySignature))
		if !bytes.Equal(b[:n], binarySignature[:n]) {
			return 0, binaryError("COPY file signature not recognized")
		}
		if len(b) < binaryHeader {
			return -1, nil
		}
		if binary.BigEndian.Uint32(b[11:])>>16 != 0 {
			return 0, binaryError("unrecognized critical flags in COPY file header")
		}
		ext := int64(binary.BigEndian.Uint32(b[15:]))
		if ext > 1<<20 {
			return 0, binaryError("invalid COPY file header (wrong length)")
		}
		if int64(len(b)) < binaryHeader+ext {
			return -1, nil
		}
		return int(binaryHeader + ext), nil
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

// rowBinary takes what binaryRow has measured.
func (s *splitter) rowBinary(row []byte) error {
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
				return s.badLine("23502", "null value in key column %q: the row has no shard", s.columns[k])
			}
			var ok bool
			if s.key[k], ok = pghash.ParseBinary(s.group.Keys[k], row[at:at+n]); !ok {
				return s.badLine("22P03", "incorrect binary data format in key column %q of type %s", s.columns[k], s.group.Keys[k])
			}
			found++
		}
		at += max(n, 0)
	}
	if found < len(s.at) {
		return s.badLine("22P04", "row field count is %d, and key column %q is not among them", fields, s.columns[len(s.columns)-1])
	}
	return s.put(row, 1)
}

// held is how many bytes wait to be sent.
func (s *splitter) held() (n int) {
	for _, rows := range s.out {
		n += len(rows)
	}
	return n
}

// endBinary ends what every shard got.
func (s *splitter) endBinary() error {
	switch {
	case !s.began:
		return binaryError("COPY file signature not recognized")
	case len(s.partial) > 0:
		return binaryError("unexpected EOF in COPY data")
	}
	for i := range s.out {
		s.out[i] = append(s.out[i], binaryTrailer...)
	}
	return nil
}

func (s *splitter) badLine(code, format string, args ...any) error {
	return &wire.PgError{Code: code, Message: fmt.Sprintf(format, args...), Detail: fmt.Sprintf("COPY line %d", s.line)}
}

// lineLog remembers which lines of the input a shard got: for each row the lines that it has there and the way from the
// row before, as varints.
type lineLog struct {
	steps []byte
	last  int64
}

// maxLineLog bounds it: behind that, lines are not told.
const maxLineLog = 32 << 20

func (l *lineLog) add(lines, at int64) {
	if len(l.steps) < maxLineLog {
		l.steps = binary.AppendUvarint(binary.AppendUvarint(l.steps, uint64(lines)), uint64(at-l.last))
	}
	l.last = at
}

// line is the input's line for a line that a shard counted.
func (l *lineLog) line(n int64) (int64, bool) {
	var there, here uint64
	for b := l.steps; len(b) > 0; {
		lines, k := binary.Uvarint(b)
		step, m := binary.Uvarint(b[k:])
		b = b[k+m:]
		there, here = there+lines, here+step
		if there >= uint64(n) {
			return int64(here) - (int64(there) - n), true
		}
	}
	return 0, false
}

var copyLine = regexp.MustCompile(`^(COPY .*?, line )(\d+)`)

// located gives an error of the shard at position i the line of the client's input.
func (s *splitter) located(i int, err error) error {
	var se *pool.ServerError
	if !errors.As(err, &se) {
		return err
	}
	if m := copyLine.FindStringSubmatch(se.Response.Where); m != nil {
		n, _ := strconv.ParseInt(m[2], 10, 64)
		if line, ok := s.sent[i].line(n); ok {
			se.Response.Where = m[1] + strconv.FormatInt(line, 10) + se.Response.Where[len(m[0]):]
		}
	}
	return err
}
