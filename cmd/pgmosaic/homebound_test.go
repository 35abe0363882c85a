package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// homeboundWorld has functions of triggers that use what home alone has, and such that do not.
func homeboundWorld(t *testing.T, name string) (*demo, *pgx.Conn) {
	d, c := temporaryWorld(t, name)
	for _, sql := range []string{
		"create table audit (what text)", "create sequence numbers", "create view audits as select * from audit", "create table \"Ledger\" (what text)",
		"create function writes_audit() returns trigger language plpgsql as $$ begin insert into audit values (tg_op); return coalesce(new, old); end $$",
		"create function reads_audit() returns trigger language plpgsql as $$ begin new.note = (select count(*) from public.audit); return new; end $$",
		"create function count_audit() returns bigint stable language sql as 'select count(*) from audit'",
		"create function calls_reads() returns trigger language plpgsql as $$ begin new.note = count_audit(); return new; end $$",
		"create function draws() returns trigger language plpgsql as $$ begin new.note = nextval('numbers'); return new; end $$",
		"create function sees() returns trigger language plpgsql as $$ begin perform from audits; return new; end $$",
		"create function books() returns trigger language plpgsql as $$ begin insert into \"Ledger\" values (tg_op); return new; end $$",
		"create function marks() returns trigger language plpgsql as $$ begin new.note = upper(new.note); new.audit = coalesce(old.audit, 0) + 1; return new; end $$",
		"create function counts() returns trigger language plpgsql as $$ begin new.note = nextval('things_n_seq'); return new; end $$",
		"create function judges(int) returns bool language plpgsql as $$ begin return exists (select from audit) or true; end $$",
	} {
		mustExec(t, c, sql)
	}
	return d, c
}

// What a sharded table's triggers and CHECKs run is run on the shards of its rows, which have no tables of home's alone, or others of
// their names: a write that would run such code is refused, wherever its rows are.
func TestTriggersOfShardedTablesUseNothingOfHomes(t *testing.T) {
	t.Parallel()
	d, c := homeboundWorld(t, "homebound")
	mustExec(t, c, "create table things (k int primary key, n serial, note text, audit int)")
	mustExec(t, c, "create table kin (k int primary key references things on delete cascade)")
	for _, n := range []string{"things", "kin"} {
		mustExec(t, c, "alter table kin drop constraint if exists kin_k_fkey")
		d.adminExec(t, "DISTRIBUTE TABLE homebound.public."+n+" IN GROUP g KEY (k)")
	}
	mustExec(t, c, "alter table kin add foreign key (k) references things on delete cascade")
	for i := range 3 {
		if i > 0 {
			mustExec(t, d.on(t, "homebound", i), "create table audit (what text); grant all on audit to public") // around the proxy: of the name of home's
		}
	}
	mustExec(t, c, "insert into things select g, g from generate_series(1, 20) g")
	mustExec(t, c, "insert into kin select g from generate_series(1, 20) g")
	for _, x := range []struct{ trigger, sql, want string }{
		{"before insert on things for each row execute function writes_audit()", "insert into things (k) values ($1)", "home-bound"},
		{"after insert on things for each statement execute function writes_audit()", "insert into things (k) values ($1)", "home-bound"},
		{"after insert on things for each row execute function writes_audit()", "update things set note = 'x' where k = $1", "UPDATE 1"},
		{"before insert or update on things for each row execute function reads_audit()", "update things set note = 'x' where k = $1", "home-bound"},
		{"before update on things for each row execute function calls_reads()", "update things set note = 'x' where k = $1", "home-bound"},
		{"before update on things for each row execute function draws()", "update things set note = 'x' where k = $1", "home-bound"},
		{"before update on things for each row execute function sees()", "update things set note = 'x' where k = $1", "home-bound"},
		{"before update on things for each row execute function books()", "update things set note = 'x' where k = $1", "home-bound"},
		{"before update on things for each row execute function marks()", "update things set note = 'x' where k = $1", "UPDATE 1"},
		{"before update on things for each row execute function counts()", "update things set note = 'x' where k = $1", "UPDATE 1"},
		{"after delete on kin for each row execute function writes_audit()", "delete from things where k = $1", "home-bound"},
		{"after delete on kin for each row execute function writes_audit()", "update things set note = 'x' where k = $1", "UPDATE 1"},
	} {
		table := "things"
		if strings.Contains(x.trigger, " on kin ") {
			table = "kin"
		}
		mustExec(t, c, "create trigger x "+x.trigger)
		for _, k := range []string{"11", "12", "13", "14"} { // on several shards
			if strings.HasPrefix(x.sql, "insert") {
				k += "00"
			}
			sql := strings.ReplaceAll(x.sql, "$1", k)
			tag, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			switch {
			case x.want == "home-bound" && pgCode(err) != "0A000" || x.want != "home-bound" && tag.String() != x.want:
				t.Errorf("%s: %s: %v %v, want %s", x.trigger, sql, tag, err, x.want)
			case x.want == "home-bound":
				wantRule(t, err, x.want, "0A000")
			}
		}
		mustExec(t, c, "drop trigger x on "+table)
	}
	// a function that is replaced, and one that the admin speaks for
	const update = "update things set note = 'x' where k = 3"
	mustExec(t, c, "create trigger x before update on things for each row execute function marks()")
	mustExec(t, c, update)
	mustExec(t, c, "create or replace function marks() returns trigger language plpgsql as $$ begin perform from audit; return new; end $$")
	_, err := c.Exec(t.Context(), update)
	wantRule(t, err, "home-bound", "0A000")
	_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("900\n"), "copy things (k) from stdin")
	if err != nil {
		t.Errorf("COPY fires no trigger for updates: %v", err)
	}
	d.adminExec(t, "ALTER ROUTINE homebound.public.marks SHARD SAFE")
	mustExec(t, c, update)
	d.adminExec(t, "ALTER ROUTINE homebound.public.marks NOT SHARD SAFE")
	mustExec(t, c, "create trigger y before insert on things for each row execute function marks()")
	_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("901\n"), "copy things (k) from stdin")
	wantRule(t, err, "home-bound", "0A000")
	mustExec(t, c, "drop trigger x on things")
	mustExec(t, c, "drop trigger y on things")
	mustExec(t, c, "alter table things add check (judges(k)) not valid")
	_, err = c.Exec(t.Context(), update)
	wantRule(t, err, "home-bound", "0A000")
	for i := range 3 {
		if n := queryOne[int](t, d.on(t, "homebound", i), "select count(*) from audit"); n != 0 {
			t.Errorf("shard %d has %d rows in what home's table is called", i, n)
		}
	}
}

// A table is not distributed whose triggers use what home alone has; the table itself, and what goes with it, is none of that.
func TestDistributeRefusesTriggersThatUseHomesTables(t *testing.T) {
	t.Parallel()
	d, c := homeboundWorld(t, "homedist")
	for _, sql := range []string{
		"create table things (k int primary key, n serial, note text, audit int)", "create trigger x before update on things for each row execute function calls_reads()",
		"create function counts_things() returns trigger language plpgsql as $$ begin new.note = (select count(*) from own where k = new.k); return new; end $$",
		"create table own (k int primary key, note text)", "create trigger x before update on own for each row execute function counts_things()",
		"create table days (k int, n int, note text, primary key (k, n)) partition by range (n)", "create table days_1 partition of days for values from (0) to (100)", "create trigger x before insert on days_1 for each row execute function writes_audit()",
		"create table coded (k int primary key, note text)", "create function codes_it() returns trigger language plpgsql as $$ begin perform from codes; return new; end $$", "create trigger x before insert on coded for each row execute function codes_it()",
		"create schema t1", "create table t1.audit (k int)", "create table t1.a (k int primary key)", "create table t1.b (k int primary key)",
		"create function t1.to_b() returns trigger language plpgsql as $$ begin insert into t1.b values (new.k); insert into t1.audit values (new.k); return new; end $$", "create trigger x after insert on t1.a for each row execute function t1.to_b()",
		"create schema t2", "create table t2.a (k int primary key)", "create trigger x after insert on t2.a for each row execute function writes_audit()",
		"create table codes2 (k int primary key)", "create trigger x after insert on codes2 for each row execute function writes_audit()",
	} {
		mustExec(t, c, sql)
	}
	refused := func(sql, function string) {
		t.Helper()
		for _, end := range []string{" DRY RUN", ""} {
			_, err := d.Admin.Exec(t.Context(), sql+end, false)
			var e interface{ SQLState() string }
			if !errors.As(err, &e) || e.SQLState() != pgsql.FeatureNotSupported || !strings.Contains(err.Error(), "function "+function) || !strings.Contains(err.Error(), "audit") {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	refused("DISTRIBUTE TABLE homedist.public.things IN GROUP g KEY (k)", "count_audit")
	refused("DISTRIBUTE TABLE homedist.public.days IN GROUP g KEY (k)", "writes_audit")
	refused("DISTRIBUTE SCHEMA homedist.t2 ON homedist_s1", "writes_audit")
	d.adminExec(t, "DISTRIBUTE SCHEMA homedist.t2 ON homedist_s0") // which is home
	mustExec(t, c, "insert into t2.a values (1)")
	if n := queryOne[int](t, c, "select count(*) from audit"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	d.adminExec(t, "DISTRIBUTE SCHEMA homedist.t1 ON homedist_s1")
	d.adminExec(t, "DISTRIBUTE TABLE homedist.public.own IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE homedist.public.coded IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE homedist.public.codes2 AS REFERENCE") // whose writes are refused
	d.adminExec(t, "ALTER ROUTINE homedist.public.calls_reads SHARD SAFE")
	d.adminExec(t, "DISTRIBUTE TABLE homedist.public.things IN GROUP g KEY (k)")
	mustExec(t, c, "drop trigger x on days_1")
	d.adminExec(t, "DISTRIBUTE TABLE homedist.public.days IN GROUP g KEY (k)")
}
