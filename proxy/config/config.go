// Package config is pgmosaic.yaml: what may be in it, its defaults, what each value must be, and what differs between two of
// them. It reads files and the environment, and changes nothing.
package config

import "time"

// Config is pgmosaic.yaml. The shard map is not in it: that is changed by SQL. Names and defaults are PgBouncer's
// where it has the same setting. RELOAD and SIGHUP take every change into use but those whose tag says "restart".
type Config struct {
	Listen     string   `yaml:"listen" is:"restart"`             // where clients connect
	UnixDir    string   `yaml:"unix_socket_dir" is:"restart"`    // none: no Unix socket
	UnixMode   string   `yaml:"unix_socket_mode" is:"restart"`   // of the Unix socket
	ReusePort  bool     `yaml:"so_reuseport" is:"restart"`       // a process that starts beside this one, with the same file, takes the ports and the Unix socket over: nobody is refused
	PeerID     int      `yaml:"peer_id" is:"restart" max:"1023"` // this process's number among peers, 1 to 1023; default: one drawn by chance
	PeerListen string   `yaml:"peer_listen" is:"restart"`        // address on which peers pass cancel requests on
	Peers      []Peer   `yaml:"peers" is:"hidden"`               // the other processes
	PeerKey    Secret   `yaml:"peer_key" is:"hidden file"`       // what they share, 16 characters or more, or file: or env: reference: with it they find deadlocks over processes
	HTTP       string   `yaml:"http" is:"restart"`               // dashboard, /metrics, /healthz, /readyz; "off" for none; asks for a login unless on loopback
	HTTPCert   string   `yaml:"http_tls_cert_file"`              // with http_tls_key_file: the page, its API and /metrics are served over TLS only; to begin or end with it: restart
	HTTPKey    string   `yaml:"http_tls_key_file"`               // the key of http_tls_cert_file
	TLSCert    string   `yaml:"tls_cert_file"`                   // with tls_key_file: clients may use TLS
	TLSKey     string   `yaml:"tls_key_file"`                    // the key of tls_cert_file
	Proxied    []string `yaml:"proxy_protocol"`                  // addresses and networks, of balancers, whose connections all begin with a PROXY protocol header, version 1 or 2: it says where the client is
	TLSCA      string   `yaml:"tls_ca_file"`                     // whose client certificates are trusted
	Store      string   `yaml:"store" is:"restart"`              // the shard map's file; it may hold the nodes' passwords

	AdminUsers []string `yaml:"admin_users"`                  // may change the map
	StatsUsers []string `yaml:"stats_users"`                  // may SHOW
	ShardUsers []string `yaml:"shard_users"`                  // may set pgmosaic.shard, which sends statements to one shard; "*": everybody
	Users      []User   `yaml:"users" is:"hidden"`            // users that the proxy itself checks
	AuthFile   string   `yaml:"auth_file"`                    // more users, in the format of PgBouncer's userlist.txt
	AuthQuery  string   `yaml:"auth_query" is:"file"`         // for users not listed: SELECT name, verifier FROM ... WHERE name = $1, run on home, or on another shard while home is away, with the search_path pg_catalog, over one connection; answers are kept for 10 s
	AuthRules  []Rule   `yaml:"auth_rules" is:"hidden"`       // first match decides; default: scram-sha-256 from anywhere
	AuthHBA    string   `yaml:"auth_hba_file"`                // in place of auth_rules: rules in the format of pg_hba.conf
	AuthIdent  string   `yaml:"auth_ident_file"`              // maps for method cert, in the format of pg_ident.conf
	AuthTries  int      `yaml:"auth_failures"`                // failed logins of one user from one address within a minute before it is turned away; an address that fails ten times as often, and administrators on their console, wait a second instead; 0: no limit
	InitSQL    string   `yaml:"init_sql" is:"restart hidden"` // admin SQL, run once when the map is empty

	PoolSize     int      `yaml:"default_pool_size" min:"1"`                           // servers for each node, database and role
	MinPool      int      `yaml:"min_pool_size"`                                       // servers kept open while anybody uses the pool
	GatherPool   int      `yaml:"gather_pool_size" min:"1"`                            // servers on home for statements that gather rows, for each database and role
	Reserve      int      `yaml:"reserve_pool_size"`                                   // servers beyond default_pool_size for clients that waited too long
	ReserveAfter Duration `yaml:"reserve_pool_timeout"`                                // how long a client waits before the reserve is used
	MaxDB        int      `yaml:"max_db_connections"`                                  // 0: servers of one database, over all nodes and roles
	MaxUser      int      `yaml:"max_user_connections"`                                // 0: servers of one role
	MaxClients   int      `yaml:"max_client_conn"`                                     // clients that have logged in; ten administrators more are let in all the same
	MaxDBClient  int      `yaml:"max_db_client_connections"`                           // 0: clients of one database
	MaxUsrClient int      `yaml:"max_user_client_connections"`                         // 0: clients of one user
	MaxPrepared  int      `yaml:"max_prepared_statements"`                             // kept for each server connection
	MaxStatement Size     `yaml:"max_statement_size" is:"restart" min:"1kB" max:"1GB"` // longest message that a client may send, but for COPY data

	QueryWait   Duration `yaml:"query_wait_timeout"`                       // how long a statement waits for a server
	Connect     Duration `yaml:"server_connect_timeout"`                   // for opening a server connection, login included
	Lifetime    Duration `yaml:"server_lifetime"`                          // age at which an idle server connection is replaced; never all at once
	Idle        Duration `yaml:"server_idle_timeout"`                      // how long an unused server connection is kept
	LoginRetry  Duration `yaml:"server_login_retry"`                       // how long a refused login to a server is remembered
	DNSTTL      Duration `yaml:"dns_max_ttl"`                              // how often nodes' names are looked up; connections to an address that is gone are replaced
	KeepAlive   bool     `yaml:"tcp_keepalive"`                            // idle clients and servers are asked on TCP's level whether they are there; like the four below for connections made from now on
	KeepIdle    Duration `yaml:"tcp_keepidle" max:"32767s"`                // silence before the first question; 0: 15s
	KeepIntvl   Duration `yaml:"tcp_keepintvl" max:"32767s"`               // between questions; 0: 15s
	KeepCount   int      `yaml:"tcp_keepcnt" max:"127"`                    // so many without an answer end the connection; 0: 9
	UserTimeout Duration `yaml:"tcp_user_timeout" max:"596h"`              // how long a peer may leave unacknowledged, or unread, what was sent to it, Linux only: who is there and reads nothing for so long is given up, too; 0: the system's limit, some 15 minutes, for who is gone. PgBouncer's is in milliseconds
	Login       Duration `yaml:"client_login_timeout" is:"restart"`        // for a client to log in
	ClientIdle  Duration `yaml:"client_idle_timeout"`                      // outside a transaction; 0: no limit, as the three below
	IdleTx      Duration `yaml:"idle_transaction_timeout"`                 // inside one, between statements
	Transaction Duration `yaml:"transaction_timeout"`                      // for a whole transaction
	Query       Duration `yaml:"query_timeout"`                            // for one request: it is cancelled, the session lives on; its servers are cut off if they have not stopped after 10 s, and a session whose client does not take its rows ends after 20 s
	Drain       Duration `yaml:"drain_timeout"`                            // for running transactions at shutdown
	Monitor     Duration `yaml:"monitor_interval" is:"restart" min:"10ms"` // how often nodes are probed

	MaxLag         Duration `yaml:"max_staleness" is:"restart"`                                                   // lag at which a replica leaves the reads
	Consistency    string   `yaml:"read_consistency" is:"restart" oneof:"strong causal session bounded eventual"` // strong, causal, session, bounded, eventual
	Fallback       string   `yaml:"replica_fallback" is:"restart" oneof:"primary error"`                          // primary, error: where a read goes that no replica is fit for
	Zone           string   `yaml:"zone" is:"restart"`                                                            // where this process is: replicas of this zone are read first
	Buffer         Duration `yaml:"failover_buffer" is:"restart" max:"30s"`                                       // how long after a shard's primary was lost new work for it waits for the next, up to 30s; 0: not at all
	BufferRequests int      `yaml:"failover_buffer_requests" is:"restart"`                                        // how many requests of a shard may wait so
	BufferSize     Size     `yaml:"failover_buffer_size" is:"restart"`                                            // bytes of their statements
	Hook           string   `yaml:"failover_hook" is:"file"`                                                      // shell command that is told when a shard loses its primary or has another: PGMOSAIC_EVENT (primary_lost, primary), PGMOSAIC_DATABASE, PGMOSAIC_SHARD, PGMOSAIC_NODE
	GatherLimit    Size     `yaml:"gather_limit" is:"restart"`                                                    // bytes of rows that one statement may gather on home, hold in a merge, or return of a write over shards; 0: no limit
	MergeMemory    Size     `yaml:"merge_memory" is:"restart"`                                                    // bytes that the merges of all sessions may hold; 0: no limit
	Memory         Size     `yaml:"memory_limit" is:"restart"`                                                    // bytes of the process: near it garbage is collected harder, and what would make plans, prepared statements, merges, parsing, portals, settings, transactions, notifications, long messages and answers of auth_query hold more than half of it is refused (53200); empty: three quarters of the machine's or cgroup's; 0: no limit
	SessionMemory  Size     `yaml:"session_memory_limit" is:"restart"`                                            // bytes that the prepared statements of one session may hold; as many for its settings with what its transaction has set and saved, as many for its channels with the notifications that wait for it, and four times as many for its portals over several shards, and for those on the admin console; 0: no limit
	Commit         string   `yaml:"multi_shard_commit" is:"restart" oneof:"two_phase refuse best_effort"`         // two_phase, refuse, best_effort: sessions may SET pgmosaic.multi_shard_commit
	Resolve        Duration `yaml:"resolver_interval" is:"restart"`                                               // how often what a crash left prepared is looked for
	Grace          Duration `yaml:"resolver_grace" is:"restart" min:"100ms"`                                      // how long that is left to its own process; outcomes are kept for six times that
	Verify         Duration `yaml:"verify_interval" is:"restart" min:"100ms" zero:"allowed"`                      // how often the copies of each reference table are compared in the background; 0: never
	LogLevel       string   `yaml:"log_level" oneof:"debug info warn error" fold:"yes"`                           // debug, info, warn, error
	LogFormat      string   `yaml:"log_format" is:"restart" oneof:"text json"`                                    // text, json
	LogSlow        Duration `yaml:"log_min_duration_statement"`                                                   // statements that take at least so long are logged; 0: none
	LogFailed      bool     `yaml:"log_failed_statements"`                                                        // statements that end with an error are logged
	LogRefused     bool     `yaml:"log_refused_statements"`                                                       // statements that no plan can answer are logged, with the rule
	LogParams      bool     `yaml:"log_parameters"`                                                               // with their literals and parameters, which may be secrets, in SHOW REFUSALS and on the page too; false: hidden
	Traces         string   `yaml:"otlp_endpoint" is:"restart file"`                                              // URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; empty: no traces
	TraceShare     float64  `yaml:"trace_sample_ratio" is:"restart" max:"1"`                                      // share of the statements that are traced, besides those that carry a sampled traceparent

	File   string `yaml:"-"` // where it was read from; empty for none
	Direct Direct `yaml:"-"` // for a pooler without a file
}

// Direct is what makes a process a pooler for one database, without a file: no file can say it.
type Direct struct {
	User   string   // enters from loopback without a password
	Setup  []string // admin SQL that makes the map
	Folder string   // a temporary folder, to be removed at the end
}

// Peer is another process that shares this one's clients.
type Peer struct {
	ID      int    `yaml:"id"`      // the other's peer_id
	Address string `yaml:"address"` // its peer_listen
}

// User is a user that the proxy itself checks.
type User struct {
	Name     string `yaml:"name"`            // the user
	Password Secret `yaml:"password"`        // the password, or file: or env: reference
	Verifier string `yaml:"scram_verifier"`  // instead of the password: SCRAM-SHA-256$...
	Server   Secret `yaml:"server_password"` // what the shards are told; default: password
}

// Rule is one authentication rule.
type Rule struct {
	Database string `yaml:"database"` // a name; default: all
	User     string `yaml:"user"`     // a name; default: all
	Address  string `yaml:"address"`  // a network such as 10.0.0.0/8; default: all
	TLS      bool   `yaml:"tls"`      // only over TLS
	Local    bool   `yaml:"local"`    // only over the Unix socket
	Method   string `yaml:"method"`   // scram-sha-256, password, cert, trust, reject
}

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		Listen: "127.0.0.1:6432", UnixMode: "0777", HTTP: "127.0.0.1:8432", Store: "pgmosaic.map.json",
		ShardUsers: []string{"*"}, AuthTries: 20,
		PoolSize: 20, GatherPool: 5, ReserveAfter: Duration(5 * time.Second), MaxClients: 10000, MaxPrepared: 200, MaxStatement: 64 << 20,
		QueryWait: Duration(120 * time.Second), Connect: Duration(15 * time.Second), Lifetime: Duration(time.Hour), Idle: Duration(10 * time.Minute),
		LoginRetry: Duration(15 * time.Second), DNSTTL: Duration(15 * time.Second), KeepAlive: true, Login: Duration(60 * time.Second), Drain: Duration(30 * time.Second),
		Monitor: Duration(100 * time.Millisecond), MaxLag: Duration(10 * time.Second), Consistency: "causal", Fallback: "primary",
		Buffer: Duration(10 * time.Second), BufferRequests: 1000, BufferSize: 64 << 20,
		GatherLimit: 64 << 20, MergeMemory: 512 << 20, Memory: Unset, SessionMemory: 64 << 20,
		Commit: "two_phase", Resolve: Duration(2 * time.Second), Grace: Duration(10 * time.Second), Verify: Duration(6 * time.Hour),
		LogLevel: "info", LogFormat: "text", LogRefused: true, TraceShare: 0.01,
	}
}
