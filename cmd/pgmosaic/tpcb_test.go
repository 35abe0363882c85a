package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// pgbench's TPC-B over tables that are spread by aid, bid and tid: no client fails in any mode, and the four sums are equal.
func TestPgbenchOverShards(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "tpcb")
	dsn := dsnFor("app", "app", d.Server.Addr(), "tpcb")
	bench := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "pgbench", append(args, dsn)...).CombinedOutput()
		if err != nil {
			t.Fatalf("pgbench %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	bench("-i", "-q", "-s", "2")
	d.adminExec(t, "CREATE GROUP g IN tpcb KEY (int) BY HASH")
	for table, key := range map[string]string{"accounts": "aid", "branches": "bid", "tellers": "tid", "history": "aid"} {
		d.adminExec(t, fmt.Sprintf("DISTRIBUTE TABLE tpcb.public.pgbench_%s IN GROUP g KEY (%s)", table, key))
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		out := bench("-n", "-c", "16", "-j", "2", "-t", "40", "-M", mode)
		if !strings.Contains(out, "number of transactions actually processed: 640/640") || !strings.Contains(out, "number of failed transactions: 0") {
			t.Errorf("%s: %s", mode, out)
		}
	}
	sums := queryOne[[]int64](t, c, `select array[(select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), (select sum(tbalance) from pgbench_tellers),
		(select sum(delta) from pgbench_history), (select count(*) from pgbench_history)]`)
	if sums[0] != sums[1] || sums[0] != sums[2] || sums[0] != sums[3] || sums[4] != 3*640 {
		t.Errorf("sums of accounts, branches, tellers and history: %v", sums)
	}
	bench("-i", "-q", "-s", "1", "-I", "dtGvp") // drops them, makes them anew at home, generates rows on the server
	if n := queryOne[int](t, c, "select count(*) from pgbench_accounts"); n != 100000 {
		t.Errorf("%d accounts", n)
	}
}

var errUndone = errors.New("undone")

var referenceWrites = flag.Int("reference.n", 150, "how many statements of clients write a reference table")

// Many clients write overlapping rows of a reference table by other columns than its key. All copies stay equal.
func TestCopiesOfReferenceTablesStayEqual(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "copied_rows")
	mustExec(t, c, "create table prices (id int primary key, class int, price numeric, note text)")
	mustExec(t, c, "insert into prices select i, i % 7, i, 'n' from generate_series(1, 200) i")
	d.adminExec(t, "DISTRIBUTE TABLE copied_rows.public.prices AS REFERENCE")
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := map[string]int{}
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return done["<nil>"] >= *referenceWrites && done[errUndone.Error()] > 0
	}
	for n := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(n)))
			c, err := pgx.Connect(t.Context(), dsnFor("app", "app", d.Server.Addr(), "copied_rows"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			for !enough() && !t.Failed() {
				k := rng.IntN(7)
				sql := []string{
					fmt.Sprintf("update prices set price = price * 1.01 + %d where class = %d", k, k),
					fmt.Sprintf("update prices set class = (class + 1) %% 7 where price < %d", 50*k),
					fmt.Sprintf("update prices set note = note || '%d', price = case when price > 1e6 then 1 else price end where length(note) < 20 and class <> %d", n, k),
					fmt.Sprintf("delete from prices where class = %d and id %% 50 = %d", k, rng.IntN(50)),
					fmt.Sprintf("insert into prices values (%d, %d, %d, 'new') on conflict (id) do update set price = prices.price + excluded.price, class = excluded.class", 1+rng.IntN(300), k, n),
				}[rng.IntN(5)]
				var err error
				if rng.IntN(4) == 0 { // in a transaction, undone now and then
					err = pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
						_, err := tx.Exec(t.Context(), sql)
						if err == nil && k == 0 {
							return errUndone
						}
						return err
					})
				} else {
					_, err = c.Exec(t.Context(), sql)
				}
				mu.Lock()
				done[fmt.Sprint(err)]++
				mu.Unlock()
				if err != nil && !errors.Is(err, errUndone) && pgCode(err) != "40P01" {
					t.Errorf("%s: %v", sql, err)
				}
			}
		})
	}
	wg.Wait()
	const sum = "select count(*) || ' ' || coalesce(md5(string_agg(p::text, ',' order by id)), '') from prices p"
	want := queryOne[string](t, c, sum)
	for i := range 3 {
		if got := queryOne[string](t, d.on(t, "copied_rows", i), sum); got != want {
			t.Errorf("the copy of shard %d: %s, want %s", i, got, want)
		}
	}
	t.Logf("statements by outcome: %v", done)
}
