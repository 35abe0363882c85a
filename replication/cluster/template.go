package cluster

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A template spares initdb, which takes a server a second: a copy of its folder takes a tenth of that. PostgreSQL's own tests do the same. A
// copy is another system than the template, as a folder from initdb would be.

// newPassword makes a superuser's password.
func newPassword() string {
	b := make([]byte, 16)
	_, _ = crand.Read(b)
	return hex.EncodeToString(b)
}

// initdb fills a folder. Its superuser has the password.
func (c *Cluster) initdb(ctx context.Context, dir, password string) error {
	pw := dir + ".pw"
	if err := c.writeFile(pw, password+"\n", 0o600); err != nil {
		return err
	}
	defer os.Remove(pw) // it holds what cluster.json holds
	args := []string{"-D", dir, "-U", Superuser, "-A", c.auth, "--pwfile", pw, "-E", "UTF8", "--no-sync"}
	err := c.command(ctx, nil, "initdb", append(args, "--locale=C.UTF-8")...)
	if err != nil { // a system without that locale
		_ = os.RemoveAll(dir)
		err = c.command(ctx, nil, "initdb", append(args, "--locale=C")...)
	}
	return err
}

var makingTemplate sync.Mutex // one cluster of this process makes a template, the others wait for it

// openTemplate makes the template unless it is there, and returns its superuser's password.
func (c *Cluster) openTemplate(ctx context.Context) (password string, err error) {
	makingTemplate.Lock()
	defer makingTemplate.Unlock()
	saved := filepath.Join(c.template, "password")
	b, err := os.ReadFile(saved)
	if err == nil {
		return string(b), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("template: %w", err)
	}
	if err := c.makeDir(c.template); err != nil {
		return "", err
	}
	password = newPassword()
	if err := c.initdb(ctx, c.templateData(), password); err != nil {
		return "", err
	}
	return password, c.writeFile(saved, password, 0o600)
}

func (c *Cluster) templateData() string { return filepath.Join(c.template, "data") }

// copyTemplate fills a folder with what initdb had made, as a system of its own.
func (c *Cluster) copyTemplate(ctx context.Context, dir string) error {
	if err := c.copyTree(c.templateData(), dir); err != nil {
		return err
	}
	path := filepath.Join(dir, "global", "pg_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("copy of the template: %w", err)
	}
	id := make([]byte, 8)
	_, _ = crand.Read(id)
	if !anotherSystem(control, binary.NativeEndian.Uint64(id)) {
		return errors.New("copy of the template: its pg_control has no checksum that is right")
	}
	if err := c.writeFile(path, string(control), 0o600); err != nil {
		return err
	}
	return c.command(ctx, nil, "pg_resetwal", "-f", "-D", dir) // which writes the first of the log, that has the identifier too
}

// anotherSystem gives a pg_control another system identifier. PostgreSQL's ControlFileData begins with it, and ends with the CRC-32C of
// all before that (src/include/catalog/pg_control.h); where it ends is another place in each version, and found by the checksum that is there.
func anotherSystem(control []byte, id uint64) bool {
	table := crc32.MakeTable(crc32.Castagnoli)
	for end := 8; end+4 <= len(control); end += 4 {
		sum := crc32.Checksum(control[:end], table)
		if binary.NativeEndian.Uint32(control[end:]) == sum {
			binary.NativeEndian.PutUint64(control, id)
			binary.NativeEndian.PutUint32(control[end:], crc32.Checksum(control[:end], table))
			return true
		}
	}
	return false
}

// copyTree copies a data folder, but for what belongs to a running server.
func (c *Cluster) copyTree(from, dest string) error {
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path) // path is below from
		to := filepath.Join(dest, rel)
		switch {
		case e.IsDir():
			if err := os.MkdirAll(to, 0o700); err != nil {
				return err
			}
			if uid, gid, ok := serverUser(); ok {
				return os.Chown(to, int(uid), int(gid))
			}
			return nil
		case rel == "postmaster.pid" || rel == "postmaster.opts" || strings.HasPrefix(rel, "pg_wal/0"):
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return c.writeFile(to, string(b), 0o600)
	})
	if err != nil {
		return fmt.Errorf("copy of %s: %w", from, err)
	}
	return nil
}
