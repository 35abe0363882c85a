package cluster

import (
	"os"
	"testing"
)

// The download needs a registry, so it is asked for by PGMOSAIC_DOWNLOAD; the rest of the search is tested always.
func TestBinariesAreFoundOrTheErrorSaysWhatToInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("it looks for servers, and -short was asked for")
	}
	dir, err := FindBinaries("")
	if err != nil {
		t.Fatal(err)
	}
	if !complete(dir) {
		t.Errorf("%s is not complete", dir)
	}
	if os.Getenv("PGMOSAIC_DOWNLOAD") != "" {
		cache := t.TempDir()
		if err := os.Chmod(cache, 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := download(cache)
		if err != nil || !complete(got) {
			t.Errorf("%s: %v", got, err)
		}
		names, _ := os.ReadDir(got)
		for _, n := range names {
			t.Log(n.Name())
		}
	}
}
