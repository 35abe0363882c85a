package config

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// Load reads a file strictly and validates it: an unknown key is an error with its place and the nearest known key.
func Load(file string) (Config, error) {
	c := Default()
	c.File = file
	b, err := os.ReadFile(file)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	if err := decode(b, &c); err != nil && len(bytes.TrimSpace(b)) > 0 {
		return c, fmt.Errorf("%s: %s", file, explain(b, err))
	}
	return c, c.Validate()
}

// decode reads a document strictly. The decoder panics on some malformed tags: that is an error like others.
func decode(b []byte, c *Config) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not valid YAML: %v", p)
		}
	}()
	return yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(c)
}

var unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)

var (
	lineColumn = regexp.MustCompile(`^\[(\d+):\d+\]`)
	keyOfLine  = regexp.MustCompile(`^[\s-]*([a-z_]+)\s*:`)
)

// explain adds to the decoder's message, which has line and column, the key of that line, if it is a known one, or the nearest known key. It
// does not show the lines around, as the decoder would: there may be passwords in them.
func explain(text []byte, err error) string {
	msg := yaml.FormatError(err, false, false)
	m := unknownField.FindStringSubmatch(msg)
	if m == nil {
		if at := lineColumn.FindStringSubmatch(msg); at != nil {
			line, _ := strconv.Atoi(at[1]) // of digits
			if lines := strings.Split(string(text), "\n"); line >= 1 && line <= len(lines) {
				if key := keyOfLine.FindStringSubmatch(lines[line-1]); key != nil && slices.Contains(knownKeys(), key[1]) {
					return key[1] + ": " + msg
				}
			}
		}
		return msg
	}
	best, dist := "", 1<<30
	for _, k := range knownKeys() {
		if d := distance(m[1], k); d < dist {
			best, dist = k, d
		}
	}
	return msg + fmt.Sprintf("\nDid you mean %q?", best)
}

func knownKeys() []string {
	var out []string
	for _, t := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[User](), reflect.TypeFor[Rule](), reflect.TypeFor[Peer]()} {
		for i := range t.NumField() {
			if key := t.Field(i).Tag.Get("yaml"); key != "-" {
				out = append(out, key)
			}
		}
	}
	return out
}

// distance is the edit distance of two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			prev, row[j] = row[j], min(row[j]+1, row[j-1]+1, prev+cost)
		}
	}
	return row[len(b)]
}
