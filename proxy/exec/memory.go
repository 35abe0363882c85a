package exec

import (
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// holding is the memory that a merge needs for rows which it cannot pass on yet: the groups of an aggregate, and wide rows. It counts
// against the statement's limit, and in steps against that of the process.
type holding struct {
	h       *Handler
	bytes   int64
	counted int64 // of bytes, in the engine's sum
}

// holdingStep is how many bytes are counted at once.
const holdingStep = 64 << 10

// take asks for n bytes more.
func (m *holding) take(n int) error {
	m.bytes += int64(n)
	if limit := m.h.own.GatherLimit; limit > 0 && m.bytes > limit {
		return &pgsql.Error{
			Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("what this statement has to hold (groups, wide rows, rows that change their shard or that a write returns, or values that are evaluated once) is more than pgmosaic.gather_limit (%s)", pgsql.SizeText(limit)),
			Hint: "Group by fewer values or by the key, read wide rows from one shard, change fewer rows at once, or raise pgmosaic.gather_limit.",
		}
	}
	if m.bytes-m.counted < holdingStep {
		return nil
	}
	if err := m.h.e.Memory.Take(memory.Merges, m.bytes-m.counted); err != nil {
		return err
	}
	m.counted = m.bytes
	if limit := m.h.e.MergeMemory.Load(); limit > 0 && m.h.e.Memory.Used(memory.Merges) > limit {
		return &pgsql.Error{
			Code: pgsql.OutOfMemory, Message: fmt.Sprintf("the merges of all sessions together need more than merge_memory (%s)", pgsql.SizeText(limit)),
			Hint: "Try again when others have finished, or raise merge_memory.",
		}
	}
	return nil
}

// give takes back n bytes of the statement's own sum; the engine's has the most that there were, until release.
func (m *holding) give(n int) { m.bytes -= int64(n) }

// release gives back what was taken.
func (m *holding) release() { m.h.e.Memory.Give(memory.Merges, m.counted) }
