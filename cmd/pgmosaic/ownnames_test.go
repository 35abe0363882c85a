package main

import (
	"fmt"
	"testing"
)

// A client may call its statements as servers' are called here: while pg_prepared_statements lists them, no other gets such a name.
func TestStatementsThatAreCalledLikeServers(t *testing.T) {
	t.Parallel()
	r := rawTo(t, small(t, shop(t), 1, nil).dsn())
	for n := range 40 {
		r.SendParse(fmt.Sprintf("pgmosaic_%d", n), fmt.Sprintf("select %d", n), nil)
	}
	r.SendSync()
	r.until('Z')
	r.SendQuery("begin; select count(*) from pg_prepared_statements where name ~ '^pgmosaic_[0-9]+$'")
	r.want('Z', "C<BEGIN>TD(40)C<SELECT 1>ZT")
	for n := range 3 {
		r.SendParse(fmt.Sprint("other", n), fmt.Sprintf("select %d", 100+n), nil)
		r.SendBindParts(fmt.Sprint("other", n), nil, nil, nil)
		r.SendExecute()
		r.SendSync()
		r.want('Z', fmt.Sprintf("12D(%d)C<SELECT 1>ZT", 100+n))
	}
	r.SendBindParts("pgmosaic_39", nil, nil, nil)
	r.SendExecute()
	r.SendSync()
	r.want('Z', "2D(39)C<SELECT 1>ZT")
}
