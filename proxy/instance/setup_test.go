package instance

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

func TestWhereInitSQLGoesOn(t *testing.T) {
	t.Parallel()
	steps := []string{"a", "b", "c"}
	for _, x := range []struct {
		setup   *shardmap.Setup
		version uint64
		want    int
		fails   bool
	}{
		{nil, 0, 0, false},
		{nil, 7, 3, false},
		{setupAt(steps, 0), 1, 0, false},
		{setupAt(steps, 2), 4, 2, false},
		{setupAt(steps, 3), 4, 3, false},
		{setupAt([]string{"a", "x"}, 2), 4, 0, true},
		{setupAt([]string{"a", "b", "c", "d"}, 4), 4, 0, true},
	} {
		if got, err := resume(x.setup, x.version, steps); got != x.want || (err != nil) != x.fails {
			t.Errorf("%+v, version %d: %d, %v", x.setup, x.version, got, err)
		}
	}
}
