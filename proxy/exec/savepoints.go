package exec

import (
	"context"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/exec/planner"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// A transaction goes back to one place on all its servers, also where some have not done the SAVEPOINT, RELEASE or ROLLBACK TO before. So a savepoint is
// called on servers by its place among those of the transaction: of two that the client calls the same, a server that has not got the second would
// go back to the first.

type savepoint struct {
	name     string
	steps    int // of the transaction, with its own
	opts     sqlparse.Tx
	settings *pool.Settings
	told     map[string]string
	own      client.Settings
	kept     client.Settings
	cursors  map[string]*participant
	view     planner.View // what the transaction planned by; of one that had defined nothing it is its base
	defined  bool
	path     []string // the search_path
	role     string   // who statements ran as
	before   kept     // what the session kept before it
	listens  int      // of the transaction
	torn     bool     // some servers have not got it any more. Those inside of it are torn as well
}

// onServers is what servers call the savepoint of a transaction at a place, as SQL: the client's name is there for who looks at them.
func onServers(at int, name string) string {
	const most = 63 // bytes of a name
	s := itoa(uint64(at)+1) + " " + name
	if len(s) > most {
		n := most
		for !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return pgsql.Ident(s)
}

func (h *Handler) savepoint(ctx context.Context, s *sqlparse.Statement) error {
	if h.tx.Idle() || h.tx.Implicit {
		return &pgsql.Error{Code: pgsql.NoActiveSQLTransaction, Message: strings.ToUpper(verbOf(s.Kind)) + " can only be used in transaction blocks"}
	}
	at := len(h.tx.saves)
	if s.Kind != sqlparse.Savepoint {
		for at--; at >= 0 && h.tx.saves[at].name != s.Name; at-- {
		}
		switch {
		case at < 0:
			return &pgsql.Error{Code: pgsql.InvalidSavepointSpecification, Message: `savepoint "` + s.Name + `" does not exist`}
		case h.tx.saves[at].torn:
			return &pgsql.Error{
				Code: pgsql.InvalidSavepointSpecification, Message: `savepoint "` + s.Name + `" does not exist on every shard any more`,
				Detail: "A RELEASE or ROLLBACK TO was stopped when some of them had done it.", Hint: "ROLLBACK TO a savepoint outside of it, or ROLLBACK.",
			}
		}
	}
	sql := verbOf(s.Kind) + " " + onServers(at, s.Name)
	switch s.Kind {
	case sqlparse.Savepoint: // what functions have set before it stays, whatever is rolled back to it
		if err := spread(ctx, h, nil); err != nil {
			return err
		}
	case sqlparse.RollbackTo:
		h.tx.unseen.by, h.tx.unseen.path = nil, false
	default: // RELEASE changes nothing here
	}
	if some, err := everyPartDoes(h, sql); err != nil {
		if some {
			h.tx.tear(s.Kind, at)
		}
		return err
	}
	switch s.Kind {
	case sqlparse.Savepoint:
		reckonKept(h)
		before := h.ext.kept
		h.tx.step(stepSave, "", sql)
		h.tx.saves = append(h.tx.saves, savepoint{
			name: s.Name, steps: len(h.tx.steps), opts: h.tx.opts, settings: h.settings, told: h.told.Mark(), own: h.own, kept: h.tx.own.kept,
			cursors: maps.Clone(h.tx.cursors), view: h.ownView(), defined: h.tx.defined, path: h.planner.Env.SearchPath, role: h.planner.Env.Role, before: before, listens: len(h.tx.listens),
		})
		h.client.SendTag("SAVEPOINT")
	case sqlparse.Release:
		save := h.tx.saves[at]
		h.tx.released(at)
		releasePortals(&h.ext, at)
		rewind(h, save.before, save.settings.More(h.settings, h.tx.latest()))
		h.client.SendTag("RELEASE")
	default:
		goBack(h, at)
		h.client.SendTag("ROLLBACK")
	}
	return nil
}

// goBack has the session be what it was at a savepoint, to which all servers have gone back.
func goBack(h *Handler, at int) {
	save := &h.tx.saves[at]
	adopt(h, save.settings)
	h.own, h.tx.own.kept = save.own, save.kept
	maps.DeleteFunc(h.tx.cursors, func(name string, p *participant) bool { return save.cursors[name] != p }) // those are gone
	dropPortals(&h.ext, at)
	h.told.Back(save.told, h.sendParam)
	h.backTo(save.view)
	h.tx.defined = save.defined
	h.mayChangeTemps(true)
	h.planner.Env.SearchPath, h.planner.Env.Role = save.path, save.role
	h.planner.Moved()
	h.tx.backTo(at)
	rewind(h, save.before, 0)
	for _, p := range h.tx.parts {
		if p.defines { // perhaps not any more, and perhaps again
			p.Server.DropSince(p.mark)
		}
	}
	h.tx.Resume()
}

// tear notes that some servers only have released the savepoint at a place, or gone back to it. The transaction has failed then; what is inside of it
// is gone there.
func (tx *transaction) tear(did sqlparse.Kind, at int) {
	if did == sqlparse.RollbackTo { // it can be gone back to again
		at++
	}
	for i := at; i < len(tx.saves); i++ {
		tx.saves[i].torn = true
	}
}

func verbOf(k sqlparse.Kind) string {
	switch k {
	case sqlparse.Savepoint:
		return "SAVEPOINT"
	case sqlparse.Release:
		return "RELEASE SAVEPOINT"
	default:
		return "ROLLBACK TO SAVEPOINT"
	}
}
