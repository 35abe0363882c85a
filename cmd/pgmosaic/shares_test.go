package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// keysSent are the keys in the long list of what each shard was sent last of the statements that hold a word, by whichever of its nodes.
func keysSent(t *testing.T, d *demo, word string) (lists [][]string) {
	t.Helper()
	for _, nodes := range [][]string{{"s1-a", "s1-b"}, {"s2-a", "s2-b"}} {
		var last time.Time
		text := ""
		for _, node := range nodes {
			var at time.Time
			var sent string
			c := connectTo(t, d.cluster.Node(node).DSN("shop"))
			err := c.QueryRow(t.Context(), "select query, query_start from pg_stat_activity where position($1 in query) > 0 and pid <> pg_backend_pid() order by query_start desc limit 1", word).Scan(&sent, &at)
			if err == nil && at.After(last) {
				text, last = sent, at
			}
		}
		_, list, _ := strings.Cut(strings.ToLower(text), " in (")
		list, _, _ = strings.Cut(list, ")")
		lists = append(lists, strings.Split(strings.ReplaceAll(list, " ", ""), ","))
	}
	return lists
}

// Of a long list of keys no shard is sent another's, whatever the way that the statement goes.
func TestShardsAreSentTheirOwnKeysOfALongList(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into orders select i, 1, 'listed', 5, '2026-01-01' from generate_series(700001, 700040) i")
	var keys []string
	for i := range 40 {
		keys = append(keys, fmt.Sprint(700001+i))
	}
	list := " in (" + strings.Join(keys, ", ") + ")"
	for i, x := range []string{
		"select status, 'w%d' from orders where customer_id" + list,
		"select status, 'w%d' from orders where customer_id" + list + " order by customer_id desc limit 50",
		"select count(*), min('w%d') from orders where customer_id" + list,
		"select status, 'w%d' from orders where customer_id" + list + " for update",
		"update orders set status = 'w%d' where customer_id" + list,
		"delete from orders where customer_id" + list + " and status <> 'w%d'",
	} {
		for j, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeDescribeExec} {
			word := fmt.Sprintf("'w%d'", 10*i+j)
			sql := strings.Replace(x, "'w%d'", word, 1)
			want := int64(40)
			if strings.HasPrefix(sql, "select count") {
				if n := queryOne[int64](t, c, strings.Replace(sql, ", min("+word+")", "", 1)); n != 40 {
					t.Errorf("%s: %d", sql, n)
				}
				want = 1
			}
			mustExec(t, c, "begin") // a commit would be the last that a writer's server was sent
			tag, err := c.Exec(t.Context(), sql, mode)
			if err != nil || tag.RowsAffected() != want {
				t.Fatalf("%s: %v, %v", sql, tag, err)
			}
			lists := keysSent(t, d, word)
			mustExec(t, c, "rollback")
			if len(lists[0])+len(lists[1]) != 40 || slices.ContainsFunc(lists[0], func(k string) bool { return slices.Contains(lists[1], k) }) {
				t.Errorf("%s: the shards were sent %q", sql, lists)
			}
		}
	}
}

// An error's place is that of the client's text, whatever was left out of it for the shard that tells of it.
func TestErrorsBehindALongListAreWhereTheClientHasThem(t *testing.T) {
	t.Parallel()
	d := shop(t)
	through, direct := connectTo(t, d.shopDSN()), connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	list := "1" + strings.Repeat(", 20, 21, 22, 23, 24, 25, 26, 27", 20)
	for _, sql := range []string{
		"update customers set name = 'é' where customer_id in (" + list + ") and nosuch = 3",
		"update customers set name = 'é', nosuch = 7 where customer_id in (" + list + ")",
		"delete from customers where customer_id in (" + list + ") and name = 'é' and name > 7",
		"select count(*), 'é' from customers where customer_id in (" + list + ") and nosuch = 3",
	} {
		var places [2]int32
		for i, c := range []*pgx.Conn{through, direct} {
			_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) {
				t.Fatalf("%s: %v", sql, err)
			}
			places[i] = pe.Position
		}
		if places[0] != places[1] || places[0] == 0 {
			t.Errorf("%s: an error at %d, PostgreSQL says %d", sql, places[0], places[1])
		}
	}
}
