package observe

import (
	"strings"
	"testing"
)

func TestTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for in, want := range map[string]string{
		"select 1": "", "select 1 /*traceparent='" + good + "'*/": good, "select 1 /*a='b',traceparent='" + good + "',c='d'*/": good,
		"select 1 /*traceparent='" + good: "", "select 1 /*traceparent='00-xyz'*/": "", "select 1 /*traceparent='" + strings.Repeat("0", 55) + "'*/": "",
		"select 1 /*traceparent='" + strings.ToUpper(good) + "x'*/": "",
	} {
		if got := traceparent([]byte(in)); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
