package reshard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

// The copies of a reference table are compared in two steps. First each copy gives a sum of its rows' hashes for each of some
// buckets, which is one pass over the table; then, where sums differ, the keys and hashes of those buckets, of as many in one pass as
// are held in memory easily. What still differs is
// looked at again while nobody writes the table: the writers of its copies take a lock, and so does this, for as long as it takes
// to read a few rows.

// buckets is into how many parts a table is divided.
const buckets = 1024

// passRows is how many rows of a copy are read in one pass over suspect buckets, if one bucket alone does not have more.
const passRows = 20000

// recheckBatch is how many rows are looked at again under one lock.
const recheckBatch = 200

// seen is a row as one copy has it, or as many as are equal, of a table without a key.
type seen struct {
	hash int64
	n    int
	key  []string
}

func (v *verify) compare(ctx context.Context) (found []Difference, err error) {
	v.job.phase("comparing")
	sums := make([]map[int]bucket, len(v.copies))
	for i, c := range v.copies {
		if sums[i], err = v.sums(ctx, c); err != nil {
			return nil, err
		}
	}
	var suspect []int
	for b := range buckets {
		for _, s := range sums[1:] {
			if s[b] != sums[0][b] {
				suspect = append(suspect, b)
				break
			}
		}
	}
	for len(suspect) > 0 {
		pass := onePass(suspect, sums)
		suspect = suspect[len(pass):]
		keys, err := v.differing(ctx, pass)
		if err != nil {
			return nil, err
		}
		for len(keys) > 0 && len(found) <= MaxDifferences {
			some := keys[:min(len(keys), recheckBatch)]
			keys = keys[len(some):]
			got, err := v.recheck(ctx, some)
			if err != nil {
				return nil, err
			}
			found = append(found, got...)
		}
		if len(found) > MaxDifferences {
			break
		}
	}
	return found, nil
}

// bucket is what a copy has of the rows of one bucket: how many, and the sum of their hashes.
type bucket struct {
	n   int64
	sum string
}

// onePass is the beginning of a list of buckets, at least one, whose rows are read together.
func onePass(suspect []int, sums []map[int]bucket) []int {
	var rows int64
	for i, b := range suspect {
		var most int64
		for _, s := range sums {
			most = max(most, s[b].n)
		}
		if rows += most; rows > passRows && i > 0 {
			return suspect[:i]
		}
	}
	return suspect
}

// sums are a copy's buckets.
func (v *verify) sums(ctx context.Context, c copyOf) (map[int]bucket, error) {
	out := map[int]bucket{}
	rows, err := v.ask(ctx, c, 3, "", fmt.Sprintf("select (%s & %d)::int, count(*), sum(%s)::text from %s group by 1", hashed(v.keyText()), buckets-1, hashed(v.row()), v.table.SQL()))
	if err != nil {
		return nil, nodeFailed(c.shard.Name, err)
	}
	var b int
	var n int64
	var sum string
	_, err = pgx.ForEachRow(rows, []any{&b, &n, &sum}, func() error {
		out[b] = bucket{n, sum}
		v.job.add(n)
		return nil
	})
	if err != nil {
		return nil, nodeFailed(c.shard.Name, err)
	}
	return out, nil
}

// differing lists the keys in some buckets that are not the same row on all copies.
func (v *verify) differing(ctx context.Context, pass []int) (keys [][]string, err error) {
	list := strings.Trim(fmt.Sprint(pass), "[]")
	where := fmt.Sprintf("where %s & %d in (%s)", hashed(v.keyText()), buckets-1, strings.ReplaceAll(list, " ", ", "))
	home, err := v.rows(ctx, v.copies[0], where)
	if err != nil {
		return nil, err
	}
	suspect := map[string][]string{}
	for _, c := range v.copies[1:] {
		there, err := v.rows(ctx, c, where)
		if err != nil {
			return nil, err
		}
		for _, d := range unlike(home, there) {
			suspect[d.text] = d.key
		}
	}
	for _, k := range suspect {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, slices.Compare)
	return keys, nil
}

// rows reads keys and hashes of a copy, by the key's text.
func (v *verify) rows(ctx context.Context, c copyOf, where string) (map[string]seen, error) {
	out := map[string]seen{}
	rows, err := v.ask(ctx, c, 3, "", fmt.Sprintf("select %s, %s, %s from %s %s", hashed(v.keyText()), v.keyArray(), hashed(v.row()), v.table.SQL(), where))
	if err != nil {
		return nil, nodeFailed(c.shard.Name, err)
	}
	var s seen
	var h int64
	if _, err := pgx.ForEachRow(rows, []any{&h, &s.key, &s.hash}, func() error {
		text := fmt.Sprint(h) // without a key: the row's own hash
		if len(v.key) > 0 {
			text = strings.Join(s.key, "\x00")
		}
		s.n = out[text].n + 1
		out[text] = s
		s.key = nil
		return nil
	}); err != nil {
		return nil, nodeFailed(c.shard.Name, err)
	}
	return out, nil
}

// odd is a key whose rows are not alike.
type odd struct {
	text string
	key  []string
	how  string
}

// unlike compares what a copy has with what home has.
func unlike(home, there map[string]seen) (out []odd) {
	for text, h := range home {
		switch t, ok := there[text]; {
		case !ok:
			out = append(out, odd{text, h.key, "missing"})
		case t.n != h.n:
			out = append(out, odd{text, h.key, fmt.Sprintf("there %d times, on home %d times", t.n, h.n)})
		case t.hash != h.hash:
			out = append(out, odd{text, h.key, "differs from home's row"})
		}
	}
	for text, t := range there {
		if _, ok := home[text]; !ok {
			out = append(out, odd{text, t.key, "home has no such row"})
		}
	}
	return out
}

// recheck looks at rows again while nobody writes the table.
func (v *verify) recheck(ctx context.Context, keys [][]string) (found []Difference, err error) {
	for _, c := range v.copies { // in the order of those who write
		if err := v.lock(ctx, c); err != nil {
			return nil, err
		}
		defer func() { _, _ = c.c.Exec(context.WithoutCancel(ctx), "rollback") }() // gives the lock back; a lost connection has none
	}
	v.locked = true
	defer func() { v.locked = false }()
	where := v.among(keys)
	home, err := v.rows(ctx, v.copies[0], where)
	if err != nil {
		return nil, err
	}
	for _, c := range v.copies[1:] {
		there, err := v.rows(ctx, c, where)
		if err != nil {
			return nil, err
		}
		odds := unlike(home, there)
		slices.SortFunc(odds, func(a, b odd) int { return slices.Compare(a.key, b.key) })
		for _, o := range odds {
			if o.how == "differs from home's row" {
				if o.how, err = v.columnsOf(ctx, c, o.key); err != nil {
					return nil, err
				}
			}
			found = append(found, Difference{c.shard.Name, o.key, o.how})
		}
	}
	return found, nil
}

// turnWait is how long a turn is waited for.
const turnWait = 30 * time.Second

// lock waits its turn among those who write the table.
func (v *verify) lock(ctx context.Context, c copyOf) error {
	err := c.begin(ctx)
	if err == nil {
		_, err = c.c.Exec(ctx, fmt.Sprintf("set local lock_timeout = %d", turnWait.Milliseconds()))
	}
	if err != nil {
		return nodeFailed(c.shard.Name, err)
	}
	soon, cancel := context.WithTimeout(ctx, turnWait+lateBy)
	defer cancel()
	if err := txn.TakeTurn(soon, c.c, txn.TurnOf(v.table.String())); err != nil {
		return nodeFailed(c.shard.Name, err)
	}
	return nil
}

// among is the condition that a row has one of some keys; without a primary key, that it is one of some buckets.
func (v *verify) among(keys [][]string) string {
	if len(v.key) == 0 {
		texts := make([]string, len(keys))
		for i, k := range keys {
			texts[i] = k[0]
		}
		return "where left(" + v.row() + ", 500) = any (" + pgsql.Literal(pgsql.Array(texts)) + "::text[])"
	}
	var names, casted []string
	lists := make([][]string, len(v.key))
	for _, k := range keys {
		for i, x := range k {
			lists[i] = append(lists[i], x)
		}
	}
	cols, own := make([]string, len(v.key)), make([]string, len(v.key))
	for i, n := range v.key {
		cols[i], own[i] = fmt.Sprintf("c%d", i), pgsql.Ident(n)+"::"+v.types[i]
		names = append(names, pgsql.Literal(pgsql.Array(lists[i]))+"::text[]")
		casted = append(casted, fmt.Sprintf("k.c%d::%s", i, v.types[i]))
	}
	return fmt.Sprintf("where (%s) in (select %s from unnest(%s) k (%s))", strings.Join(own, ", "), strings.Join(casted, ", "), strings.Join(names, ", "), strings.Join(cols, ", "))
}

// columnsOf names the columns in which a row of a copy differs from home's.
func (v *verify) columnsOf(ctx context.Context, c copyOf, key []string) (string, error) {
	where := v.among([][]string{key})
	var both [2][]*string
	for i, x := range []copyOf{v.copies[0], c} {
		hashes := make([]string, len(v.columns))
		for j, col := range v.columns {
			hashes[j] = hashed(pgsql.Ident(col)+"::text") + "::text"
		}
		rows, err := v.ask(ctx, x, 1, "", "select array["+strings.Join(hashes, ", ")+"] from "+v.table.SQL()+" "+where)
		if err == nil {
			both[i], err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]*string])
		}
		if err != nil {
			return "", nodeFailed(x.shard.Name, err)
		}
	}
	var names []string
	for j, col := range v.columns {
		a, b := both[0][j], both[1][j]
		if (a == nil) != (b == nil) || a != nil && *a != *b {
			names = append(names, pgsql.Plain(col))
		}
	}
	return "differs from home's row in " + strings.Join(names, ", "), nil
}
