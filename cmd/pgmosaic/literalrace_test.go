package main

import (
	"fmt"
	"strings"
	"testing"
)

// careful is what tells whose rights a CHECK runs with, if they are a superuser's.
const careful = `create function %sf(int) returns boolean language plpgsql as $$ begin
	if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then raise exception 'it ran as %%', current_user; end if; return true; end $$`

// Who changes a definition to and fro while CREATE SHARD reads home has none of it run with the rights of the node's role.
func TestADefinitionThatIsChangedWhileItIsReadIsReadAgain(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "toandfro")
	home, node := d.on(t, "toandfro", 0), d.cluster.Node("s2-a")
	mustExec(t, home, "create schema code authorization app")
	mustExec(t, home, "set role app")
	const g = "create or replace function code.g(p code.pair default "
	const rest = ") returns int language sql as 'select 1'"
	for _, sql := range []string{
		fmt.Sprintf(careful, "code."), "create domain code.positive as int check (code.f(value))", "create type code.pair as (x code.positive)", g + "'(1)'" + rest,
	} {
		mustExec(t, home, sql)
	}
	freshDatabase(t, node, "toandfro_3")
	create := "CREATE SHARD toandfro_s3 IN toandfro NODE '" + node.DSN("toandfro_3") + "' NAME toandfro_n3 DRY RUN"
	d.adminExec(t, create) // it is made as its owner
	shard, watcher := connectTo(t, node.DSN("toandfro_3")), connectTo(t, node.DSN("postgres"))
	mustExec(t, shard, "begin")
	mustExec(t, shard, "create schema code") // for which CREATE SHARD waits, behind what it has read first
	result := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), create, false)
		result <- err
	}()
	eventually(t, "CREATE SHARD waits for the schema", func() bool {
		return queryOne[bool](t, watcher, "select exists (select from pg_stat_activity where datname = 'toandfro_3' and wait_event_type = 'Lock' and query like 'CREATE SCHEMA %')")
	})
	mustExec(t, home, g+"null"+rest)
	mustExec(t, shard, "rollback")
	if err := <-result; err != nil { // it is read again
		t.Error(err)
	}
}

// Nor has who changes a trigger while CREATE SHARD waits for the table: it looks at what it is then.
func TestATriggerThatIsChangedBeforeItIsReadIsLookedAt(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "lookedat")
	for _, sql := range []string{
		fmt.Sprintf(careful, ""), "create domain positive as int check (public.f(value))", "create type pair as (x positive)",
		"create function nothing() returns trigger language plpgsql as 'begin return new; end'", "create table kept (k int primary key)",
		"create trigger w before insert on kept for each row when (new.k > 1) execute function nothing()",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN lookedat KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE lookedat.public.kept IN GROUP g KEY (k)")
	home, watcher, node := d.on(t, "lookedat", 0), d.on(t, "lookedat", 0), d.cluster.Node("s2-a")
	freshDatabase(t, node, "lookedat_3")
	mustExec(t, home, "begin")
	mustExec(t, home, "lock table kept in share update exclusive mode")
	result := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "CREATE SHARD lookedat_s3 IN lookedat NODE '"+node.DSN("lookedat_3")+"' NAME lookedat_n3", false)
		result <- err
	}()
	eventually(t, "CREATE SHARD waits for the table", func() bool {
		return queryOne[bool](t, watcher, "select exists (select from pg_locks where relation = 'kept'::regclass and not granted)")
	})
	mustExec(t, home, "set local role app")
	mustExec(t, home, "create or replace trigger w before insert on kept for each row when (new.k > ('(1)'::pair).x) execute function nothing()")
	mustExec(t, home, "commit")
	if err := <-result; err == nil || !strings.Contains(err.Error(), "holds a literal") {
		t.Errorf("error %v", err)
	}
}
