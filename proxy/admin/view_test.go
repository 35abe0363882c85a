package admin

import "testing"

func TestColumnsAreCalledAsTheirFields(t *testing.T) {
	for field, want := range map[string]string{
		"Database": "database", "KeyType": "key_type", "DSN": "dsn", "ReplayLSN": "replay_lsn", "LagMs": "lag_ms", "LastSeenMs": "last_seen_ms", "GID": "gid", "TLS": "tls",
		"MapVersion": "map_version", "ClActiveCancelReq": "cl_active_cancel_req", "SQLState": "sql_state", "PIDOf": "pid_of", "ID": "id",
	} {
		if got := columnOf(field); got != want {
			t.Errorf("%s is %s, not %s", field, got, want)
		}
	}
}

// Fields of an embedded struct are columns at its place.
func TestEmbeddedRows(t *testing.T) {
	type common struct{ A, B int }
	type row struct {
		common
		C any
	}
	table("embedded", "", func(*Admin) []row { return []row{{common{1, 2}, nil}} })
	defer delete(Views, "embedded")
	v := Views["embedded"]
	rows := v.Rows(nil)
	if len(v.Columns) != 3 || v.Columns[0] != "a" || v.Columns[2] != "c" || len(rows) != 1 || rows[0][1] != 2 || rows[0][2] != nil {
		t.Errorf("%v %v", v.Columns, rows)
	}
}

func TestConnectionStringsWithoutPasswords(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://u:hunter2@h/d":                               "postgres://u:xxxxx@h/d",
		"postgres://u@h/d?sslkey=/k&sslpassword=hunter2":         "postgres://u@h/d?sslkey=%2Fk&sslpassword=xxxxx",
		"postgres://u@h/d?Password=hunter2":                      "postgres://u@h/d?Password=xxxxx",
		"postgres://u:hunter2@[::1]:5432,h2/d":                   "postgres://u:xxxxx@[::1]:5432,h2/d",
		"postgresql://u:hun@ter2@[::1],h2/d?sslpassword=hunter":  "postgresql://u:xxxxx@[::1],h2/d?sslpassword=xxxxx",
		"postgres://[::1]:5432,h2/d?user=u&password=hunter2&a=b": "postgres://[::1]:5432,h2/d?user=u&password=xxxxx&a=b",
		"postgres://u@h/d?a=%zz&password=hunter2;x":              "postgres://u@h/d?a=%zz&password=xxxxx",
		"postgres://u:hunter2%@h/d":                              "postgres://u:xxxxx@h/d",
		"https://u:hunter2%@h/d":                                 "https://xxxxx",
		"host=h password=hunter2 user=u":                         "host=h password=xxxxx user=u",
		`host=h password='hunt\'er2 x' user=u`:                   "host=h password=xxxxx user=u",
		`host=h password=hunt\ er2 user=u`:                       "host=h password=xxxxx user=u",
		"host=h sslkey=/k sslpassword = hunter2 sslmode=prefer":  "host=h sslkey=/k sslpassword = xxxxx sslmode=prefer",
	} {
		if got := maskDSN(dsn); got != want {
			t.Errorf("%s is shown as %s", dsn, got)
		}
	}
}
