package exec

import (
	"slices"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// PostgreSQL 18 reports the search_path, as a list of names.
func TestAReportedListIsTakenApart(t *testing.T) {
	for report, want := range map[string][]string{`closed, public`: {"closed", "public"}, `"$user", public`: {"$user", "public"}, `"a, b", "C"`: {"a, b", "C"}, `""`: {""}} {
		s := &pool.Server{Params: map[string]string{"search_path": report, "DateStyle": "ISO, DMY"}}
		set := reported(s, pool.NoSettings.With("search_path", "'x'"), "search_path")
		if value, _ := set.Get("search_path"); !slices.Equal(searchPathOf(value), want) {
			t.Errorf("%s: %s", report, value)
		}
		if value, _ := reported(s, set, "datestyle").Get("datestyle"); value != "'ISO, DMY'" {
			t.Errorf("datestyle: %s", value)
		}
	}
}
