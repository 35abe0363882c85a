package txn

import (
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// trouble knows which errors have been told: one that stays is told once. What fails on a shard is one trouble however it is put,
// since a server that goes away fails in many ways; what its server itself says is one for each SQLSTATE.
type trouble struct{ now map[troubleKey]bool }

type troubleKey struct{ database, shard, node, what string }

func keyOf(err error) troubleKey {
	var s *ShardError
	if !errors.As(err, &s) {
		return troubleKey{what: err.Error()}
	}
	k := troubleKey{database: s.Database, shard: s.Shard, node: s.Node}
	var said *pgconn.PgError
	if errors.As(err, &said) {
		k.what = said.Code
	}
	return k
}

// news are those of a round's errors that are new since the round before. over are the shards that had some then, and have none: but for those that are
// away, which nobody has visited.
func (t *trouble) news(round error, away map[[2]string]bool) (begun []error, over []ShardError) {
	was := t.now
	t.now = map[troubleKey]bool{}
	bad := map[[2]string]bool{}
	for _, err := range flat(round) {
		k := keyOf(err)
		if !was[k] && !t.now[k] {
			begun = append(begun, err)
		}
		t.now[k], bad[[2]string{k.database, k.shard}] = true, true
	}
	for k := range was {
		switch at := [2]string{k.database, k.shard}; {
		case away[at]:
			t.now[k] = true
		case k.shard != "" && !bad[at]:
			over, bad[at] = append(over, ShardError{Database: k.database, Shard: k.shard, Node: k.node}), true
		}
	}
	return begun, over
}

// untold are those of some errors that are not among these, which somebody has been told of.
func (t *trouble) untold(errs []error) []error {
	return slices.DeleteFunc(errs, func(err error) bool { return t.now[keyOf(err)] })
}

// flat takes joined errors apart.
func flat(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flat(e)...)
	}
	return out
}
