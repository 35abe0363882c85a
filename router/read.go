package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// standbyFails are functions that are not volatile by pg_proc and yet need a primary.
var standbyFails = map[string]bool{
	"txid_current": true, "pg_current_xact_id": true, "pg_current_wal_lsn": true, "pg_current_wal_insert_lsn": true,
	"pg_current_wal_flush_lsn": true, "pg_walfile_name": true, "pg_export_snapshot": true, "pg_last_wal_replay_lsn": true, "pg_is_in_recovery": true,
	"current_setting": true, "inet_server_addr": true, "inet_server_port": true, "pg_postmaster_start_time": true, "pg_conf_load_time": true, // a node's own
}

// nodesOwn says whether a name is that of a catalog that tells of the node, not of the database.
func nodesOwn(ref sqlparse.TableRef) bool {
	if ref.Schema != "" && ref.Schema != "pg_catalog" {
		return false
	}
	for _, p := range []string{"pg_stat", "pg_locks", "pg_prepared_", "pg_replication_", "pg_settings", "pg_file_settings", "pg_hba_", "pg_cursors", "pg_backend_", "pg_shmem_"} {
		if strings.HasPrefix(ref.Name, p) {
			return true
		}
	}
	return false
}

// isRead says whether a replica could answer: nothing written, locked, drawn or kept.
func (a *analysis) isRead() bool {
	s := a.stmt
	switch s.Kind {
	case sqlparse.Select:
	case sqlparse.Explain:
		if s.Def.NoTx {
			return false
		}
	case sqlparse.Copy:
		if s.Copy.From || !s.Copy.Stdio {
			return false
		}
	default:
		return false
	}
	if s.Query != nil && !pureQuery(s.Query) || len(a.temps) > 0 {
		return false
	}
	if !a.mayReplica(a.calls()) {
		return false
	}
	for _, ref := range s.Tables {
		if nodesOwn(ref) {
			return false
		}
		if n, ok := a.env.find(a.db, a.sch, ref); ok {
			if t := a.table(n); t != nil && (t.Unlogged || t.Kind == 'S') {
				return false
			}
			if !a.viewMayReplica(a.table(n), map[shardmap.TableName]bool{}) {
				return false
			}
		}
	}
	return true
}

// mayReplica says whether a replica may call these functions.
func (a *analysis) mayReplica(funcs []string) bool {
	return !slices.ContainsFunc(funcs, func(f string) bool { return a.isVolatile(f) || standbyFails[f] })
}

// viewMayReplica says whether a replica may answer what a view asks; nil and other relations it may.
func (a *analysis) viewMayReplica(t *schema.Table, seen map[shardmap.TableName]bool) bool {
	if t == nil || t.Kind != 'v' || seen[t.TableName] {
		return true
	}
	seen[t.TableName] = true
	v := parseView(t)
	if v == nil || !a.mayReplica(v.Funcs) || slices.ContainsFunc(v.Tables, nodesOwn) {
		return false
	}
	return !slices.ContainsFunc(t.Reads, func(n shardmap.TableName) bool { return !a.viewMayReplica(a.table(n), seen) })
}

func pureQuery(q *sqlparse.Query) bool {
	if q.Cmd != sqlparse.Select || q.Locking || q.Into {
		return false
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
		for _, s := range list {
			if !pureQuery(s) {
				return false
			}
		}
	}
	for _, r := range q.Rels {
		if r.Sub != nil && !pureQuery(r.Sub) {
			return false
		}
	}
	return true
}
