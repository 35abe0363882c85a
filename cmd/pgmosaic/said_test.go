package main

import "testing"

// What is said of a table beside its columns is said of its copies: VERIFY SCHEMA finds nothing.
func TestCopiesHaveAllThatIsSaidOfATable(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "said")
	for _, sql := range []string{
		"create table codes (code int primary key, v int) with (fillfactor = 70, autovacuum_enabled = false)", "grant select (v) on codes to public", "grant update (v), references (code) on codes to public",
		"grant select on codes to pg_monitor with grant option", "alter table codes replica identity full",
		"create unique index apart on codes (v)", "alter table codes alter v set not null", "create table keyed (id int primary key, code int not null unique, v int) with (fillfactor = 80)", "alter table keyed replica identity using index keyed_code_key", "alter table keyed cluster on keyed_pkey",
		"grant select (v), insert (id) on keyed to pg_monitor with grant option", "insert into keyed values (1, 1, 1), (2, 2, 2), (3, 3, 3)", "insert into codes values (1, 1)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE said.public.codes AS REFERENCE")
	d.adminExec(t, "CREATE GROUP g IN said KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE said.public.keyed IN GROUP g KEY (id) ALLOW LOCAL UNIQUE")
	for _, row := range d.adminExec(t, "VERIFY SCHEMA IN said") {
		t.Errorf("%v", row)
	}
	d.adminExec(t, "UNDISTRIBUTE TABLE said.public.keyed")
	d.adminExec(t, "UNDISTRIBUTE TABLE said.public.codes")
}
