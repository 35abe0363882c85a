package instance

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication/reshard"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// buildAdmin makes what the console does.
func (in *Instance) buildAdmin() {
	in.Mover = &reshard.Mover{
		Catalog: in.Catalog, Monitor: in.Monitor, Conns: &in.conns, Log: in.log, PauseTimeout: 10 * time.Second, Using: in.Using, AwaitLeft: in.Engine.Planner.AwaitLeft,
		SchemaChanged: func(ctx context.Context, db string) {
			if d := in.Catalog.Current().Databases[db]; d != nil && d.Home != nil {
				if _, err := in.Engine.Planner.Schemas.Refresh(ctx, d); err != nil {
					in.log.Warn("schema", "database", db, "error", err)
				}
			}
		},
		Homebound: in.homebound,
		Joins: func(ctx context.Context, db, shard, dsn string, whose nodeconn.Whose) func() {
			return shardJoins(ctx, in, db, shard, dsn, whose)
		},
		Tell: func(level slog.Level, database, shard, what, reason string) {
			in.Admin.Note(admin.Event{At: time.Now(), Level: strings.ToLower(level.String()), Database: database, Shard: shard, What: what, Reason: reason})
		},
	}
	in.Admin = &admin.Admin{
		Mover: in.Mover, Pools: in.Pools, Metrics: in.Metrics, Version: in.opts.Version,
		Clients: in.Clients, Users: in.users, Config: in.settings, PlanCount: in.Engine.Planner.PlanCount, Plans: in.plans, Explain: in.explain,
		Reload: in.Reload, Shutdown: in.shutdown, Set: in.set, Listening: in.hub.Stats, Limits: in.adminLimits, Addr: func() string { return in.Server.Addr() },
		Found: func() []txn.Prepared {
			if p := in.prepared.Load(); p != nil {
				return *p
			}
			return nil
		},
		Prepared: func(ctx context.Context, db string) ([]txn.Prepared, error) {
			r := in.Resolver()
			return r.List(ctx, in.ShardsOf(in.Catalog.Current().Databases[db]))
		},
	}
}

// explain are the lines of EXPLAIN (ROUTE), for a client whose settings are the defaults.
func (in *Instance) explain(ctx context.Context, db, sql string) ([]string, error) {
	d := in.Catalog.Current().Databases[db]
	if d.Home == nil {
		return nil, errors.New("the database has no shard yet")
	}
	sch, err := in.Engine.Planner.Schemas.Get(ctx, d)
	if err != nil {
		return nil, err
	}
	return exec.ExplainRoute(sql, in.Engine.Planner.Schemas.WithPartitions(d, sch), sch, exec.DefaultEnv(), nil)
}

// homebound refuses to distribute tables that run code which uses what home alone has, as home's definitions are now.
func (in *Instance) homebound(ctx context.Context, d *shardmap.DB, tables []shardmap.TableName) error {
	if err := in.Engine.Planner.Schemas.Check(ctx, d); err != nil {
		return err
	}
	sch, err := in.Engine.Planner.Schemas.Get(ctx, d)
	if err != nil {
		return err
	}
	if e := router.Homebound(in.Engine.Planner.Schemas.WithPartitions(d, sch), sch, tables); e != nil {
		return &pgsql.Error{Code: e.Code, Message: e.Message, Hint: e.Hint}
	}
	return nil
}

// plans are the rows of SHOW PLANS.
func (in *Instance) plans(limit int) (out []admin.Plan) {
	for _, p := range in.Engine.Planner.Plans(limit) {
		out = append(out, admin.Plan{
			Database: p.Database, Route: p.Route, Hits: p.Hits, Exact: p.Exact, Bytes: p.Bytes, MapVersion: int64(p.MapVersion), SchemaVersion: int64(p.SchemaVersion), Statement: p.Statement,
		})
	}
	return out
}

// settings are the rows of SHOW CONFIG.
func (in *Instance) settings() (out []admin.Setting) {
	for _, s := range in.config.Load().Settings() {
		may := "no"
		if s.Changeable {
			may = "yes"
		}
		out = append(out, admin.Setting{Key: s.Name, Value: s.Value, Default: s.Default, Changeable: may})
	}
	return out
}
