package txn

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// An error that stays is told once, and its end too, whichever way it is put.
func TestTroubleIsToldOnce(t *testing.T) {
	away := func(why string) error { return &ShardError{"shop", "s2", "n", errors.New(why)} }
	said := func(code string) error {
		return fmt.Errorf("ask: %w", &ShardError{"shop", "s2", "n", &pgconn.PgError{Code: code}})
	}
	lost := &DamagedError{"gid", "s1"}
	var tr trouble
	for i, c := range []struct {
		round error
		begun int
		over  []ShardError
		away  bool // s2 has no primary, and is not visited
	}{
		{nil, 0, nil, false},
		{errors.Join(away("refused"), errors.Join(away("timeout"), nil)), 1, nil, false},
		{away("reset"), 0, nil, false},
		{errors.Join(away("reset"), lost), 1, nil, false},
		{errors.Join(lost, said("42501")), 1, nil, false},
		{said("42501"), 0, nil, false},
		{nil, 0, []ShardError{{Database: "shop", Shard: "s2", Node: "n"}}, false},
		{nil, 0, nil, false},
		{away("refused"), 1, nil, false},
		{&ShardError{"shop", "s2", "other", errors.New("refused")}, 1, nil, false}, // another node serves, and does not answer either
		{nil, 0, nil, true},
		{lost, 1, nil, true},
		{&ShardError{"shop", "s2", "other", errors.New("refused")}, 0, nil, false},
		{nil, 0, nil, true},
		{nil, 0, []ShardError{{Database: "shop", Shard: "s2", Node: "other"}}, false},
	} {
		begun, over := tr.news(c.round, map[[2]string]bool{{"shop", "s2"}: c.away})
		if len(begun) != c.begun || !slices.Equal(over, c.over) {
			t.Errorf("round %d: %v, %v", i, begun, over)
		}
	}
}

// What one of two kinds of work has told of, the other does not tell again, whichever meets it first.
func TestTroubleOfBothKindsOfWorkIsToldOnce(t *testing.T) {
	away, denied := &ShardError{"shop", "s2", "n", errors.New("refused")}, &ShardError{"shop", "s2", "n", &pgconn.PgError{Code: "42501"}}
	var resolving, sweeping trouble
	told, _ := sweeping.news(away, nil)
	if len(told) != 1 {
		t.Fatal(told)
	}
	told, _ = resolving.news(errors.Join(away, denied), nil)
	if told = sweeping.untold(told); len(told) != 1 || !errors.Is(told[0], denied) {
		t.Errorf("told again: %v", told)
	}
}
