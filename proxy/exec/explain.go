package exec

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// ExplainRoute describes where each statement of a text would run. A statement with parameters is described
// as far as that goes without their values.
func ExplainRoute(sql string, db *shardmap.DB, sch *schema.Snapshot, env router.Env) ([]string, error) {
	stmts, err := sqlparse.Parse(sql)
	if err != nil {
		var se *sqlparse.SyntaxError
		if errors.As(err, &se) {
			return nil, &router.Error{Code: "42601", Message: se.Message}
		}
		return nil, err
	}
	var out []string
	for _, s := range stmts {
		t, err := router.Analyze(s, db, sch, env)
		if err != nil {
			return nil, err
		}
		if s.Params > 0 {
			out = append(out, t.Class.String()+" by parameter values", "  Plan: "+t.Class.String())
			if t.Merge != nil {
				out = append(out, "  Shard: "+t.Merge.SQL)
			}
			continue
		}
		p, err := t.Bind(&router.Args{Text: []byte(s.Text)})
		if err != nil {
			return nil, err
		}
		out = append(out, p.Lines()...)
	}
	return out, nil
}

// DefaultEnv is the circumstances of a session that has set nothing.
func DefaultEnv() router.Env { return router.Env{SearchPath: []string{"$user", "public"}} }
