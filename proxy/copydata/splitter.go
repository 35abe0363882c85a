package copydata

import (
	"bytes"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// Key is a key column of the table.
type Key struct {
	Column                  string
	At                      int             // its position in a row
	ForceNull, ForceNotNull bool            // FORCE_NULL and FORCE_NOT_NULL name it
	Held                    pghash.Declared // what the column makes of values
}

// Splitter finds the rows in COPY data and the shard of each. It is for one goroutine.
type Splitter struct {
	// Hold is asked before a long row that is not whole takes so many bytes, and told of fewer than none when they are given back; nil: nobody counts.
	Hold func(bytes int64) error

	format   Format
	places   *shardmap.PlacementInfo // nil: each row goes to all
	keys     []Key
	at       []int       // where the key columns stand in a row
	position map[int]int // shard index to position
	out      [][]byte    // what is to be sent, by position
	sent     []lineLog   // by position

	key     []pghash.Key            // of the row at hand
	vals    []keyField              // of the row at hand
	line    int64                   // of the input
	partial []byte                  // a row that is not whole
	held    int64                   // bytes of it that are counted
	scan    scan                    // of it, for its end
	send    func(int, []byte) error // while Add runs
	began   bool                    // binary: the header has passed
	ended   bool                    // what ends the data has come: binary's trailer, or \.
	headed  bool                    // the header line has passed, which may be several in CSV
}

// New makes a splitter for a COPY of a table whose keys are placed so. The positions that Add and the others send to are those of the shards in the list.
func New(format Format, places *shardmap.PlacementInfo, keys []Key, shards []int) *Splitter {
	n := len(shards)
	s := &Splitter{
		format: format, places: places, keys: keys, key: make([]pghash.Key, len(keys)), vals: make([]keyField, len(keys)),
		position: map[int]int{}, out: make([][]byte, n), sent: make([]lineLog, n),
	}
	for _, k := range keys {
		s.at = append(s.at, k.At)
	}
	for i, shard := range shards {
		s.position[shard] = i
	}
	return s
}

// InputLine is the line of the input that a shard counted as its n-th; false if it is not known.
func (s *Splitter) InputLine(position int, n int64) (int64, bool) { return s.sent[position].line(n) }

// longRow is how long a row is that is sent by itself, and counted while it is not whole; longestRow is the longest, as in PostgreSQL. In bytes.
const (
	longRow    = 64 << 10
	longestRow = 1 << 30
)

// Add takes more data in and sends whole rows, gathered by shard. What it costs grows with the data, however long a row is and however it is cut.
func (s *Splitter) Add(data []byte, send func(int, []byte) error) error {
	for i := range s.out {
		s.out[i] = s.out[i][:0]
	}
	joined := len(s.partial) > 0
	if joined {
		if err := s.join(data); err != nil {
			return err
		}
		data = s.partial
	}
	s.send = send
	defer func() { s.send = nil }()
	for !s.over() {
		n, err := s.rowEnd(data)
		if err != nil {
			return err
		}
		if n < 0 {
			break
		}
		if err := s.row(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	switch {
	case s.over() || len(data) == 0:
		s.Forget()
	case !joined:
		if err := s.join(data); err != nil {
			return err
		}
	case len(data) < len(s.partial):
		rest := data
		if s.held > 0 { // the next row need not be as long
			rest = bytes.Clone(data)
			s.Forget()
		}
		s.partial = append(s.partial[:0], rest...)
	}
	return s.Flush(send)
}

// join puts data behind what there is of a row.
func (s *Splitter) join(data []byte) error {
	size := len(s.partial) + len(data)
	if size > longestRow {
		return &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: "a row of COPY is longer than 1 GB"}
	}
	if size > cap(s.partial) && size > longRow {
		grown := int64(size + size/2)
		if s.Hold != nil {
			if err := s.Hold(grown); err != nil {
				return err
			}
		}
		was := s.partial
		s.giveBack()
		s.held, s.partial = grown, append(make([]byte, 0, grown), was...)
	}
	s.partial = append(s.partial, data...)
	return nil
}

// Forget drops what there is of a row that is not whole.
func (s *Splitter) Forget() {
	s.giveBack()
	s.scan = scan{}
	if s.partial = s.partial[:0]; cap(s.partial) > longRow {
		s.partial = nil
	}
}

func (s *Splitter) giveBack() {
	if s.Hold != nil && s.held > 0 {
		_ = s.Hold(-s.held) // nobody refuses to be given something back
	}
	s.held = 0
}

// Flush sends the rows that have been gathered.
func (s *Splitter) Flush(send func(int, []byte) error) error {
	for i, rows := range s.out {
		if len(rows) > 0 {
			if err := send(i, rows); err != nil {
				return err
			}
			s.out[i] = rows[:0]
		}
	}
	return nil
}

// End takes a last row without a line end.
func (s *Splitter) End(send func(int, []byte) error) error {
	if s.format.Binary {
		if err := s.endBinary(); err != nil {
			return err
		}
		return s.Flush(send)
	}
	if len(s.partial) > 0 {
		s.send = send
		defer func() { s.send = nil }()
		if err := s.row(append(s.partial, '\n')); err != nil {
			return err
		}
	}
	return s.Flush(send)
}

func (s *Splitter) badLine(code, format string, args ...any) error {
	return &pgsql.Error{Code: code, Message: fmt.Sprintf(format, args...), Detail: fmt.Sprintf("COPY line %d", s.line)}
}
