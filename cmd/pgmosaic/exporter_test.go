package main

import (
	"database/sql"
	"strconv"
	"testing"

	_ "github.com/lib/pq" // the driver of the common exporters for PgBouncer
)

// What prometheus-community's exporter for PgBouncer reads, as it reads it: by lib/pq, which prepares nothing when
// there are no arguments, every value beside the labels as a number.
func TestConsoleFeedsPgBouncersExporters(t *testing.T) {
	d := shop(t)
	mustExec(t, connectTo(t, d.shopDSN()), "select 1")
	db, err := sql.Open("postgres", d.adminDSN()[:len(d.adminDSN())-len("pgmosaic")]+"pgbouncer?sslmode=disable&extra_float_digits=3")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	var version string
	if err := db.QueryRow("SHOW VERSION;").Scan(&version); err != nil || version == "" {
		t.Fatalf("%q %v", version, err)
	}
	labels := map[string]bool{
		"name": true, "host": true, "port": true, "database": true, "force_user": true, "pool_mode": true, "user": true, "load_balance_hosts": true, "home": true,
	}
	for query, want := range map[string][]string{
		"SHOW STATS;":        {"total_xact_count", "total_query_count", "total_received", "total_sent", "total_xact_time", "total_query_time", "total_wait_time", "avg_xact_time"},
		"SHOW STATS_TOTALS;": {"query_count", "query_time", "bytes_received", "bytes_sent", "wait_time", "xact_count", "xact_time"},
		"SHOW POOLS;":        {"cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us", "cl_active_cancel_req", "cl_waiting_cancel_req"},
		"SHOW DATABASES;":    {"pool_size", "reserve_pool_size", "max_connections", "current_connections", "paused", "disabled"},
	} {
		rows, err := db.Query(query)
		if err != nil {
			t.Errorf("%s %v", query, err)
			continue
		}
		cols, _ := rows.Columns()
		seen := map[string]bool{}
		for rows.Next() {
			vals := make([]any, len(cols))
			for i := range vals {
				vals[i] = new(sql.NullString)
			}
			if err := rows.Scan(vals...); err != nil {
				t.Fatal(err)
			}
			for i, c := range cols {
				v := vals[i].(*sql.NullString)
				if _, err := strconv.ParseFloat(v.String, 64); err != nil && !labels[c] {
					t.Errorf("%s %s is no number: %q", query, c, v.String)
				}
				seen[c] = true
			}
		}
		_ = rows.Close()
		for _, c := range want {
			if !seen[c] {
				t.Errorf("%s has no column %s", query, c)
			}
		}
	}
	for query, keys := range map[string][]string{
		"SHOW LISTS;":  {"databases", "users", "pools", "free_clients", "used_clients", "login_clients", "free_servers", "used_servers"},
		"SHOW CONFIG;": {"max_client_conn", "max_user_connections"},
	} {
		rows, err := db.Query(query)
		if err != nil {
			t.Errorf("%s %v", query, err)
			continue
		}
		cols, _ := rows.Columns()
		got := map[string]string{}
		for rows.Next() {
			vals := make([]any, len(cols))
			for i := range vals {
				vals[i] = new(sql.NullString)
			}
			if err := rows.Scan(vals...); err != nil {
				t.Fatal(err)
			}
			got[vals[0].(*sql.NullString).String] = vals[1].(*sql.NullString).String
		}
		_ = rows.Close()
		for _, k := range keys {
			if _, err := strconv.ParseFloat(got[k], 64); err != nil {
				t.Errorf("%s %s is no number: %q", query, k, got[k])
			}
		}
	}
}
