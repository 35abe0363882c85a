package copydata

import "encoding/binary"

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
