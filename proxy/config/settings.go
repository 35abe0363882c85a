package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// key is one key of the file: a field of Config with what its tags say. A change of a key is in force
// at the next start only if its tag says "restart"; it is not shown if it says "hidden"; it may be in the file only, and neither
// be SET nor read outside, if it says "file": what runs as somebody else, or speaks to somebody else, is the file's alone, and its text may have a password.
type key struct {
	name string
	at   int // the field's number
	tag  reflect.StructTag
}

var keys = func() (out []key) {
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "-" {
			out = append(out, key{name, i, t.Field(i).Tag})
		}
	}
	return out
}()

func (k key) is(word string) bool { return slices.Contains(strings.Fields(k.tag.Get("is")), word) }

func (k key) of(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().Field(k.at) }

// changeable says whether SET may change a key: plain values that RELOAD could change.
func (k key) changeable() bool {
	switch reflect.TypeFor[Config]().Field(k.at).Type.Kind() {
	case reflect.Int, reflect.Int64, reflect.String, reflect.Bool:
		return !k.is("restart") && !k.is("file")
	}
	return false
}

// Setting is a key as SHOW CONFIG has it. Times are in seconds, as PgBouncer's are.
type Setting struct {
	Name, Value, Default string
	Changeable           bool // by SET
}

// Settings lists the keys in their order, without those that are hidden. Who may look at them may not know what is the file's alone: only
// whether it is there.
func (c *Config) Settings() (out []Setting) {
	def := Default()
	for _, k := range keys {
		if !k.is("hidden") {
			out = append(out, Setting{k.name, k.shown(c), k.shown(&def), k.changeable()})
		}
	}
	return out
}

// shown is a key's value as others may see it.
func (k key) shown(c *Config) string {
	v := k.of(c)
	if k.is("file") && v.Kind() == reflect.String {
		return Secret(v.String()).String()
	}
	if b, ok := v.Interface().(bool); ok {
		return map[bool]string{true: "1", false: "0"}[b]
	}
	return fmt.Sprint(v.Interface())
}

// Change is a key that two configurations have different values of.
type Change struct {
	Name    string
	Restart bool // it takes effect at the next start only
}

// Diff lists in what two configurations differ, in the order of the keys.
func Diff(old, now *Config) (out []Change) {
	for _, k := range keys {
		if !reflect.DeepEqual(k.of(old).Interface(), k.of(now).Interface()) {
			out = append(out, Change{k.name, k.is("restart")})
		}
	}
	return out
}

// SettingError is why With refuses.
type SettingError struct {
	Name   string
	Reason Reason
	Text   string
}

// Reason is a kind of refusal of With.
type Reason int

// The reasons of With.
const (
	Unknown Reason = iota // there is no such key
	Fixed                 // it cannot be changed while the process runs
	Invalid               // the value cannot be its value
)

func (e *SettingError) Error() string { return e.Text }

// With is the configuration with one key changed, by its text as SET has it. The error is a *SettingError.
func (c Config) With(name, value string) (Config, error) {
	refuse := func(r Reason, format string, args ...any) (Config, error) {
		return Config{}, &SettingError{name, r, fmt.Sprintf(format, args...)}
	}
	at := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	switch {
	case at < 0:
		return refuse(Unknown, "unrecognized configuration parameter %q", name)
	case !keys[at].changeable():
		return refuse(Fixed, "parameter %q cannot be changed at run time", name)
	}
	f := keys[at].of(&c)
	if err := yaml.Unmarshal([]byte(value), f.Addr().Interface()); err != nil {
		n, e := strconv.Atoi(value)
		if e != nil || f.Type() != reflect.TypeFor[Duration]() {
			return refuse(Invalid, "invalid value for parameter %q: %q", name, value)
		}
		f.Set(reflect.ValueOf(Duration(time.Duration(n) * time.Second))) // seconds, as PgBouncer
	}
	if err := c.Validate(); err != nil {
		return refuse(Invalid, "%s", err)
	}
	return c, nil
}
