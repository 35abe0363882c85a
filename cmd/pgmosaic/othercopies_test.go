package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Nothing that a write sets off writes another reference table on one shard alone, or in another order than its own writers: triggers, those
// that wait for the end of the transaction, and those that a marked statement brings forward, of functions that the admin has vouched for, too.
func TestTriggersWriteNoOtherCopies(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "set_off")
	mustExec(t, c, "create table names (code text, n int)")
	d.adminExec(t, "DISTRIBUTE TABLE set_off.public.names AS REFERENCE")
	for _, sql := range []string{
		"create function writes() returns trigger language plpgsql as $$ begin execute 'insert into na' || 'mes values (''seen'', (select count(*) from na' || 'mes))'; return new; end $$",
		"create function hurry() returns text immutable language plpgsql as $$ begin execute 'set constraints all immediate'; return 'hurried'; end $$",
	} {
		mustExec(t, c, sql)
	}
	var shards [3]*pgx.Conn
	for i := range shards {
		shards[i] = d.on(t, "set_off", i)
	}
	for _, vouched := range []bool{false, true} {
		if vouched {
			d.adminExec(t, "ALTER ROUTINE set_off.public.writes SHARD SAFE")
			d.adminExec(t, "ALTER ROUTINE set_off.public.hurry SHARD SAFE")
		}
		for _, trigger := range []string{
			"create trigger x after insert on codes for each row execute function writes()", "create trigger x before insert on parts for each row execute function writes()",
			"create constraint trigger x after insert on codes deferrable initially deferred for each row execute function writes()",
			"create constraint trigger x after insert on parts deferrable initially deferred for each row execute function writes()",
		} {
			mustExec(t, c, trigger)
			for _, sql := range []string{
				"insert into codes values ('a')", "with x as (insert into names values ('b', 1) returning code) insert into codes select code from x", "insert into parts values (3000, 1)", "insert into parts values (3000, 1), (3001, 1), (3002, 1), (3003, 1)",
				"begin; insert into codes values ('c'); set constraints all immediate; commit", "begin; insert into parts values (3000, 1); set constraints all immediate; commit",
				"begin; insert into codes values ('d'); commit", "begin; insert into parts values (3000, 1); commit", "begin; insert into parts values (3000, 1), (3001, 1), (3002, 1), (3003, 1); insert into codes values ('e'); commit",
				"begin; insert into parts values (3000, 1); insert into codes values (hurry()); commit", "begin; insert into parts values (3001, 1), (3002, 1), (3003, 1); update codes set code = hurry(); commit",
			} {
				for part := range strings.SplitSeq(sql, "; ") {
					if rows, err := c.Query(t.Context(), part, pgx.QueryExecModeSimpleProtocol); err == nil {
						rows.Close()
					}
				}
				if c.PgConn().TxStatus() != 'I' {
					mustExec(t, c, "rollback")
				}
				if n := queryOne[int](t, c, "select count(*) from names"); n != 0 {
					t.Errorf("vouched %t, %s: %s: %d rows", vouched, trigger, sql, n)
					mustExec(t, c, "delete from names")
				}
				for i := range shards {
					if n := queryOne[int](t, shards[i], "select count(*) from names"); n != 0 {
						t.Fatalf("vouched %t, %s: %s: shard %d holds %d rows", vouched, trigger, sql, i, n)
					}
				}
			}
			table := "parts"
			if strings.Contains(trigger, "on codes") {
				table = "codes"
			}
			mustExec(t, c, "drop trigger x on "+table)
			mustExec(t, c, "delete from codes")
			mustExec(t, c, "delete from parts where k >= 3000")
		}
	}
}
