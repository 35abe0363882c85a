package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A process that starts takes no server of another cluster for a shard's, though its database says that it is the shard's, as one that was
// restored from a dump does, and though no other answers: the map knows each shard's system. An admin's word makes it the shard's.
func TestAnotherClusterIsNotElected(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "cluster")
	other := d.cluster.Node("s2-a")
	freshDatabase(t, other, "cluster_dump")
	restored := connectTo(t, other.DSN("cluster_dump"))
	mustExec(t, restored, txn.Schema(0, 1))
	mustExec(t, restored, "create table local (a int); create table codes (code text primary key); create table parts (k int primary key, i int); insert into local values (42); grant all on all tables in schema public to app")
	mustExec(t, restored, "insert into pgmosaic.identity (installation, database, shard) values ('"+d.Catalog.Current().Install+"', 'cluster', 'cluster_s0')")
	mustExec(t, c, "insert into local values (1)")
	doc := mapOf(d, "cluster")
	for i, n := range doc.Nodes {
		if n.Shard == "cluster_s0" {
			moved := *n
			moved.DSN = other.DSN("cluster_dump")
			doc.Nodes[i] = &moved
		}
	}
	a := startApp(t, crashConfig(t, doc))
	state := func() string {
		v := a.Monitor.View("cluster", "cluster_s0")
		if v == nil || v.Nodes[0].Sample.Sent.IsZero() {
			return ""
		}
		if v.Up() {
			return "up"
		}
		return v.Nodes[0].Verdict.Reason
	}
	eventually(t, "the node was asked", func() bool { return state() != "" })
	if got := state(); !strings.Contains(got, "system identifier") {
		t.Fatalf("the shard is %s", got)
	}
	admin := func(sql string) error { _, err := a.Admin.Exec(t.Context(), sql, false); return err }
	if err := admin("ALTER SHARD cluster_s0 IN cluster ADOPT DRY RUN"); err != nil {
		t.Error(err)
	}
	if err := admin("ALTER SHARD cluster_s0 IN cluster ADD NODE '" + other.DSN("cluster_dump") + "' NAME again"); pgCode(err) == "" {
		t.Error("a node of another system was added")
	}
	if err := admin("ALTER SHARD cluster_s0 IN cluster ADOPT"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shard is up", func() bool { return state() == "up" })
	through := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "cluster"))
	if got := says(t, through, "select a from local", pgx.QueryExecModeExec); got != "42" {
		t.Errorf("it holds %s", got)
	}

	// So with a database of one shard, which says nothing of itself.
	d.adminExec(t, "CREATE DATABASE lone")
	freshDatabase(t, d.cluster.Node("s1-a"), "lone")
	d.adminExec(t, "CREATE SHARD lone IN lone NODE '"+d.cluster.Node("s1-a").DSN("lone")+"' NAME lone")
	t.Cleanup(func() { d.forget(t, "lone") })
	lone := mapOf(d, "lone")
	moved := *lone.Nodes[0]
	moved.DSN = other.DSN("cluster_dump")
	lone.Nodes[0] = &moved
	alone := startApp(t, crashConfig(t, lone))
	reason := func() string { v := alone.Monitor.View("lone", "lone"); return v.Nodes[0].Verdict.Reason }
	eventually(t, "the node was asked", func() bool {
		v := alone.Monitor.View("lone", "lone")
		return v != nil && !v.Nodes[0].Sample.Sent.IsZero()
	})
	if !strings.Contains(reason(), "system identifier") {
		t.Errorf("the lone shard: %s", reason())
	}
	if _, err := alone.Admin.Exec(t.Context(), "ALTER SHARD lone IN lone ADOPT", false); err != nil {
		t.Error(err)
	}
	eventually(t, "the lone shard is up", func() bool { return alone.Monitor.View("lone", "lone").Up() })

	// A map of an older version does not say: it learns from the primary that serves.
	older := mapOf(d, "cluster")
	for i, s := range older.Shards {
		x := *s
		x.System = ""
		older.Shards[i] = &x
	}
	b := startApp(t, crashConfig(t, older))
	eventually(t, "the systems are noted", func() bool {
		for _, s := range b.Catalog.Current().Databases["cluster"].Shards {
			if s.System != systemOf(t, d, "cluster", s) {
				return false
			}
		}
		return true
	})
}

func systemOf(t *testing.T, d *demo, database string, s *shardmap.ShardInfo) string {
	return queryOne[string](t, d.on(t, database, s.Index), "select system_identifier::text from pg_control_system()")
}
