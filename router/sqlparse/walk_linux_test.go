package sqlparse

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A walk by the places of fields sees the messages that the library's own reflection sees.
func TestWalkSeesWhatReflectionSees(t *testing.T) {
	var all func(m protoreflect.Message, visit func(protoreflect.Message))
	all = func(m protoreflect.Message, visit func(protoreflect.Message)) {
		visit(m)
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case fd.Message() == nil:
			case fd.IsList():
				for i := range v.List().Len() {
					all(v.List().Get(i).Message(), visit)
				}
			default:
				all(v.Message(), visit)
			}
			return true
		})
	}
	for name, f := range deep {
		tree, err := parseTree(f(3))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var want, got []string
		all(tree.ProtoReflect(), func(m protoreflect.Message) {
			want = append(want, fmt.Sprintf("%T %p", m.Interface(), m.Interface()))
		})
		walk(tree, func(m any) bool {
			got = append(got, fmt.Sprintf("%T %p", m, m))
			return true
		})
		slices.Sort(want)
		slices.Sort(got)
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s: %d messages, reflection sees %d", name, len(got), len(want))
		}
		want, got = nil, nil
		n := tree.Stmts[0].Stmt
		walk(n, func(m any) bool {
			switch m.(type) {
			case *pg.Node, *pg.String, *pg.Integer, *pg.Float, *pg.Boolean, *pg.BitString:
			default:
				want = append(want, fmt.Sprintf("%T %p", m, m))
			}
			return true
		})
		walkParts(n, func(m any) bool {
			got = append(got, fmt.Sprintf("%T %p", m, m))
			return true
		})
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s: %d parts, a walk over all messages sees %d", name, len(got), len(want))
		}
	}
}

// Two trees mean the same where they differ in places alone.
func TestMeaningIsAllButPlaces(t *testing.T) {
	for name, f := range deep {
		sql := f(3)
		a, _ := parseTree(sql)
		b, err := parseTree("/* elsewhere */ " + sql)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n := a.Stmts[0].Stmt
		if canonical(n) != canonical(b.Stmts[0].Stmt) {
			t.Errorf("%s: the meaning hangs on the place", name)
		}
		if canonical(n) != canonical(proto.CloneOf(n)) {
			t.Errorf("%s: a clone means something else", name)
		}
	}
	seen := map[string]string{}
	for _, sql := range []string{"1", "'1'", "1.0", "true", "null", "a", "b", "a.b", "f(a)", "f(a, b)", "f(distinct a)", "f(*)", "a + b", "b + a", "a - b", "(a, b)", "array[a, b]", "a::int", "a::int[]", "a::text", "a collate \"C\"", "a is null", "a is not null", "not a", "a and b", "a or b", "(select a)", "exists (select a)", "case a when b then 1 end", "case when b then 1 end", "''", "0"} {
		tree, err := parseTree("select " + sql)
		if err != nil {
			t.Fatal(err)
		}
		key := canonical(tree.Stmts[0].Stmt)
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s are taken for the same", sql, other)
		}
		seen[key] = sql
	}
}
