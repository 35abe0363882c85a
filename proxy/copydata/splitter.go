package copydata

import (
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
	format   Format
	places   *shardmap.PlacementInfo // nil: each row goes to all
	keys     []Key
	at       []int       // where the key columns stand in a row
	position map[int]int // shard index to position
	out      [][]byte    // what is to be sent, by position
	sent     []lineLog   // by position

	key     []pghash.Key // of the row at hand
	vals    []keyField   // of the row at hand
	line    int64        // of the input
	partial []byte       // a row that is not whole
	began   bool         // binary: the header has passed
	ended   bool         // what ends the data has come: binary's trailer, or \.
	headed  bool         // the header line has passed, which may be several in CSV
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

// Add takes more data in and sends whole rows, gathered by shard.
func (s *Splitter) Add(data []byte, send func(int, []byte) error) error {
	if len(s.partial) > 0 {
		data = append(s.partial, data...)
	}
	for i := range s.out {
		s.out[i] = s.out[i][:0]
	}
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
	if s.over() {
		data = nil
	}
	s.partial = append(s.partial[:0:0], data...)
	if len(s.partial) > 1<<30 {
		return &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: "a row of COPY is longer than 1 GB"}
	}
	return s.Flush(send)
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
		if err := s.row(append(s.partial, '\n')); err != nil {
			return err
		}
	}
	return s.Flush(send)
}

func (s *Splitter) badLine(code, format string, args ...any) error {
	return &pgsql.Error{Code: code, Message: fmt.Sprintf(format, args...), Detail: fmt.Sprintf("COPY line %d", s.line)}
}
