package instance

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

func TestWhereInitSQLGoesOn(t *testing.T) {
	t.Parallel()
	steps := []string{"a", "b", "c"}
	at := func(done int, all ...string) *shardmap.Setup {
		s := &shardmap.Setup{Done: done, Text: textOf(all[:done])}
		if done < len(all) {
			s.Next = textOf(all[:done+1])
		}
		return s
	}
	loose := func(s *shardmap.Setup) *shardmap.Setup { s.Loose = true; return s }
	moves := func(s *shardmap.Setup) *shardmap.Setup { s.Moves = true; return s }
	for _, x := range []struct {
		setup   *shardmap.Setup
		version uint64
		more    bool // the one that had begun is done
		want    int
		undo    bool
		fails   bool
	}{
		{nil, 0, false, 0, false, false},
		{nil, 7, false, 3, false, false},
		{at(0, steps...), 1, false, 0, false, false},
		{at(2, steps...), 4, false, 2, false, false},
		{at(2, steps...), 4, true, 3, false, false},
		{at(3, steps...), 4, false, 3, false, false},
		{at(2, "a", "b"), 4, true, 3, false, false}, // of an older process
		{at(2, "a", "b", "x"), 4, false, 2, false, false},
		{at(2, "a", "b", "x"), 4, true, 0, false, true},
		{loose(at(2, "a", "b", "x")), 4, false, 2, false, false},
		{loose(at(2, "a", "b", "x")), 4, true, 0, true, false},
		{moves(loose(at(2, "a", "b", "x"))), 4, false, 2, false, false},
		{moves(loose(at(2, "a", "b", "x"))), 4, true, 0, false, true},
		{at(2, "a", "x"), 4, false, 0, false, true},
		{loose(at(2, "a", "x")), 4, false, 0, true, false},
		{moves(loose(at(2, "a", "x", "c"))), 4, false, 0, true, false},
		{moves(loose(at(2, "a", "x", "c"))), 4, true, 0, false, true},
		{at(4, "a", "b", "c", "d"), 4, false, 0, false, true},
		{loose(at(4, "a", "b", "c", "d")), 4, false, 0, true, false},
		{&shardmap.Setup{Undo: true}, 9, false, 0, true, false},
	} {
		got, undo, err := resume(x.setup, x.version, steps, x.more)
		if got != x.want || undo != x.undo || (err != nil) != x.fails {
			t.Errorf("%+v, version %d, more %t: %d, undo %t, %v", x.setup, x.version, x.more, got, undo, err)
		}
	}
}
