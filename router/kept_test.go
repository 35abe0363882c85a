package router

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// A plan by ranges that is kept holds the bounds of a join's ON, and nothing of what their names have seen.
func TestBoundsOfAJoinKeepNoTree(t *testing.T) {
	db, sch := world(t)
	for _, sql := range []string{
		"select * from readings r join sensors_on s on r.day = s.day and r.sensor = s.sensor and r.day < '2026-01-02' and r.day > '2026-01-01'",
		"select * from readings r join sensors_on s on r.day = s.day and r.sensor = s.sensor and s.day between '2026-01-01' and '2026-01-02'",
	} {
		stmts, err := sqlparse.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
		if err != nil {
			t.Fatal(err)
		}
		bounds := 0
		for _, p := range tmpl.pins {
			for _, b := range p.bounds {
				bounds++
				if b.Col.In != nil {
					t.Errorf("%s: the bound of %s keeps what stands in FROM", sql, b.Col.Name)
				}
			}
		}
		if bounds == 0 {
			t.Errorf("%s: no bounds", sql)
		}
	}
}
