package main

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// temp_tablespaces is a list of names, however it comes: by a startup packet, by set_config, or from a function. Each shard has them all.
func TestTemporaryTablespacesFollowTheSession(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, NoLoad: true})
	for _, name := range []string{"s1-a", "s2-a"} {
		c := connectTo(t, d.cluster.Node(name).DSN("postgres"))
		mustExec(t, c, "set allow_in_place_tablespaces = on")
		for _, space := range []string{"fast", `"Slow"`} {
			mustExec(t, c, "create tablespace "+space+" location ''")
			mustExec(t, c, "grant create on tablespace "+space+" to app")
		}
	}
	const list = `fast, "Slow"`
	mustExec(t, connectTo(t, d.shopDSN()), "create function slower() returns void language plpgsql as $$ begin set temp_tablespaces to fast, \"Slow\"; end $$")
	for how, begin := range map[string][]string{
		"startup": nil, "set": {"set temp_tablespaces to " + list}, "set_config": {"select set_config('temp_tablespaces', '" + list + "', false)"}, "function": {"select slower()"},
		"in a transaction": {"begin", "select slower()"}, "set_config in a transaction": {"begin", "select set_config('temp_tablespaces', '" + list + "', true)"},
	} {
		dsn := d.shopDSN()
		if begin == nil {
			dsn += "?temp_tablespaces=" + url.PathEscape(list)
		}
		c := connectTo(t, dsn)
		for _, sql := range begin {
			mustExec(t, c, sql)
		}
		for k := range 6 {
			sql := fmt.Sprintf("select current_setting('temp_tablespaces') from (select count(*) from customers where customer_id = %d) x", k)
			if got := says(t, c, sql, pgx.QueryExecModeSimpleProtocol); got != list {
				t.Errorf("%s: %s: %s", how, sql, got)
			}
		}
		_ = c.Close(t.Context())
	}
}
