package main

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// told reads to ReadyForQuery and returns all that a client is told of columns, rows and errors.
func (r *raw) told() string {
	r.t.Helper()
	if err := r.Flush(); err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	for {
		m, err := r.Next()
		if err != nil {
			r.t.Fatalf("%v, behind %q", err, b.String())
		}
		b.WriteByte(m.Type)
		switch m.Type {
		case 'T':
			fields, err := wire.ParseRowDescription(m.Body())
			if err != nil {
				r.t.Fatal(err)
			}
			for _, f := range fields {
				fmt.Fprintf(&b, "(%s %d)", f.Name, f.DataTypeOID)
			}
		case 'D':
			vals, err := wire.RowValues(nil, m.Body())
			if err != nil {
				r.t.Fatal(err)
			}
			fmt.Fprintf(&b, "%q", vals)
		case 'E':
			e := wire.ParseError(m.Body())
			fmt.Fprintf(&b, "[%s %s]", e.Code, e.Routine)
		case 'C':
			fmt.Fprintf(&b, "<%s>", strings.TrimRight(string(m.Body()), "\x00"))
		case 'Z':
			b.WriteByte(m.Body()[0])
			return b.String()
		}
	}
}

// pair is a client of the proxy, and its like at one PostgreSQL.
type pair struct{ via, plain *raw }

// each has both do the same, and compares what they are told. Where may is set, the proxy may say that it is not known any more what a
// statement gave.
func (p pair) each(what string, may bool, do func(r *raw)) {
	p.via.t.Helper()
	do(p.via)
	do(p.plain)
	got, want := p.via.told(), p.plain.told()
	if got != want && (!may || got != "E[0A000 RevalidateCachedQuery]ZI") {
		p.via.t.Errorf("%s\ngot  %s\nwant %s", what, got, want)
	}
}

// run has both run a statement that is prepared. Its parameter, if it has one, is the number 2.
func (p pair) run(what string, may, param, binary bool, name string) {
	p.via.t.Helper()
	p.each(what, may, func(r *raw) {
		bindTwo(r, param, binary, name)
		r.SendExecute()
		r.SendSync()
	})
}

func bindTwo(r *raw, param, inBinary bool, name string) {
	switch {
	case !param:
		r.SendBindParts(name, nil, nil, nil)
	case inBinary:
		r.SendBindParts(name, []int16{1}, [][]byte{binary.BigEndian.AppendUint32(nil, 2)}, nil)
	default:
		r.SendBindParts(name, nil, [][]byte{[]byte("2")}, nil)
	}
}

// reshapedRows are statements that give the columns of a table, on one shard, merged, gathered, and written.
var reshapedRows = []string{
	"select * from $T where k = 1", "select * from $T", "select x.* from $T x join $T y on x.a = y.a",
	"update $T set a = a where k = 1 returning *", "update $T set a = a returning *",
}

var reshapings = []struct {
	what, definition string
	statements       []string
	param            bool
}{
	{"a column less", "alter table $T drop column b", reshapedRows, false},
	{"a column more", "alter table $T add column c int", reshapedRows, false},
	{"a column of another type", "alter table $T alter column b type bigint", reshapedRows, false},
	{"a parameter of another type", "alter table $T alter column b type bigint", []string{
		"select k from $T where k = 1 and b = $1", "select k from $T where b = $1", "select x.k from $T x join $T y on x.a = y.a where x.b = $1", "update $T set a = a where b = $1 returning k",
		"update $T set a = a where k = 1 and b = $1 returning k", "update $T set a = a where k = 1 and b = $1",
	}, true},
	{"a view with a column more", "create or replace view $T_seen as select k, a, b from $T", []string{"select * from $T_seen where k = 1", "select * from $T_seen"}, false},
	{"another table of the name", "", reshapedRows, false}, // by search_path
}

// reshapedWorld is a process with one server for each of two shards, an admin of it, and a database of one PostgreSQL, all with tables t0,
// t1 and so on, and elsewhere.t0 and so on.
func reshapedWorld(t *testing.T, name string, tables int) (via, plain string, admin *pgx.Conn) {
	t.Helper()
	var setUp []string
	for i := range tables {
		setUp = append(setUp, fmt.Sprintf("create table t%d (k int primary key, b int, a int); insert into t%[1]d values (1, 2, 3); create view t%[1]d_seen as select k, a from t%[1]d", i))
	}
	last := fmt.Sprintf("t%d", tables-1)
	setUp = append(setUp, fmt.Sprintf("create schema elsewhere; create table elsewhere.%s (k int primary key, a int, z text); insert into elsewhere.%[1]s values (1, 3, 'z')", last))
	via = ownPool(t, name, setUp, "s1-a", "s2-a")
	node := shop(t).cluster.Node("s1-a")
	freshDatabase(t, node, name+"_one")
	plain = strings.Replace(node.DSN(name+"_one"), "postgres:"+shop(t).cluster.Password, "app:app", 1)
	one := connectTo(t, plain)
	for _, sql := range setUp {
		mustExec(t, one, sql, pgx.QueryExecModeSimpleProtocol)
	}
	admin = connectTo(t, strings.Replace(strings.Replace(via, "app:app", "admin:admin", 1), "/"+name, "/pgmosaic", 1)+"?default_query_exec_mode=simple_protocol")
	mustExec(t, admin, "CREATE GROUP g IN "+name+" KEY (int) BY HASH")
	for i := range tables {
		mustExec(t, admin, fmt.Sprintf("DISTRIBUTE TABLE %s.public.t%d IN GROUP g KEY (k)", name, i))
	}
	mustExec(t, admin, fmt.Sprintf("DISTRIBUTE TABLE %s.elsewhere.%s IN GROUP g KEY (k)", name, last))
	return via, plain, admin
}

// prepared is a statement of a pair, by name or without, with how the client was told of its columns: by Describe of it, of its portal, or not
// at all; or it is prepared and run by SQL.
type prepared struct {
	pair
	name, how, sql string
	param          bool
}

func (s *prepared) what(when string) string {
	return fmt.Sprintf("%s: %s, %q (%s)", when, s.sql, s.name, s.how)
}

const bySQL = "SQL"

// prepare prepares it and runs it once.
func (s *prepared) prepare(when string) {
	s.via.t.Helper()
	s.each(s.what(when), false, func(r *raw) {
		if s.how == bySQL {
			r.SendQuery("prepare " + s.name + " as " + s.sql)
			return
		}
		r.SendClose('S', s.name)
		r.SendParse(s.name, s.sql, nil)
		if s.how == "statement" {
			r.SendDescribe('S', s.name)
			r.SendSync()
			return
		}
		bindTwo(r, s.param, false, s.name)
		if s.how == "portal" {
			r.SendDescribe('P', "")
		}
		r.SendExecute()
		r.SendSync()
	})
	s.again(when + ", at once")
}

// again runs it as drivers do that know its columns. What an unnamed one gave that was not described is not known.
func (s *prepared) again(when string) {
	s.via.t.Helper()
	if s.how == bySQL {
		s.each(s.what(when), false, func(r *raw) {
			r.SendQuery("execute " + s.name + map[bool]string{true: "(2)", false: ""}[s.param])
		})
		return
	}
	s.run(s.what(when), s.name == "" && s.how != "statement", s.param, s.how == "statement", s.name)
}

// A statement that was prepared gives what its client was told, or has seen, that it gives, or says that it cannot, as on one PostgreSQL:
// whatever is defined anew, whichever server runs it, and whoever else has prepared the same.
func TestPreparedStatementsGiveWhatTheyGaveOrFail(t *testing.T) {
	t.Parallel()
	via, plain, admin := reshapedWorld(t, "reshaped", len(reshapings))
	connect := func() pair { return pair{rawTo(t, via), rawTo(t, plain)} }
	definers := []*pgx.Conn{connectTo(t, via), connectTo(t, plain)}
	hows := []string{"portal", "none", "statement"}
	named, other := connect(), connect()
	var unnamed []pair // each has one
	for range len(hows) * len(reshapedRows) * 2 {
		unnamed = append(unnamed, connect())
	}
	for i, x := range reshapings {
		on := func(sql string) string { return strings.ReplaceAll(sql, "$T", fmt.Sprintf("t%d", i)) }
		var all []*prepared
		for k, sql := range x.statements {
			for j, how := range hows {
				all = append(all, &prepared{named, fmt.Sprint(how, k), how, on(sql), x.param}, &prepared{unnamed[k*len(hows)+j], "", how, on(sql), x.param})
			}
		}
		for k, sql := range x.statements {
			all = append(all, &prepared{named, fmt.Sprintf("sql%d_%d", i, k), bySQL, on(sql), x.param})
		}
		for k, sql := range x.statements { // last, and in the path that it began with
			all = append(all, &prepared{other, fmt.Sprint("other", k), "statement", on(sql), x.param})
		}
		for _, s := range all {
			s.prepare(x.what)
		}
		if x.definition != "" {
			for _, c := range definers {
				mustExec(t, c, on(x.definition))
			}
		} else {
			for _, p := range append([]pair{named}, unnamed[:len(hows)*len(x.statements)]...) {
				p.each("search_path", false, func(r *raw) {
					r.SendParse("path", "set search_path = elsewhere", nil)
					r.SendBindParts("path", nil, nil, nil)
					r.SendExecute()
					r.SendSync()
				})
			}
		}
		for _, s := range all {
			s.again(x.what + ", then")
		}
		mustExec(t, admin, "RECONNECT") // servers that know none of them
		for _, s := range all {
			s.again(x.what + ", then, on another server")
		}
		for _, s := range all {
			if s.how == "statement" && !s.param {
				s.prepare(x.what + ", prepared again")
			}
		}
	}
}

// An unnamed statement that was never described runs on behind a definition of something else, as on one PostgreSQL, and where another table is found by its
// name, or the table has other columns, it gives what it gave or nothing.
func TestUndescribedStatementsOutliveOtherDefinitions(t *testing.T) {
	t.Parallel()
	via, plain, _ := reshapedWorld(t, "undescribed", 1)
	definers := []*pgx.Conn{connectTo(t, via), connectTo(t, plain)}
	var all []*prepared
	for _, x := range []struct {
		sql   string
		param bool
	}{
		{"select * from t0 where k = 1", false},
		{"select x.b, k from t0 x where x.k + 1 = $1 and k = 1", true},
		{"select y.*, x.a from t0 x join t0 y on x.k = y.k where x.k = 1", false},
		{"update t0 set a = a where k = 1 returning *", false},
		{"select k, a from t0_seen where k = 1", false},
		{"select relname from pg_class where relname = 't0'", false},
	} {
		all = append(all, &prepared{pair{rawTo(t, via), rawTo(t, plain)}, "", "none", x.sql, x.param})
	}
	for _, s := range all {
		s.prepare("new")
	}
	for _, x := range []struct {
		definition string
		may        bool
	}{
		{"create table unrelated (k int)", false},
		{"create function unrelated() returns int language sql as 'select 1'", false},
		{"create schema nearer; create table nearer.unrelated (k int)", false},
		{"alter table t0 add column z int", true},
	} {
		for _, c := range definers {
			mustExec(t, c, x.definition, pgx.QueryExecModeSimpleProtocol)
		}
		for _, s := range all {
			known := strings.Contains(s.sql, "from t0 ") || strings.Contains(s.sql, "update t0 ")
			s.run(s.what(x.definition), x.may || !known, s.param, true, "")
		}
	}
}

// The Parse of a statement whose types the proxy has to ask for is answered before its Bind.
func TestParseIsAnsweredBeforeBindWhereTypesAreAskedFor(t *testing.T) {
	t.Parallel()
	via, plain, _ := reshapedWorld(t, "askedfor", 1)
	p := pair{rawTo(t, via), rawTo(t, plain)}
	for _, name := range []string{"", "new", "known"} {
		p.each("by its key, in binary, as "+name, false, func(r *raw) {
			r.SendParse(name, "update t0 set a = a where k = $1 and k + $1 = 2 returning k", nil)
			r.SendBindParts(name, []int16{1}, [][]byte{binary.BigEndian.AppendUint32(nil, 1)}, nil)
			r.SendExecute()
			r.SendSync()
		})
	}
}

// A Parse is answered, or judged, also where the proxy refuses its Bind, and not with the next one.
func TestParseIsAnsweredWhereItsBindIsRefused(t *testing.T) {
	t.Parallel()
	via, _, _ := reshapedWorld(t, "refusedbind", 1)
	r := rawTo(t, via)
	for _, name := range []string{"named", ""} {
		for sql, want := range map[string][2]string{
			"select k from t0 where k = $1":                {"31E[0A000]ZI", "2D(1)C<SELECT 1>ZI"},
			"select k from t0 where k = $1 and nosuch = 1": {"3E[42703]ZI", "E[26000]ZI"},
		} {
			r.SendClose('S', name)
			r.SendParse(name, sql, nil)
			for i, value := range []string{"no number", "1"} {
				r.SendBindParts(name, nil, [][]byte{[]byte(value)}, nil)
				r.SendExecute()
				r.SendSync()
				r.want('Z', want[i])
			}
		}
	}
}

// What is defined on the shards themselves, and nobody here knows of yet, gives no rows that are not those of the columns before them, and
// no write that is told of wrongly stays.
func TestRowsOfColumnsThatNobodyKnowsOfAreRefused(t *testing.T) {
	t.Parallel()
	via, _, _ := reshapedWorld(t, "behindback", 1)
	d := shop(t)
	for _, x := range []struct{ sql, columns, row, behind string }{
		{"update t0 set a = a + 1 returning *", "(k 23)(b 23)(a 23)", `D["1" "2" "4"]`, "alter table t0 drop column b"},
		{"select * from t0", "(k 23)(a 23)", `D["1" "4"]`, "alter table t0 add column c int"},
	} {
		r := rawTo(t, via)
		run := func() string {
			r.SendBindParts("s", nil, nil, nil)
			r.SendExecute()
			r.SendSync()
			return r.told()
		}
		r.SendParse("s", x.sql, nil)
		r.SendDescribe('S', "s")
		r.SendSync()
		if got := r.told(); got != "1tT"+x.columns+"ZI" {
			t.Fatal(got)
		}
		if got := run(); !strings.Contains(got, x.row) {
			t.Fatal(got)
		}
		for i, n := range []string{"s1-a", "s2-a"} {
			mustExec(t, connectTo(t, d.cluster.Node(n).DSN(fmt.Sprintf("behindback_%d", i))), x.behind)
		}
		if got := run(); got != "2E[0A000 RevalidateCachedQuery]ZI" && got != "E[0A000 RevalidateCachedQuery]ZI" {
			t.Errorf("%s: %s", x.sql, got)
		}
	}
	r := rawTo(t, via)
	r.SendQuery("select * from t0")
	if got := r.told(); got != `T(k 23)(a 23)(c 23)D["1" "4" ""]C<SELECT 1>ZI` {
		t.Errorf("by those that are known now: %s", got)
	}
}
