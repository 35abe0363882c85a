package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Node is one PostgreSQL server.
type Node struct {
	Name string
	Port int
	From string   // of a replica: the primary that it was made from
	Env  []string // what its server has in its environment besides ours, from the next Start on

	c    *Cluster
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

// settings of every node. Replicas inherit their primary's.
var settings = []string{
	"listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "max_connections = 300", "max_prepared_transactions = 300",
	"wal_level = replica", "max_wal_senders = 10", "wal_keep_size = '256MB'", "hot_standby = on", "shared_buffers = '64MB'",
	"password_encryption = 'scram-sha-256'", "log_min_messages = warning", "max_standby_streaming_delay = '5s'", "jit = off",
	// A standby whose primary is gone and that is told to promote while it tries to connect again waits out this interval first.
	"wal_retrieve_retry_interval = '200ms'",
}

// Primary makes a new node and starts it.
func (c *Cluster) Primary(ctx context.Context, name string, more ...string) (*Node, error) {
	n, err := c.add(name, "")
	if err != nil {
		return nil, err
	}
	if c.template == "" {
		err = c.initdb(ctx, n.dir, c.Password)
	} else {
		err = c.copySystem(c.templateData(), n.dir)
	}
	if err != nil {
		return nil, err
	}
	conf := strings.Join(append(append(append([]string{}, settings...), c.settings...), more...), "\n") + "\n"
	if err := appendFile(filepath.Join(n.dir, "postgresql.conf"), conf); err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return n, c.save()
}

// Replica makes a streaming standby of a primary and waits until it streams and a write has arrived. delay, if any,
// holds replay back. That of a primary that is stopped is a copy of its files, and is not started: its primary is to be
// started before.
func (c *Cluster) Replica(ctx context.Context, of *Node, name string, delay time.Duration) (*Node, error) {
	n, err := c.add(name, of.Name)
	if err != nil {
		return nil, err
	}
	if err := n.backup(ctx, of); err != nil {
		return nil, err
	}
	if delay > 0 {
		if err := appendFile(filepath.Join(n.dir, "postgresql.auto.conf"), fmt.Sprintf("recovery_min_apply_delay = '%dms'\n", delay.Milliseconds())); err != nil {
			return nil, err
		}
	}
	if !of.Running() {
		return n, c.save()
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	if err := c.save(); err != nil {
		return nil, err
	}
	return n, n.waitStreaming(ctx, of, delay == 0)
}

// Copy makes a node from a primary that is stopped, of any cluster whose superuser has the same password: with its name and its databases, as a
// system of its own. It is not started.
func (c *Cluster) Copy(of *Node) (*Node, error) {
	if of.Running() || c.Password != of.c.Password {
		return nil, fmt.Errorf("copy of node %s: it is to be a primary that was stopped, and its superuser's password the same as here", of.Name)
	}
	n, err := c.add(of.Name, "")
	if err != nil {
		return nil, err
	}
	if err := c.copySystem(of.dir, n.dir); err != nil {
		return nil, err
	}
	return n, c.save()
}

func (c *Cluster) add(name, from string) (*Node, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	n := &Node{Name: name, Port: port, From: from, c: c, dir: filepath.Join(c.Dir, name)}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.nodes {
		if o.Name == name {
			return nil, fmt.Errorf("node %s exists", name)
		}
	}
	c.nodes = append(c.nodes, n)
	return n, nil
}

// backup fills the data folder from the primary: with pg_basebackup, or where a server came without it, by
// a base backup over SQL and a copy of the files. The files of one that is stopped are copied as they are.
func (n *Node) backup(ctx context.Context, of *Node) error {
	conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s application_name=%s", of.Port, Superuser, n.c.Password, n.Name)
	if !of.Running() {
		if err := n.c.copyStopped(of.dir, n.dir); err != nil {
			return err
		}
		return n.follow(conninfo)
	}
	if _, err := os.Stat(filepath.Join(n.c.bin, "pg_basebackup")); err == nil {
		return n.c.command(ctx, []string{"PGPASSWORD=" + n.c.Password}, "pg_basebackup", "-D", n.dir, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", conninfo)
	}
	return n.copyBackup(ctx, of, conninfo)
}

func (n *Node) copyBackup(ctx context.Context, of *Node, conninfo string) error {
	conn, err := pgx.Connect(ctx, of.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("backup of %s: %w", of.Name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // the backup is over
	var version int
	if err := conn.QueryRow(ctx, "select current_setting('server_version_num')::int").Scan(&version); err != nil {
		return fmt.Errorf("backup of %s: %w", of.Name, err)
	}
	start, stop := "select pg_backup_start('pgmosaic', true)", "select labelfile from pg_backup_stop(false)"
	if version < 150000 {
		start, stop = "select pg_start_backup('pgmosaic', true, false)", "select labelfile from pg_stop_backup(false, false)"
	}
	if _, err := conn.Exec(ctx, start); err != nil {
		return fmt.Errorf("backup of %s: %w", of.Name, err)
	}
	if err := n.c.copyTree(of.dir, n.dir, func(string) (int64, error) { return 0, nil }); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return fmt.Errorf("backup of %s: %w", of.Name, err)
	}
	return errors.Join(n.c.writeFile(filepath.Join(n.dir, "backup_label"), []byte(label)), n.follow(conninfo))
}

// follow makes a copy of the primary a standby of it, from its next start on.
func (n *Node) follow(conninfo string) error {
	return errors.Join(n.c.writeFile(filepath.Join(n.dir, "standby.signal"), nil), n.Set("primary_conninfo", conninfo))
}

func (c *Cluster) writeFile(path string, text []byte) error {
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return chownToServer(path)
}

// chownToServer gives what we have made to the user that the server runs as.
func chownToServer(path string) error {
	if uid, gid, ok := serverUser(); ok {
		return os.Chown(path, int(uid), int(gid))
	}
	return nil
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Set changes a line of the node's configuration; it takes effect at the next Start.
func (n *Node) Set(name, value string) error {
	return appendFile(filepath.Join(n.dir, "postgresql.auto.conf"), fmt.Sprintf("%s = '%s'\n", name, value))
}

// DSN is the connection string of a database of the node, as Superuser.
func (n *Node) DSN(database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", Superuser, n.c.Password, n.Port, database)
}

// Log is the path of the server's log.
func (n *Node) Log() string { return n.dir + ".log" }

// Start starts the server and waits until it accepts connections. A running one is left alone.
func (n *Node) Start(ctx context.Context) error {
	if n.Running() {
		return nil
	}
	stopLeftover(n.dir)
	log, err := os.OpenFile(n.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	defer log.Close() // the child has its own handle
	cmd := exec.Command(filepath.Join(n.c.bin, "postgres"), "-D", n.dir, "-p", fmt.Sprint(n.Port))
	cmd.SysProcAttr = attributes(true)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, n.c.Dir
	cmd.Env = append(os.Environ(), n.Env...)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	n.cmd, n.done = cmd, make(chan struct{})
	go func(done chan struct{}) { _ = cmd.Wait(); close(done) }(n.done)
	return n.waitReady(ctx)
}

func (n *Node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, n.DSN("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-n.done:
			return fmt.Errorf("node %s ended at its start: %s", n.Name, n.tail())
		case <-ctx.Done():
			return fmt.Errorf("node %s does not accept connections: %w: %s", n.Name, err, n.tail())
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// tail is the end of the server's log.
func (n *Node) tail() string {
	b, err := os.ReadFile(n.Log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}

// Running says whether the server's process lives.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// Stop ends the server in PostgreSQL's fast mode: sessions are closed, the data is checkpointed.
func (n *Node) Stop() error { return n.signal(syscall.SIGINT, 60*time.Second) }

// StopImmediate ends it without a checkpoint, as a crash of the server would.
func (n *Node) StopImmediate() error { return n.signal(syscall.SIGQUIT, 20*time.Second) }

// Kill ends the server and all its processes with SIGKILL, as a crash of the machine would.
func (n *Node) Kill() {
	if n.Running() {
		_ = n.cmd.Process.Signal(syscall.SIGSTOP) // nobody says good-bye to its clients because another one has died before
		children := childrenOf(n.cmd.Process.Pid)
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		_ = n.cmd.Process.Kill()
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-n.done
		for _, pid := range children { // one that waits for a processor still has its sockets
			for alive(pid) {
				time.Sleep(time.Millisecond)
			}
		}
	}
}

func (n *Node) signal(sig syscall.Signal, wait time.Duration) error {
	if !n.Running() {
		return nil
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	select {
	case <-n.done:
		return nil
	case <-time.After(wait):
		n.Kill()
		return fmt.Errorf("node %s did not stop within %s and was killed", n.Name, wait)
	}
}

// Freeze stops the process without ending it, as a hung machine would; Thaw lets it go on.
func (n *Node) Freeze() error { return syscall.Kill(n.cmd.Process.Pid, syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (n *Node) Thaw() error { return syscall.Kill(n.cmd.Process.Pid, syscall.SIGCONT) }

// Promote makes a replica a primary and waits until it is one.
func (n *Node) Promote(ctx context.Context) error { return n.run(ctx, "select pg_promote(true, 60)") }

// PauseReplay and ResumeReplay hold a replica's state where it is, and let it go on.
func (n *Node) PauseReplay(ctx context.Context) error {
	return n.run(ctx, "select pg_wal_replay_pause()")
}

// ResumeReplay undoes PauseReplay.
func (n *Node) ResumeReplay(ctx context.Context) error {
	return n.run(ctx, "select pg_wal_replay_resume()")
}

func (n *Node) run(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, n.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing is left on it
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// Exec runs SQL on a database of the node as Superuser.
func (n *Node) Exec(ctx context.Context, database, sql string) error {
	conn, err := pgx.Connect(ctx, n.DSN(database))
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing is left on it
	_, err = conn.Exec(ctx, sql)
	return err
}

// waitStreaming waits until pg_stat_replication of the primary shows the replica streaming, and with
// arrive set until a write made now has been replayed.
func (n *Node) waitStreaming(ctx context.Context, of *Node, arrive bool) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, of.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("node %s: %w", of.Name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing is left on it
	mark := ""
	if err := conn.QueryRow(ctx, "select pg_logical_emit_message(true, 'pgmosaic', 'are you there')::text").Scan(&mark); err != nil {
		return fmt.Errorf("node %s: %w", of.Name, err)
	}
	for {
		var ok bool
		sql := "select coalesce(bool_or(state = 'streaming' and (not $2 or replay_lsn >= $3::pg_lsn)), false) from pg_stat_replication where application_name = $1"
		if err := conn.QueryRow(ctx, sql, n.Name, arrive, mark).Scan(&ok); err != nil {
			return fmt.Errorf("node %s: %w", of.Name, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s does not stream from %s: %s", n.Name, of.Name, n.tail())
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// Forget removes a stopped node and its data, so that its name can be used again.
func (n *Node) Forget() error {
	n.Kill()
	n.c.mu.Lock()
	for i, o := range n.c.nodes {
		if o == n {
			n.c.nodes = append(n.c.nodes[:i], n.c.nodes[i+1:]...)
			break
		}
	}
	n.c.mu.Unlock()
	return errors.Join(os.RemoveAll(n.dir), n.c.save())
}

// PID is the server's process, 0 if it was never started by this process.
func (n *Node) PID() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}
