package sqlparse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
)

// corpus are the statements of the golden files and of the comparison with one PostgreSQL, and others of all kinds.
func corpus(t testing.TB) []string {
	t.Helper()
	var all []string
	files, err := filepath.Glob("../../testdata/*/*.*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no statements: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.Split(string(b), "\n")...)
		all = append(all, strings.Split(string(b), ";")...)
	}
	for _, f := range deep {
		all = append(all, f(3), f(200))
	}
	return append(all, "select distinct a from t", "select 1.5, 9223372036854775807, -1, null, '', x'1f', true", "select 'é', U&'\\0441'", "")
}

// A tree is read as the library reads it.
func TestDecodeReadsWhatTheLibraryReads(t *testing.T) {
	read, skipped := 0, 0
	for _, sql := range corpus(t) {
		err := treeOf(sql, func(b []byte) error {
			var want, got pg.ParseResult
			if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(b, &want); err != nil {
				return err
			}
			if !decode(b, &got) {
				t.Errorf("%q is left to the library", sql)
			}
			if !proto.Equal(&want, &got) {
				t.Errorf("%q is read as %s, the library reads %s", sql, &got, &want)
			}
			return nil
		})
		if err != nil {
			skipped++ // a part of a statement
			continue
		}
		read++
	}
	t.Logf("%d trees are equal, %d texts are no statements", read, skipped)
	if read < 1000 {
		t.Errorf("%d statements were read", read)
	}
}

// Bytes that are no tree are left to the library; those that are taken are read as the library reads them.
func FuzzDecode(f *testing.F) {
	for _, sql := range []string{"select a, 1 from t where b = $1", "insert into t (a) values (1.5, 'x', true, null)", "create table t (a int primary key, b text default 'x' check (b <> ''))", ""} {
		if err := treeOf(sql, func(b []byte) error { f.Add(append([]byte{}, b...)); return nil }); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want, got pg.ParseResult
		if !decode(b, &got) {
			return
		}
		if err := proto.Unmarshal(b, &want); err != nil {
			t.Errorf("%x was read as %s, the library says %v", b, &got, err)
		} else if !proto.Equal(&want, &got) {
			t.Errorf("%x was read as %s, the library reads %s", b, &got, &want)
		}
	})
}
