// Package nodeconn opens the proxy's own connections to nodes: all but those that serve clients.
//
// They run with the rights of the role in a node's connection string, often a superuser's, in databases where others may make
// schemas, functions and operators. So none of what they run may find an object that a user has made, unless it names its
// schema; and nothing that a connection string, a role or a database sets may change what they read and print. Nothing else
// connects to a node: a test sees to it.
package nodeconn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/tcp"
)

// Purpose is what a connection is for.
type Purpose struct {
	name    string        // application_name behind "pgmosaic "
	limit   time.Duration // statement_timeout; 0: none
	allRows bool          // a row that a policy hides is an error
	catalog bool          // what has parameters asks the catalog, again and again: to plan it takes longer than to run it
}

// The purposes.
var (
	Monitor   = Purpose{name: "monitor", limit: 10 * time.Second}
	Schema    = Purpose{name: "schema", limit: 30 * time.Second}
	Resolver  = Purpose{name: "resolver", limit: 10 * time.Second, allRows: true} // a decision that it may not see is an error, and not undecided
	AuthQuery = Purpose{name: "auth_query", limit: 10 * time.Second}
	Check     = Purpose{name: "check", limit: 5 * time.Second}
	Listen    = Purpose{name: "listen", limit: 10 * time.Second}
	Admin     = Purpose{name: "admin", allRows: true, catalog: true} // copies take as long as they take
)

// ErrString means that a connection string cannot be read. It says no more: the cause may hold the password.
var ErrString = errors.New("the node's connection string cannot be read")

// ErrSilent means that a node has taken nothing, or has not been heard of, for as long as we are patient.
var ErrSilent = tcp.ErrSilent

// connectTimeout bounds the opening of a connection if neither its string nor the caller's context does.
const connectTimeout = 10 * time.Second

// fixed is what holds on every connection, whatever is set elsewhere. What a startup packet sets is also what RESET ALL and
// DISCARD ALL go back to, and it does not change with SET ROLE.
var fixed = map[string]string{
	"search_path": "pg_catalog, pg_temp", // in this order: else temporary objects come first

	"client_encoding": "UTF8", "standard_conforming_strings": "on", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres", "TimeZone": "UTC", "extra_float_digits": "3",
	"bytea_output": "hex", "lc_monetary": "C", "lc_numeric": "C", "lc_time": "C", "xmloption": "content", "xmlbinary": "base64", "array_nulls": "on", "transform_null_equals": "off", "quote_all_identifiers": "off",

	"default_transaction_isolation": "read committed", "default_transaction_read_only": "off", "default_transaction_deferrable": "off",
	// The node, too, gives us up in a minute or two: it would hold the locks of a process that is gone for hours. See patience.
	"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "15", "tcp_keepalives_count": "4",

	"lock_timeout": "0", "idle_in_transaction_session_timeout": "0", "jit": "off", "synchronize_seqscans": "off", "check_function_bodies": "on",

	// PostgreSQL makes the hash table of a recursive UNION as large as it expects to need, and expects far too much of our walks along
	// dependencies: with 4 MB, most of their time goes into clearing it. What sorts rows asks for more.
	"work_mem": "256kB",
}

// settle is what a startup packet cannot say, since it depends on the server's version, the role, or the value. It asks for each setting by its
// name: the view of all of them takes a server a hundred times as long.
const settle = `select set_config(name, want, false) from (values ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('session_replication_role', 'origin')) x (name, want)
 where current_setting(name, true) <> want
union all select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'`

// afresh undoes what code that a connection has run has left for its session. It comes to the search path first: what follows is not to meet
// anybody's functions. Prepared statements stay, since they are ours.
const afresh = `RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; ` + settle

// Refresh has a connection that is in no transaction be as it was when it was opened, whatever functions of tables and event triggers have
// set there, and then runs one more statement; empty: none.
func Refresh(ctx context.Context, c *pgx.Conn, then string) error {
	_, err := c.PgConn().Exec(ctx, afresh+"; "+then).ReadAll()
	return err
}

// Open connects for a purpose to the database that whose asks for. Its errors are those of connecting, which hold no password, and whose's own.
func Open(ctx context.Context, dsn string, p Purpose, whose Whose) (*pgx.Conn, error) {
	whose.must()
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, ErrString
	}
	p.apply(&cfg.Config)
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err == nil {
		err = whose.first(ctx, c.PgConn())
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Beside opens another connection like one that is open and has been asked whose it leads to: at the address where that is, whatever the connection string leads
// to by now, and whichever of several hosts or addresses it has.
func Beside(ctx context.Context, c *pgx.Conn) (*pgx.Conn, error) {
	cfg := c.Config()
	if at, err := netip.ParseAddrPort(c.PgConn().Conn().RemoteAddr().String()); err == nil { // a Unix socket is where it was
		cfg.Host, cfg.Port = at.Addr().String(), at.Port()
		for _, f := range cfg.Fallbacks { // each has its own TLS, by the name that it had
			f.Host, f.Port = cfg.Host, cfg.Port
		}
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// OpenRaw is Open without pgx's types and caches. onNotification may be nil.
func OpenRaw(ctx context.Context, dsn string, p Purpose, whose Whose, onNotification func(*pgconn.Notification)) (*pgconn.PgConn, error) {
	whose.must()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, ErrString
	}
	p.apply(cfg)
	if onNotification != nil {
		cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { onNotification(n) }
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err == nil {
		err = whose.first(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// patience is how long a node may take nothing that is sent to it: a connection string's tcp_user_timeout, in milliseconds as libpq has it,
// or a minute. The node has twice the patience with us: where rows go from one node to another, the one that takes none is to be blamed, and
// not the one that cannot get rid of its own meanwhile.
func patience(params map[string]string) (ours time.Duration, theirs string) {
	ours = tcp.Own.UserTimeout
	if ms, err := strconv.ParseUint(params["tcp_user_timeout"], 10, 30); err == nil {
		ours = time.Duration(ms) * time.Millisecond
	}
	return ours, strconv.FormatInt(2*ours.Milliseconds(), 10)
}

// apply gives a configuration the purpose's parameters. Of the connection string's own only options stays, and how patient it is: what is
// fixed here overrules what it sets.
func (p Purpose) apply(cfg *pgconn.Config) {
	params := maps.Clone(fixed)
	if o, ok := cfg.RuntimeParams["options"]; ok {
		params["options"] = o
	}
	params["application_name"] = "pgmosaic " + p.name
	params["statement_timeout"] = strconv.FormatInt(p.limit.Milliseconds(), 10)
	params["row_security"] = "on"
	if p.allRows {
		params["row_security"] = "off"
	}
	if p.catalog {
		params["plan_cache_mode"] = "force_generic_plan"
	}
	own := tcp.Own
	own.UserTimeout, params["tcp_user_timeout"] = patience(cfg.RuntimeParams)
	cfg.RuntimeParams = params
	cfg.DialFunc = own.DialExplained
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	checked := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		if checked != nil {
			if err := checked(ctx, c); err != nil {
				return err
			}
		}
		if _, err := c.Exec(ctx, settle).ReadAll(); err != nil {
			return fmt.Errorf("prepare the connection: %w", err)
		}
		return nil
	}
}
