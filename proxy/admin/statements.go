package admin

import (
	"context"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// A statement of the admin console.
type statement struct {
	words string // that it begins with, as the parser has them
	may   may
	parse func(*Admin, *parser) action // of what follows the words
	help  []string                     // forms and what each does, in turn; none: HELP keeps quiet about it
}

// may says who may run a statement.
type may uint8

const (
	reads   may = iota // who may look
	changes            // an admin
)

// statements are all that there are. Of two that begin alike the longer stands first.
func statements() []statement {
	return []statement{
		{"create", changes, (*Admin).parseCreate, []string{"CREATE DATABASE db", "declare a logical database", "CREATE SHARD s IN db NODE 'dsn' [NAME n] [ZONE z] [NODE ...] [HOME]", "add a shard; definitions and reference tables are brought from home, in use: at the end, statements that write reference tables or define what all shards have wait for a moment", "CREATE GROUP g IN db KEY (type, ..) BY HASH [ON (s1, s2)]", "a group of tables whose equal keys live together, spread by hash", "CREATE GROUP g IN db KEY (type, ..) BY RANGE (MINVALUE TO (v) ON s1, (v) TO MAXVALUE ON s2)", "the same, by ranges of keys; each begins where the one before it ends", "CREATE GROUP g IN db KEY (type) BY LIST (('a', 'b') ON s1, ('c') ON s2 [, DEFAULT ON s1])", "the same, by lists of keys"}},
		{"alter", changes, (*Admin).parseAlter, []string{"ALTER SHARD s IN db ADD NODE 'dsn' [NAME n] [ZONE z] | DROP NODE n | ALTER NODE n 'dsn'", "change a shard's nodes", "ALTER SHARD s IN db SET PRIMARY n", "say which of the nodes that claim to be the primary it is", "ALTER SHARD s IN db ADOPT", "tell the database of its primary, which was restored, copied or upgraded on purpose, that it is this shard's, and the map that its server is", "ALTER GROUP g IN db SPLIT AT (v)", "cut a range in two", "ALTER GROUP g IN db ADD VALUES ('d') ON s", "add keys to a list", "ALTER ROUTINE db.schema.f [NOT] SHARD SAFE", "say of a function, or a trigger's, that for a row it touches rows of that row's shard only"}},
		{"drop", changes, (*Admin).parseDrop, []string{"DROP DATABASE db", "forget it; refused while it has shards", "DROP SHARD s IN db", "forget a shard that owns nothing, or give up a CREATE SHARD; the server may be gone for good", "DROP GROUP g IN db", "forget a group without tables"}},
		{"pin key", changes, (*Admin).parsePin, []string{"PIN KEY (value) OF db.group ON s", "send one key to a shard of its own; refused while it has rows elsewhere"}},
		{"unpin key", changes, (*Admin).parseUnpin, []string{"UNPIN KEY (value) OF db.group", "let the group place the key again"}},
		{"distribute table", changes, (*Admin).parseDistribute, []string{"DISTRIBUTE TABLE db.schema.t IN GROUP g KEY (column, ..) [ALLOW LOCAL UNIQUE]", "move a table's rows to their shards", "DISTRIBUTE TABLE db.schema.t AS REFERENCE", "copy a table to every shard"}},
		{"undistribute table", changes, (*Admin).parseUndistribute, []string{"UNDISTRIBUTE TABLE db.schema.t", "bring a table back to home"}},
		{"distribute schema", changes, (*Admin).parseDistributeSchema, []string{"DISTRIBUTE SCHEMA db.schema ON s", "move a schema, its tables and the sequences of their columns to one shard"}},
		{"undistribute schema", changes, (*Admin).parseUndistributeSchema, []string{"UNDISTRIBUTE SCHEMA db.schema", "bring it back to home"}},
		{"verify schema", reads, (*Admin).parseVerifySchema, []string{"VERIFY SCHEMA IN db", "what shards should have in common and have not: one row for each definition that differs from home's"}},
		{"verify", changes, (*Admin).parseVerify, []string{"VERIFY TABLE db.schema.t", "compare the copies of a reference table; find the rows of a sharded one that are on the wrong shard, or on two, and what lets them in"}},
		{"locate key", reads, (*Admin).parseLocate, []string{"LOCATE KEY (value) OF db.group", "the shard and slot of a key"}},
		{"explain route", reads, (*Admin).parseExplain, []string{"EXPLAIN ROUTE IN db statement", "where a statement would run"}},
		{"show", reads, (*Admin).parseShow, []string{"SHOW view [WHERE column op value [AND ..]] [ORDER BY column [DESC]] [LIMIT n]", "look at a view", "SHOW MAP AS SQL", "the statements that would rebuild the map"}},
		{"pause", changes, (*Admin).parseTraffic, []string{"PAUSE [db [SHARD s]]", "hold new transactions back, of one shard if it is named, and wait for the running ones; a session that keeps a server and is in no transaction, with a temporary table for one, is not waited for, and waits for RESUME when it goes on; transactions and statements that are at work on other shards already are let in to the one that is named, so under much of that it may fail with 55006, where PAUSE of the database does not"}},
		{"resume", changes, (*Admin).parseTraffic, []string{"RESUME [db [SHARD s]]", "let them go on, also after KILL"}},
		{"disable", changes, (*Admin).parseTraffic, []string{"DISABLE db", "refuse new clients of a database"}},
		{"enable", changes, (*Admin).parseTraffic, []string{"ENABLE db", "let them in again"}},
		{"reconnect", changes, (*Admin).parseTraffic, []string{"RECONNECT [db]", "replace the server connections, as they come free"}},
		{"wait_close", changes, (*Admin).parseTraffic, []string{"WAIT_CLOSE [db]", "wait until the replaced server connections are closed"}},
		{"kill", changes, (*Admin).parseTraffic, []string{"KILL [db]", "close the server connections at once and hold new transactions back"}},
		{"kill_client", changes, (*Admin).parseKillClient, []string{"KILL_CLIENT id", "end a client's session"}},
		{"reload", changes, (*Admin).parseReload, []string{"RELOAD", "read the configuration file again, as a whole or not at all"}},
		{"set", changes, (*Admin).parseSet, []string{"SET key = value", "change a setting until the next RELOAD"}},
		{"shutdown", changes, (*Admin).parseShutdown, []string{"SHUTDOWN [WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS]", "end the process when its transactions are done, or its clients gone"}},
		{"suspend", changes, (*Admin).parseSuspend, nil},
		{"help", reads, (*Admin).parseHelp, nil},
		{"begin", reads, (*Admin).parseNothing, nil},
		{"commit", reads, (*Admin).parseNothing, nil},
		{"rollback", reads, (*Admin).parseNothing, nil},
		{"select", reads, (*Admin).parseSelect, nil},
	}
}

// drivers set these when they connect.
var ofDrivers = map[string]bool{"extra_float_digits": true, "application_name": true, "client_encoding": true, "datestyle": true, "timezone": true}

// statement parses one statement. reads says that it changes nothing.
func (a *Admin) statement(p *parser) (run action, looks bool) {
	if p.peek().kind == 0 || p.punct(";") {
		return done(""), true
	}
	for _, s := range statements() {
		if p.words(strings.Fields(s.words)...) {
			looks = s.may == reads || s.words == "set" && ofDrivers[p.peek().text]
			return s.parse(a, p), looks
		}
	}
	p.fail("syntax error at %s: a statement was expected", p.near())
	return nil, false
}

// done is an answer that is nothing but a tag.
func done(tag string) action {
	return func(context.Context) (*Result, error) { return &Result{Tag: tag}, nil }
}

func (p *parser) dryRun() bool {
	dry := p.words("dry", "run")
	p.end()
	return dry
}

// verb is the word before, which decided what is parsed.
func (p *parser) verb() string { return p.toks[p.at-1].text }

// parseTraffic is PAUSE and its kin.
func (a *Admin) parseTraffic(p *parser) action {
	verb := p.verb()
	db, shard := "", ""
	if k := p.peek().kind; k == 'w' || k == 'q' {
		db = p.name("database")
		if (verb == "pause" || verb == "resume") && p.word("shard") {
			shard = p.name("shard")
		}
	} else if verb == "disable" || verb == "enable" {
		p.fail("syntax error at %s: a database was expected", p.near())
	}
	p.end()
	return func(ctx context.Context) (*Result, error) { return a.traffic(ctx, verb, db, shard) }
}

func (a *Admin) parseKillClient(p *parser) action {
	id := p.next().text
	p.end()
	return func(context.Context) (*Result, error) { return a.killClient(id) }
}

func (a *Admin) parseReload(p *parser) action {
	p.end()
	return func(context.Context) (*Result, error) {
		if err := a.Reload(); err != nil {
			return nil, &pgsql.Error{Code: pgsql.ConfigFileError, Message: "RELOAD failed, the old configuration stays in force: " + err.Error()}
		}
		return &Result{Tag: "RELOAD"}, nil
	}
}

func (a *Admin) parseShutdown(p *parser) action {
	wait := p.word("wait_for_clients")
	if !wait {
		p.word("wait_for_servers") // what SHUTDOWN does here: transactions are let finish
	}
	p.end()
	return func(context.Context) (*Result, error) {
		a.Log.Info("shutdown by the admin console", "wait_for_clients", wait)
		a.Shutdown(wait)
		return &Result{Tag: "SHUTDOWN"}, nil
	}
}

func (a *Admin) parseSuspend(*parser) action {
	panic(&pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "SUSPEND is not supported", Hint: "PAUSE holds transactions back; a new process may listen beside this one with so_reuseport."})
}

func (a *Admin) parseSet(p *parser) action {
	name := p.name("parameter")
	if ofDrivers[name] {
		return done("SET")
	}
	if !p.punct("=") {
		p.word("to")
	}
	t := p.next()
	if t.kind == 0 || t.kind == 'p' {
		p.at--
		p.fail("syntax error at %s: a value was expected", p.near())
	}
	value := t.text
	if u := p.peek(); t.kind == 'n' && u.kind == 'w' && u.pos == t.pos+len(t.text) { // 10s, 64MB
		value += p.next().text
	}
	p.end()
	return func(context.Context) (*Result, error) {
		if err := a.Set(name, value); err != nil {
			return nil, err
		}
		a.Log.Info("setting changed by the admin console", "setting", name)
		return &Result{Tag: "SET"}, nil
	}
}

// parseNothing is BEGIN and its kin, which drivers say.
func (a *Admin) parseNothing(p *parser) action { return done(strings.ToUpper(p.verb())) }

func (a *Admin) parseHelp(p *parser) action {
	for p.peek().kind == 'w' {
		p.next()
	}
	p.end()
	return a.help
}

// Statements lists what HELP prints: statement and meaning.
func Statements() (out [][2]string) {
	for _, s := range statements() {
		for i := 0; i < len(s.help); i += 2 {
			out = append(out, [2]string{s.help[i], s.help[i+1]})
		}
	}
	return out
}

func (a *Admin) help(context.Context) (*Result, error) {
	res := &Result{Columns: []string{"statement", "what it does"}, Tag: "SHOW"}
	for _, s := range Statements() {
		res.Rows = append(res.Rows, []any{s[0], s[1]})
	}
	for _, n := range viewNames() {
		res.Rows = append(res.Rows, []any{"SHOW " + strings.ToUpper(n), Views[n].Help})
	}
	return res, nil
}
