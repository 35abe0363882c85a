package pool

import (
	"errors"
	"strconv"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// ErrTooMuch means that a function has set more than there is room for.
var ErrTooMuch = errors.New("a function has set more than there is room for")

// longFound is the longest value, in bytes, that a look at a server brings at once. Of a longer one it brings the length.
const longFound = "1024"

// foundSQL is a row of such a look: a letter, a setting's name and its value. The arguments are SQL.
func foundSQL(letter, name, value string) string {
	return "case when pg_catalog.octet_length(" + value + ") operator(pg_catalog.>) " + longFound + " then pg_catalog.concat('b', " + letter + ", " + name + ", '=', pg_catalog.octet_length(" + value + "))" +
		" else pg_catalog.concat(" + letter + ", " + name + ", '=', " + value + ") end"
}

// varSQL adds rows of custom parameters, which no catalog lists.
func varSQL(vars []string) string {
	var b strings.Builder
	for _, v := range vars {
		name := pgsql.Literal(v)
		value := "pg_catalog.current_setting(" + name + ", true)"
		b.WriteString(" union all select " + foundSQL("'s'", name, value) + " where " + value + " is not null")
	}
	return b.String()
}

// find runs such a look. Long values are fetched if they are no more than so many bytes together.
func (s *Server) find(sql string, most int64) ([]string, error) {
	found, err := s.list(sql)
	if err != nil {
		return nil, err
	}
	long := ""
	for i, f := range found {
		if f[0] != 'b' {
			continue
		}
		at := strings.LastIndexByte(f, '=')
		n, err := strconv.ParseInt(f[at+1:], 10, 64)
		if most -= n; err != nil || most < 0 {
			return nil, ErrTooMuch
		}
		name := pgsql.Literal(f[2:at])
		if long != "" {
			long += " union all "
		}
		long += "select pg_catalog.concat(" + pgsql.Literal(strconv.Itoa(i)+"=") + ", pg_catalog.current_setting(" + name + ", true))"
		found[i] = f[1 : at+1]
	}
	if long == "" {
		return found, nil
	}
	values, err := s.list(long)
	for _, v := range values {
		at, value, _ := strings.Cut(v, "=")
		if i, err := strconv.Atoi(at); err == nil && i < len(found) {
			found[i] += value
		}
	}
	return found, err
}
