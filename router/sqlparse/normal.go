package sqlparse

import (
	pg "github.com/pganalyze/pg_query_go/v5"
)

// Normal is a statement's text with its literals replaced by parameters; "(not shown)" for a text that cannot be read.
func Normal(text string) string {
	s, err := pg.Normalize(text)
	if err != nil {
		return "(not shown)"
	}
	return s
}
