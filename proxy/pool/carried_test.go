package pool

import (
	"strings"
	"testing"
)

func TestChangesMakeAServerWhatAnotherIs(t *testing.T) {
	app := func(settings map[string]carried) *Carried { return &Carried{settings, "app", "none"} }
	for _, x := range []struct {
		what       string
		have, want *Carried
		changes    string
	}{
		{"alike", app(map[string]carried{"a": {"1", true}}), app(map[string]carried{"a": {"1", true}}), ""},
		{"set", app(map[string]carried{"a": {"1", false}}), app(map[string]carried{"a": {"2", true}}), `SET LOCAL "a" TO '2'`},
		{"reset", app(map[string]carried{"a": {"1", true}}), app(map[string]carried{"a": {"2", false}}), `SET LOCAL "a" TO '2'`},
		{"reset to what the startup packet says", app(map[string]carried{"p": {"1", true}}), app(map[string]carried{"p": {"2", false}}), ""},
		{"servers that began with different values", app(map[string]carried{"a": {"1", false}}), app(map[string]carried{"a": {"2", false}}), ""},
		{"a custom parameter", app(map[string]carried{}), app(map[string]carried{"x.a": {"2", true}}), `SET LOCAL "x"."a" TO '2'`},
		{"a custom parameter of the one", app(map[string]carried{"x.a": {"2", true}}), app(map[string]carried{}), `SET LOCAL "x"."a" TO ''`},
		{"an extension that the one has loaded", app(map[string]carried{"plpgsql.variable_conflict": {"error", false}}), app(map[string]carried{}), ""},
		{"an extension that the other has loaded", app(map[string]carried{}), app(map[string]carried{"plpgsql.variable_conflict": {"error", false}}), ""},
		{"READ WRITE, which cannot be", app(map[string]carried{"transaction_read_only": {"on", true}}), app(map[string]carried{"transaction_read_only": {"off", true}}), ""},
		{"a role", app(nil), &Carried{nil, "app", "r"}, `SET LOCAL "role" TO 'r'`},
		{"settings as the role that logged in", &Carried{map[string]carried{"a": {"1", true}}, "app", "r"}, &Carried{map[string]carried{"a": {"2", true}}, "app", "r"}, `SET LOCAL "session_authorization" TO 'app'; SET LOCAL "role" TO 'none'; SET LOCAL "a" TO '2'; SET LOCAL "role" TO 'r'`},
		{"a user", &Carried{nil, "app", "r"}, &Carried{nil, "u", "none"}, `SET LOCAL "session_authorization" TO 'u'; SET LOCAL "role" TO 'none'`},
	} {
		var got []string
		for _, c := range (&Server{role: "app"}).Changes(x.have, x.want, NoSettings.With("p", "'1'")) {
			got = append(got, c.SQL)
		}
		if s := strings.Join(got, "; "); s != x.changes {
			t.Errorf("%s: %s, want %s", x.what, s, x.changes)
		}
	}
}

func TestWhatOneServerHasSetIsNotTakenBackByAnother(t *testing.T) {
	base := &Carried{map[string]carried{"a": {"1", false}, "b": {"1", false}}, "app", "none"}
	one := &Carried{map[string]carried{"a": {"2", true}, "b": {"1", false}}, "app", "none"}
	two := &Carried{map[string]carried{"a": {"1", false}, "b": {"3", true}}, "app", "r"}
	got := two.Over(base, one.Over(base, base))
	if want := (&Carried{map[string]carried{"a": {"2", true}, "b": {"3", true}}, "app", "r"}); !got.Same(want) {
		t.Errorf("%v", got)
	}
}
