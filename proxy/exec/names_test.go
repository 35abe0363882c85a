package exec

import (
	"strings"
	"testing"
)

func TestRenamings(t *testing.T) {
	index := func(name, says string) nameOf { return nameOf{"index", "s", "t", name, says} }
	for _, x := range []struct {
		name        string
		home, shard []nameOf
		want        string
	}{
		{"equal", []nameOf{index("a", "(x)")}, []nameOf{index("a", "(x)")}, ""},
		{"another", []nameOf{index("a1", "(x)")}, []nameOf{index("a", "(x)")}, `ALTER INDEX "s"."a" RENAME TO "pgmosaic_rename_1"; ALTER INDEX "s"."pgmosaic_rename_1" RENAME TO "a1"`},
		{
			"two of a kind, in order",
			[]nameOf{index("a1", "(x)"), index("a2", "(x)")},
			[]nameOf{index("a", "(x)"), index("a1", "(x)")},
			`ALTER INDEX "s"."a" RENAME TO "pgmosaic_rename_1"; ALTER INDEX "s"."a1" RENAME TO "pgmosaic_rename_2"; ALTER INDEX "s"."pgmosaic_rename_1" RENAME TO "a1"; ALTER INDEX "s"."pgmosaic_rename_2" RENAME TO "a2"`,
		},
		{
			"swapped",
			[]nameOf{index("a", "(x)"), index("b", "(y)")},
			[]nameOf{index("b", "(x)"), index("a", "(y)")},
			`ALTER INDEX "s"."b" RENAME TO "pgmosaic_rename_1"; ALTER INDEX "s"."a" RENAME TO "pgmosaic_rename_2"; ALTER INDEX "s"."pgmosaic_rename_1" RENAME TO "a"; ALTER INDEX "s"."pgmosaic_rename_2" RENAME TO "b"`,
		},
		{
			"constraint",
			[]nameOf{{"constraint", "s", "t", "c1", "CHECK (x)"}},
			[]nameOf{{"constraint", "s", "t", "c", "CHECK (x)"}},
			`ALTER TABLE "s"."t" RENAME CONSTRAINT "c" TO "pgmosaic_rename_1"; ALTER TABLE "s"."t" RENAME CONSTRAINT "pgmosaic_rename_1" TO "c1"`,
		},
		{"nothing of home's", nil, []nameOf{index("a", "(x)")}, ""},
		{"of another table", []nameOf{{"index", "s", "u", "b", "(x)"}}, []nameOf{index("a", "(x)")}, ""},
		{"an array type", []nameOf{{"array", "s", "d", "__d", ""}}, []nameOf{{"array", "s", "d", "_d", ""}}, "error"},
	} {
		got, err := renamings(x.home, x.shard)
		if err != nil {
			got = "error"
		}
		if got != x.want {
			t.Errorf("%s:\n%s\nwant\n%s", x.name, strings.ReplaceAll(got, "; ", "\n"), strings.ReplaceAll(x.want, "; ", "\n"))
		}
	}
}
