package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestPsqlDescribesTables(t *testing.T) {
	t.Parallel()
	d := shop(t)
	out := run(t, d, "psql", "-c", `\dt`, "-c", `\d orders`, "-c", `\d+ customers`, "-c", `\df`, "-c", `\l`, "-c", `\du`, "-c", `\dn`, "-c", `\di`)
	for _, want := range []string{"customers", "orders_pkey", "pgmosaic_slot", "countries", "List of databases"} {
		if !strings.Contains(out, want) {
			t.Errorf("psql does not show %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "ERROR") {
		t.Errorf("psql reports an error:\n%s", out)
	}
}

func TestPsqlCompletesTableNames(t *testing.T) {
	t.Parallel()
	d := shop(t)
	script, err := exec.LookPath("script")
	if err != nil {
		t.Fatal("script is needed: install bsdutils (util-linux)")
	}
	cmd := exec.CommandContext(t.Context(), script, "-qec", client(t, "psql")+" '"+d.shopDSN()+"'", "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=dumb", "PAGER=cat", "PSQLRC=/dev/null")
	cmd.Stdin = strings.NewReader("select count(*) as n_custom from custom\t;\n\\q\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`from customers\s*;`).Match(out) || !strings.Contains(string(out), "2000") {
		t.Errorf("custom<Tab> did not become customers:\n%q", out)
	}
}

func TestPsqlCopiesBothWays(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table copied (id bigint primary key, note text)")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.copied IN GROUP customers KEY (id)")
	defer func() { mustExec(t, c, "drop table copied") }()
	for _, format := range []struct{ name, opts, rows string }{
		{"text", "", "1\tone\n2\ttab\\there\n3\t\\N\n4\tback\\\\slash\n-5\tminus\n"},
		{"csv", "with (format csv, header true)", "id,note\n1,one\n2,\"two, \"\"quoted\"\"\"\n3,\n4,\"line\nbreak\"\n-5,minus\n"},
		{"csv with semicolons", "with (format csv, delimiter ';', null 'NIL')", "1;one\n2;NIL\n3;\"NIL\"\n"},
	} {
		t.Run(format.name, func(t *testing.T) {
			mustExec(t, c, "truncate copied")
			in := filepath.Join(t.TempDir(), "in")
			if err := os.WriteFile(in, []byte(format.rows), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, d, "psql", "-v", "ON_ERROR_STOP=1", "-c", fmt.Sprintf(`\copy copied from '%s' %s`, in, format.opts))
			// The same file into one PostgreSQL's table must give the same rows.
			home := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
			mustExec(t, home, "create table public.oracle (id bigint primary key, note text)")
			defer func() { mustExec(t, home, "drop table public.oracle") }()
			f, err := os.Open(in)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close() // only read
			if _, err := home.PgConn().CopyFrom(t.Context(), f, "copy public.oracle from stdin "+format.opts); err != nil {
				t.Fatal(err)
			}
			want := queryOne[string](t, home, "select coalesce(string_agg(id || '=' || coalesce(quote_literal(note), 'null'), ';' order by id), '') from public.oracle")
			rows, err := c.Query(t.Context(), "select id || '=' || coalesce(quote_literal(note), 'null') from copied order by id")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for rows.Next() {
				var s string
				if err := rows.Scan(&s); err != nil {
					t.Fatal(err)
				}
				got = append(got, s)
			}
			if strings.Join(got, ";") != want {
				t.Errorf("got %s, one PostgreSQL has %s", strings.Join(got, ";"), want)
			}
			out := run(t, d, "psql", "-c", `\copy copied to stdout`)
			if n := strings.Count(out, "\n"); n != len(got) {
				t.Errorf("COPY TO gave %d lines, want %d:\n%s", n, len(got), out)
			}
		})
	}
	t.Run("a bad row leaves nothing", func(t *testing.T) {
		mustExec(t, c, "truncate copied")
		_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\ta\n2\tb\nx\tc\n"), "copy copied from stdin")
		if err == nil || !strings.Contains(err.Error(), "22P02") {
			t.Errorf("error %v", err)
		}
		_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\ta\n2\tb\n1\tc\n"), "copy copied from stdin")
		if err == nil || !strings.Contains(err.Error(), "23505") {
			t.Errorf("error %v", err)
		}
		if n := queryOne[int](t, c, "select count(*) from copied"); n != 0 {
			t.Errorf("%d rows were left behind", n)
		}
	})
}

// pgbench -i, then all its modes over tables distributed by different keys: transactions reach two shards.
func TestPgbenchBalancesOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	run(t, d, "pgbench", "-i", "-q", "-s", "1")
	defer func() {
		run(t, d, "psql", "-c", "drop table pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history")
		d.adminExec(t, "DROP GROUP bench IN shop")
	}()
	d.adminExec(t, "CREATE GROUP bench IN shop KEY (integer) BY HASH")
	for table, key := range map[string]string{"accounts": "aid", "branches": "bid", "tellers": "tid", "history": "aid"} {
		d.adminExec(t, fmt.Sprintf("DISTRIBUTE TABLE shop.public.pgbench_%s IN GROUP bench KEY (%s)", table, key))
	}
	failed := regexp.MustCompile(`number of failed transactions: (\d+)`)
	for _, mode := range []string{"simple", "extended", "prepared"} {
		for _, script := range []string{"-S", "-btpcb-like"} {
			out := run(t, d, "pgbench", "-n", script, "-M", mode, "-c", "8", "-t", "100")
			m := failed.FindStringSubmatch(out)
			if m == nil || m[1] != "0" || strings.Contains(out, "aborted") || strings.Contains(out, "ERROR") {
				t.Errorf("%s %s:\n%s", script, mode, out)
			}
		}
	}
	c := connectTo(t, d.shopDSN())
	a := queryOne[int64](t, c, "select sum(abalance) from pgbench_accounts")
	b := queryOne[int64](t, c, "select sum(bbalance) from pgbench_branches")
	tt := queryOne[int64](t, c, "select sum(tbalance) from pgbench_tellers")
	h := queryOne[int64](t, c, "select sum(delta) from pgbench_history")
	n := queryOne[int64](t, c, "select count(*) from pgbench_history")
	if a != b || b != tt || tt != h || n != 3*8*100 {
		t.Errorf("sums differ: accounts %d, branches %d, tellers %d, history %d over %d rows", a, b, tt, h, n)
	}
	if got := queryOne[int64](t, c, "select count(*) from pgbench_accounts"); got != 100000 {
		t.Errorf("%d accounts", got)
	}
	t.Run("pgbench -i fills tables that are distributed already", func(t *testing.T) {
		run(t, d, "pgbench", "-i", "-q", "-I", "gv")
		if got := queryOne[int64](t, c, "select count(*) from pgbench_accounts"); got != 100000 {
			t.Errorf("%d accounts", got)
		}
		assertPlaced(t, d, "pgbench_accounts", "aid", "bench")
	})
}
