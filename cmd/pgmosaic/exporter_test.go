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
	t.Parallel()
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
		cols, rows := texts(t, db, query)
		seen := map[string]bool{}
		for _, row := range rows {
			for i, c := range cols {
				if _, err := strconv.ParseFloat(row[i], 64); err != nil && !labels[c] {
					t.Errorf("%s %s is no number: %q", query, c, row[i])
				}
				seen[c] = true
			}
		}
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
		_, rows := texts(t, db, query)
		got := map[string]string{}
		for _, row := range rows {
			got[row[0]] = row[1]
		}
		for _, k := range keys {
			if _, err := strconv.ParseFloat(got[k], 64); err != nil {
				t.Errorf("%s %s is no number: %q", query, k, got[k])
			}
		}
	}
}

// texts reads a result whole, as the exporter does.
func texts(t *testing.T, db *sql.DB, query string) (cols []string, out [][]string) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%s %v", query, err)
	}
	defer func() { _ = rows.Close() }()
	cols, _ = rows.Columns()
	for rows.Next() {
		vals, row := make([]any, len(cols)), make([]string, len(cols))
		for i := range vals {
			vals[i] = new(sql.NullString)
		}
		if err := rows.Scan(vals...); err != nil {
			t.Fatal(err)
		}
		for i, v := range vals {
			row[i] = v.(*sql.NullString).String
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return cols, out
}
