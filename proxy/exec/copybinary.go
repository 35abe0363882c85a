package exec

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"

	"github.com/pgmosaic/pgmosaic/proxy/copydata"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// sendBinary passes a message of COPY TO on: without the header if another shard has sent one, and without the trailer,
// which comes by itself, or behind the header if there are no rows.
func (h *Handler) sendBinary(body []byte, begins, headerSent bool) {
	if begins {
		n := min(len(body), copydata.HeaderSize)
		if !headerSent {
			h.client.SendFrame('d', body[:n])
		}
		body = body[n:]
	}
	if len(body) > 0 && !bytes.Equal(body, copydata.Trailer) {
		h.client.SendFrame('d', body)
	}
}

var copyLine = regexp.MustCompile(`^(COPY .*?, line )(\d+)`)

// located gives an error of the shard at position i the line of the client's input.
func located(s *copydata.Splitter, i int, err error) error {
	var se *pool.ServerError
	if !errors.As(err, &se) {
		return err
	}
	if m := copyLine.FindStringSubmatch(se.Response.Where); m != nil {
		n, _ := strconv.ParseInt(m[2], 10, 64)
		if line, ok := s.InputLine(i, n); ok {
			se.Response.Where = m[1] + strconv.FormatInt(line, 10) + se.Response.Where[len(m[0]):]
		}
	}
	return err
}
