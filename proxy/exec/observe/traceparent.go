package observe

import (
	"bytes"
	"encoding/hex"
	"strings"
)

// traceparent finds the trace context of sqlcommenter in a statement's comment: traceparent='00-<trace>-<span>-<flags>',
// https://google.github.io/sqlcommenter/spec and https://www.w3.org/TR/trace-context.
func traceparent(sql []byte) string {
	_, rest, ok := bytes.Cut(sql, []byte("traceparent='"))
	const size = 55
	if !ok || len(rest) <= size || rest[size] != '\'' {
		return ""
	}
	p := string(rest[:size])
	f := strings.Split(p, "-")
	if len(f) != 4 || len(f[0]) != 2 || len(f[1]) != 32 || len(f[2]) != 16 || len(f[3]) != 2 {
		return ""
	}
	for _, x := range f {
		if _, err := hex.DecodeString(x); err != nil {
			return ""
		}
	}
	return p
}
