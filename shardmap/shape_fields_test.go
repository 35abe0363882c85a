package shardmap

import (
	"reflect"
	"testing"
)

// Whatever the map comes to say of a database is of its shape, unless this test knows that no plan rests on it.
func TestShapeHasEveryField(t *testing.T) {
	none := map[string]bool{"Shard.Primary": true, "Shard.Named": true, "Nodes": true, "Placements": true}
	doc := reflect.TypeFor[Document]()
	for i := range doc.NumField() {
		list := doc.Field(i)
		if list.Type.Kind() != reflect.Slice {
			continue // of the installation
		}
		kind := list.Type.Elem().Elem()
		name := "Database"
		if kind == reflect.TypeFor[Database]() {
			name = "Name"
		}
		parts := func(field string) *part {
			d := &Document{}
			if name != "Name" {
				d.Databases = []*Database{{Name: "d"}}
			}
			x := reflect.New(kind)
			x.Elem().FieldByName(name).SetString("d")
			if field != "" {
				set(t, x.Elem().FieldByName(field))
			}
			reflect.ValueOf(d).Elem().Field(i).Set(reflect.Append(reflect.Zero(list.Type), x))
			return d.parts(&Document{}, nil)["d"]
		}
		was := parts("")
		for j := range kind.NumField() {
			f := kind.Field(j).Name
			if f == name {
				continue
			}
			same, want := was.plannedAs(parts(f)), none[kind.Name()+"."+f] || none[list.Name]
			if same != want {
				t.Errorf("%s, %s.%s: the shape is the same: %v, want %v", list.Name, kind.Name(), f, same, want)
			}
		}
	}
}

// set gives a field a value that is not its zero.
func set(t *testing.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int16:
		v.SetInt(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		t.Fatalf("no value of %s", v.Type())
	}
}
