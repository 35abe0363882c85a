package main

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// pinning begins a PIN KEY, and returns once a table of the group is held back. What becomes of it is told.
func (d *demo) pinning(t *testing.T, sql, database, table string) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), sql, false)
		done <- err
	}()
	eventually(t, "the group is announced", func() bool {
		return d.Catalog.Current().Databases[database].Tables[shardmap.TableName{Schema: "public", Name: table}].Moving
	})
	return done
}

// A portal that waits here for its Execute keeps the map that it was bound by, also where the session then asks for a name that it does
// not know yet: it would look for keys where they were.
func TestBoundPortalsKeepTheirMapWhereNamesAreLearnt(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "learnt")
	mustExec(t, c, "create table h (id int primary key, n int)")
	mustExec(t, c, "insert into h select i, i from generate_series(1, 9) i")
	d.adminExec(t, "CREATE GROUP g IN learnt KEY (int) BY LIST ((1000) ON learnt_s0, DEFAULT ON learnt_s1)")
	d.adminExec(t, "DISTRIBUTE TABLE learnt.public.h IN GROUP g KEY (id)")
	d.adminExec(t, "PIN KEY (2000) OF learnt.g ON learnt_s2")
	r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "learnt"))
	r.SendQuery("begin")
	r.want('Z', "C<BEGIN>ZT")
	r.SendParse("", "delete from h where id in (1000, 3)", nil)
	r.SendBind("p", "", []byte{0, 0, 0, 0, 0, 0})
	r.SendSync()
	r.want('Z', "12ZT")
	done := d.pinning(t, "PIN KEY (1000) OF learnt.g ON learnt_s2", "learnt", "h")
	mustExec(t, d.on(t, "learnt", 0), "create table unseen (a int); insert into unseen values (1); grant all on unseen to public")
	r.SendQuery("select a from unseen")
	r.want('Z', "TD(1)C<SELECT 1>ZT")
	if left := d.Using("learnt", d.Catalog.Current().Version); len(left) != 1 || len(done) > 0 {
		t.Errorf("the portal is not waited for: %d clients, %d done", len(left), len(done))
	}
	r.executeLimited("p", 0)
	r.SendSync()
	r.want('Z', "C<DELETE 1>ZT")
	r.SendQuery("commit")
	r.want('Z', "C<COMMIT>ZI")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Nor does the session wait for a newer map, for the sake of a table that is held back, while a portal needs the one that it has.
func TestBoundPortalsKeepTheirMapWhereOthersWait(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "boundwait")
	for _, table := range []string{"h", "l"} {
		mustExec(t, c, "create table "+table+" (id int primary key)")
		d.adminExec(t, "CREATE GROUP "+table+" IN boundwait KEY (int) BY HASH")
		d.adminExec(t, "DISTRIBUTE TABLE boundwait.public."+table+" IN GROUP "+table+" KEY (id)")
	}
	held, err := d.on(t, "boundwait", 0).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.Exec(t.Context(), "lock table l in access share mode"); err != nil {
		t.Fatal(err)
	}
	to := "boundwait_s0"
	if d.adminExec(t, "LOCATE KEY (1000) OF boundwait.l")[0][4] == to {
		to = "boundwait_s1"
	}
	done := d.pinning(t, "PIN KEY (1000) OF boundwait.l ON "+to, "boundwait", "l")
	r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "boundwait"))
	r.SendQuery("begin")
	r.want('Z', "C<BEGIN>ZT")
	r.SendParse("", "select count(*) from h", nil)
	r.SendBind("p", "", []byte{0, 0, 0, 0, 0, 0})
	r.SendSync()
	r.want('Z', "12ZT")
	r.SendQuery("select id from l where id = 1")
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	_ = held.Rollback(t.Context())
	r.want('Z', "E[55006]ZE")
	r.SendQuery("rollback")
	r.want('Z', "C<ROLLBACK>ZI")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
