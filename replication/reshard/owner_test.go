package reshard

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// settings is a transaction that knows one setting, and what it was when a lock was taken.
type settings struct{ now, locked string }

func (s *settings) Exec(_ context.Context, sql string, _ ...any) (pgconn.CommandTag, error) {
	if value, ok := strings.CutPrefix(sql, "SET LOCAL lock_timeout = "); ok {
		s.now = strings.Trim(value, "'")
	} else if strings.HasPrefix(sql, "LOCK TABLE ") {
		s.locked = s.now
	} else {
		s.now = "of the session" // TO DEFAULT, or what else is not known here
	}
	return pgconn.CommandTag{}, nil
}

func (s *settings) Query(context.Context, string, ...any) (pgx.Rows, error) { panic("not asked") }

func (s *settings) QueryRow(context.Context, string, ...any) pgx.Row { return s }

func (s *settings) Scan(dest ...any) error {
	*dest[0].(*string) = s.now
	return nil
}

// A lock that is waited for not too long leaves it as it was how long the transaction waits for others.
func TestABoundedLockLeavesTheTransactionsBound(t *testing.T) {
	s := &settings{now: "7s"}
	if err := boundedLock(t.Context(), s, "t", "SHARE"); err != nil || s.locked != "10000" || s.now != "7s" {
		t.Errorf("%v; locked with %s, and then it is %s", err, s.locked, s.now)
	}
}
