// Package pgsql writes names and values as SQL, and reads them back.
//
// It is the only place that quotes. Elsewhere a name is a string without quotes in which a dot is a letter like others;
// schema and name stay apart until they meet in a text that this package returns.
package pgsql

import "strings"

// Ident is a name as SQL: quoted, whatever it is made of.
func Ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// List is names as SQL, with commas between them.
func List(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = Ident(n)
	}
	return strings.Join(out, ", ")
}

// Qualified is the name of an object of a schema as SQL; without a schema, the name alone.
func Qualified(schema, name string) string {
	if schema == "" {
		return Ident(name)
	}
	return Ident(schema) + "." + Ident(name)
}

// Plain is a name as people write it: quoted only where it would be another one without. Admin SQL, which reserves no words,
// reads it back, and messages show it; statements for a server take Ident.
func Plain(name string) string {
	plain := name != ""
	for i, c := range name {
		if !(c == '_' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			plain = false
		}
	}
	if plain {
		return name
	}
	return Ident(name)
}

// PlainQualified is the name of an object of a schema as people write it.
func PlainQualified(schema, name string) string { return Plain(schema) + "." + Plain(name) }

// Literal is a text as SQL, whatever standard_conforming_strings says.
func Literal(text string) string {
	if strings.Contains(text, `\`) {
		return "E'" + strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\\`), "'", "''") + "'"
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

// Literals is texts as SQL, with commas between them.
func Literals(texts []string) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = Literal(t)
	}
	return strings.Join(out, ", ")
}

// Array is texts as PostgreSQL prints an array of them, for a parameter.
func Array(texts []string) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(t) + `"`
	}
	return "{" + strings.Join(out, ",") + "}"
}

// Setting is the name of a run-time parameter as SQL: those of extensions are of two parts.
func Setting(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = Ident(p)
	}
	return strings.Join(parts, ".")
}

// SettingValue is what stands behind SET name TO for a value that came as text: in a startup packet, from set_config. A
// list of names is taken apart as PostgreSQL does.
func SettingValue(name, text string) string {
	if name == "search_path" || name == "temp_tablespaces" {
		if names, ok := Names(text); ok && len(names) > 0 {
			return Literals(names)
		}
	}
	return Literal(text)
}
