package admin

import "testing"

func TestWhatAStatementShowsOfItself(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"\n CREATE  SHARD a -- with secret\n IN db NODE 'postgres://u:pw@h:1/d' NAME n": "CREATE SHARD a IN db NODE 'postgres://u:xxxxx@h:1/d' NAME n",
		"CREATE SHARD a IN \"My DB\" NODE 'host=h password=pw user=u'":                  "CREATE SHARD a IN \"My DB\" NODE 'host=h password=xxxxx user=u'",
		"create group g in db key(int) by list (('a', 'b') on s,DEFAULT ON t)":          "create group g in db key(int) by list (('a', 'b') on s,DEFAULT ON t)",
		"SET auth_query = 'select pw'":                                                  "SET auth_query = 'xxxxx'",
		"CREATE SHARD a IN db NODE 'postgres://u:pw@h":                                  "CREATE SHARD a IN db NODE ..",
		"CREATE SHARD Å IN db -- the end, pw":                                           "CREATE SHARD Å IN db",
		"":                                                                              "",
	} {
		if got := Shown(sql); got != want {
			t.Errorf("%q: %q, want %q", sql, got, want)
		}
	}
}

func TestWhichStatementsMoveData(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]bool{
		"CREATE DATABASE db": false, "CREATE SHARD a IN db NODE 'x'": false, "ALTER SHARD a IN db ADD NODE 'x'": false, "SHOW TABLES": false, "SET pool_mode = session": false,
		"ALTER SHARD a IN db ADOPT": true, "DISTRIBUTE TABLE db.t AS REFERENCE": true, "UNDISTRIBUTE SCHEMA db.s": true, "distribute schema db.s on a": true,
	} {
		if moves, err := Check(&Admin{}, sql); err != nil || moves != want {
			t.Errorf("%s: %t, %v", sql, moves, err)
		}
	}
	for _, sql := range []string{"CREATE TABLE t", "CREATE SHARD a IN db NODE 'x", "DROP", "CREATE DATABASE a b"} {
		if _, err := Check(&Admin{}, sql); err == nil {
			t.Errorf("%s: it can be read", sql)
		}
	}
}
