// Package cluster makes and runs real PostgreSQL nodes on this machine: primaries with streaming replicas.
//
// It does by program what docs/operating/replicas.md tells an operator to do by hand. Nodes listen on
// loopback only. A node dies with the process that started it, and what a crash left behind is cleaned
// when the next cluster starts in the same place.
package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// FindBinaries returns a folder with initdb and postgres: from PATH, pg_config, the places where
// packages put them, or downloaded into cacheDir. The error says what to install.
func FindBinaries(cacheDir string) (string, error) {
	var tried []string
	for _, dir := range candidates() {
		if complete(dir) {
			return dir, nil
		}
		tried = append(tried, dir)
	}
	dir, err := download(cacheDir)
	if err == nil {
		return dir, nil
	}
	return "", fmt.Errorf("no PostgreSQL server was found (looked in %s) and none could be downloaded (%w): install one, for example with "+
		"'apt-get install postgresql' on Debian and Ubuntu, 'dnf install postgresql-server' on Fedora or 'brew install postgresql' on macOS",
		strings.Join(tried, ", "), err)
}

func complete(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.IsDir() {
			return false
		}
	}
	return true
}

// candidates lists folders, the newest version of each place first.
func candidates() []string {
	var out []string
	if p, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			out = append(out, filepath.Dir(real))
		}
	}
	if b, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		out = append(out, strings.TrimSpace(string(b)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		dirs, _ := filepath.Glob(pattern) // the pattern is well-formed
		sort.Slice(dirs, func(i, j int) bool {
			return len(dirs[i]) > len(dirs[j]) || len(dirs[i]) == len(dirs[j]) && dirs[i] > dirs[j]
		})
		out = append(out, dirs...)
	}
	return out
}

// download fetches server binaries with embedded-postgres, which unpacks them before it starts a server.
// The server itself is not wanted: as root it would refuse, after the binaries are there.
func download(cacheDir string) (string, error) {
	if cacheDir == "" {
		return "", errors.New("no folder to keep them in")
	}
	root := filepath.Join(cacheDir, "postgres-"+runtime.GOOS+"-"+runtime.GOARCH)
	bin := filepath.Join(root, "bin")
	if complete(bin) {
		return bin, nil
	}
	port, err := FreePort()
	if err != nil {
		return "", err
	}
	db := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().Port(uint32(port)).CachePath(cacheDir).BinariesPath(root).
		RuntimePath(filepath.Join(cacheDir, "probe")).DataPath(filepath.Join(cacheDir, "probe", "data")).Logger(io.Discard))
	startErr := db.Start()
	if startErr == nil {
		startErr = db.Stop()
	}
	_ = os.RemoveAll(filepath.Join(cacheDir, "probe"))
	if !complete(bin) {
		return "", fmt.Errorf("download: %w", startErr)
	}
	return bin, nil
}
