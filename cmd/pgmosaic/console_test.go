package main

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What the console says of a statement's columns before it runs is what comes.
func TestConsoleDescribesWhatItAnswers(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.adminDSN())
	names := func(fields []pgconn.FieldDescription) (out []string) {
		for _, f := range fields {
			out = append(out, f.Name)
		}
		return out
	}
	for i, sql := range []string{
		"show shards", "verify table shop.public.countries", "verify schema in shop", "CREATE GROUP described IN shop KEY (int) BY HASH DRY RUN;",
		"create group described in shop key (int) by hash", "drop group described in shop", "pause shop", "resume shop", "select 1", "help",
	} {
		said, err := c.Prepare(t.Context(), string(rune('a'+i)), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		rows, err := c.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		came := names(rows.FieldDescriptions())
		rows.Close()
		if err := rows.Err(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		if !slices.Equal(names(said.Fields), came) {
			t.Errorf("%s: %v was described, %v came", sql, names(said.Fields), came)
		}
	}
}
