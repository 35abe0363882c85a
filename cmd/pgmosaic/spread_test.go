package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What a function sets in a transaction is so on each shard that the transaction goes on to, in every way to send statements: a date is
// written as it would be on one PostgreSQL.
func TestWhatAFunctionSetsReachesEveryShardOfItsTransaction(t *testing.T) {
	t.Parallel()
	_, c := temporaryWorld(t, "spread")
	const set, write = "do $$ begin set local datestyle to 'SQL, DMY'; end $$", "update parts set i = date_part('month', '01/02/2026'::date)::int where k = $1"
	wrong := func(how string) {
		t.Helper()
		if n := queryOne[int](t, c, "select count(*) from parts where k <= 20 and i <> 2"); n > 0 {
			t.Errorf("%s: %d rows of 20 have another month", how, n)
		}
		if got := queryOne[string](t, c, "select current_setting('datestyle')"); got != "ISO, MDY" {
			t.Errorf("%s: the session goes on with %s", how, got)
		}
		mustExec(t, c, "update parts set i = 0 where k <= 20")
	}
	mustExec(t, c, "update parts set i = 0 where k <= 20")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		mustExec(t, c, "begin")
		mustExec(t, c, set, mode)
		for k := 1; k <= 20; k++ {
			mustExec(t, c, write, mode, k)
		}
		mustExec(t, c, "commit")
		wrong(mode.String())
	}
	for _, begin := range []bool{true, false} { // a transaction of the client's, and the pipeline's own
		var b pgx.Batch
		if begin {
			b.Queue("begin")
		}
		b.Queue(set)
		for k := 1; k <= 20; k++ {
			b.Queue(write, k)
		}
		if begin {
			b.Queue("commit")
		}
		if err := c.SendBatch(t.Context(), &b).Close(); err != nil {
			t.Fatal(err)
		}
		wrong("a pipeline")
	}
	mustExec(t, c, "begin")
	mustExec(t, c, set)
	mustExec(t, c, "update parts set i = date_part('month', '01/02/2026'::date)::int where k <= 20")
	mustExec(t, c, "commit")
	wrong("all shards at once")
	mustExec(t, c, "create function sets() returns void language plpgsql as $$ begin perform set_config('datestyle', 'SQL, DMY', true); end $$")
	mustExec(t, c, "begin")
	mustExec(t, c, "select sets()")
	mustExec(t, c, "insert into parts select k + 1000, date_part('month', '01/02/2026'::date)::int from parts where k <= 20")
	if n := queryOne[int](t, c, "select count(*) from parts where k > 1000 and i <> 2"); n > 0 {
		t.Errorf("by INSERT .. SELECT: %d rows of 20 have another month", n)
	}
	mustExec(t, c, "rollback")
}

// A trigger that sets, on rows of one shard only, is not undone by what the other shards of its statement have.
func TestWhatATriggerSetsOnOneShardIsNotUndoneByAnother(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "spread_trigger")
	for _, sql := range []string{
		"create function sets() returns trigger language plpgsql as $$ begin if new.i = -7 then perform set_config('datestyle', 'German', true); end if; return new; end $$",
		"create trigger sets before update on parts for each row execute function sets()",
	} {
		mustExec(t, c, sql)
	}
	where := func(i int) (k int) {
		for k = 1; queryOne[int](t, d.on(t, "spread_trigger", i), "select count(*) from parts where k = $1", k) == 0; k++ {
		}
		return k
	}
	one, two := where(0), where(1)
	for _, k := range []int{one, two} {
		mustExec(t, c, "begin")
		mustExec(t, c, "update parts set i = case when k = $1 then -7 else 1 end where k in ($2, $3)", k, one, two)
		for _, at := range []int{one, two} {
			if got := queryOne[string](t, c, "select current_setting('datestyle') from parts where k = $1", at); got != "German, DMY" {
				t.Errorf("set by the row %d, the shard of %d has %s", k, at, got)
			}
		}
		mustExec(t, c, "rollback")
	}
}

// What a function with its owner's rights has set, and the session may not, is refused on another shard, by name. Nothing goes on
// silently without it, and no other client has any of it.
func TestWhatOnlyAFunctionMaySetIsRefusedOnAnotherShard(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "spread_owner")
	mustExec(t, c, "create function mightily() returns int language plpgsql as $$ begin set local log_min_messages to debug1; return 1; end $$")
	for i := range 2 {
		su := d.on(t, "spread_owner", i)
		if queryOne[bool](t, su, "select to_regproc('mightily') is not null") {
			mustExec(t, su, "alter function mightily() owner to postgres")
			mustExec(t, su, "alter function mightily() security definer")
		}
	}
	mustExec(t, c, "alter table parts add column note text") // the schema is read again
	refused := 0
	for k := 1; k <= 20; k++ {
		mustExec(t, c, "begin")
		if got := queryOne[int](t, c, "select mightily()"); got != 1 {
			t.Fatal(got)
		}
		_, err := c.Exec(t.Context(), "update parts set i = 5 where k = $1", k)
		if err != nil {
			refused++
			wantCode(t, err, "0A000")
			if !strings.Contains(err.Error(), `"log_min_messages"`) || !strings.Contains(err.Error(), "shard ") {
				t.Errorf("the refusal: %v", err)
			}
		}
		mustExec(t, c, "rollback")
	}
	if refused == 0 || refused == 20 {
		t.Errorf("%d of 20 keys are refused", refused)
	}
	for k := 1; k <= 20; k++ {
		if got := queryOne[string](t, c, "select current_setting('log_min_messages') from parts where k = $1", k); got != "warning" {
			t.Errorf("afterwards: %s", got)
		}
	}
}

// A transaction over two shards in which functions have set much is committed, or not: the next clients of its servers have none of it.
func TestNothingThatAFunctionSetLeaksFromAnotherShard(t *testing.T) {
	t.Parallel()
	d, _ := temporaryWorld(t, "spread_leak")
	dsn := strings.Replace(d.shopDSN(), "/shop", "/spread_leak", 1)
	const what = "select concat_ws('|', current_setting('datestyle'), current_setting('work_mem'), current_setting('app.word', true) is null, current_user) from parts where k = $1"
	for _, end := range []string{"commit", "rollback", "savepoint a; rollback to a; commit"} {
		for _, local := range []string{"", "local"} {
			c := connectTo(t, dsn)
			mustExec(t, c, "begin")
			mustExec(t, c, "do $$ begin set "+local+" datestyle to German; set "+local+" work_mem to '9MB'; set "+local+" app.word to 'x'; end $$")
			for k := 1; k <= 10; k++ {
				mustExec(t, c, "update parts set i = i + 1 where k = $1", k)
				if got := queryOne[string](t, c, what, k); got != "German, DMY|9MB|f|app" {
					t.Errorf("in the transaction, for %d: %s", k, got)
				}
			}
			for _, sql := range strings.Split(end, "; ") {
				mustExec(t, c, sql)
			}
			want := "ISO, MDY|4MB|f|app"
			if end != "rollback" && local == "" {
				want = "German, DMY|9MB|f|app"
			}
			for k := 1; k <= 10; k++ {
				if got := queryOne[string](t, c, what, k); !strings.HasPrefix(got, want[:12]) || local == "" && end != "rollback" && got != want {
					t.Errorf("%s %s: the session has %s", local, end, got)
				}
			}
			_ = c.Close(t.Context())
			for range 6 {
				n := connectTo(t, dsn)
				for k := 1; k <= 10; k++ {
					if got := queryOne[string](t, n, what, k); got != "ISO, MDY|4MB|t|app" {
						t.Fatalf("%s %s: the next client has %s", local, end, got)
					}
				}
				_ = n.Close(t.Context())
			}
		}
	}
}

// A search_path that a function sets says which tables the statements behind it are about, also where their routes are found.
func TestStatementsAreRoutedByTheSearchPathOfAFunction(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "spread_path")
	for _, sql := range []string{
		"create schema other", "create table other.parts (k int primary key, i int)",
		"create function go_other() returns void language plpgsql as $$ begin perform set_config('search_path', 'other, public', true); end $$",
	} {
		mustExec(t, c, sql)
	}
	before := queryOne[int](t, c, "select sum(k) from public.parts")
	for n, how := range []struct {
		set  string
		mode pgx.QueryExecMode
	}{
		{"do $$ begin set local search_path to other, public; end $$", pgx.QueryExecModeSimpleProtocol},
		{"select go_other()", pgx.QueryExecModeExec},
		{"select go_other()", pgx.QueryExecModeCacheStatement},
	} {
		mustExec(t, c, "begin")
		mustExec(t, c, how.set, how.mode)
		mustExec(t, c, "savepoint a")
		for k := 1; k <= 20; k++ {
			mustExec(t, c, "insert into parts values ($1, $1)", how.mode, k+100000)
		}
		mustExec(t, c, "rollback to a")
		for k := 1; k <= 20; k++ {
			mustExec(t, c, "insert into parts values ($1, $1)", how.mode, k+1000*n)
		}
		if got := queryOne[int](t, c, "select count(*) from parts"); got != 20*(n+1) {
			t.Errorf("%s: %d rows", how.set, got)
		}
		mustExec(t, c, "commit")
	}
	if got := queryOne[int](t, d.on(t, "spread_path", 0), "select count(*) from other.parts"); got != 60 {
		t.Errorf("%d rows of 60 are where they belong", got)
	}
	if now := queryOne[int](t, c, "select sum(k) from parts"); now != before {
		t.Error("the table of the session's own path was written")
	}
}

// A trigger that sets is looked for on every server that a statement over several shards wrote on: the session has what it set, and
// nobody else.
func TestWhatATriggerSetsInAWriteOverShardsIsTheSessionsOnly(t *testing.T) {
	t.Parallel()
	d, _ := temporaryWorld(t, "spread_writes")
	dsn := strings.Replace(d.shopDSN(), "/shop", "/spread_writes", 1)
	c := connectTo(t, dsn)
	for _, sql := range []string{
		"create function sets() returns trigger language plpgsql as $$ begin perform set_config('work_mem', '9MB', false); return new; end $$",
		"create trigger sets before insert or update on parts for each row execute function sets()",
	} {
		mustExec(t, c, sql)
	}
	const what = "select current_setting('work_mem') from parts where k = $1"
	for _, sql := range []string{"update parts set i = 1", "insert into parts values (1001, 1), (1002, 1), (1003, 1), (1004, 1)"} {
		c := connectTo(t, dsn)
		mustExec(t, c, sql)
		for k := 1; k <= 10; k++ {
			if got := queryOne[string](t, c, what, k); got != "9MB" {
				t.Errorf("%s: the session has %s", sql, got)
			}
		}
		_ = c.Close(t.Context())
		for range 6 {
			n := connectTo(t, dsn)
			for k := 1; k <= 10; k++ {
				if got := queryOne[string](t, n, what, k); got != "4MB" {
					t.Fatalf("%s: the next client has %s", sql, got)
				}
			}
			_ = n.Close(t.Context())
		}
	}
}
