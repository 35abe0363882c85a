package instance

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/access"
	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

var errNoFile = errors.New("there is no configuration file to read again: the proxy was started with --database")

// Reload reads the configuration's file again and takes it into use as a whole, or not at all. No client is dropped. Any goroutine may
// call it.
func (in *Instance) Reload() error {
	in.reloading.Lock()
	defer in.reloading.Unlock()
	old := in.config.Load()
	if old.File == "" {
		return errNoFile
	}
	cfg, err := config.Load(old.File)
	if err != nil {
		return err
	}
	cfg.Listen, cfg.HTTP = old.Listen, old.HTTP // the command line may have set them
	if err := in.apply(&cfg); err != nil {
		return err
	}
	in.log.Info("configuration read again", "file", old.File)
	return nil
}

// Config is what is in force.
func (in *Instance) Config() config.Config { return *in.config.Load() }

// Apply takes a configuration into use, as Reload does with the file's.
func (in *Instance) Apply(cfg *config.Config) error {
	in.reloading.Lock()
	defer in.reloading.Unlock()
	return in.apply(cfg)
}

func (in *Instance) apply(cfg *config.Config) error {
	who, err := access.New(cfg, in.Catalog.Current().Key(saltKey))
	if err != nil {
		return err
	}
	if who.Page == nil { // TLS ends at the next start
		who.Page = in.Gate.Access().Page
	}
	for _, c := range config.Diff(&in.cfg, cfg) {
		if c.Restart {
			in.log.Warn("this setting takes effect at the next start only", "setting", c.Name)
		}
	}
	in.config.Store(cfg)
	in.Gate.Use(who)
	in.Pools.SetOptions(in.poolOptions(cfg))
	in.Server.SetOptions(limits(cfg))
	in.Engine.Observer.Logging.Store(logging(cfg))
	in.Engine.ShardUsers.Store(&cfg.ShardUsers)
	if in.opts.Level != nil {
		setLevel(in.opts.Level, cfg)
	}
	return nil
}

// set changes one setting until the next RELOAD.
func (in *Instance) set(name, value string) error {
	in.reloading.Lock()
	defer in.reloading.Unlock()
	cfg, err := in.config.Load().With(name, value)
	if err == nil {
		return in.apply(&cfg)
	}
	var why *config.SettingError
	if !errors.As(err, &why) {
		return err
	}
	switch why.Reason {
	case config.Unknown:
		return &pgsql.Error{Code: pgsql.UndefinedObject, Message: why.Text, Hint: "SHOW CONFIG lists them."}
	case config.Fixed:
		return &pgsql.Error{Code: pgsql.CantChangeRuntimeParam, Message: why.Text, Hint: "Change the configuration file and RELOAD, or restart."}
	case config.Invalid:
	}
	return &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: why.Text}
}

// shutdown ends the process as a signal would: at once, or when the clients have left.
func (in *Instance) shutdown(waitForClients bool) {
	in.ending.wait.Store(waitForClients)
	in.ending.once.Do(func() { close(in.ending.asked) })
}

func (in *Instance) adminLimits() admin.Limits {
	c := in.config.Load()
	return admin.Limits{MaxDatabase: c.MaxDB, MaxUser: c.MaxUser, MaxDatabaseClients: c.MaxDBClient, MaxUserClients: c.MaxUsrClient}
}

// poolOptions are how the pools are to be.
func (in *Instance) poolOptions(c *config.Config) pool.Options {
	return pool.Options{
		Size: c.PoolSize, Gather: c.GatherPool, Min: c.MinPool, Reserve: c.Reserve, ReserveAfter: c.ReserveAfter.Value(), MaxDatabase: c.MaxDB, MaxUser: c.MaxUser, MaxPrepared: c.MaxPrepared,
		WaitTimeout: c.QueryWait.Value(), ConnectTimeout: c.Connect.Value(), Lifetime: c.Lifetime.Value(), IdleTimeout: c.Idle.Value(),
		LoginRetry: c.LoginRetry.Value(), DNSTTL: c.DNSTTL.Value(), TCP: bySilence(c), Password: in.serverPassword, Led: func(dsn string, means func(addr string) bool) { nodeLed(in, dsn, means) }, Primary: func(database, shard string) string { return primaryOf(in, database, shard) }, Verify: pool.Asked(in.verify),
	}
}

// logging is what statements are logged.
func logging(c *config.Config) *observe.Logging {
	return &observe.Logging{Slow: c.LogSlow.Value(), Failed: c.LogFailed, Refused: c.LogRefused, Parameters: c.LogParams}
}
