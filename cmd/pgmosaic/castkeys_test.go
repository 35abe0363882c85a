package main

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A parameter in a cast is of the type that it is declared or found to be of: what it finds and changes by a key is what it does on one PostgreSQL, or it
// is refused.
func TestACastParameterFindsWhatItFindsOnOnePostgreSQL(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "castkeys")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("castkeys_0"))
	d.adminExec(t, "CREATE GROUP w IN castkeys KEY (text) BY HASH")
	d.adminExec(t, "CREATE GROUP i IN castkeys KEY (bigint) BY HASH")
	for _, table := range []string{"words (k text", "ids (k bigint"} {
		mustExec(t, c, "create table "+table+" primary key, n int)")
		mustExec(t, one, "create table public.oracle_"+table+" primary key, n int)")
	}
	d.adminExec(t, "DISTRIBUTE TABLE castkeys.public.words IN GROUP w KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE castkeys.public.ids IN GROUP i KEY (k)")
	for conn, prefix := range map[*pgx.Conn]string{c: "", one: "oracle_"} {
		for i := 1000; i < 1020; i++ {
			mustExec(t, conn, fmt.Sprintf("insert into %swords values ('%d', %[2]d), ('0%[2]d', -%[2]d)", prefix, i))
			mustExec(t, conn, fmt.Sprintf("insert into %sids values (%d, %[2]d)", prefix, i))
		}
	}
	for i, x := range []struct {
		sql    string // %s is the table
		oid    uint32
		value  func(i int) []byte
		format int16
		must   bool // it is answered
	}{
		{"select n from %swords where k = $1::text", 23, func(i int) []byte { return fmt.Appendf(nil, "0%d", i) }, 0, false},
		{"select n from %swords where k = $1::text", 23, func(i int) []byte { return []byte{0, 0, byte(i >> 8), byte(i)} }, 1, false},
		{"select n from %swords where k = $1::text", 25, func(i int) []byte { return fmt.Appendf(nil, "0%d", i) }, 1, true},
		{"select n from %swords where k = $1::text and length($1) = 5", 0, func(i int) []byte { return fmt.Appendf(nil, "0%d", i) }, 0, true},
		{"select n from %swords where n = $1 and k = $1::text", 0, func(i int) []byte { return fmt.Appendf(nil, "0%d", i) }, 0, false},
		{"update %sids set n = n + 1 where k = $1::bigint", 25, func(i int) []byte { return fmt.Append(nil, i) }, 1, true},
		{"update %sids set n = n + 1 where k = $1::bigint", 21, func(i int) []byte { return []byte{byte(i >> 8), byte(i)} }, 1, true},
		{"update %sids set n = n + 1 where k = $1::bigint", 1700, func(i int) []byte { return fmt.Appendf(nil, "%d.4", i) }, 0, false},
		{"select k from %sids order by k limit $1::int", 25, func(int) []byte { return []byte("0007") }, 1, true},
		{"select k from %sids order by k offset $1 limit 3", 701, func(int) []byte { return []byte{0x40, 8, 0, 0, 0, 0, 0, 0} }, 1, false},
		{"delete from %sids where k = $1::bigint and $1::bigint > 0", 0, func(i int) []byte { return fmt.Append(nil, i) }, 0, true},
	} {
		for n := 1000; n < 1020; n++ {
			said := map[string]string{}
			for conn, prefix := range map[*pgx.Conn]string{c: "", one: "oracle_"} {
				r := conn.PgConn().ExecParams(t.Context(), fmt.Sprintf(x.sql, prefix), [][]byte{x.value(n)}, []uint32{x.oid}, []int16{x.format}, nil).Read()
				said[prefix] = fmt.Sprintf("%s %s %q", pgCode(r.Err), r.CommandTag, r.Rows)
				if prefix == "" && pgCode(r.Err) == "0A000" && !x.must {
					said[prefix] = "refused"
				}
			}
			if said[""] != said["oracle_"] && said[""] != "refused" {
				t.Errorf("%d, %s with %q: %s, and PostgreSQL says %s", i, x.sql, x.value(n), said[""], said["oracle_"])
			}
		}
	}
	for conn, prefix := range map[*pgx.Conn]string{c: "", one: "oracle_"} {
		mustExec(t, conn, "prepare p(int) as select n from "+prefix+"words where k = $1::text", pgx.QueryExecModeSimpleProtocol)
		mustExec(t, conn, "prepare q(text) as select n from "+prefix+"words where k = $1", pgx.QueryExecModeSimpleProtocol)
	}
	for n := 1000; n < 1020; n++ {
		for _, sql := range []string{fmt.Sprintf("execute p('0%d')", n), fmt.Sprintf("execute q(0000000000000%d)", n)} {
			want, got := ask2(t, one, sql, pgx.QueryExecModeSimpleProtocol), ask2(t, c, sql, pgx.QueryExecModeSimpleProtocol)
			if why := differs(sql, want, got); why != "" && (got.code != "0A000" || sql[8] == 'q') {
				t.Errorf("%s: %s", sql, why)
			}
		}
	}
}
