package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// A process that slept while another took it for dead and ended its statement changes nothing in the map any more: the other may have
// done the same, or more, since.
func TestNothingIsChangedForAnEndedStatement(t *testing.T) {
	t.Parallel()
	for i, verb := range []string{
		"DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "DISTRIBUTE TABLE %s.public.keyless AS REFERENCE", "DISTRIBUTE SCHEMA %s.tenant ON b", "CREATE SHARD c IN %s NODE 'LAST'", "UNPIN KEY (7) OF %s.g",
	} {
		t.Run(verb, func(t *testing.T) {
			w := newTwoAdmins(t, fmt.Sprintf("ended_%d", i))
			verb = strings.ReplaceAll(strings.ReplaceAll(verb, "LAST", w.dsns[2]), "%s", w.name)
			first := []string{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE"}
			if strings.HasPrefix(verb, "UNPIN") {
				first = append(first, "PIN KEY (7) OF %s.g ON a", "DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)")
			}
			for _, sql := range first {
				if err := w.exec(t, 0, sql); err != nil {
					t.Fatal(err)
				}
			}
			before := w.agree(t)
			c := connectTo(t, dsnFor("app", "app", w.apps[0].Server.Addr(), w.name))
			mustExec(t, c, "begin")
			mustExec(t, c, "select count(*) from pg_class") // holds up what the first process announces
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := w.apps[0].Admin.Exec(ctx, verb, false)
				done <- err
			}()
			eventually(t, "the first process has announced it", func() bool {
				doc := w.agree(t)
				select {
				case err := <-done:
					t.Fatal(err)
				default:
				}
				return doc.Version >= before.Version+2 && len(doc.Attempts) == 1
			})
			mustExec(t, w.shards[0], "select pg_terminate_backend(pid) from pgmosaic.holder where pid <> 0")
			if _, err := w.apps[1].Admin.Exec(t.Context(), verb, false); err != nil {
				t.Fatalf("the second process: %v", err)
			}
			after := w.agree(t)
			cancel()
			if err := <-done; err == nil {
				t.Error("the first process says that it has done it")
			} else {
				t.Log(err)
			}
			mustExec(t, c, "commit")
			if doc := w.agree(t); doc.Version != after.Version {
				t.Errorf("the map was changed: %d tables, %d schemas, %d shards, %d attempts; it had %d, %d, %d, %d", len(doc.Tables), len(doc.Tenants), len(doc.Shards), len(doc.Attempts), len(after.Tables), len(after.Tenants), len(after.Shards), len(after.Attempts))
			}
			w.whole(t)
		})
	}
}
