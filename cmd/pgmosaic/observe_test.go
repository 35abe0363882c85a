package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) with(msg string) (out []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		m := map[string]any{}
		if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == msg {
			out = append(out, m)
		}
	}
	return out
}

// One line for each slow, failed or refused statement. Literals and parameters are hidden unless they are asked for.
func TestLogOfStatements(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, parameters := range []bool{false, true} {
		l := &lines{}
		cfg := config.Default()
		cfg.Listen, cfg.HTTP, cfg.Store = "127.0.0.1:0", "off", t.TempDir()+"/map.json"
		cfg.Users = []config.User{{Name: "app", Password: "app"}}
		cfg.Direct.Setup = []string{
			"CREATE DATABASE shop", "CREATE SHARD s1 IN shop NODE '" + d.cluster.Node("s1-a").DSN("shop") + "'",
			"CREATE SHARD s2 IN shop NODE '" + d.cluster.Node("s2-a").DSN("shop") + "'",
		}
		cfg.Direct.Setup = cfg.Direct.Setup[:2]
		cfg.LogSlow, cfg.LogFailed, cfg.LogRefused, cfg.LogParams = config.Duration(150*time.Millisecond), true, true, parameters
		a, err := startWith(t.Context(), cfg, slog.New(slog.NewJSONHandler(l, nil)))
		if err != nil {
			t.Fatal(err)
		}
		c := connectTo(t, a.dsn())
		mustExec(t, c, "select 'fast secret'")
		mustExec(t, c, "select pg_sleep(0.2), $1::text", "slow secret")
		_, err = c.Exec(t.Context(), "select 1 / $1::int, $2::text", 0, "failed secret")
		wantCode(t, err, "22012")
		_, err = c.PgConn().Exec(t.Context(), "prepare transaction 'refused secret'").ReadAll()
		wantCode(t, err, "0A000")
		_, err = c.PgConn().Exec(t.Context(), "select 'secret'::int").ReadAll() // the message quotes the literal
		wantCode(t, err, "22P02")
		// A pipeline's error is that of the statement that failed, and a COPY's line does not show its data.
		b := &pgconn.Batch{}
		b.ExecParams("select 'before'", nil, nil, nil, nil)
		b.ExecParams("select 1 / (1 - 1) as culprit", nil, nil, nil, nil)
		b.ExecParams("select 'behind'", nil, nil, nil, nil)
		_, err = c.PgConn().ExecBatch(t.Context(), b).ReadAll()
		wantCode(t, err, "22012")
		// What fails or is refused when it is parsed has its own text, and not that of the statement before.
		_, err = c.PgConn().Prepare(t.Context(), "", "select nosuch", nil)
		wantCode(t, err, "42703")
		_, err = c.PgConn().Prepare(t.Context(), "", "prepare transaction 'refused secret too'", nil)
		wantCode(t, err, "0A000")
		mustExec(t, c, "create temp table copied (t text)")
		pr, pw := io.Pipe()
		go func() {
			for range 300 {
				if _, err := io.WriteString(pw, strings.Repeat("classified ", 100)+"\n"); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
			_ = pw.Close()
		}()
		if _, err := c.PgConn().CopyFrom(t.Context(), pr, "copy copied from stdin"); err != nil {
			t.Fatal(err)
		}
		a.stop(0)
		if strings.Contains(l.buf.String(), "classified") {
			t.Error("the data of a COPY is in the log")
		}
		if got := l.with("a statement failed"); len(got) != 4 || !strings.Contains(got[2]["statement"].(string), "culprit") || got[3]["statement"] != "select nosuch" {
			t.Errorf("failed: %v", got)
		}
		if got := l.with("a statement was slow"); len(got) != 2 || got[1]["statement"] != "copy copied from stdin" {
			t.Errorf("slow: %v", got)
		}
		for msg, want := range map[string]int{"a statement was slow": 2, "a statement failed": 4, "a statement was refused": 2} {
			got := l.with(msg)
			if len(got) != want {
				t.Errorf("%q: %d lines, want %d: %v", msg, len(got), want, got)
				continue
			}
			for _, m := range got {
				if m["database"] != "shop" || m["role"] != "app" || m["statement"] == "" || m["ms"] == nil {
					t.Errorf("%v", m)
				}
			}
		}
		for _, m := range l.with("a statement was refused") {
			if m["rule"] != "two-phase" || m["sqlstate"] != "0A000" || !strings.HasPrefix(m["statement"].(string), "prepare transaction") {
				t.Errorf("%v", m)
			}
		}
		if got := l.with("a statement was slow"); len(got) > 0 && (got[0]["shards"] != "s1" || got[0]["ms"].(float64) < 150) {
			t.Errorf("%v", got[0])
		}
		if has := strings.Contains(l.buf.String(), "secret"); has != parameters {
			t.Errorf("log_parameters is %t, and secrets are in the log: %t\n%s", parameters, has, l.buf.String())
		}
		if parameters && !strings.Contains(l.buf.String(), "slow secret") {
			t.Error("the parameter is missing")
		}
		for _, m := range l.with("a statement failed") {
			if p, _ := m["parameters"].(string); strings.Contains(p, "failed secret") != strings.Contains(m["statement"].(string), "$2::text") && parameters {
				t.Errorf("parameters of another statement: %v", m)
			}
		}
	}
}

// A statement is a span, and each shard that took part one below it; a statement that carries a trace context joins it.
func TestTraces(t *testing.T) {
	t.Parallel()
	d := shop(t)
	var mu sync.Mutex
	var spans []*tracepb.Span
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(b, &req); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				spans = append(spans, ss.Spans...)
			}
		}
	}))
	defer srv.Close()
	cfg := crashConfig(t, mapOf(d, "shop"))
	cfg.Traces, cfg.TraceShare = srv.URL, 0
	a := startApp(t, cfg)
	c := connectTo(t, a.dsn())
	mustExec(t, c, "select count(*) from customers where name <> 'untraced'")
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	carry := func(flags string) string { return " /*traceparent='00-" + trace + "-" + parent + "-" + flags + "'*/" }
	mustExec(t, c, "select count(*) from customers where name <> 'hidden'"+carry("01"))
	mustExec(t, c, "select count(*) from customers where name <> 'unsampled'"+carry("00"))
	_, err := c.PgConn().Exec(t.Context(), "select 1/0"+carry("01")).ReadAll()
	wantCode(t, err, "22012")
	a.stop(0) // it sends what is left
	mu.Lock()
	defer mu.Unlock()
	attr := func(s *tracepb.Span, key string) string {
		for _, a := range s.Attributes {
			if a.Key == key {
				return a.Value.GetStringValue()
			}
		}
		return ""
	}
	var statements, failed, parts int
	var whole *tracepb.Span
	for _, s := range spans {
		if hex.EncodeToString(s.TraceId) != trace {
			t.Errorf("span %s is of another trace", s.Name)
		}
		if hex.EncodeToString(s.ParentSpanId) == parent {
			statements++
			if attr(s, "db.response.status_code") == "22012" {
				failed++
			} else {
				whole = s
			}
			if text := attr(s, "db.query.text"); strings.Contains(text, "hidden") || !strings.Contains(text, "count(*)") && !strings.Contains(text, "$1") {
				t.Errorf("statement %q", text)
			}
		}
	}
	if statements != 2 || failed != 1 || whole == nil {
		t.Fatalf("%d statements, %d failed, %d spans", statements, failed, len(spans))
	}
	shards := map[string]bool{}
	for _, s := range spans {
		if bytes.Equal(s.ParentSpanId, whole.SpanId) {
			parts++
			shards[attr(s, "pgmosaic.shard")+"/"+attr(s, "pgmosaic.node")] = true
			if s.StartTimeUnixNano < whole.StartTimeUnixNano || s.EndTimeUnixNano > whole.EndTimeUnixNano || s.EndTimeUnixNano <= s.StartTimeUnixNano {
				t.Error("a shard's span lies outside its statement's")
			}
		}
	}
	if parts != 2 || len(shards) != 2 {
		t.Errorf("%d spans of shards: %v", parts, shards)
	}
}

// What a refused statement was about is shown to whoever may look, without a login on loopback: its literals are not.
func TestRefusalsShowNoLiterals(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, parameters := range []bool{false, true} {
		cfg := smallConfig(t, d, 2, func(c *config.Config) { c.Listen, c.HTTP, c.LogParams = "127.0.0.1:0", "127.0.0.1:0", parameters })
		a, err := startWith(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.stop(time.Second) })
		c := connectTo(t, a.dsn())
		for _, sql := range []string{"prepare transaction '4111 1111 1111 1111'", "prepare transaction 'bob@example.com' -- " + strings.Repeat("x", 300)} {
			_, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
			wantCode(t, err, "0A000")
			res, err := a.Admin.Exec(t.Context(), "SHOW REFUSALS", true)
			if err != nil {
				t.Fatal(err)
			}
			shown := fmt.Sprint(res.Rows)
			if len(res.Rows) != 1 || !strings.Contains(shown, "prepare transaction") {
				t.Errorf("%s", shown)
			}
			for where, shown := range map[string]string{"SHOW REFUSALS": shown, "the page's view": fetched(t, a, "/api/view/refusals", ""), "what the page is sent": fetched(t, a, "/api/events", "data: ")} {
				if !strings.Contains(shown, "prepare transaction") {
					t.Errorf("%s: %s", where, shown)
				}
				if has := strings.Contains(shown, "4111") || strings.Contains(shown, "bob"); has != parameters {
					t.Errorf("%s, log_parameters = %v: %s", where, parameters, shown)
				}
			}
		}
	}
}

// Whatever kind of statement is refused, its literals are not shown: no text, no number, nor those of one that PostgreSQL does not normalise.
func TestRefusalsOfNoKindShowLiterals(t *testing.T) {
	t.Parallel()
	d := shop(t)
	unescape := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">")
	for _, x := range []struct{ sql, shown string }{
		{"select * from customers where name <> 'hush' order by name limit 9876598765 for update", "select * from customers where name <> $1 order by name limit $2 for update"},
		{"insert into customers values (9876598765, (select 'hush'), 'x', 'DE', '2026-01-01'), (98765987651, 'b', 'x', 'DE', '2026-01-01'), (98765987652, 'b', 'x', 'DE', '2026-01-01')", "insert into customers values ($1, (select $2), $3, $4, $5),"},
		{"explain analyze update customers set name = 'hush' where customer_id < -9876598765", "explain analyze update customers set name = $1 where customer_id < -$2"},
		{"select 9876598765 as hushed, name || E'hush' into hushed from customers", "select $1 as hushed, name || $2 into hushed from customers"},
		{"declare hushed cursor with hold for select $$hush$$, customer_id + 9876598765 from customers", "declare hushed cursor with hold for select $1, customer_id + $2 from customers"},
		{"alter table customers alter customer_id type text using 'hush' || customer_id + 9876598765", "alter table customers alter customer_id type text using $1 || customer_id + $2"},
		{"copy customers from '/tmp/hush9876598765'", "copy customers from $1"},
		{"set session authorization 'hush9876598765'", "set session authorization $1"},
		{"prepare transaction 'hush9876598765'", "prepare transaction $1"},
	} {
		c := connectTo(t, d.shopDSN())
		_, err := c.PgConn().Exec(t.Context(), x.sql).ReadAll()
		if pgCode(err) != "0A000" {
			t.Errorf("%s: %v, want a refusal", x.sql, err)
		}
		res, err := d.Admin.Exec(t.Context(), "SHOW REFUSALS", true)
		if err != nil {
			t.Fatal(err)
		}
		for where, shown := range map[string]string{"SHOW REFUSALS": fmt.Sprint(res.Rows), "the page's view": fetched(t, d.app, "/api/view/refusals", "")} {
			if !strings.Contains(unescape.Replace(shown), x.shown) {
				t.Errorf("%s: %s has not %s", where, shown, x.shown)
			}
			if strings.Contains(strings.ReplaceAll(shown, "hushed", ""), "hush") || strings.Contains(shown, "9876598765") {
				t.Errorf("%s of %s: %s", where, x.sql, shown)
			}
		}
	}
}

// fetched is the first line that begins so of what the page gives to somebody who has not logged in.
func fetched(t *testing.T, a *app, path, begins string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Page()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for r := bufio.NewReader(res.Body); ; {
		line, err := r.ReadString('\n')
		if strings.HasPrefix(line, begins) {
			return line
		}
		if err != nil {
			t.Fatalf("%s: %s, %v", path, res.Status, err)
		}
	}
}
