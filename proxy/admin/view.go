package admin

import (
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// View is a table that SHOW prints, the dashboard draws and metrics may read: one source for all of them.
type View struct {
	Name    string
	Help    string
	Columns []string
	Rows    func(*Admin) [][]any
}

// Views lists what can be shown, by name.
var Views = map[string]*View{}

// view declares a view whose columns are known by their place alone: those that PgBouncer counts.
func view(name, help string, rows func(*Admin) [][]any, columns ...string) {
	Views[name] = &View{name, help, columns, rows}
}

// table declares a view whose rows are values of a struct: each field is a column, called as it is, and those of embedded structs stand where
// these do. What may be NULL is a field of type any.
func table[T any](name, help string, rows func(*Admin) []T) {
	fields := slices.DeleteFunc(reflect.VisibleFields(reflect.TypeFor[T]()), func(f reflect.StructField) bool { return f.Anonymous })
	columns := make([]string, len(fields))
	for i, f := range fields {
		columns[i] = columnOf(f.Name)
	}
	view(name, help, func(a *Admin) [][]any {
		var out [][]any
		for _, r := range rows(a) {
			v, row := reflect.ValueOf(r), make([]any, len(fields))
			for i, f := range fields {
				row[i] = v.FieldByIndex(f.Index).Interface()
			}
			out = append(out, row)
		}
		return out
	}, columns...)
}

// columnOf is a field's name as a column's: in small letters, with an underscore where a word begins. Initials are one word.
func columnOf(field string) string {
	var b strings.Builder
	letters := []rune(field)
	for i, r := range letters {
		begins := unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1]))
		if begins {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
