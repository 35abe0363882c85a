package instance

import (
	"context"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/access"
	"github.com/pgmosaic/pgmosaic/proxy/console"
	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/session"
)

// backend checks logins, by its gate, and opens sessions. It implements session.Backend.
type backend struct {
	*access.Gate
	in *Instance
}

// Open implements session.Backend.
func (b backend) Open(ctx context.Context, l session.Login, client session.Client) (session.Handler, map[string]string, error) {
	if access.IsConsole(l.Database) {
		role := b.Access().Console(l.User)
		if role == access.None {
			return nil, nil, &pgsql.Error{Code: pgsql.InsufficientPrivilege, Message: fmt.Sprintf("user %q may not use the admin console", l.User), Hint: "admin_users and stats_users in the configuration name who may."}
		}
		params := map[string]string{
			"server_version": "15.0 (pgmosaic " + b.in.opts.Version + ")", "client_encoding": "UTF8", "server_encoding": "UTF8", "DateStyle": "ISO, MDY",
			"TimeZone": "UTC", "integer_datetimes": "on", "standard_conforming_strings": "on", "application_name": l.Params["application_name"],
		}
		return console.New(b.in.Admin, client.Conn, &b.in.Engine.Memory, role != access.Admin), params, nil
	}
	if err := b.room(l); err != nil {
		return nil, nil, err
	}
	s := b.in.Server.SessionOf(client.PID)
	h, params, err := b.in.Engine.Open(ctx, l.Database, l.User, l.Params, exec.Client{
		Conn: client.Conn, PID: client.PID, Wake: client.Wake, Over: client.Over, Keys: l.Keys, Lost: s.Terminate,
	})
	if err != nil {
		return nil, nil, err
	}
	return h, params, nil
}

// room refuses a client of a database or user that has its number already, or whose database is disabled, and all of a map that is half done.
func (b backend) room(l session.Login) error {
	if b.in.Catalog.Current().Document.Setup != nil {
		return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: "the shard map is being set up", Hint: "Try again when init_sql is done: /readyz answers 200 then."}
	}
	if b.in.Pools.Disabled(l.Database) {
		return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("database %q is disabled", l.Database), Hint: "ENABLE on the admin database lets clients in again."}
	}
	cfg := b.in.config.Load()
	if cfg.MaxDBClient == 0 && cfg.MaxUsrClient == 0 {
		return nil
	}
	db, usr := 0, 0
	for _, s := range b.in.Server.Sessions() {
		i := s.Info()
		if i.Handler == nil || access.IsConsole(i.Login.Database) {
			continue
		}
		if i.Login.Database == l.Database {
			db++
		}
		if i.Login.User == l.User {
			usr++
		}
	}
	full := func(what string, limit int) error {
		return &pgsql.Error{Code: pgsql.TooManyConnections, Message: fmt.Sprintf("client connections exceeded (%s = %d)", what, limit), Hint: "SHOW CLIENTS on the admin database shows who is connected."}
	}
	if cfg.MaxDBClient > 0 && db >= cfg.MaxDBClient {
		return full("max_db_client_connections", cfg.MaxDBClient)
	}
	if cfg.MaxUsrClient > 0 && usr >= cfg.MaxUsrClient {
		return full("max_user_client_connections", cfg.MaxUsrClient)
	}
	return nil
}

// serverPassword is what a role logs in to the shards with; empty: as its client did.
func (in *Instance) serverPassword(_, role string) (string, error) {
	return in.Gate.Access().ServerPassword(role), nil
}

// asking is how auth_query reaches a database: on home, or on another shard while home is away. Roles are the same on all.
func (in *Instance) asking() access.Asking {
	return access.Asking{
		Memory: counting(in, memory.Logins),
		Exists: func(database string) bool {
			d := in.Catalog.Current().Databases[database]
			return d != nil && d.Home != nil
		},
		First: func() string {
			for _, d := range in.Catalog.Current().SortedDatabases() {
				if d.Home != nil {
					return d.Name
				}
			}
			return ""
		},
		Moved: func(database, dsn string) bool {
			d := in.Catalog.Current().Databases[database]
			if d == nil || d.Home == nil {
				return false
			}
			home := in.Monitor.View(d.Name, d.Home.Name)
			return home.Up() && dsn != home.Nodes[home.Primary].DSN
		},
		Server: func(ctx context.Context, database string) (string, nodeconn.Whose, error) {
			d := in.Catalog.Current().Databases[database]
			if d == nil || d.Home == nil {
				return "", nodeconn.Whose{}, fmt.Errorf("database %q does not exist", database)
			}
			sh, dsn, err := in.Engine.Teller(ctx, d)
			if err != nil {
				return "", nodeconn.Whose{}, err
			}
			return dsn, in.whose(d.Name, sh.Name), nil
		},
	}
}
