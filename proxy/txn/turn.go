package txn

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// Writers of one reference table take turns on each shard, and so do definitions of what all shards have. A turn is a lock on a row
// of pgmosaic.turn, which lasts as long as the transaction: nobody but the role of the node's connection string can lock it, or
// call the function that does.

// Turn is the statement by which a client's transaction takes a turn, and its parameters as text. It gives the transaction's id, for
// Marked, and NULL in a READ ONLY transaction, which has none.
func (s Secret) Turn(name string, pid uint32) (sql string, params [][]byte) {
	token := []byte(`\x` + hex.EncodeToString(s.Token(name, "turn", nil, pid)))
	return "SELECT pgmosaic.take_turn($1::pg_catalog.text, $2::pg_catalog.bytea)", [][]byte{[]byte(name), token}
}

// HomeTurn is Turn for home, by a map that knows so many shards which have joined: 40001 if there are more.
func (s Secret) HomeTurn(name string, pid uint32, joined int) (sql string, params [][]byte) {
	_, params = s.Turn(name, pid)
	return "SELECT pgmosaic.take_turn($1::pg_catalog.text, $2::pg_catalog.bytea, $3::pg_catalog.int4)", append(params, strconv.AppendInt(nil, int64(joined), 10))
}

// TurnOf names the turn of a table's writers.
func TurnOf(table string) string { return "table " + table }

// Definitions is the turn of those who define something on all shards.
const Definitions = "definitions"

// TakeTurn takes a turn in the transaction of a connection of the proxy's own.
func TakeTurn(ctx context.Context, conn *pgx.Conn, name string) error {
	var s Secret
	if err := s.read(ctx, conn); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "SELECT pgmosaic.take_turn($1, $2)", name, s.Token(name, "turn", nil, conn.PgConn().PID()))
	return err
}

// Holder is who has a turn.
type Holder struct {
	PID         uint32 // 0: a prepared transaction
	User, State string
}

// HolderOf says who has a turn on a shard; pgx.ErrNoRows if nobody has.
func HolderOf(ctx context.Context, shard Shard, name string) (h Holder, err error) {
	err = with(ctx, shard, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT coalesce(a.pid, 0), coalesce(a.usename::text, ''), coalesce(a.state, 'in a transaction') FROM pgmosaic.turn t
		  JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = t.xmax AND l.granted LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE t.name = $1 LIMIT 1`, name).Scan(&h.PID, &h.User, &h.State)
	})
	return h, err
}

// Marked is the text of a statement that writes every copy of a reference table, with what shows the trigger on a copy that it is
// one. That holds for this text in one transaction, whose id is what the turn that it took has given.
func (s Secret) Marked(text, transaction string, pid uint32) string {
	return text + "\n/* pgmosaic:" + hex.EncodeToString(s.Token(text, "write in "+transaction, nil, pid)) + " */"
}

// turns are what Turn, Marked and the trigger on copies of reference tables (shardmap.CopyTrigger) need on a shard. The trigger finds the token at the end of the text that the client
// of the server, which is the proxy, has sent: a function, trigger or operator that writes on its own cannot change that. What a
// statement does that has one, it does on each copy.
const turns = `
CREATE TABLE IF NOT EXISTS pgmosaic.turn (name text PRIMARY KEY);
CREATE OR REPLACE FUNCTION pgmosaic.shown(said bytea, purpose text, token bytea) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$SELECT coalesce((SELECT sha256($3) = sha256(sha256(s.outer_key || sha256(s.inner_key || convert_to(octet_length($1) || ':', 'UTF8') || $1 || convert_to(octet_length($2) || ':' || $2 || pg_backend_pid() || ':', 'UTF8'))))
    FROM pgmosaic.secret s), false)$$;
CREATE OR REPLACE FUNCTION pgmosaic.take_turn(name text, token bytea) RETURNS xid8 LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pgmosaic.shown(convert_to($1, 'UTF8'), 'turn', $2) THEN
    RAISE EXCEPTION 'only pgmosaic takes turns' USING ERRCODE = '42501';
  END IF;
  IF current_setting('transaction_read_only') = 'on' THEN -- what it is for is refused, in PostgreSQL's own words
    RETURN NULL;
  END IF;
  PERFORM FROM pgmosaic.turn t WHERE t.name = $1 FOR UPDATE;
  IF NOT FOUND THEN
    INSERT INTO pgmosaic.turn VALUES ($1) ON CONFLICT DO NOTHING;
    PERFORM FROM pgmosaic.turn t WHERE t.name = $1 FOR UPDATE;
  END IF;
  RETURN pg_current_xact_id(); -- it has one: it has locked a row
END $$;
CREATE OR REPLACE FUNCTION pgmosaic.take_turn(name text, token bytea, shards int) RETURNS xid8 LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  id xid8 := pgmosaic.take_turn($1, $2);
BEGIN
  IF to_regproc('pgmosaic.shards_' || $3) IS NULL AND current_setting('transaction_read_only') = 'off' THEN
    RAISE EXCEPTION 'the shards are not those that this process knows: it has an older map' USING ERRCODE = '40001',
      HINT = 'Run it again. If it stays so, give the process the newest map and restart it: docs/operating/several.md.';
  END IF;
  RETURN id;
END $$;
CREATE OR REPLACE FUNCTION pgmosaic.written() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  sent bytea := convert_to(current_query(), pg_client_encoding());
  length int := octet_length(sent) - 80;
  mark text := substring(right(current_query(), 80) from '\n/\* pgmosaic:([0-9a-f]{64}) \*/$');
BEGIN
  IF mark IS NULL OR NOT pgmosaic.shown(substring(sent from 1 for length), 'write in ' || pg_current_xact_id_if_assigned(), decode(mark, 'hex')) THEN
    RAISE EXCEPTION 'table %.% is written on one shard alone, and is a reference table: each shard has a copy', quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME)
      USING ERRCODE = '0A000', HINT = 'Write it by a statement that names it, sent through pgmosaic: what functions, triggers and operators write would be on one copy.';
  END IF;
  RETURN NULL;
END $$`

// How many shards have joined a database is the name of a function on home: names are seen as they are now, whatever a transaction's
// snapshot shows, and to give a function another name nobody's lock on a table, a pg_dump's for one, is waited for. Who takes a turn has locked
// pgmosaic.turn before it looks, and so has who joins a shard before it gives the function another name.

// Counted is home's count.
const Counted = `select substring(proname from 8)::int from pg_catalog.pg_proc where pronamespace = pg_catalog.to_regnamespace('pgmosaic') and proname ~ '^shards_[0-9]{1,9}$'`

// count makes home's count, if there is none.
func count(joined int) string {
	return fmt.Sprintf("DO $$ BEGIN IF NOT EXISTS (%s) THEN CREATE FUNCTION pgmosaic.shards_%d() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS ''; END IF; END $$", Counted, joined)
}

// Recount are the statements that change home's count, in a transaction: nobody takes a turn from then on until it has ended.
func Recount(from, to int) []string {
	return []string{"LOCK TABLE pgmosaic.turn IN EXCLUSIVE MODE", fmt.Sprintf("ALTER FUNCTION pgmosaic.shards_%d() RENAME TO shards_%d", from, to)}
}
