package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Superuser is the role that owns every node.
const Superuser = "postgres"

// Options are how a cluster is made.
type Options struct {
	Dir      string   // where everything lives; made if need be
	CacheDir string   // where downloaded binaries are kept; "" forbids the download
	Settings []string // more lines for postgresql.conf of new nodes
	Auth     string   // how new nodes check passwords, as in pg_hba.conf; scram-sha-256 if it is empty
	Template string   // a folder where the first new node leaves what initdb made, for the others of all clusters: they then share their superuser's password; "" has each run initdb
}

// Cluster is a set of nodes in one folder. Its methods may be called by any goroutine; those of one Node by
// one at a time.
type Cluster struct {
	Dir      string // where the nodes are: Options.Dir, or a place that the server's user can reach
	Password string // of Superuser on every node
	bin      string
	settings []string
	auth     string
	template string
	lock     *os.File // held as long as the folder is ours

	mu    sync.Mutex // guards nodes
	nodes []*Node
}

// state is what a later start needs to know.
type state struct {
	Password string      `json:"password"`
	Nodes    []savedNode `json:"nodes"`
}

type savedNode struct {
	Name    string `json:"name"`
	Port    int    `json:"port"`
	Primary string `json:"primary,omitempty"` // of a replica: whom it was made from
}

// Open prepares the folder, stops what an earlier process left running in it and reads which nodes it
// holds. It starts nothing.
func Open(ctx context.Context, opts Options) (*Cluster, error) {
	bin, err := FindBinaries(opts.CacheDir)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("cluster folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cluster folder: %w", err)
	}
	c := &Cluster{Dir: reachable(dir), bin: bin, settings: opts.Settings, auth: cmp.Or(opts.Auth, "scram-sha-256"), template: opts.Template}
	if err := c.makeDir(c.Dir); err != nil {
		return nil, err
	}
	if err := c.claim(); err != nil {
		return nil, err
	}
	var st state
	if b, err := os.ReadFile(c.statePath()); err == nil {
		if err := json.Unmarshal(b, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", c.statePath(), err)
		}
	}
	c.Password = st.Password
	switch {
	case c.Password != "":
	case c.template == "":
		c.Password = newPassword()
	default:
		if c.Password, err = c.openTemplate(ctx); err != nil {
			return nil, err
		}
	}
	for _, n := range st.Nodes {
		c.nodes = append(c.nodes, &Node{Name: n.Name, Port: n.Port, From: n.Primary, c: c, dir: filepath.Join(c.Dir, n.Name)})
	}
	return c, nil
}

// reachable is dir, unless we are root and the server's user cannot get there: then a folder below the
// temporary one, always the same for the same dir.
func reachable(dir string) string {
	if _, _, ok := serverUser(); !ok {
		return dir
	}
	for p := dir; p != "/"; p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err != nil || p != dir && fi.Mode().Perm()&0o001 == 0 {
			h := fnv.New64a()
			_, _ = h.Write([]byte(dir))
			return filepath.Join(os.TempDir(), fmt.Sprintf("pgmosaic-%x", h.Sum64()))
		}
	}
	return dir
}

func (c *Cluster) statePath() string { return filepath.Join(c.Dir, "cluster.json") }

func (c *Cluster) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cluster folder: %w", err)
	}
	if uid, gid, ok := serverUser(); ok {
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return fmt.Errorf("cluster folder: %w", err)
		}
	}
	return nil
}

// claim makes the folder ours: a living owner is respected, a dead one's servers are stopped.
func (c *Cluster) claim() error {
	lock, err := own(c.Dir)
	if err != nil {
		return err
	}
	c.lock = lock
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("cluster folder: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			stopLeftover(filepath.Join(c.Dir, e.Name()))
		}
	}
	return nil
}

// own takes the folder's lock, which the system drops when its holder dies.
func own(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "owner.pid"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cluster folder: %w", err)
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		b, _ := os.ReadFile(f.Name()) // for the message only
		_ = f.Close()
		return nil, fmt.Errorf("folder %s is in use by process %s: stop it, or use another folder", dir, strings.TrimSpace(string(b)))
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("cluster folder: %w", err), f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return (err == nil || errors.Is(err, syscall.EPERM)) && !zombie(pid)
}

// zombie says whether a process has ended and only waits for its parent to notice.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z")
}

// stopLeftover ends a postmaster that still runs in a data folder.
func stopLeftover(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(first))
	if pid <= 1 || !runsIn(pid, dir) {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGQUIT)
	for range 100 {
		if !alive(pid) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// runsIn says whether a process is a server of this data folder, so that no stranger is hit.
func runsIn(pid int, dir string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
		return err == nil && strings.Contains(string(out), dir)
	}
	return strings.Contains(string(b), dir)
}

// RemoveStale removes the folders matching pattern, such as those of tests that crashed, whose owner no
// longer lives.
func RemoveStale(pattern string) {
	dirs, _ := filepath.Glob(pattern) // a bad pattern matches nothing
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "owner.pid")); err != nil {
			continue
		}
		lock, err := own(dir)
		if err != nil {
			continue // somebody lives there
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			stopLeftover(filepath.Join(dir, e.Name()))
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}

// Nodes lists the nodes in the order of their making.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Node(nil), c.nodes...)
}

// Node finds a node by name.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (c *Cluster) save() error {
	st := state{Password: c.Password}
	for _, n := range c.Nodes() {
		st.Nodes = append(st.Nodes, savedNode{n.Name, n.Port, n.From})
	}
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("cluster state: %w", err)
	}
	if err := os.WriteFile(c.statePath(), b, 0o600); err != nil {
		return fmt.Errorf("cluster state: %w", err)
	}
	return nil
}

// Close stops every node, replicas first, and gives the folder up.
func (c *Cluster) Close() error {
	var errs []error
	nodes := c.Nodes()
	for i := len(nodes) - 1; i >= 0; i-- {
		errs = append(errs, nodes[i].Stop())
	}
	errs = append(errs, c.release())
	return errors.Join(errs...)
}

// Destroy stops every node at once and removes the folder.
func (c *Cluster) Destroy() error {
	for _, n := range c.Nodes() {
		n.Kill()
	}
	return errors.Join(os.RemoveAll(c.Dir), c.release())
}

// release gives the folder up. After Close it has been given up already.
func (c *Cluster) release() error {
	if err := c.lock.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// FreePort is a port of the loopback address that nobody listens on, and that is not given twice. It is none of those that the system
// gives to outgoing connections: a server that is started again would find its port taken by one of them.
func FreePort() (int, error) {
	var err error
	for range 100 {
		port := lowestPort + rand.IntN(outgoingFrom()-lowestPort)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("free port: %w", err)
}

const lowestPort = 10000

var givenPorts sync.Map

// outgoingFrom is the lowest port that the system gives to outgoing connections; Linux's default where it does not say.
func outgoingFrom() int {
	var low, high int
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &low, &high)
	}
	if err != nil || low <= lowestPort+1000 {
		return 32768
	}
	return low
}

// command runs a server program to its end as the server's user.
func (c *Cluster) command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, name), args...)
	cmd.SysProcAttr = attributes(false)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
