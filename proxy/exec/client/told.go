package client

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Told is what a client was told of parameters: at its login, and since. Servers report what is new to them, of which a client may know
// already, and what was set in a part of a transaction that was rolled back is what it was before.
type Told struct {
	first   map[string]string // at the login; shared, not changed
	since   map[string]string // since then
	formats string            // see Formats; empty: they may be others by now
}

// Send writes a ParameterStatus to the client.
type Send func(name, value string)

// Begin is what a client has been told that logs in. params are not changed, and must not be.
func Begin(params map[string]string) Told { return Told{first: params} }

// Tell notes a ParameterStatus that is on its way to the client. news is false for what the client knows.
func (t *Told) Tell(name, value string) (news bool) {
	if was, known := t.Value(name); known && was == value {
		return false
	}
	if t.since == nil {
		t.since = map[string]string{}
	}
	t.since[name], t.formats = value, ""
	return true
}

// Value is a parameter's, as the client knows it.
func (t *Told) Value(name string) (value string, known bool) {
	if value, known = t.since[name]; !known {
		value, known = t.first[name]
	}
	return value, known
}

// First is a parameter's value at the login.
func (t *Told) First(name string) (value string, known bool) {
	value, known = t.first[name]
	return value, known
}

// Since are the parameters that the client was told of since its login, with their values, by name.
func (t *Told) Since() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, name := range slices.Sorted(maps.Keys(t.since)) {
			if !yield(name, t.since[name]) {
				return
			}
		}
	}
}

// Mark is what to go Back to. It costs a copy of what the client was told of since its login.
func (t *Told) Mark() map[string]string { return maps.Clone(t.since) }

// Count is how many parameters the client was told of since its login.
func (t *Told) Count() int { return len(t.since) }

// Back takes back what the client was told since a Mark: a transaction, or a part of it, was rolled back, and its settings with it.
func (t *Told) Back(mark map[string]string, send Send) {
	if len(t.since) == 0 || maps.Equal(t.since, mark) {
		return
	}
	for name, value := range t.since {
		was, ok := mark[name]
		if !ok {
			was, ok = t.first[name]
		}
		if ok && was != value {
			send(name, was)
		}
	}
	t.since, t.formats = maps.Clone(mark), ""
}

// Reset tells the client the value that a parameter had at the login, in letters of any case. A server has told it its own.
func (t *Told) Reset(name string, send Send) {
	for n, value := range t.since {
		if was, ok := t.first[n]; ok && strings.EqualFold(n, name) && was != value {
			t.since[n], t.formats = was, ""
			send(n, was)
		}
	}
}

// Now tells the client the values that a server has of what it was told since its login, where they are others: the server was led through
// settings that the client had been told of by another, and reports what is new to itself.
func (t *Told) Now(params map[string]string, send Send) {
	for name, value := range t.since {
		if now, ok := params[name]; ok && now != value {
			t.since[name], t.formats = now, ""
			send(name, now)
		}
	}
}

// Formats is by what constants in a text are read, as the client was told last. A statement that was prepared by others is another statement.
func (t *Told) Formats() string {
	if t.formats != "" {
		return t.formats
	}
	for _, n := range []string{"DateStyle", "IntervalStyle", "TimeZone"} {
		value, _ := t.Value(n)
		t.formats += value + "\x01"
	}
	return t.formats
}
