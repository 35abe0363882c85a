package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// Binary COPY TO over shards comes in PostgreSQL's messages: the header is in one with the first row, or with the trailer where there is none.
func TestBinaryCopyComesInPostgreSQLsMessages(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "copyshapes")
	mustExec(t, c, "create table shapes (k bigint primary key)")
	d.adminExec(t, "CREATE GROUP g IN copyshapes KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE copyshapes.public.shapes IN GROUP g KEY (k)")
	one := d.cluster.Node("s1-a").DSN("copyshapes_0")
	lengths := func(dsn, copied string) (out []int) {
		r := rawTo(t, dsn)
		defer r.Close()
		r.SendQuery("copy " + copied + " to stdout (format binary)")
		_ = r.Flush()
		for {
			m, err := r.Next()
			if err != nil || m.Type == 'E' {
				t.Fatalf("copy %s: %v, %q", copied, err, m.Body())
			}
			switch m.Type {
			case 'd':
				out = append(out, len(m.Body()))
			case 'Z':
				return out
			}
		}
	}
	for _, keys := range []string{"generate_series(1, 0)", "generate_series(1, 1)", "generate_series(2, 2)", "generate_series(3, 3)", "generate_series(4, 4)", "generate_series(1, 20)"} {
		mustExec(t, c, "insert into shapes select k::bigint from "+keys+" k")
		got := lengths(dsnFor("app", "app", d.Server.Addr(), "copyshapes"), "shapes (k)")
		if want := lengths(one, "(select k::bigint from "+keys+" k)"); !slices.Equal(got, want) {
			t.Errorf("%s: messages of %d bytes, want %d", keys, got, want)
		}
		mustExec(t, c, "delete from shapes")
	}
}

// Values of users' types hold home's OIDs in binary COPY TO, whatever shard they come from: a row that two shards have is the same from both.
func TestBinaryCopyHasHomesOIDs(t *testing.T) {
	t.Parallel()
	d, c := typedDemo(t, 0)
	k1, k2 := keysOn(t, d, 1)
	for _, k := range []int{k1, k2} {
		mustExec(t, c, "insert into moods values ($1, 'happy', '{sad,ok}', '(7,sad,\"{ok,happy}\")', array['(7,sad,\"{ok}\")'::spot], 3, 'a=>1', array['b=>2'::hstore], 'Ab', array['Cd'::citext])", k)
	}
	for _, copied := range []string{"moods (ms, p, s)", "moods (hs, cis)", "moods (ss)", "moods (customer_id, ss)", "moods"} {
		var data bytes.Buffer
		if _, err := c.PgConn().CopyTo(t.Context(), &data, "copy "+copied+" to stdout (format binary)"); err != nil {
			t.Fatal(err)
		}
		rows := data.Bytes()[19 : data.Len()-2]
		one, two := rows[:len(rows)/2], rows[len(rows)/2:]
		if copied == "moods" || strings.Contains(copied, "customer_id") { // the key is another
			copy(one[6:14], two[6:14])
		}
		if !bytes.Equal(one, two) {
			t.Errorf("%s:\n%q on one shard,\n%q on another", copied, one, two)
		}
	}
}
