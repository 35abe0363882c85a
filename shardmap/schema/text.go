package schema

import (
	"context"
	"errors"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Ask runs a query and returns the types of its columns and its rows, in text format.
type Ask func(sql string) (types []uint32, rows [][][]byte, err error)

// ReadBy reads the schema as a transaction sees it that speaks for itself. Its search_path is pg_catalog.
func ReadBy(ctx context.Context, ask Ask, version uint64) (*Snapshot, error) {
	return read(ctx, ask, version)
}

var _ queryer = Ask(nil)

// Query implements queryer.
func (a Ask) Query(_ context.Context, sql string, _ ...any) (pgx.Rows, error) {
	types, rows, err := a(sql)
	return &textRows{types: types, rows: rows, scan: pgtype.NewMap(), err: err}, nil
}

// textRows are rows in text format, as pgx gives them.
type textRows struct {
	types []uint32
	rows  [][][]byte
	now   [][]byte
	scan  *pgtype.Map
	err   error
}

func (r *textRows) Close()                        { r.rows = nil }
func (r *textRows) Err() error                    { return r.err }
func (r *textRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }
func (r *textRows) Conn() *pgx.Conn               { return nil }
func (r *textRows) RawValues() [][]byte           { return r.now }
func (r *textRows) TypeMap() *pgtype.Map          { return r.scan }
func (r *textRows) Values() ([]any, error)        { return nil, errors.ErrUnsupported }

// FieldDescriptions are needed by nobody here.
func (r *textRows) FieldDescriptions() []pgconn.FieldDescription {
	return make([]pgconn.FieldDescription, len(r.types))
}

// Next goes to the next row.
func (r *textRows) Next() bool {
	if len(r.rows) == 0 {
		return false
	}
	r.now, r.rows = r.rows[0], r.rows[1:]
	return true
}

// Scan reads the present row.
func (r *textRows) Scan(dest ...any) error {
	if len(dest) != len(r.now) {
		r.err = io.ErrUnexpectedEOF
		return r.err
	}
	for i, d := range dest {
		if err := r.scan.Scan(r.types[i], pgtype.TextFormatCode, r.now[i], d); err != nil {
			r.err = err
			return err
		}
	}
	return nil
}
