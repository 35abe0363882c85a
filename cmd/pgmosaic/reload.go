package main

import (
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
)

// restart lists the settings that RELOAD cannot change.
var restart = map[string]bool{
	"listen": true, "unix_socket_dir": true, "unix_socket_mode": true, "so_reuseport": true, "peer_id": true, "peer_listen": true, "http": true, "store": true, "init_sql": true,
	"monitor_interval": true, "max_staleness": true, "read_consistency": true, "multi_shard_commit": true, "resolver_interval": true, "resolver_grace": true, "verify_interval": true, "log_format": true,
	"max_statement_size": true, "client_login_timeout": true, "gather_limit": true, "merge_memory": true, "memory_limit": true, "session_memory_limit": true, "replica_fallback": true, "zone": true,
	"failover_buffer": true, "failover_buffer_requests": true, "failover_buffer_size": true, "otlp_endpoint": true, "trace_sample_ratio": true,
}

// reload reads the configuration again and takes it into use as a whole, or not at all. No client is dropped.
func (a *app) reload() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	old := a.config.Load()
	if old.file == "" {
		return errNoFile
	}
	cfg, err := loadConfig(old.file)
	if err != nil {
		return err
	}
	cfg.Listen, cfg.HTTP = old.Listen, old.HTTP // the command line may have set them
	if err := a.apply(&cfg); err != nil {
		return err
	}
	a.log.Info("configuration read again", "file", old.file)
	return nil
}

// apply takes a configuration into use.
func (a *app) apply(cfg *Config) error {
	access, err := newAccess(cfg, a.catalog.Current().Key(saltKey))
	if err != nil {
		return err
	}
	if access.page == nil { // TLS ends at the next start
		access.page = a.backend.access.Load().page
	}
	v, was := reflect.ValueOf(*cfg), reflect.ValueOf(a.cfg)
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); restart[tag] && !reflect.DeepEqual(v.Field(i).Interface(), was.Field(i).Interface()) {
			a.log.Warn("this setting takes effect at the next start only", "setting", tag)
		}
	}
	opts := cfg.poolOptions()
	opts.Password, opts.Verify = a.backend.serverPassword, a.verify
	a.config.Store(cfg)
	a.backend.access.Store(access)
	a.pools.SetOptions(opts)
	a.server.SetOptions(cfg.limits())
	a.engine.Logging.Store(cfg.logging())
	a.engine.ShardUsers.Store(&cfg.ShardUsers)
	if a.level != nil {
		var level slog.Level
		if err := level.UnmarshalText([]byte(cfg.LogLevel)); err == nil {
			a.level.Set(level)
		}
	}
	return nil
}

// set changes one setting until the next RELOAD.
func (a *app) set(name, value string) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	cfg := *a.config.Load()
	v := reflect.ValueOf(&cfg).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") != name {
			continue
		}
		f := v.Field(i)
		if !changeable(name, f) {
			return &admin.Error{Code: "55P02", Message: fmt.Sprintf("parameter %q cannot be changed at run time", name), Hint: "Change the configuration file and RELOAD, or restart."}
		}
		if err := yaml.Unmarshal([]byte(value), f.Addr().Interface()); err != nil {
			if n, e := strconv.Atoi(value); e == nil && f.Type() == reflect.TypeFor[duration]() { // seconds, as PgBouncer
				f.Set(reflect.ValueOf(duration(time.Duration(n) * time.Second)))
			} else {
				return &admin.Error{Code: "22023", Message: fmt.Sprintf("invalid value for parameter %q: %q", name, value)}
			}
		}
		if err := cfg.validate(); err != nil {
			return &admin.Error{Code: "22023", Message: err.Error()}
		}
		return a.apply(&cfg)
	}
	return &admin.Error{Code: "42704", Message: fmt.Sprintf("unrecognized configuration parameter %q", name), Hint: "SHOW CONFIG lists them."}
}

// changeable says whether SET may change a setting: plain values that RELOAD could change.
func changeable(name string, f reflect.Value) bool {
	switch f.Kind() {
	case reflect.Int, reflect.Int64, reflect.String, reflect.Bool:
		return !restart[name] && name != "auth_query" && name != "failover_hook" && name != "peer_key" // what runs as somebody else is the file's alone
	}
	return false
}

// shutdown ends the process as a signal would: at once, or when the clients have left.
func (a *app) shutdown(waitForClients bool) {
	a.wait.Store(waitForClients)
	a.endOnce.Do(func() { close(a.ended) })
}

// show lists the settings for SHOW CONFIG, without secrets. Times are seconds and sizes bytes, as PgBouncer's are.
func (c *Config) show() [][]any {
	def := defaultConfig()
	v, d := reflect.ValueOf(*c), reflect.ValueOf(def)
	var out [][]any
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("yaml")
		switch tag {
		case "", "users", "auth_rules", "init_sql", "peers", "peer_key":
			continue
		}
		text := func(x reflect.Value) string {
			if dur, ok := x.Interface().(duration); ok {
				return strconv.FormatFloat(time.Duration(dur).Seconds(), 'f', -1, 64)
			}
			if b, ok := x.Interface().(bool); ok {
				return map[bool]string{true: "1", false: "0"}[b]
			}
			return fmt.Sprint(x.Interface())
		}
		may := "yes"
		if !changeable(tag, v.Field(i)) {
			may = "no"
		}
		out = append(out, []any{tag, text(v.Field(i)), text(d.Field(i)), may})
	}
	return out
}

func (a *app) adminLimits() admin.Limits {
	c := a.config.Load()
	return admin.Limits{MaxDatabase: c.MaxDB, MaxUser: c.MaxUser, MaxDatabaseClients: c.MaxDBClient, MaxUserClients: c.MaxUsrClient}
}
