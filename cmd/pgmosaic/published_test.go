package main

import (
	"context"
	"testing"
)

// Subscribers of home are not told that rows are deleted which only move, and what a subscription writes on home is not distributed.
func TestPublishedTablesStayHome(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "publishing")
	home := d.on(t, "publishing", 0)
	for _, sql := range []string{
		"create table goods (k int primary key)", "create table parted (k int primary key) partition by range (k)", "create table parted_1 partition of parted for values from (0) to (100)",
		"create table codes (k int primary key)", "create schema apart", "create table apart.things (k int primary key)", "create table brought (k int primary key)",
	} {
		mustExec(t, c, sql)
	}
	mustExec(t, home, "create publication goods_out for table goods, parted_1, codes, apart.things; create subscription down connection 'dbname=nowhere' publication up with (connect = false, slot_name = none)")
	mustExec(t, home, "insert into pg_subscription_rel select oid, 'brought'::regclass, 'r', null from pg_subscription where subname = 'down'")
	t.Cleanup(func() { _, _ = home.Exec(context.Background(), "drop subscription down") })
	d.adminExec(t, "CREATE GROUP g IN publishing KEY (int) BY HASH")
	for _, dry := range []string{" DRY RUN", ""} {
		for _, n := range []string{"goods", "parted"} {
			d.adminFails(t, "DISTRIBUTE TABLE publishing.public."+n+" IN GROUP g KEY (k)"+dry, "0A000", `publication "goods_out"`)
		}
		d.adminFails(t, "DISTRIBUTE SCHEMA publishing.apart ON publishing_s1"+dry, "0A000", `publication "goods_out"`)
		d.adminFails(t, "DISTRIBUTE TABLE publishing.public.brought IN GROUP g KEY (k)"+dry, "0A000", `subscription "down"`)
		d.adminFails(t, "DISTRIBUTE TABLE publishing.public.brought AS REFERENCE"+dry, "0A000", `subscription "down"`)
	}
	d.adminExec(t, "DISTRIBUTE TABLE publishing.public.codes AS REFERENCE") // home keeps all of it
	d.adminExec(t, "DISTRIBUTE SCHEMA publishing.apart ON publishing_s0")
	d.adminExec(t, "UNDISTRIBUTE SCHEMA publishing.apart")
	mustExec(t, home, "alter publication goods_out set (publish = 'insert, update')")
	for _, sql := range []string{"TABLE publishing.public.goods IN GROUP g KEY (k)", "TABLE publishing.public.parted IN GROUP g KEY (k)", "SCHEMA publishing.apart ON publishing_s1"} {
		d.adminExec(t, "DISTRIBUTE "+sql)
	}
}

// Before PostgreSQL 14 only superusers read the OIDs of subscriptions. The nodes' role need not be one.
func TestSubscriptionsAreFoundByAnyRole(t *testing.T) {
	t.Parallel()
	d, shards := modestWorld(t, "subscribed")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "subscribed"))
	mustExec(t, shards[0], "revoke select on pg_subscription from public; grant select (subdbid, subname, subowner, subenabled, subslotname, subpublications) on pg_subscription to public")
	for _, sql := range []string{"create table goods (k int primary key)", "create table brought (k int primary key)"} {
		mustExec(t, c, sql)
	}
	mustExec(t, shards[0], "create subscription subscribed_down connection 'dbname=nowhere' publication up with (connect = false, slot_name = none)")
	t.Cleanup(func() { _, _ = shards[0].Exec(context.Background(), "drop subscription subscribed_down") })
	mustExec(t, shards[0], "insert into pg_subscription_rel select oid, 'brought'::regclass, 'r', null from pg_subscription where subname = 'subscribed_down'")
	d.adminExec(t, "CREATE GROUP g IN subscribed KEY (int) BY HASH")
	d.adminFails(t, "DISTRIBUTE TABLE subscribed.public.brought IN GROUP g KEY (k)", "0A000", `subscription "subscribed_down"`)
	d.adminExec(t, "DISTRIBUTE TABLE subscribed.public.goods IN GROUP g KEY (k)")
}
