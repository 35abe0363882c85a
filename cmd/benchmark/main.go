// Command benchmark runs pgbench directly, through PgBouncer and through pgmosaic over two shards, in turn
// within one run, and prints throughput, latency and the proxy's own CPU time per transaction as ratios.
// Times alone say little: the machine's speed drifts, and the drift falls on all three alike.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

type endpoint struct {
	name, port string
	pid        int // of the proxy; 0 for none
}

type figures struct{ tps, p50, p99, cpu float64 }

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	bin := flag.String("bin", "bin/pgmosaic", "the proxy's binary")
	secs := flag.Int("secs", 5, "seconds of each run")
	rounds := flag.Int("rounds", 3, "rounds; each figure is the median of its rounds")
	scale := flag.Int("scale", 10, "pgbench scale")
	modes := flag.String("modes", "simple,extended,prepared", "protocol modes")
	clients := flag.String("clients", "1,16,100", "numbers of clients")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the proxy here")
	flag.Parse()
	dir, err := os.MkdirTemp("", "pgmosaic-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	cl, err := cluster.Open(ctx, cluster.Options{Dir: filepath.Join(dir, "nodes"), Settings: []string{"shared_buffers = '256MB'", "max_connections = 400"}})
	if err != nil {
		return err
	}
	defer func() { _ = cl.Destroy() }()
	ends, stop, err := prepare(ctx, cl, dir, *bin, *scale, *profile)
	defer stop()
	if err != nil {
		return err
	}
	fmt.Printf("pgbench -S, scale %d, %d s a run, median of %d rounds, interleaved; ratios to PgBouncer\n", *scale, *secs, *rounds)
	for _, mode := range strings.Split(*modes, ",") {
		for _, c := range strings.Split(*clients, ",") {
			if err := compare(ctx, ends, workload{dir, mode, c, *secs}, *rounds); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare starts three servers with the same rows: one alone, two as shards, and the two proxies.
func prepare(ctx context.Context, cl *cluster.Cluster, dir, bin string, scale int, profile string) (ends []endpoint, stop func(), err error) {
	var procs []*exec.Cmd
	stop = func() {
		for _, p := range procs {
			_ = p.Process.Signal(syscall.SIGTERM)
			_ = p.Wait()
		}
	}
	names := []string{"one", "s1", "s2"}
	for _, n := range names {
		node, err := cl.Primary(ctx, n)
		if err != nil {
			return nil, stop, err
		}
		for _, sql := range []string{"CREATE ROLE bench LOGIN PASSWORD 'bench'", "CREATE DATABASE bench OWNER bench"} {
			if err := node.Exec(ctx, "postgres", sql); err != nil {
				return nil, stop, err
			}
		}
	}
	one := cl.Node("one")
	ports := [2]int{}
	for i := range ports {
		if ports[i], err = cluster.FreePort(); err != nil {
			return nil, stop, err
		}
	}
	mosaic, err := startMosaic(cl, dir, bin, ports[0], profile)
	if err != nil {
		return nil, stop, err
	}
	procs = append(procs, mosaic)
	bouncer, err := startBouncer(one.Port, dir, ports[1])
	if err != nil {
		return nil, stop, err
	}
	procs = append(procs, bouncer)
	for _, port := range []int{one.Port, ports[0]} {
		if err := fill(ctx, port, scale); err != nil {
			return nil, stop, err
		}
	}
	admin, err := pgx.Connect(ctx, fmt.Sprintf("postgres://admin:admin@127.0.0.1:%d/pgmosaic?default_query_exec_mode=simple_protocol", ports[0]))
	if err != nil {
		return nil, stop, err
	}
	defer admin.Close(ctx)
	for _, sql := range []string{"CREATE GROUP g IN bench KEY (integer) BY HASH", "DISTRIBUTE TABLE bench.public.pgbench_accounts IN GROUP g KEY (aid)"} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return nil, stop, err
		}
	}
	return []endpoint{{"pgbouncer", strconv.Itoa(ports[1]), bouncer.Process.Pid}, {"pgmosaic", strconv.Itoa(ports[0]), mosaic.Process.Pid}, {"direct", strconv.Itoa(one.Port), 0}}, stop, nil
}

func startMosaic(cl *cluster.Cluster, dir, bin string, port int, profile string) (*exec.Cmd, error) {
	cfg := fmt.Sprintf(`listen: 127.0.0.1:%d
http: "off"
store: %s/map.json
admin_users: [admin]
users: [{name: admin, password: admin}, {name: bench, password: bench}]
auth_rules: # as PgBouncer here: the 16 logins of a run of seconds would count
  - {user: bench, address: 127.0.0.0/8, method: trust}
  - {method: scram-sha-256}
log_level: warn
init_sql: |
  CREATE DATABASE bench;
  CREATE SHARD s1 IN bench NODE '%s';
  CREATE SHARD s2 IN bench NODE '%s';
`, port, dir, cl.Node("s1").DSN("bench"), cl.Node("s2").DSN("bench"))
	file := filepath.Join(dir, "pgmosaic.yaml")
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		return nil, err
	}
	args := []string{"serve", "-c", file}
	if profile != "" {
		args = append(args, "--cpuprofile", profile)
	}
	cmd := exec.Command(bin, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, await(port)
}

func startBouncer(server int, dir string, port int) (*exec.Cmd, error) {
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		path = "/usr/sbin/pgbouncer"
	}
	prepared := "max_prepared_statements = 200\npool_mode = transaction\n"
	session := "transaction"
	version, _ := exec.Command(path, "--version").Output()
	if !regexp.MustCompile(`1\.(2[1-9]|[3-9]\d)`).Match(version) { // before 1.21 it knows no prepared statements
		prepared, session = "pool_mode = transaction\n", "session"
		fmt.Println("this PgBouncer has no prepared statements in transaction pooling: prepared mode runs in session pooling, which costs it less")
	}
	ini := fmt.Sprintf("[databases]\nbench = host=127.0.0.1 port=%[1]d dbname=bench user=bench password=bench\nprepared = host=127.0.0.1 port=%[1]d dbname=bench user=bench password=bench pool_mode=%[2]s pool_size=200\n"+
		"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %[3]d\nunix_socket_dir =\nauth_type = any\nmax_client_conn = 500\ndefault_pool_size = 20\n%[4]slogfile = %[5]s/pgbouncer.log\n",
		server, session, port, prepared, dir)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(ini), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "-q", file)
	if os.Geteuid() == 0 {
		if u, err := user.Lookup("postgres"); err == nil {
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
			if err := os.WriteFile(filepath.Join(dir, "pgbouncer.log"), nil, 0o666); err != nil {
				return nil, err
			}
			_ = os.Chown(filepath.Join(dir, "pgbouncer.log"), uid, gid)
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("PgBouncer: %w: install the package pgbouncer", err)
	}
	return cmd, await(port)
}

func await(port int) error {
	var last error
	for range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := pgx.Connect(ctx, fmt.Sprintf("postgres://bench:bench@127.0.0.1:%d/bench", port))
		if err == nil {
			err = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("port %d does not answer: %w", port, last)
}

func environment(port string) []string {
	return append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+port, "PGUSER=bench", "PGPASSWORD=bench", "PGDATABASE=bench")
}

func fill(ctx context.Context, port, scale int) error {
	cmd := exec.CommandContext(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(scale))
	cmd.Env = environment(strconv.Itoa(port))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	return nil
}

// workload is one run of pgbench.
type workload struct {
	dir, mode, clients string
	secs               int
}

func compare(ctx context.Context, ends []endpoint, w workload, rounds int) error {
	all := map[string][]figures{}
	for range rounds {
		for _, e := range ends {
			f, err := measure(ctx, e, w)
			if err != nil {
				return err
			}
			all[e.name] = append(all[e.name], f)
		}
	}
	fmt.Printf("\n%s, %s clients\n", w.mode, w.clients)
	base := median(all[ends[0].name])
	for _, e := range ends {
		m := median(all[e.name])
		cpu := "                          "
		if e.pid > 0 {
			cpu = fmt.Sprintf("cpu/tx %6.1f us (%4.2fx)", m.cpu, m.cpu/base.cpu)
		}
		fmt.Printf("  %-10s tps %8.0f (%4.2fx)   p50 %7.3f ms (%4.2fx)   p99 %7.3f ms (%4.2fx)   %s\n", e.name, m.tps, m.tps/base.tps, m.p50, m.p50/base.p50, m.p99, m.p99/base.p99, cpu)
	}
	return nil
}

var (
	tpsLine   = regexp.MustCompile(`tps = ([\d.]+)`)
	countLine = regexp.MustCompile(`transactions actually processed: (\d+)`)
)

func measure(ctx context.Context, e endpoint, w workload) (figures, error) {
	logs := filepath.Join(w.dir, "log")
	before := cpuOf(e.pid)
	cmd := exec.CommandContext(ctx, "pgbench", "-n", "-S", "-M", w.mode, "-c", w.clients, "-j", "1", "-T", strconv.Itoa(w.secs), "-l", "--log-prefix="+logs, "--sampling-rate=0.2")
	cmd.Env = environment(e.port)
	if e.name == "pgbouncer" && w.mode == "prepared" {
		cmd.Env = append(cmd.Env, "PGDATABASE=prepared")
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return figures{}, fmt.Errorf("%s, %s, %s clients: %w: %s", e.name, w.mode, w.clients, err, out)
	}
	after := cpuOf(e.pid)
	t, n := tpsLine.FindSubmatch(out), countLine.FindSubmatch(out)
	if t == nil || n == nil {
		return figures{}, fmt.Errorf("%s: pgbench printed: %s", e.name, out)
	}
	tps, _ := strconv.ParseFloat(string(t[1]), 64)
	count, _ := strconv.ParseFloat(string(n[1]), 64)
	p50, p99, err := quantiles(logs)
	return figures{tps, p50, p99, (after - before) / count * 1e6}, err
}

// quantiles reads pgbench's log, whose third field is the latency in microseconds, and removes it.
func quantiles(prefix string) (p50, p99 float64, err error) {
	files, _ := filepath.Glob(prefix + ".*")
	var us []float64
	for _, f := range files {
		h, err := os.Open(f)
		if err != nil {
			return 0, 0, err
		}
		for sc := bufio.NewScanner(h); sc.Scan(); {
			if w := strings.Fields(sc.Text()); len(w) > 2 {
				if v, err := strconv.ParseFloat(w[2], 64); err == nil {
					us = append(us, v)
				}
			}
		}
		h.Close()
		os.Remove(f)
	}
	if len(us) == 0 {
		return 0, 0, fmt.Errorf("pgbench logged nothing")
	}
	sort.Float64s(us)
	return us[len(us)/2] / 1000, us[len(us)*99/100] / 1000, nil
}

// cpuOf is the user and system time of a process, in seconds.
func cpuOf(pid int) float64 {
	if pid == 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	u, _ := strconv.ParseFloat(f[11], 64)
	s, _ := strconv.ParseFloat(f[12], 64)
	return (u + s) / 100 // USER_HZ
}

func median(list []figures) figures {
	pick := func(get func(figures) float64) float64 {
		v := make([]float64, len(list))
		for i, f := range list {
			v[i] = get(f)
		}
		sort.Float64s(v)
		return v[len(v)/2]
	}
	return figures{pick(func(f figures) float64 { return f.tps }), pick(func(f figures) float64 { return f.p50 }), pick(func(f figures) float64 { return f.p99 }), pick(func(f figures) float64 { return f.cpu })}
}
