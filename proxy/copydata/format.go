// Package copydata finds the rows in what a client sends for COPY FROM, in the text, CSV and binary formats, and the shard of each by its key.
// It is pure: bytes come in, in any pieces, and rows go out.
package copydata

// Format is how COPY data is written. Source: PostgreSQL's documentation of COPY.
type Format struct {
	CSV, Binary              bool // neither: text
	Delimiter, Quote, Escape byte
	Null                     string
	Default                  *string // DEFAULT: a field of this text takes the column's default
	Header                   bool
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
