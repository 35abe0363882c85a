// Package copydata finds the rows in what a client sends for COPY FROM, in the text, CSV and binary formats, and the shard of each by its key.
// It is pure: bytes come in, in any pieces, and rows go out.
package copydata

import (
	"strconv"
	"strings"
)

// Format is how COPY data is written. Source: PostgreSQL's documentation of COPY.
type Format struct {
	CSV, Binary              bool // neither: text
	Delimiter, Quote, Escape byte
	Null                     string
	Default                  *string // DEFAULT: a field of this text takes the column's default
	Header                   bool
	Mark                     Mark // what a line \. is in CSV
}

// Mark is what servers take a line \. for in CSV.
type Mark uint8

// Before PostgreSQL 18 it ends the data, as in text; from then on it is a row like any other. Source: PostgreSQL's documentation of COPY.
const (
	MarkEnds Mark = iota
	MarkIsRow
	MarkDiffers // the servers do not agree
)

// MarkOf is what servers of these versions, each as PostgreSQL reports server_version, take it for.
func MarkOf(versions []string) Mark {
	var is [2]bool
	for _, v := range versions {
		major := v
		if i := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
			major = v[:i]
		}
		n, err := strconv.Atoi(major)
		if err != nil {
			return MarkDiffers
		}
		if n >= 18 {
			is[MarkIsRow] = true
		} else {
			is[MarkEnds] = true
		}
	}
	switch {
	case is[MarkEnds] && is[MarkIsRow]:
		return MarkDiffers
	case is[MarkIsRow]:
		return MarkIsRow
	}
	return MarkEnds
}

// FormatOf reads the options of a COPY that PostgreSQL takes: names and values as text.
func FormatOf(options map[string]string) Format {
	f := Format{CSV: options["format"] == "csv", Binary: options["format"] == "binary", Delimiter: '\t', Quote: '"', Null: `\N`}
	if f.CSV {
		f.Delimiter, f.Null = ',', ""
	}
	if d := options["delimiter"]; d != "" {
		f.Delimiter = d[0]
	}
	if v, ok := options["null"]; ok {
		f.Null = v
	}
	if v, ok := options["default"]; ok {
		f.Default = &v
	}
	if q := options["quote"]; q != "" {
		f.Quote = q[0]
	}
	f.Escape = f.Quote
	if e := options["escape"]; e != "" {
		f.Escape = e[0]
	}
	f.Header = options["header"] != "" && options["header"] != "false"
	return f
}
