package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

var (
	pipelines     = flag.Int("pipelines.n", 400, "random scripts of messages in TestPipelinesLikePostgreSQL")
	pipelinesSeed = flag.Uint64("pipelines.seed", 1, "their seed")
)

// What pipelines of random messages consist of. T is the table of the server that is asked.
var pipelined = []string{
	"select 1", "select $1::int + 1", "select generate_series(1, 4)", "values (1), (2), (3)", "select 1/0", "select nosuch", "selec 1", "", "select 1; select 2",
	"begin", "begin", "commit", "commit", "rollback", "savepoint a", "rollback to a", "release a",
	"insert into T values ($1::int, 1)", "insert into T values (1, 1)", "insert into T values (5, 1), (6, 1), (7, 1)", "select count(*) from T",
	"select k from T order by k", "update T set n = n + 1 where k = $1::int returning n", "delete from T where k = 1", "update T set n = n + 1",
	"select k from T where k = 2 for update", "select n / (k - 1) from T where k = 1",
	"show application_name", "set application_name = 'x'", "set local application_name = 'y'", "select current_setting('application_name')",
	"declare c cursor for select generate_series(1, 3)", "fetch 2 from c", "close c", "prepare q as select 7", "execute q", "deallocate q",
	"do $$ begin raise notice 'n'; end $$", "explain (costs off) select 1",
}

// Strings of several statements, for simple queries.
var severals = []string{
	"select 1; commit; select 2", "insert into T values (8, 1); rollback; select count(*) from T", "begin; insert into T values (9, 1); commit; select 1/0",
	"select 3; set local application_name = 'z'; show application_name", "insert into T values (8, 1), (9, 1); select 1/0", "begin; select 1",
	"rollback; begin isolation level repeatable read; show transaction_isolation", "declare c cursor for select 1; fetch c",
}

// sent is one message of a script.
type sent struct {
	text string
	send func(r *raw, table string)
	ends bool // ReadyForQuery comes
}

func pipelineScript(rng *rand.Rand) []sent {
	var out []sent
	add := func(ends bool, send func(*raw, string), format string, args ...any) {
		out = append(out, sent{fmt.Sprintf(format, args...), send, ends})
	}
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	sql := func() string { return pipelined[rng.IntN(len(pipelined))] }
	named := func(table, sql string) string { return strings.ReplaceAll(sql, "T", table) }
	params := map[string]int{} // of the statements parsed last
	parse := func(name, sql string) {
		params[name] = strings.Count(sql, "$1")
		add(false, func(r *raw, table string) { r.SendParse(name, named(table, sql), nil) }, "Parse %q %s", name, sql)
	}
	bind := func(portal, stmt string) {
		n := params[stmt]
		if rng.IntN(40) == 0 {
			n = 1 - n
		}
		var values [][]byte
		if n == 1 {
			values = [][]byte{[]byte(itoa(1 + rng.IntN(4)))}
		}
		add(false, func(r *raw, _ string) {
			r.Send(&wire.Bind{DestinationPortal: portal, PreparedStatement: stmt, Parameters: values})
		}, "Bind %q %q %q", portal, stmt, values)
	}
	execute := func(portal string, rows uint32) {
		add(false, func(r *raw, _ string) { r.executeLimited(portal, rows) }, "Execute %q %d", portal, rows)
	}
	for range 4 + rng.IntN(6) { // pipelines
		if rng.IntN(6) == 0 {
			s := pick(sql(), sql(), severals[rng.IntN(len(severals))])
			if strings.Contains(s, "$1") {
				s = "select 2"
			}
			add(true, func(r *raw, table string) { r.SendQuery(named(table, s)) }, "Query %s", s)
			continue
		}
		for range 1 + rng.IntN(5) {
			portal, stmt := pick("", "", "", "p1", "p2"), pick("", "", "s1", "s2")
			switch rng.IntN(16) {
			case 0:
				parse(stmt, sql())
			case 1:
				bind(portal, stmt)
			case 2:
				execute(portal, uint32(rng.IntN(3)))
			case 3:
				kind, name := byte('S'), stmt
				if rng.IntN(2) == 0 {
					kind, name = 'P', portal
				}
				add(false, func(r *raw, _ string) { r.SendDescribe(kind, name) }, "Describe %c %q", kind, name)
			case 4:
				kind, name := byte('S'), stmt
				if rng.IntN(2) == 0 {
					kind, name = 'P', portal
				}
				add(false, func(r *raw, _ string) { r.SendClose(kind, name) }, "Close %c %q", kind, name)
			case 5:
				add(false, func(r *raw, _ string) { r.SendFlush() }, "Flush")
			case 6, 7:
				bind(portal, stmt)
				execute(portal, 0)
			default:
				parse(stmt, sql())
				if rng.IntN(3) == 0 {
					add(false, func(r *raw, _ string) { r.SendDescribe('S', stmt) }, "Describe S %q", stmt)
				}
				bind(portal, stmt)
				if rng.IntN(2) == 0 {
					add(false, func(r *raw, _ string) { r.SendDescribe('P', portal) }, "Describe P %q", portal)
				}
				execute(portal, uint32(max(0, rng.IntN(6)-3)))
			}
		}
		add(true, func(r *raw, _ string) { r.SendSync() }, "Sync")
	}
	return out
}

// answer is what comes up to ReadyForQuery: types, with what can be compared of each.
func (r *raw) answer() string {
	if err := r.Flush(); err != nil {
		return err.Error()
	}
	var b strings.Builder
	for {
		m, err := r.Next()
		if err != nil {
			return b.String() + " " + err.Error()
		}
		body := m.Body()
		if m.Type == 'S' || m.Type == 'N' && wire.ParseError(body).Code == "01000" { // when a change is reported is the server's choice; it warns of its own leaks
			continue
		}
		b.WriteByte(m.Type)
		switch m.Type {
		case 'E', 'N':
			b.WriteString("[" + wire.ParseError(body).Code + "]")
		case 'T', 't':
			fmt.Fprintf(&b, "(%d)", int(body[0])<<8+int(body[1]))
		case 'D':
			if vals, err := wire.RowValues(nil, body); err == nil && len(vals) > 0 {
				b.WriteString("(" + string(vals[0]) + ")")
			}
		case 'C':
			b.WriteString("<" + strings.TrimRight(string(body), "\x00") + ">")
		case 'Z':
			return b.String() + string(body[0])
		}
	}
}

// Random messages, alone and in pipelines, named and unnamed, right and wrong, are answered as PostgreSQL answers them: on one
// shard, and over two.
func TestPipelinesLikePostgreSQL(t *testing.T) {
	t.Parallel()
	d := shop(t)
	one := small(t, d, 5, nil)
	targets := []struct{ name, dsn, table string }{
		{"PostgreSQL", d.cluster.Node("s1-a").DSN("shop"), "piped_direct"}, {"one shard", one.dsn(), "piped_one"}, {"two shards", d.shopDSN(), "piped_two"},
	}
	defer func() {
		for _, x := range targets {
			mustExec(t, connectTo(t, x.dsn), "drop table if exists "+x.table)
		}
		d.adminExec(t, "DROP GROUP piped IN shop")
	}()
	conns := make([]*raw, len(targets))
	for i, x := range targets {
		c := connectTo(t, x.dsn)
		mustExec(t, c, "create table "+x.table+" (k int primary key, n int)")
		conns[i] = rawTo(t, x.dsn)
	}
	d.adminExec(t, "CREATE GROUP piped IN shop KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.piped_two IN GROUP piped KEY (k)")
	wrong := 0
	for n := range *pipelines {
		script := pipelineScript(rand.New(rand.NewPCG(*pipelinesSeed, uint64(n))))
		answers := make([][]string, len(targets))
		for i, x := range targets {
			r := conns[i]
			for _, s := range script {
				s.send(r, x.table)
				if s.ends {
					answers[i] = append(answers[i], r.answer())
				}
			}
			for _, sql := range []string{"rollback", "discard all", "delete from " + x.table} {
				r.SendQuery(sql)
				if got := r.answer(); !strings.HasSuffix(got, "ZI") {
					t.Fatalf("%s, script %d: after it %s answers %s", x.name, n, sql, got)
				}
			}
		}
		for i := 1; i < len(targets); i++ {
			if same := compareAnswers(script, answers[0], answers[i]); same != "" {
				t.Errorf("%s, script %d:%s", targets[i].name, n, same)
				wrong++
			}
		}
		if wrong > 8 {
			t.FailNow()
		}
	}
}

// gone makes one error of what a portal says that has been run to its end: it cannot be run, or it is gone.
func gone(answer string) string { return strings.ReplaceAll(answer, "E[55000]", "E[34000]") }

// refused says whether an answer ends with an error in a failed transaction.
func refused(answer string) bool { return strings.HasSuffix(answer, "]ZE") }

// compareAnswers returns the script up to the first answer that differs; empty if none does.
func compareAnswers(script []sent, want, got []string) string {
	var text strings.Builder
	k := 0
	for _, s := range script {
		text.WriteString("\n  " + s.text)
		if !s.ends {
			continue
		}
		fmt.Fprintf(&text, "\n      %s", want[k])
		failed := k > 0 && strings.HasSuffix(want[k-1], "E") // such a transaction refuses all, perhaps sooner or for another reason
		if documented := strings.Contains(got[k], "E[0A000]") || strings.Contains(got[k], "E[34000]") || strings.Contains(got[k], "E[40001]") || strings.Contains(want[k], "E[42P03]"); documented && got[k] != want[k] {
			return "" // a refusal, a portal that is open on a replica or that a statement on other servers has ended: what follows differs
		}
		if gone(got[k]) != gone(want[k]) && !(failed && refused(got[k]) && strings.HasSuffix(want[k], "ZE")) {
			return text.String() + "\n   not " + got[k]
		}
		k++
	}
	return ""
}

// A pipeline that begins on a replica and goes on to what that may not answer is run again on the primary. It keeps the
// statements from before it, also one whose name it is about to take.
func TestPipelineRunAgainKeepsStatements(t *testing.T) {
	t.Parallel()
	d := shop(t)
	r := rawTo(t, d.shopDSN())
	for name, sql := range map[string]string{"reads": "select customer_id from customers where customer_id = 1", "locks": "select customer_id from customers where customer_id = 1 for update"} {
		r.SendParse(name, sql, nil)
	}
	r.SendSync()
	r.want('Z', "11ZI")
	onReplica := func() int64 { n, _ := replicaReads(d); return n }
	eventually(t, "a pipeline begins on a replica", func() bool {
		before := onReplica()
		r.SendBind("", "reads", []byte{0, 0, 0, 0, 0, 0})
		r.SendBind("locking", "locks", []byte{0, 0, 0, 0, 0, 0})
		r.executeLimited("locking", 0)
		r.SendParse("reads", "select 1", nil)
		r.SendSync()
		r.want('Z', "22D(1)C<SELECT 1>E[42P05]ZI")
		return onReplica() > before
	})
}
