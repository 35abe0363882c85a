package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What somebody has made on a shard that depends on a copy is named before anything moves, as PostgreSQL names it, and all stays as it
// was.
func TestUndistributeNamesWhatDependsOnCopies(t *testing.T) {
	t.Parallel()
	d, c, shards := distributedWorld(t, "hanging")
	for _, verb := range distributions {
		d.adminExec(t, fmt.Sprintf(verb, "hanging"))
	}
	was := shardState(t, shards...)
	for _, x := range []struct{ verb, object, makes, drop string }{
		{"TABLE hanging.public.keyed", "public.keyed", "create view seen as select k from keyed", "drop view seen"},
		{"TABLE hanging.public.keyed", "public.keyed", "create materialized view seen as select k from keyed", "drop materialized view seen"},
		{"TABLE hanging.public.keyed", "public.keyed", "create table other (n int default nextval('keyed_n_seq'))", "drop table other"},
		{"TABLE hanging.public.codes", "public.codes", "create table other (code text references codes)", "drop table other"},
		{"TABLE hanging.public.codes", "public.codes", "create table other (a int, c codes)", "drop table other"},
		{"TABLE hanging.public.codes", "public.codes", "create function f(codes) returns int language sql as 'select 1'", "drop function f"},
		{"TABLE hanging.public.codes", "public.codes", "create table other (b int) inherits (codes)", "drop table other"},
		{"TABLE hanging.public.keyless", "public.keyless", "create function f() returns bigint begin atomic select count(*) from keyless; end", "drop function f"},
		{"TABLE hanging.public.parts", "public.parts", "create view seen as select at from parts_1", "drop view seen"},
		{"SCHEMA hanging.tenant", "tenant.one, tenant.two", "create view tenant.seen as select a from tenant.two", "drop view tenant.seen"},
		{"SCHEMA hanging.tenant", "tenant.one, tenant.two", "create table other (a int references tenant.one)", "drop table other"},
	} {
		mustExec(t, shards[1], x.makes)
		mustExec(t, shards[1], "set search_path = pg_catalog") // names say their schemas
		_, err := shards[1].Exec(t.Context(), "drop table "+x.object)
		mustExec(t, shards[1], "reset search_path")
		var pe interface {
			error
			SQLState() string
		}
		if !errors.As(err, &pe) || pe.SQLState() != "2BP01" {
			t.Fatalf("%s: %v", x.makes, err)
		}
		want := detailOf(err)
		for _, dry := range []string{" DRY RUN", ""} {
			_, err := d.Admin.Exec(t.Context(), "UNDISTRIBUTE "+x.verb+dry, false)
			var e interface {
				SQLState() string
				ErrorDetail() string
			}
			if !errors.As(err, &e) || e.SQLState() != "2BP01" || e.ErrorDetail() != want {
				t.Errorf("%s beside %s: %v, want %q", x.verb, x.makes, err, want)
			}
		}
		if doc := d.Catalog.Current().Document; len(doc.Attempts) != 0 {
			t.Errorf("%s beside %s has left %v", x.verb, x.makes, doc.Attempts)
		}
		mustExec(t, shards[1], x.drop)
	}
	if now := shardState(t, shards...); now != was {
		t.Errorf("the shards changed:\n%s", diffLines(was, now))
	}
	if n := queryOne[int](t, c, "select (select count(*) from keyed) + (select count(*) from codes)"); n != 110 {
		t.Errorf("%d rows", n)
	}
}

// detailOf is the detail of an error of PostgreSQL's, its lines in order.
func detailOf(err error) string {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return ""
	}
	lines := strings.Split(pe.Detail, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
