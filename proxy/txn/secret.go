package txn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Secret is what a shard and the processes of an installation know, and no client: by it the shard's function tells the proxy's
// calls from others. Only the role of the node's connection string can read it there.
type Secret struct{ inner, outer []byte }

// Token shows that a call of pgmosaic.decide is the proxy's. It holds for these words on one server process, and only once, as the
// row that it makes is there then.
func (s Secret) Token(gid, outcome string, parts []string, pid uint32) []byte {
	var said bytes.Buffer
	fmt.Fprintf(&said, "%d:%s%d:%s%d:", len(gid), gid, len(outcome), outcome, pid)
	for _, p := range parts {
		fmt.Fprintf(&said, "%d:%s", len(p), p)
	}
	in := sha256.Sum256(append(bytes.Clone(s.inner), said.Bytes()...))
	out := sha256.Sum256(append(bytes.Clone(s.outer), in[:]...))
	return out[:]
}

// Call is the statement by which a client's transaction decides, and its parameters as text: outside of the statement's own text
// nobody sees them.
func (s Secret) Call(gid, outcome string, parts []string, pid uint32) (sql string, params [][]byte) {
	list := []byte(nil)
	if parts != nil {
		list = []byte(pgsql.Array(parts))
	}
	token := []byte(`\x` + hex.EncodeToString(s.Token(gid, outcome, parts, pid)))
	return "SELECT pgmosaic.decide($1::pg_catalog.text, " + pgsql.Literal(outcome) + "::pg_catalog.text, $2::pg_catalog.text[], $3::pg_catalog.bytea)", [][]byte{[]byte(gid), list, token}
}

// Secrets are those of the shards, as far as they have been asked for.
type Secrets struct {
	mu    sync.Mutex
	known map[secretKey]Secret
}

// secretKey names a shard, and who was asked: under the same name another database may be the shard soon.
type secretKey struct{ database, shard, dsn string }

// Of is the secret of a shard of a database, read with the shard's own connection string the first time. A shard that an older
// version has made gets what it lacks.
func (c *Secrets) Of(ctx context.Context, database string, shard Shard) (Secret, error) {
	s, ok := c.Known(database, shard)
	if ok {
		return s, nil
	}
	err := with(ctx, shard, func(ctx context.Context, conn *pgx.Conn) error {
		err := s.read(ctx, conn)
		var pe *pgconn.PgError
		if errors.As(err, &pe) && (pe.Code == pgsql.UndefinedTable || pe.Code == pgsql.InvalidSchemaName) {
			if _, err = conn.Exec(ctx, Schema(shard.Ordinal, Unknown)); err == nil {
				err = s.read(ctx, conn)
			}
		}
		return err
	})
	if err != nil {
		return Secret{}, fmt.Errorf("read what shard %s knows the proxy by: %w", shard.Name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[secretKey]Secret{}
	}
	c.known[secretKey{database, shard.Name, shard.DSN}] = s
	return s, nil
}

// Known is the secret of a shard if it has been read.
func (c *Secrets) Known(database string, shard Shard) (Secret, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.known[secretKey{database, shard.Name, shard.DSN}]
	return s, ok
}

// Forget has the secrets of a database's shards read again: a shard may be another one than before, under the same name.
func (c *Secrets) Forget(database string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.known {
		if key.database == database {
			delete(c.known, key)
		}
	}
}

// Retain forgets the secrets of shards that are gone from the map: another may come under the same name, even at the same address.
func (c *Secrets) Retain(has func(database, shard string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.known {
		if !has(key.database, key.shard) {
			delete(c.known, key)
		}
	}
}

func (s *Secret) read(ctx context.Context, conn *pgx.Conn) error {
	return conn.QueryRow(ctx, "SELECT inner_key, outer_key FROM pgmosaic.secret").Scan(&s.inner, &s.outer)
}
