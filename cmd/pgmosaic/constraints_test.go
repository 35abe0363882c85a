package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SET CONSTRAINTS is for all shards of the transaction, those too that join behind it, and its isolation may still be chosen behind it, as on PostgreSQL.
func TestSetConstraintsLikePostgreSQL(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "putoff")
	mustExec(t, c, "create table late (s int not null, id int not null, constraint late_once unique (s, id) deferrable)")
	d.adminExec(t, "DISTRIBUTE TABLE putoff.public.late IN GROUP g KEY (s)")
	freshDatabase(t, d.cluster.Node("s1-a"), "putoff_direct")
	direct := connectTo(t, d.cluster.Node("s1-a").DSN("putoff_direct"))
	mustExec(t, direct, "create table late (s int not null, id int not null, constraint late_once unique (s, id) deferrable); create table b (s int, id int); insert into b select i % 3, i from generate_series(0, 29) i", pgx.QueryExecModeSimpleProtocol)
	for _, script := range [][]string{
		{"begin", "set constraints all deferred", "set transaction isolation level repeatable read", "show transaction_isolation", "commit"},
		{"begin", "set constraints all deferred", "begin isolation level serializable", "show transaction_isolation", "commit"},
		{"begin", "set constraints late_once deferred", "set transaction isolation level repeatable read", "show transaction_isolation", "commit"},
		{"begin", "set constraints all deferred", "insert into late values (0, 1)", "insert into late values (0, 1)", "delete from late where s = 0", "commit"},
		{"begin", "set constraints all deferred", "insert into late values (1, 1)", "insert into late values (1, 1)", "delete from late where s = 1", "commit"},
		{"begin", "set constraints all deferred", "insert into late values (0, 1), (1, 1)", "insert into late values (2, 1)", "insert into late values (2, 1)", "delete from late where id = 1", "commit"},
		{"begin", "insert into late values (2, 1)", "set constraints late_once deferred", "insert into late values (2, 1)", "set constraints all immediate", "rollback"},
		{"begin", "insert into late values (1, 1)", "set constraints all deferred", "insert into late values (1, 1)", "commit"},
		{"begin", "savepoint x", "set constraints all deferred", "rollback to x", "insert into late values (1, 1)", "insert into late values (1, 1)", "rollback"},
		{"begin", "set constraints nosuch deferred", "rollback"},
		{"begin", "set constraints all deferred", "select count(*) from b where s = 1", "set constraints all immediate", "insert into late values (2, 1), (2, 1)", "rollback"},
		{"set constraints all deferred", "insert into late values (1, 7), (1, 7)"},
		{"begin", "set transaction isolation level repeatable read", "set constraints all deferred", "insert into late values (1, 1)", "commit", "delete from late"},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			var told [2][]string
			for i, on := range []*pgx.Conn{direct, c} {
				for _, sql := range script {
					rows, err := on.Query(t.Context(), sql, mode)
					got := ""
					if err == nil {
						for rows.Next() {
							vals, _ := rows.Values()
							got += fmt.Sprint(vals)
						}
						rows.Close()
						err = rows.Err()
						got += rows.CommandTag().String()
					}
					var pe *pgconn.PgError
					if errors.As(err, &pe) {
						got = pe.Code
					} else if err != nil {
						t.Fatal(err)
					}
					told[i] = append(told[i], got)
				}
				_, _ = on.Exec(t.Context(), "rollback")
			}
			if fmt.Sprint(told[0]) != fmt.Sprint(told[1]) {
				t.Errorf("%s: %q\ngot  %q\nwant %q", mode, script, told[1], told[0])
			}
		}
	}
}
