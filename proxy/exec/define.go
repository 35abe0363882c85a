package exec

import (
	"context"
	"errors"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// define runs the definition of what every shard has on home and then on the others, in one transaction. What is altered or
// dropped and is not on a shard needs nothing there: it may be of a time before that shard, or hang on what is home's.
func (h *Handler) define(ctx context.Context, p *router.Plan, text string) error {
	home := h.planner.DB.Home.Index
	shards := []int{home}
	for _, s := range p.Shards {
		if s != home {
			shards = append(shards, s)
		}
	}
	var tag string
	var err error
	if p.Cluster {
		if shards, err = h.onePerServer(shards); err != nil {
			return err
		}
	}
	err = h.atomically(ctx, func() error {
		if err := h.lockReference(ctx, p, []int{home}); err != nil {
			return err
		}
		parts, err := h.joinAll(ctx, shards, p.Template)
		if err != nil {
			return err
		}
		names := namingsOf(p)
		for i, part := range parts {
			if err := h.held.Stopped(); err != nil {
				return err
			}
			if err := names.about(h, part); err != nil {
				return err
			}
			if i == 0 && p.Stmt.Def.Password != "" {
				if text, err = h.samePassword(part, p.Stmt); err != nil {
					return err
				}
			}
			if i == 0 { // its notices are the client's; those of the others would be the same again
				if tag, err = h.exec(part, text); err != nil {
					return err
				}
			} else if err := h.defineOn(part, text, p.Stmt.Def.Alters); err != nil {
				return err
			}
			if err := names.settle(h, part); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	h.client.SendTag(tag)
	h.after(ctx, p.Template, home)
	return nil
}

// onePerServer leaves one shard of those that are databases of one server, by what their primaries say that they are.
func (h *Handler) onePerServer(shards []int) (out []int, err error) {
	seen := map[string]bool{}
	for _, s := range shards {
		v := h.shards.At(s).View()
		if v == nil || !v.Serves() {
			return nil, branch.NoPrimary(h.shards.Name(s), v, "")
		}
		if id := v.Nodes[v.Primary].Sample.SystemID; !seen[id] {
			seen[id] = true
			out = append(out, s)
		}
	}
	return out, nil
}

// samePassword writes the statement that gives a role the same verifier everywhere: servers that make their own from a password
// make different ones, and a client's keys for one would be no good for another. What is a verifier already is kept, and so is
// a password that home would not keep as SCRAM.
func (h *Handler) samePassword(home *participant, s *sqlparse.Statement) (string, error) {
	if err := h.ready(home); err != nil {
		return "", err
	}
	row, err := home.Server.Row(1, "SHOW password_encryption")
	if err != nil {
		return "", h.lost(home, err)
	}
	if string(row[0]) != "scram-sha-256" || strings.HasPrefix(s.Def.Password, "md5") && len(s.Def.Password) == 35 {
		return s.Text, nil
	}
	if _, err := auth.ParseVerifier(s.Def.Password); err == nil {
		return s.Text, nil
	}
	cred, err := auth.NewCredential(s.Def.Password)
	if err != nil {
		return "", &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: err.Error()}
	}
	return s.WithPassword(cred.Verifier())
}

// defineOn runs a definition on a shard that is not home. A function's body may name what is home's.
func (h *Handler) defineOn(part *participant, text string, alters bool) error {
	if err := h.ready(part); err != nil {
		return err
	}
	if _, err := part.Server.Exec("SET LOCAL check_function_bodies = off; SAVEPOINT pgmosaic_define"); err != nil {
		return h.lost(part, err)
	}
	_, err := part.Server.Exec(text)
	if alters && isAbsent(err) {
		_, err = part.Server.Exec("ROLLBACK TO SAVEPOINT pgmosaic_define")
	}
	if err == nil {
		_, err = part.Server.Exec("RELEASE SAVEPOINT pgmosaic_define")
	}
	if err != nil {
		return h.onShard(part, h.lost(part, err))
	}
	return nil
}

// onShard says on which shard a definition failed that home has taken.
func (h *Handler) onShard(part *participant, err error) error {
	return &pgsql.Error{Code: codeOf(err), Message: "on shard " + h.shards.Name(part.shard) + ": " + err.Error(), Hint: "Nothing was changed on any shard. Mend the cause there and run it again."}
}

// isAbsent says whether a server answered that an object is not there.
func isAbsent(err error) bool {
	var se *pool.ServerError
	if !errors.As(err, &se) {
		return false
	}
	switch se.Response.Code {
	case pgsql.UndefinedObject, pgsql.UndefinedFunction, pgsql.UndefinedTable, pgsql.UndefinedColumn, pgsql.InvalidSchemaName: // undefined object, function, table, column, schema
		return true
	}
	return false
}
