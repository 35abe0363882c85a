package reshard

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// settings is a transaction that knows one setting, what it was when a lock was taken, and what SHOW has said.
type settings struct{ now, locked, shown string }

func (s *settings) Exec(_ context.Context, sql string, _ ...any) (pgconn.CommandTag, error) {
	for one := range strings.SplitSeq(sql, "; ") {
		value, set := strings.CutPrefix(one, "SET LOCAL lock_timeout = ")
		switch {
		case set:
			s.now = strings.Trim(value, "'")
		case strings.HasPrefix(one, "LOCK TABLE "):
			s.locked = s.now
		case one == "SHOW lock_timeout":
			s.shown = s.now
		default:
			s.now = "of the session" // TO DEFAULT, or what else is not known here
		}
	}
	return pgconn.CommandTag{}, nil
}

func (s *settings) Query(context.Context, string, ...any) (pgx.Rows, error) { panic("not asked") }

func (s *settings) QueryRow(ctx context.Context, sql string, _ ...any) pgx.Row {
	_, _ = s.Exec(ctx, sql)
	return s
}

func (s *settings) Scan(dest ...any) error {
	*dest[0].(*string) = s.shown
	return nil
}

// A lock that is waited for not too long leaves it as it was how long the transaction waits for others.
func TestABoundedLockLeavesTheTransactionsBound(t *testing.T) {
	for _, before := range []string{"7s", "0"} {
		s := &settings{now: before}
		if err := boundedLock(t.Context(), s, "t", "SHARE"); err != nil || s.locked != "10000" || s.now != before {
			t.Errorf("%v; locked with %s, and then it is %s and not %s", err, s.locked, s.now, before)
		}
	}
}
