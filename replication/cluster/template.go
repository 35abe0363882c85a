package cluster

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A template spares initdb, which takes a server a second: a copy of its folder takes a twentieth of that. PostgreSQL's own tests do the same. A
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
	if err := c.writeFile(pw, []byte(password+"\n")); err != nil {
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
	return password, c.writeFile(saved, []byte(password))
}

func (c *Cluster) templateData() string { return filepath.Join(c.template, "data") }

// copyTree copies a data folder, but for what belongs to a running server. Of a file of its log it copies as many bytes as wanted says; the rest
// of one that is wanted at all are zeros.
func (c *Cluster) copyTree(from, dest string, wanted func(log string) (int64, error)) error {
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path) // path is below from
		to, limit := filepath.Join(dest, rel), int64(math.MaxInt64)
		switch {
		case e.IsDir():
			if err := os.MkdirAll(to, 0o700); err != nil {
				return err
			}
			return chownToServer(to)
		case rel == "postmaster.pid" || rel == "postmaster.opts":
			return nil
		case strings.HasPrefix(rel, "pg_wal/0"):
			if limit, err = wanted(path); err != nil || limit == 0 {
				return err
			}
		}
		return copyFile(path, to, limit)
	})
	if err != nil {
		return fmt.Errorf("copy of %s: %w", from, err)
	}
	return nil
}

// copyFile copies a file, or the first bytes of it and zeros. One that is gone is left out.
func copyFile(path, to string, limit int64) (err error) {
	from, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close() // it is only read
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := chownToServer(to); err != nil {
		return err
	}
	if limit == math.MaxInt64 {
		_, err = io.Copy(f, from) // by the kernel alone where it can
		return err
	}
	size, err := from.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = from.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = io.CopyN(f, from, min(limit, size))
	}
	if err == nil {
		err = f.Truncate(size)
	}
	return err
}
