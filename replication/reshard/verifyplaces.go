package reshard

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// places finds the rows of a sharded table that are not on the shard which owns their key, primary keys that more than one shard has,
// and shards that would take such rows.
func (v *verify) places(ctx context.Context) (found []Difference, err error) {
	v.job.phase("looking at places")
	for _, c := range v.copies {
		state, err := lookOnly(ctx, c.c, v.db, v.table, c.shard.Name, definitionWait)
		if err != nil {
			return nil, nodeFailed(c.shard.Name, err)
		}
		if state != checkRight {
			found = append(found, Difference{c.shard.Name, nil, string(state)})
		}
		got, err := v.misplaced(ctx, c)
		if err != nil {
			return nil, err
		}
		found = append(found, got...)
	}
	if len(v.key) > 0 && !v.tiedToShard() {
		v.job.phase("looking for duplicates")
		got, err := v.duplicates(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, got...)
	}
	return found, nil
}

// tiedToShard says whether equal primary keys are on one shard, as long as no row is misplaced.
func (v *verify) tiedToShard() bool {
	return !slices.ContainsFunc(v.table.Keys, func(k string) bool { return !slices.Contains(v.key, k) })
}

// misplaced lists the rows of a shard that belong to others, and says whether those have them, too.
func (v *verify) misplaced(ctx context.Context, c copyOf) (found []Difference, err error) {
	belongs := "case"
	for _, s := range v.db.Shards {
		belongs += fmt.Sprintf(" when %s then %s", placeWhere(v.db, v.table, s.Name), pgsql.Literal(s.Name))
	}
	rows, err := v.ask(ctx, c, 2, "", fmt.Sprintf("select %s, %s else '' end from %s where (%s) is not true limit %d", v.keyArray(), belongs, v.table.SQL(), placeWhere(v.db, v.table, c.shard.Name), MaxDifferences+1))
	if err != nil {
		return nil, nodeFailed(c.shard.Name, err)
	}
	var key []string
	var owner string
	if _, err := pgx.ForEachRow(rows, []any{&key, &owner}, func() error {
		how := "belongs to shard " + pgsql.Plain(owner)
		if owner == "" {
			how = "belongs to no shard"
		}
		found = append(found, Difference{c.shard.Name, key, how})
		key = nil
		return nil
	}); err != nil {
		return nil, nodeFailed(c.shard.Name, err)
	}
	if len(v.key) == 0 || len(found) == 0 {
		return found, nil
	}
	keys := make([][]string, len(found))
	for i, f := range found {
		keys[i] = f.Key
	}
	where := v.among(keys)
	for _, o := range v.copies {
		if o.shard == c.shard {
			continue
		}
		there, err := v.rows(ctx, o, where)
		if err != nil {
			return nil, err
		}
		for i, f := range found {
			if _, ok := there[strings.Join(f.Key, "\x00")]; ok {
				found[i].How += ", and shard " + pgsql.Plain(o.shard.Name) + " has one with the same primary key"
			}
		}
	}
	return found, nil
}

// strayed finds rows of a table whose schema lives on one shard on the others.
func (v *verify) strayed(ctx context.Context) (found []Difference, err error) {
	v.job.phase("looking at places")
	owner := v.db.Shards[v.db.Placement(v.table.Group).Shards()[0]]
	for _, c := range v.copies {
		if c.shard == owner {
			continue
		}
		rows, err := v.ask(ctx, c, 1, "", fmt.Sprintf("select %s from %s limit %d", v.keyArray(), v.table.SQL(), MaxDifferences+1))
		if err != nil {
			return nil, nodeFailed(c.shard.Name, err)
		}
		var key []string
		if _, err := pgx.ForEachRow(rows, []any{&key}, func() error {
			found = append(found, Difference{c.shard.Name, key, "belongs to shard " + pgsql.Plain(owner.Name)})
			key = nil
			return nil
		}); err != nil {
			return nil, nodeFailed(c.shard.Name, err)
		}
	}
	return found, nil
}

// stream is the sorted hashes of a shard's primary keys.
type stream struct {
	copyOf
	rows pgx.Rows
	now  int64
}

// next takes the following hash. ok is false at the end.
func (s *stream) next() (ok bool, err error) {
	if !s.rows.Next() {
		return false, s.rows.Err()
	}
	return true, s.rows.Scan(&s.now)
}

// streams is a heap of them.
type streams []*stream

func (s streams) Len() int           { return len(s) }
func (s streams) Less(i, j int) bool { return s[i].now < s[j].now }
func (s streams) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *streams) Push(x any)        { *s = append(*s, x.(*stream)) }
func (s *streams) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}

// duplicates finds primary keys that several shards have: the servers sort the hashes, and they are merged as they come. What
// is found is looked at again by the keys themselves, twice: a row that is just given another shard may be seen on both.
func (v *verify) duplicates(ctx context.Context) (found []Difference, err error) {
	hashes, err := v.twice(ctx)
	if err != nil || len(hashes) == 0 {
		return nil, err
	}
	for range 2 {
		if found, err = v.onSeveral(ctx, hashes); err != nil || len(found) == 0 {
			return nil, err
		}
	}
	return found, nil
}

// twice lists the hashes that come from more than one shard.
func (v *verify) twice(ctx context.Context) (hashes []int64, err error) {
	var all streams
	defer func() {
		for _, s := range all {
			s.rows.Close()
		}
	}()
	var open streams
	for _, c := range v.copies {
		if _, err := c.c.Exec(ctx, "select set_config('work_mem', current_setting('maintenance_work_mem'), false)"); err != nil { // all keys are sorted
			return nil, nodeFailed(c.shard.Name, err)
		}
		rows, err := v.ask(ctx, c, 1, " order by 1", fmt.Sprintf("select %s from %s", hashed(v.keyText()), v.table.SQL()))
		if err != nil {
			return nil, nodeFailed(c.shard.Name, err)
		}
		s := &stream{copyOf: c, rows: rows}
		all = append(all, s)
		if ok, err := s.next(); err != nil {
			return nil, nodeFailed(c.shard.Name, err)
		} else if ok {
			open = append(open, s)
		}
	}
	heap.Init(&open)
	var last *shardmap.ShardInfo
	var before int64
	for len(open) > 0 && len(hashes) <= MaxDifferences {
		s := open[0]
		if last != nil && last != s.shard && before == s.now && (len(hashes) == 0 || hashes[len(hashes)-1] != s.now) {
			hashes = append(hashes, s.now)
		}
		last, before = s.shard, s.now
		v.job.add(1)
		ok, err := s.next()
		switch {
		case err != nil:
			return nil, nodeFailed(s.shard.Name, err)
		case ok:
			heap.Fix(&open, 0)
		default:
			heap.Pop(&open)
		}
	}
	return hashes, nil
}

// onSeveral says which keys of some hashes are on several shards now.
func (v *verify) onSeveral(ctx context.Context, hashes []int64) (found []Difference, err error) {
	first := map[string]*shardmap.ShardInfo{}
	list := make([]string, len(hashes))
	for i, h := range hashes {
		list[i] = strconv.FormatInt(h, 10)
	}
	for _, c := range v.copies {
		there, err := v.rows(ctx, c, "where "+hashed(v.keyText())+" in ("+strings.Join(list, ", ")+")")
		if err != nil {
			return nil, err
		}
		for text, s := range there {
			if f := first[text]; f != nil {
				found = append(found, Difference{c.shard.Name, s.key, "shard " + pgsql.Plain(f.Name) + " has a row with the same primary key"})
				continue
			}
			first[text] = c.shard
		}
	}
	slices.SortFunc(found, func(a, b Difference) int { return slices.Compare(a.Key, b.Key) })
	return found, nil
}
