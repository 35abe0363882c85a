package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
)

type places struct{}

func (places) Shard(i int) string       { return []string{"s1", "s2", ""}[i] }
func (places) Node(shard, i int) string { return []string{"primary", "a", "b"}[i+1] }
func (places) Parameters() string       { return "'secret'" }

// What is slow, fails or is refused is in the log, with its literals only if those are wanted; all else is not.
func TestTheLogTellsWhatIsWorthIt(t *testing.T) {
	began := time.Now()
	refused := router.Refuse(router.RuleNoShard)
	for _, x := range []struct {
		what string
		by   *Logging
		err  error
		d    time.Duration
		kind string
		has  string
		not  string
	}{
		{"nothing is wanted", nil, errors.New("x"), time.Hour, "", "", ""},
		{"none of it", &Logging{}, refused, time.Hour, "", "", ""},
		{"fast", &Logging{Slow: time.Second}, nil, time.Second - 1, "", "", ""},
		{"slow", &Logging{Slow: time.Second}, nil, time.Second, "a statement was slow", `"shards":"s1,s2"`, "4711"},
		{"slow, in full", &Logging{Slow: time.Second, Parameters: true}, nil, time.Second, "a statement was slow", "4711", ""},
		{"its parameters", &Logging{Slow: time.Second, Parameters: true}, nil, time.Second, "a statement was slow", "secret", ""},
		{"failed", &Logging{Failed: true, Slow: 1}, &pgsql.Error{Code: pgsql.DivisionByZero, Message: "key 4711"}, time.Second, "a statement failed", `"sqlstate":"22012"`, "4711"},
		{"a failure nobody wants", &Logging{Refused: true}, &pgsql.Error{Code: pgsql.DivisionByZero}, time.Second, "", "", ""},
		{"refused", &Logging{Refused: true, Failed: true}, refused, 0, "a statement was refused", `"rule":"no-shard"`, "4711"},
		{"refused and failed", &Logging{Failed: true}, refused, 0, "a statement failed", `"rule":"no-shard"`, "4711"},
	} {
		var out bytes.Buffer
		o := &Observer{Log: slog.New(slog.NewJSONHandler(&out, nil))}
		if x.by != nil {
			o.Logging.Store(x.by)
		}
		r := o.Open(Client{Database: "d", Role: "r", PID: 7, Count: metrics.New(began).Database("d")})
		r.Begin(began)
		r.Choose([]byte("select * from t where id = 4711"))
		for _, shard := range []int{0, 1, 0, 2} {
			r.Joined(shard, -1)
		}
		if x.err != nil {
			r.FailedBy(x.err)
		}
		r.Done(began.Add(x.d), x.d, places{})
		if x.kind == "" {
			if out.Len() > 0 {
				t.Errorf("%s: %s", x.what, &out)
			}
			continue
		}
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["msg"] != x.kind || line["database"] != "d" || line["client"] != float64(7) {
			t.Errorf("%s: %v: %s", x.what, err, &out)
		}
		if !strings.Contains(out.String(), x.has) || x.not != "" && strings.Contains(out.String(), x.not) {
			t.Errorf("%s: it should have %q and not %q: %s", x.what, x.has, x.not, &out)
		}
	}
}

// A request says nothing of the one before.
func TestEachRequestIsItself(t *testing.T) {
	var got []Trace
	o := &Observer{Tracing: &Tracing{Record: func(x Trace) { got = append(got, x) }}}
	r := o.Open(Client{Database: "d", Role: "r", Count: metrics.New(time.Now()).Database("d")})
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	began := time.Now()
	for i, sampled := range []string{"1", "0", "1"} {
		r.Begin(began)
		r.Choose([]byte("select 'x' /*traceparent='" + parent + sampled + "'*/"))
		r.Asks()
		r.Joined(i%2, i-1)
		r.Left(i%2, began.Add(time.Second))
		if i == 0 {
			r.Joined(1, 0)
			r.Failed("22012", "division by zero")
			r.Failed("25P02", "the transaction is aborted")
			r.Binds, r.Waited = 3, time.Second
		}
		r.Done(began.Add(2*time.Second), 2*time.Second, places{})
		if i > 0 && (r.Binds != 0 || r.Waited != 0) {
			t.Errorf("request %d: %d binds, waited %s", i, r.Binds, r.Waited)
		}
	}
	if len(got) != 2 {
		t.Fatalf("%d traces: %+v", len(got), got)
	}
	if x := got[0]; x.Code != "22012" || len(x.Parts) != 2 || x.Parts[0].Shard != "s1" || x.Parts[0].Node != "primary" || !x.Parts[0].End.Equal(began.Add(time.Second)) ||
		x.Parts[1].Node != "a" || !x.Parts[1].End.Equal(x.End) || strings.Contains(x.Statement, "x") || x.Parent != parent+"1" {
		t.Errorf("the first: %+v", x)
	}
	if x := got[1]; x.Code != "" || len(x.Parts) != 1 || x.Parts[0].Shard != "s1" || x.Parts[0].Node != "b" {
		t.Errorf("the second: %+v", x)
	}
}
