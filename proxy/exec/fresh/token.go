package fresh

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
)

// Mark is what a token says of one shard: who its primary was, and a position behind all that was seen.
type Mark struct {
	Shard    string
	System   string
	Timeline uint32
	At       replication.LSN
}

// ParseToken reads shard:system:timeline:position, separated by commas; shards are quoted like names in SQL.
func ParseToken(s string) ([]Mark, error) {
	var out []Mark
	for s = strings.TrimSpace(s); s != ""; {
		var m Mark
		if strings.HasPrefix(s, `"`) {
			var ok bool
			if m.Shard, s, ok = pgsql.CutIdent(s); !ok {
				return nil, fmt.Errorf("unterminated name")
			}
		} else {
			i := strings.IndexByte(s, ':')
			if i < 0 {
				return nil, fmt.Errorf("no position")
			}
			m.Shard, s = s[:i], s[i:]
		}
		rest, more, found := strings.Cut(s, ",")
		if found && more == "" {
			return nil, fmt.Errorf("ends with a comma")
		}
		s = more
		f := strings.Split(rest, ":")
		if len(f) != 4 || f[0] != "" {
			return nil, fmt.Errorf("four parts were expected")
		}
		line, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("no timeline")
		}
		if m.At, err = replication.ParseLSN(f[3]); err != nil {
			return nil, err
		}
		m.System, m.Timeline = f[1], uint32(line)
		out = append(out, m)
	}
	return out, nil
}

// String is the mark as ParseToken reads it.
func (m Mark) String() string {
	name := m.Shard
	if strings.ContainsAny(name, `":, `) {
		name = pgsql.Ident(name)
	}
	return fmt.Sprintf("%s:%s:%d:%s", name, m.System, m.Timeline, m.At)
}
