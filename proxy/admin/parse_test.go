package admin

import (
	"slices"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

func TestAdminSQLReadsWhatItPrints(t *testing.T) {
	for _, text := range []string{"plain", "it's", `back\slash`, `\`, `\'`, `;'"\\`, ""} {
		for _, name := range []string{"n", `odd."name`, "Ü ;", "e"} {
			sql := "NODE " + pgsql.Literal(text) + " NAME " + pgsql.Plain(name)
			if list := SplitStatements(sql + ";" + sql); !slices.Equal(list, []string{sql, sql}) {
				t.Errorf("%s: split into %q", sql, list)
			}
			toks, err := lex(sql)
			if err != nil || len(toks) != 5 || toks[1].kind != 's' || toks[1].text != text || toks[3].text != name {
				t.Errorf("%s: %v, %v", sql, toks, err)
			}
		}
	}
	for _, bad := range []string{`E'\n'`, `E'\`, `E'a`, `'a`} {
		if toks, err := lex(bad); err == nil {
			t.Errorf("%s: %v", bad, toks)
		}
	}
	if list := SplitStatements(`NODE'\'; NODE '\'`); len(list) != 2 { // the E of another word
		t.Errorf("%q", list)
	}
}
