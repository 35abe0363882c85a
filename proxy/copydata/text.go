package copydata

import (
	"bytes"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// rowEnd is the length of the first row, with its line end if it has one; -1 if it is not whole.
func (s *Splitter) rowEnd(b []byte) (int, error) {
	if s.format.Binary {
		return s.binaryRow(b)
	}
	return s.lineEnd(b), nil
}

// scan is how far a row that is not whole has been looked through for its end.
type scan struct {
	at     int
	quoted bool
}

func (s *Splitter) lineEnd(b []byte) int {
	at, quoted := s.scan.at, s.scan.quoted
	s.scan = scan{}
	if !s.format.CSV {
		for {
			i := bytes.IndexByte(b[at:], '\n')
			if i < 0 {
				s.scan.at = len(b)
				return -1
			}
			at += i
			slashes := 0
			for k := at - 1; k >= 0 && b[k] == '\\'; k-- {
				slashes++
			}
			at++
			if slashes%2 == 0 {
				return at
			}
		}
	}
	for ; at < len(b); at++ {
		switch c := b[at]; {
		case quoted && c == s.format.Escape && s.format.Escape != s.format.Quote:
			if at+1 == len(b) { // what it escapes is still to come
				s.scan = scan{at, quoted}
				return -1
			}
			at++
		case c == s.format.Quote:
			quoted = !quoted
		case c == '\n' && !quoted:
			return at + 1
		}
	}
	s.scan = scan{at, quoted}
	return -1
}

func (s *Splitter) row(row []byte) error {
	if s.format.Binary {
		return s.AddBinaryRow(row)
	}
	lines := int64(1)
	if s.format.CSV {
		lines = int64(max(bytes.Count(row, []byte{'\n'}), 1))
	}
	s.line += lines
	body := s.bare(row)
	body, s.ended = s.endMark(body)
	switch {
	case s.ended && s.format.CSV && s.format.Mark == MarkDiffers:
		return s.badLine(pgsql.FeatureNotSupported, `a line \. in CSV ends the data for some of the servers, and is a row for others`)
	case s.format.Header && !s.headed:
		s.headed = true
		for i := range s.out {
			s.out[i] = append(s.out[i], row...) // each shard skips it
			s.sent[i].add(lines, s.line)
		}
		return nil
	case s.ended && len(body) == 0:
		return nil
	}
	s.fields(body)
	bad := s.badLine
	for i, v := range s.vals {
		switch {
		case !v.found:
			return bad(pgsql.BadCopyFileFormat, "missing data for column %q", s.keys[i].Column)
		case v.null:
			return bad(pgsql.NotNullViolation, "null value in key column %q: the row has no shard", s.keys[i].Column)
		case s.format.Default != nil && v.text == *s.format.Default:
			return bad(pgsql.NotNullViolation, "no value for key column %q: the row has no shard", s.keys[i].Column)
		}
		var ok bool
		if s.key[i], ok = pghash.ParseText(s.places.Group.Keys[i], v.text); !ok {
			return bad(pgsql.InvalidTextRepresentation, "invalid input syntax for key column %q of type %s: %q", s.keys[i].Column, s.places.Group.Keys[i], v.text)
		}
		s.key[i] = s.keys[i].Held.Held(s.key[i])
	}
	return s.put(row, lines)
}

// bare is a row without its line end. A carriage return or line feed behind a backslash is a part of the last field.
func (s *Splitter) bare(row []byte) []byte {
	body := bytes.TrimSuffix(row, []byte{'\n'})
	if s.format.CSV {
		return bytes.TrimRight(body, "\r")
	}
	if cut, ok := bytes.CutSuffix(body, []byte{'\r'}); ok && (len(cut)-len(bytes.TrimRight(cut, `\`)))%2 == 0 {
		return cut
	}
	return body
}

// endMark takes the mark off that ends the data, \. behind a row's text or, in CSV of some servers, instead of one. Source: CopyReadLineText in copyfromparse.c of PostgreSQL.
func (s *Splitter) endMark(body []byte) (rest []byte, ended bool) {
	rest, ended = bytes.CutSuffix(body, []byte(`\.`))
	slashes := len(rest) - len(bytes.TrimRight(rest, `\`))
	if !ended || slashes%2 == 1 || s.format.CSV && (len(rest) > 0 || s.format.Mark == MarkIsRow) {
		return body, false
	}
	return rest, true
}

// over says whether what still comes is ignored, as PostgreSQL does behind \. in a COPY from a client.
func (s *Splitter) over() bool { return s.ended && !s.format.Binary }

// put sends a row, whose key has been read, to its shard.
func (s *Splitter) put(row []byte, lines int64) error {
	if s.places == nil { // every copy of a reference table
		for i := range s.out {
			if err := s.putOn(i, row, lines); err != nil {
				return err
			}
		}
		return nil
	}
	shard, ok := s.places.Place(s.key)
	if !ok {
		return s.badLine(pgsql.CheckViolation, "no list of group %s names the value of key column %q: the row has no shard", s.places.Group.Name, s.keys[0].Column)
	}
	i, ok := s.position[shard]
	if !ok {
		return s.badLine(pgsql.InternalError, "the row's shard is none of those that the COPY goes to")
	}
	return s.putOn(i, row, lines)
}

// putOn gathers a row for a shard, or sends it at once if it is long.
func (s *Splitter) putOn(i int, row []byte, lines int64) error {
	s.sent[i].add(lines, s.line)
	if s.send == nil || len(row) < longRow {
		s.out[i] = append(s.out[i], row...)
		return nil
	}
	if err := s.Flush(s.send); err != nil {
		return err
	}
	return s.send(i, row)
}

// keyField is a key column's value in a row.
type keyField struct {
	text        string
	null, found bool
}

// fields finds the values of the key columns.
func (s *Splitter) fields(row []byte) {
	clear(s.vals)
	left := len(s.vals)
	col, start, in := 0, 0, false
	for i := 0; i <= len(row); i++ {
		if i < len(row) {
			c := row[i]
			if !s.format.CSV && c == '\\' && i+1 < len(row) {
				i++
				continue
			}
			if s.format.CSV && in && c == s.format.Escape && s.format.Escape != s.format.Quote && i+1 < len(row) {
				i++
				continue
			}
			if s.format.CSV && c == s.format.Quote {
				in = !in
			}
			if c != s.format.Delimiter || in {
				continue
			}
		}
		if k := slices.Index(s.at, col); k >= 0 {
			s.vals[k] = s.decode(k, row[start:min(i, len(row))])
			if left--; left == 0 {
				return
			}
		}
		col++
		start = i + 1
	}
}

// decode reads the field of key column k. What FORCE_NULL and FORCE_NOT_NULL do is that of CopyReadAttributesCSV and
// NextCopyFrom of PostgreSQL.
func (s *Splitter) decode(k int, raw []byte) keyField {
	if string(raw) == s.format.Null && !s.keys[k].ForceNotNull {
		return keyField{null: true, found: true}
	}
	if s.format.CSV {
		if !bytes.ContainsRune(raw, rune(s.format.Quote)) {
			return keyField{text: string(raw), found: true}
		}
		var out []byte
		in := false
		for i := 0; i < len(raw); i++ {
			c := raw[i]
			switch {
			case in && c == s.format.Escape && i+1 < len(raw) && (raw[i+1] == s.format.Quote || raw[i+1] == s.format.Escape):
				i++
				out = append(out, raw[i])
			case c == s.format.Quote:
				in = !in
			default:
				out = append(out, c)
			}
		}
		return keyField{text: string(out), found: true, null: s.keys[k].ForceNull && string(out) == s.format.Null}
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return keyField{text: string(raw), found: true}
	}
	return keyField{text: unescape(raw), found: true}
}

// unescape reads the backslash sequences of COPY's text format.
func unescape(raw []byte) string {
	var out []byte
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '\\' || i+1 >= len(raw) {
			out = append(out, c)
			continue
		}
		i++
		switch c = raw[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'v':
			out = append(out, '\v')
		case 'x':
			n, v := 0, byte(0)
			for n < 2 && i+1 < len(raw) && hexValue(raw[i+1]) >= 0 {
				v = v<<4 | byte(hexValue(raw[i+1]))
				i++
				n++
			}
			if n == 0 {
				v = 'x'
			}
			out = append(out, v)
		default:
			if c < '0' || c > '7' {
				out = append(out, c)
				continue
			}
			v, n := c-'0', 1
			for n < 3 && i+1 < len(raw) && raw[i+1] >= '0' && raw[i+1] <= '7' {
				v = v<<3 | (raw[i+1] - '0')
				i++
				n++
			}
			out = append(out, v)
		}
	}
	return string(out)
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
