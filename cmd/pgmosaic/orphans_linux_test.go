package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// diesWithUs has the kernel end a child when the process that started it ends, however it does.
func diesWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// A proxy that a test has started does not outlive the tests.
func TestProxiesOfKilledTestsEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := dir + "/pgmosaic.yaml"
	text := fmt.Sprintf("listen: %s\nhttp: \"off\"\nstore: %s/map.json\nadmin_users: [admin]\nusers: [{name: admin, password: admin}]\ninit_sql: CREATE DATABASE empty\n", freeAddress(t), dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() // nothing is to be lost
	tests := exec.Command(os.Args[0])
	tests.Env, tests.Stdout, tests.Stderr = append(os.Environ(), keepsEnv+"="+config), w, w
	if err := tests.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	said, pid := bufio.NewReader(r), 0
	for line := ""; !strings.Contains(line, "msg=ready"); {
		if line, err = said.ReadString('\n'); err != nil {
			t.Errorf("it does not serve: %v", err)
			break
		}
		_, _ = fmt.Sscanf(line, "pid %d", &pid)
	}
	_ = tests.Process.Kill()
	_ = tests.Wait()
	if _, err := io.Copy(io.Discard, said); err != nil { // it ends when nobody has the other end any more
		t.Errorf("the proxy outlives who started it: %v", err)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
