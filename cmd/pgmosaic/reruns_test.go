package main

import (
	"strings"
	"testing"
)

// A pipeline that is run again on the primary begins with the unnamed statement that the session had before it, not with one that it has parsed since.
func TestAPipelineIsRunAgainFromWhereItBegan(t *testing.T) {
	t.Parallel()
	d, _ := replicaWorld(t)
	setup := connectTo(t, d.shopDSN())
	mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "create function public.draw(regclass) returns bigint language internal stable as 'nextval_oid'") // a lie: it is volatile
	mustExec(t, setup, "create function draws() returns bigint language sql stable as $$ select draw('s') $$")
	replicaAnswers(t, d, setup, "select count(*) from things")
	replayed(t, d, "s1-a", "s1-b")
	again := func() int64 { return d.Metrics.Database("shop").Repeated.Load() }
	bound := func(r *raw) {
		r.SendBindParts("", nil, nil, nil)
		r.SendExecute()
	}
	before := again()
	for range 3 {
		r := rawTo(t, d.shopDSN())
		r.SendParse("", "select n from things where id = 700", nil)
		r.SendDescribe('S', "")
		r.SendSync()
		r.want('Z', "1tTZI")
		bound(r)
		r.SendParse("", "select (draws() > 0)::int", nil)
		bound(r)
		r.SendSync()
		r.want('Z', "2D(700)C<SELECT 1>12D(1)C<SELECT 1>ZI")
		// So it is with those that SQL has prepared and deallocated in it.
		for _, gone := range []string{"deallocate a", "deallocate all"} {
			r.SendParse("a", "select n from things where id = 800", nil)
			r.SendSync()
			r.want('Z', "1ZI")
			r.SendBind("", "a", []byte{0, 0, 0, 0, 0, 0})
			r.SendExecute()
			for _, sql := range []string{gone, "prepare a as select n from things where id = 900", "prepare b as select 1", "select (draws() > 0)::int", "execute a"} {
				r.run(sql)
			}
			r.SendSync()
			r.want('Z', "2D(800)C<SELECT 1>12C<"+strings.TrimSuffix(strings.ToUpper(gone), " A")+">12C<PREPARE>12C<PREPARE>12D(1)C<SELECT 1>12D(900)C<SELECT 1>ZI")
			r.SendQuery("deallocate all")
			r.until('Z')
		}
	}
	if again() == before {
		t.Error("nothing was run again")
	}
}
