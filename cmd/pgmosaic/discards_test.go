package main

import "testing"

// DISCARD TEMP is undone with its transaction, or the part of it behind a savepoint: also where it is the first statement.
func TestDiscardTempIsUndoneWithItsTransaction(t *testing.T) {
	t.Parallel()
	made := "create temp table x (a int); insert into x values (1); "
	scripts(t, "discards", []string{
		made + "begin; discard temp; rollback; select count(*) from x",
		made + "begin; discard temp; select count(*) from x; rollback; select count(*) from x",
		made + "begin; discard temp; commit; select count(*) from x; create temp table x (b int); select count(*) from x",
		made + "begin; savepoint s; discard temp; rollback to s; select count(*) from x; commit; select count(*) from x",
		made + "begin; select i from parts where k = 1; discard temp; rollback; select count(*) from x; discard temp; select count(*) from x",
		"begin; discard temp; rollback; start transaction; commit; begin; start transaction; rollback; START TRANSACTION READ ONLY; commit",
	})
}
