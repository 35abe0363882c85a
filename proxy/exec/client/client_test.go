package client

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
)

// Each setting can be set to what it shows, goes back to what another has, and nothing else is changed by it.
func TestEachSettingIsReadAsItIsShown(t *testing.T) {
	values := map[string][]string{
		"pgmosaic.fanout": {"single", "multi", "SCATTER"}, "pgmosaic.gather_limit": {"1GB", "0", "64MB"}, "pgmosaic.max_staleness": {"500ms", "2min", "10 s"},
		"pgmosaic.multi_shard_commit": {"refuse", "best_effort", "two_phase"}, "pgmosaic.multi_shard_isolation": {"per_shard", "refuse"},
		"pgmosaic.read_consistency": {"strong", "causal", "session", "bounded", "eventual"}, "pgmosaic.replica_fallback": {"error", "primary"}, "pgmosaic.shard": {"s1", ""},
	}
	if len(values) != len(list) || len(list) != reflect.TypeFor[Settings]().NumField() {
		t.Fatalf("%d settings, %d fields, %d are tried", len(list), reflect.TypeFor[Settings]().NumField(), len(values))
	}
	for name, all := range values {
		var o, start Settings
		for _, v := range all {
			if err := o.Set(name, v); err != nil {
				t.Errorf("%s = %q: %v", name, v, err)
			}
			shown, err := o.Show(name)
			var again Settings
			if err := errors.Join(err, again.Set(name, shown)); err != nil || again != o {
				t.Errorf("%s = %q is shown as %q, which is %+v, not %+v: %v", name, v, shown, again, o, err)
			}
		}
		if err := o.Reset(name, start); err != nil || o != start {
			t.Errorf("%s: behind RESET it is %+v: %v", name, o, err)
		}
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	o := Settings{Level: replication.Causal, MaxLag: time.Second, Shard: "s"}
	before := o
	for name, v := range map[string]string{
		"pgmosaic.fanout": "wide", "pgmosaic.gather_limit": "much", "pgmosaic.max_staleness": "-1s", "pgmosaic.multi_shard_commit": "", "pgmosaic.multi_shard_isolation": "3",
		"pgmosaic.read_consistency": "fresh", "pgmosaic.replica_fallback": "none",
	} {
		var e *pgsql.Error
		if err := o.Set(name, v); !errors.As(err, &e) || e.Code != pgsql.InvalidParameterValue || e.Hint == "" || o != before {
			t.Errorf("%s = %q: %v, %+v", name, v, err, o)
		}
	}
	var e *pgsql.Error
	if _, err := o.Show("pgmosaic.colour"); !errors.As(err, &e) || e.Code != pgsql.UndefinedObject || o.Set("pgmosaic.colour", "red") == nil || o.Reset("pgmosaic.colour", o) == nil || o != before {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestDurationsAsPostgreSQLHasThem(t *testing.T) {
	for in, want := range map[string]time.Duration{"500": 500 * time.Millisecond, "500ms": 500 * time.Millisecond, " 10 s": 10 * time.Second, "2min": 2 * time.Minute, "1h": time.Hour} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "min", "1 day"} {
		if d, err := ParseDuration(in); err == nil {
			t.Errorf("%q is %s", in, d)
		}
	}
}

// A client is told what is new to it, once, and knows behind a ROLLBACK what it knew before.
func TestClientsAreToldWhatIsNew(t *testing.T) {
	first := map[string]string{"TimeZone": "UTC", "DateStyle": "ISO, MDY"}
	kept := maps.Clone(first)
	told := Begin(first)
	var sent []string
	send := func(name, value string) { sent = append(sent, name+"="+value) }
	is := func(what string, want ...string) {
		t.Helper()
		slices.Sort(sent)
		if !slices.Equal(sent, want) {
			t.Errorf("%s: %q was sent, want %q", what, sent, want)
		}
		sent = nil
	}
	formats := told.Formats()
	if told.Tell("TimeZone", "UTC") || !told.Tell("TimeZone", "Asia/Tokyo") || told.Tell("TimeZone", "Asia/Tokyo") || !told.Tell("application_name", "x") {
		t.Error("what is known is news, or what is new is none")
	}
	if told.Formats() == formats {
		t.Error("the formats are what they were")
	}
	mark := told.Mark()
	told.Tell("TimeZone", "UTC")
	told.Tell("DateStyle", "German")
	told.Back(mark, send)
	is("back to the mark", "DateStyle=ISO, MDY", "TimeZone=Asia/Tokyo")
	told.Back(mark, send)
	is("back again")
	if !maps.Equal(maps.Collect(told.Since()), map[string]string{"TimeZone": "Asia/Tokyo", "application_name": "x"}) || told.Count() != 2 {
		t.Errorf("since the login: %v", maps.Collect(told.Since()))
	}
	told.Reset("timezone", send)
	is("a reset", "TimeZone=UTC")
	if told.Formats() != formats {
		t.Error("the formats are not what they were")
	}
	told.Now(map[string]string{"TimeZone": "CET", "DateStyle": "SQL", "application_name": "x"}, send)
	is("what another server has", "TimeZone=CET")
	told.Back(nil, send)
	is("back to the login", "TimeZone=UTC")
	if told.Count() != 0 || !maps.Equal(first, kept) {
		t.Errorf("%d are told; the login's are %v", told.Count(), first)
	}
}
