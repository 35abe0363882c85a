package reshard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Whose code runs. A table brings code of its owner's along: functions in index expressions, CHECKs, generated columns, partition
// keys, operators and domains. PostgreSQL runs it as whoever writes rows, and some of it, what it can compute beforehand, as whoever
// merely plans a query. The role of a node's connection string is often a superuser. So, of a table that has any such code of a role
// that is neither a superuser nor that role itself, or has a CHECK with a volatile function of PostgreSQL's (some run what a text says):
//
//   - it reads rows by COPY of the table without a query, which plans nothing and evaluates nothing;
//   - all that computes runs as the table's owner, in one of PostgreSQL's own security-restricted operations (asOwner): there is no
//     way back to another role in it, no setting outlives it, and nothing can be put off until it has ended;
//   - rows get into such a table from a stage without constraints, whose columns have types that run nothing of the owner's.
//
// A table of a superuser's, or of the nodes' role, that runs what an ordinary role has made is left alone: see others.go.
//
// What a table has is asked under a lock that lets nobody add to it. See docs/decisions, 18.

// foreignSQL lists the code that a table may run and whose owner is not to be trusted: everything that its indexes, CHECKs, generated
// columns, statistics, partition keys and types depend on. A domain, and a composite type, is code: its owner may add a CHECK at any time.
const foreignSQL = linked + `, ` + wholly + nodesOf + codeBehind + declaredKinds + codeOwned + foreignCode

// wholly are linked tables and their partitions.
const wholly = `tables (oid) as (select oid from linked union select p.relid::oid from linked l, lateral pg_partition_tree(l.oid::regclass) p)`

// nodesOf are what tables have that code may hang on. This and what follows looks up one thing at a time, by the catalogs' indexes: to join
// whole catalogs, as a server would that expects thousands of partitions of each table, takes it ten times as long.
const nodesOf = `, node (class, obj) as (
  select 'pg_class'::regclass::oid, oid from tables
  union select x.class, x.obj from tables t, lateral (
    select 'pg_class'::regclass::oid, indexrelid from pg_index where indrelid = t.oid
    union all select 'pg_constraint'::regclass, oid from pg_constraint where conrelid = t.oid and contype <> 'f'
    union all select 'pg_attrdef'::regclass, d.oid from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum where d.adrelid = t.oid and a.attgenerated <> ''
    union all select 'pg_statistic_ext'::regclass, oid from pg_statistic_ext where stxrelid = t.oid
    union all select 'pg_type'::regclass, atttypid from pg_attribute where attrelid = t.oid and attnum > 0 and not attisdropped
  ) x (class, obj)`

// linked are a table and those that foreign keys tie to it: to check a key is to plan a query over the other table, as its owner.
const linked = `with recursive linked (oid) as (select $1::text::regclass::oid` + linking

// linking adds the latter to the former.
const linking = `
    union select case when c.conrelid = l.oid then c.confrelid else c.conrelid end from linked l join pg_constraint c on c.contype = 'f' and (c.conrelid = l.oid or c.confrelid = l.oid))`

// foreignTypeSQL is foreignSQL for a type.
const foreignTypeSQL = `with recursive node (class, obj) as (select 'pg_type'::regclass::oid, $1::oid` + codeBehind + declaredKinds + codeOwned + foreignCode

// codeBehind, kinds of types and codeOwned give the code behind nodes, and whose it is. foreignCode lists that of whom is not to be trusted.
const codeBehind = `
  union select x.class, x.obj from node n, lateral (
    select refclassid, refobjid from pg_depend where classid = n.class and objid = n.obj and refclassid in ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass, 'pg_cast'::regclass)
    union all select 'pg_constraint'::regclass, oid from pg_constraint where n.class = 'pg_type'::regclass and contypid = n.obj
    union all select 'pg_type'::regclass, a.atttypid from pg_type t join pg_attribute a on a.attrelid = t.typrelid where n.class = 'pg_type'::regclass and t.oid = n.obj and a.attnum > 0 and not a.attisdropped
    union all select 'pg_proc'::regclass, p.amproc::oid from pg_amproc p where n.class = 'pg_opfamily'::regclass and p.amprocfamily = n.obj
    union all select 'pg_operator'::regclass, o.amopopr from pg_amop o where n.class = 'pg_opfamily'::regclass and o.amopfamily = n.obj
  ) x (class, obj)), code (what, owner) as (select x.what, x.owner from node n, lateral (
    select oid::regprocedure::text, proowner from pg_proc where n.class = 'pg_proc'::regclass and oid = n.obj
    union all select oid::regtype::text, typowner from pg_type where n.class = 'pg_type'::regclass and oid = n.obj and typtype in (`

const codeOwned = `)
    union all select p.oid::regprocedure::text, t.relowner from pg_constraint c join pg_class t on t.oid = c.conrelid, regexp_matches(c.conbin::text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') f join pg_proc p on p.oid = f[1]::oid
      where n.class = 'pg_constraint'::regclass and c.oid = n.obj and (p.provolatile = 'v' or p.proname ~ '_to_xml')
  ) x (what, owner))`

const (
	foreignCode = " select distinct what from code" + untrusted + " order by 1"
	untrusted   = " where owner <> (select oid from pg_roles where rolname = current_user) and not exists (select from pg_roles r where r.oid = owner and r.rolsuper)"
)

// ownerOf is the role that owns a table, if the table may run code that is not to be trusted; else empty. It is an error if such code
// would run as a role that is trusted: see others.go.
func ownerOf(ctx context.Context, q queryer, table string) (owner string, err error) {
	foreign, err := strings1(ctx, q, foreignSQL, table)
	if err == nil && len(foreign) > 0 {
		err = othersCode(ctx, q, table)
	}
	if err != nil || len(foreign) == 0 {
		return "", err
	}
	return tableOwner(ctx, q, table)
}

// ownerOfMoving is ownerOf for a table of home's that moves. Of one that is in use online.still has found, in the same transaction, that it is empty.
func ownerOfMoving(ctx context.Context, home queryer, table string, inUse bool) (string, error) {
	if inUse {
		return "", nil
	}
	return ownerOf(ctx, home, table)
}

// owned is an error if a table runs what it must not run: see ownerOf.
func owned(ctx context.Context, q queryer, tables ...shardmap.TableName) error {
	for _, n := range tables {
		if _, err := ownerOf(ctx, q, n.SQL()); err != nil {
			return err
		}
	}
	return nil
}

func tableOwner(ctx context.Context, q queryer, table string) (owner string, err error) {
	owners, err := strings1(ctx, q, "select r.rolname from pg_class c join pg_roles r on r.oid = c.relowner where c.oid = $1::text::regclass", table)
	return strings.Join(owners, ""), err
}

// asOwner runs statements as a role from which there is no way back, in a transaction of a server. It is PostgreSQL's refreshing of a
// materialized view that does so: as its owner, as a security-restricted operation, with all settings restored behind it.
func asOwner(ctx context.Context, tx querier, owner string, statements ...string) error {
	_, err := askOwner(ctx, tx, owner, statements, "")
	return err
}

// spoil has the connection of a querier not be kept for other statements. Security-restricted or not, somebody's code may leave an advisory lock,
// or what a language or extension keeps for the session.
func spoil(q querier) {
	switch q := q.(type) {
	case *pgx.Conn:
		nodeconn.Spoil(q)
	case pgx.Tx:
		nodeconn.Spoil(q.Conn())
	default:
		panic(fmt.Sprintf("spoil: %T is neither a connection nor a transaction", q))
	}
}

// askOwner is asOwner with an expression whose value, as text, is the answer. It comes by way of a table of the proxy's own: what the
// owner's code can put on the view, statistics for one, would be computed for whoever reads that.
func askOwner(ctx context.Context, tx querier, owner string, statements []string, value string) (answer *string, err error) {
	spoil(tx)
	workspace, err := ownersPlace(ctx, tx, owner)
	if err != nil {
		return nil, err
	}
	name, role := pgsql.Qualified(workspace.schema, "as_owner_"+newID()), pgsql.Ident(owner)
	stage := pgsql.Qualified("pgmosaic", "stage_"+newID())
	if value != "" {
		if err := run(ctx, tx, []string{fmt.Sprintf("CREATE UNLOGGED TABLE %s (answer text)", stage), "GRANT INSERT ON " + stage + " TO " + role}); err != nil {
			return nil, err
		}
		statements = append(slices.Clip(statements), "INSERT INTO "+stage+" SELECT ("+value+")::text")
	}
	var body strings.Builder
	for _, s := range statements {
		body.WriteString("EXECUTE " + pgsql.Literal(s) + "; ")
	}
	create := fmt.Sprintf("CREATE FUNCTION %s() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS %s", name, pgsql.Literal("BEGIN "+body.String()+"END"))
	list := slices.Concat(workspace.give, []string{
		settleConstraints, // nothing may be put off in there
		create, fmt.Sprintf("CREATE MATERIALIZED VIEW %s AS SELECT %[1]s() IS NULL AS done WITH NO DATA", name),
		fmt.Sprintf("ALTER FUNCTION %s() OWNER TO %s", name, role), fmt.Sprintf("ALTER MATERIALIZED VIEW %s OWNER TO %s", name, role),
	}, workspace.take, []string{"REFRESH MATERIALIZED VIEW " + name, "DROP MATERIALIZED VIEW " + name, fmt.Sprintf("DROP FUNCTION %s()", name)}, workspace.drop)
	if err := run(ctx, tx, list); err != nil || value == "" {
		return nil, err
	}
	var rows int
	if err := tx.QueryRow(ctx, "SELECT count(*), min(answer) FROM "+stage).Scan(&rows, &answer); err != nil {
		return nil, err
	}
	if rows != 1 { // the owner's code may write there, too
		return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("code of role %q has written into a table of pgmosaic's", owner), Hint: "Nothing was changed. Look at the functions of its tables."}
	}
	return answer, run(ctx, tx, []string{"DROP TABLE " + stage})
}

// ownPlace is a schema in which what runs as an owner is made, with what gives the owner the right to make something there, takes it away again, and
// drops the schema.
type ownPlace struct {
	schema           string
	give, take, drop []string
}

// ownersPlace is where what runs as an owner is made. Whom something is given to must be able to make it there, which a superuser need not
// see to. A right in the proxy's own schema would hold up all others who give one there, until the transaction has ended: so the place is a
// schema that the transaction makes and drops, if the role of the connection may make one.
func ownersPlace(ctx context.Context, tx querier, owner string) (ownPlace, error) {
	var super, creates bool
	err := tx.QueryRow(ctx, "SELECT rolsuper, has_database_privilege(current_database(), 'CREATE') FROM pg_roles WHERE rolname = current_user").Scan(&super, &creates)
	p := ownPlace{schema: "pgmosaic"}
	if err != nil || super {
		return p, err
	}
	if creates {
		p.schema += "_" + newID()
		p.give, p.drop = []string{"CREATE SCHEMA " + p.schema}, []string{"DROP SCHEMA " + p.schema}
	}
	p.give = append(p.give, "GRANT CREATE ON SCHEMA "+p.schema+" TO "+pgsql.Ident(owner))
	p.take = []string{"REVOKE CREATE ON SCHEMA " + p.schema + " FROM " + pgsql.Ident(owner)}
	return p, nil
}

// asDefined runs statements that may run what a table has: as its owner, if there is one of whose code is not to be trusted.
func asDefined(ctx context.Context, tx querier, owner string, statements ...string) error {
	if owner == "" {
		return run(ctx, tx, statements)
	}
	return asOwner(ctx, tx, owner, statements...)
}

// frozen keeps everybody from giving tables, and those that foreign keys tie to them, other indexes, constraints, columns and statistics
// while a transaction lasts. Rows may change.
func frozen(ctx context.Context, tx querier, tables ...shardmap.TableName) error {
	all, super, err := tied(ctx, tx, tables...)
	if err != nil || all == "" {
		return err
	}
	return boundedLock(ctx, tx, all, frozenMode, nameHeld(super, tables)...)
}

const frozenMode = "SHARE UPDATE EXCLUSIVE"

// superSQL is whether the role of a connection is a superuser.
const superSQL = "(select rolsuper from pg_roles where rolname = current_user)"

// tied lists tables and those that foreign keys tie to them. super is superSQL.
func tied(ctx context.Context, q queryer, tables ...shardmap.TableName) (list string, super bool, err error) {
	var names, all []string
	for _, n := range tables {
		names = append(names, n.SQL())
	}
	if len(names) == 0 {
		return "", false, nil
	}
	rows, _ := q.Query(ctx, tiedSQL, names) // an error comes with the rows
	var name string
	_, err = pgx.ForEachRow(rows, []any{&name, &super}, func() error { all = append(all, name); return nil })
	slices.Sort(all)
	return strings.Join(all, ", "), super, err
}

const tiedSQL = `with recursive linked (oid) as (select x::regclass::oid from unnest($1::text[]) x` + linking + `
 select format('%I.%I', n.nspname, c.relname), ` + superSQL + ` from linked l join pg_class c on c.oid = l.oid join pg_namespace n on n.oid = c.relnamespace`

// frozenSince begins a transaction of one snapshot for which tables are frozen before it takes that: the definition of a trigger is printed as it is now, and
// what is asked about it is answered by the snapshot.
func frozenSince(ctx context.Context, home *pgx.Conn, tables ...shardmap.TableName) (pgx.Tx, error) {
	all, _, err := tied(ctx, home, tables...)
	if err != nil {
		return nil, err
	}
	tx, err := home.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}) // not READ ONLY: that forbids nameHeld
	if err != nil {
		return nil, err
	}
	if all != "" { // neither SET, SHOW nor LOCK takes a snapshot
		err = boundedLock(ctx, tx, all, frozenMode)
	}
	if err == nil {
		err = frozen(ctx, tx, tables...) // some may have been tied to them since
	}
	if err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx)) // it has done nothing
		return nil, err
	}
	return tx, nil
}

// named keeps the schemas of tables from being renamed while a transaction lasts: their names would mean other tables, which nobody has
// looked at. Only a superuser can, and who is none has less to lose. Statements may go along behind it, in the same message.
func named(ctx context.Context, tx querier, then []string, tables ...shardmap.TableName) error {
	var super bool
	if err := tx.QueryRow(ctx, "select "+superSQL).Scan(&super); err != nil {
		return err
	}
	list := append(nameHeld(super, tables), then...)
	if len(list) == 0 {
		return nil
	}
	return run(ctx, tx, []string{strings.Join(list, "; ")})
}

// nameHeld is what named runs, where it is known whether the role is a superuser's.
func nameHeld(super bool, tables []shardmap.TableName) []string {
	if !super {
		return nil
	}
	var schemas []string
	for _, n := range tables {
		schemas = append(schemas, pgsql.Literal(n.Schema))
	}
	return []string{"SELECT FROM pg_namespace WHERE nspname = ANY (ARRAY[" + strings.Join(schemas, ", ") + "]::text[]) FOR SHARE"}
}

// definitionWait is how long a lock on a table's definition is waited for: another admin statement, or a VACUUM, may have it for hours.
const definitionWait = 10 * time.Second

// boundedLock locks tables, or says that somebody else has them, behind statements that wait no longer either.
func boundedLock(ctx context.Context, tx querier, tables, mode string, first ...string) error {
	err := runBounded(ctx, tx, definitionWait, append(slices.Clip(first), "LOCK TABLE "+tables+" IN "+mode+" MODE")...)
	if lockHeld(err) {
		return definitionHeld(tables)
	}
	return err
}

// lockHeld says whether a lock could not be had in time.
func lockHeld(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == pgsql.LockNotAvailable
}

// definitionHeld says that somebody else has locked tables.
func definitionHeld(tables string) error {
	return &pgsql.Error{Code: pgsql.ObjectInUse, Message: "the definition of " + tables + " is held by another admin statement, a VACUUM or a definition, for longer than " + definitionWait.String(), Hint: "pg_locks on the node shows which. Run the statement again when it has ended."}
}

// lateBy is how much later than by lock_timeout a wait ends for us: a node's clock that goes back in the middle of it would have it last as
// long as the clock has gone back.
const lateBy = 5 * time.Second

// bounded runs f, whose locks are waited for so long at most and which does little else; held says that one could not be had. How long the
// transaction waits for other locks is as before.
func bounded(ctx context.Context, tx querier, wait time.Duration, f func(context.Context) error) (held bool, err error) {
	return lockTimeout(ctx, tx, wait, func() error { return inTime(ctx, wait, f) })
}

// inTime has f take little longer than it may wait for locks by the node's clock.
func inTime(ctx context.Context, wait time.Duration, f func(context.Context) error) error {
	soon, cancel := context.WithTimeout(ctx, wait+lateBy)
	defer cancel()
	err := f(soon)
	if err != nil && soon.Err() != nil && ctx.Err() == nil {
		err = &pgconn.PgError{Severity: "ERROR", Code: pgsql.LockNotAvailable, Message: "canceling statement due to lock timeout"}
	}
	return err
}

// lockTimeout is bounded for what may take its time besides. It believes the node's clock.
func lockTimeout(ctx context.Context, tx querier, wait time.Duration, f func() error) (held bool, err error) {
	before, err := limitLocks(ctx, tx, wait)
	if err == nil {
		err = f()
	}
	if err == nil {
		err = limitAsBefore(ctx, tx, before)
	}
	return lockHeld(err), err
}

// limitLocks has a transaction wait so long at most for the locks of what follows, and says by which setting it waited before. It asks by SHOW, which chooses
// no state for the transaction to see: see frozenSince. What is to be run like that can go along in the same message, behind which the setting is what
// connections have from the beginning.
func limitLocks(ctx context.Context, tx querier, wait time.Duration, list ...string) (before string, err error) {
	list = append([]string{"SHOW lock_timeout", fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds())}, list...)
	if len(list) > 2 {
		list = append(list, "SET LOCAL lock_timeout = "+noLimit)
	}
	err = tx.QueryRow(ctx, strings.Join(list, "; "), pgx.QueryExecModeSimpleProtocol).Scan(&before) // an error of any of them is its error
	return before, err
}

// noLimit is how long the proxy's own connections wait for locks where nothing else is said.
const noLimit = "0"

// limitAsBefore has a transaction wait for locks as it did.
func limitAsBefore(ctx context.Context, tx querier, before string) error {
	return run(ctx, tx, []string{"SET LOCAL lock_timeout = " + pgsql.Literal(before)})
}

// definesWait is how long a definition on a shard waits for others. Who asks for a statement that another process is at is told sooner: see holdWait.
const definesWait = 20 * time.Second

// definesOn has f define things on a shard, and says so if somebody else is at it there: it may be what is left of a statement whose proxy
// is gone, as long as the node has not noticed that.
func definesOn(ctx context.Context, tx querier, shard string, f func() error) error {
	held, err := lockTimeout(ctx, tx, definesWait, f)
	if held {
		return &pgsql.Error{
			Code: pgsql.ObjectInUse, Message: fmt.Sprintf("what is to be defined on shard %q is held there by another admin statement or a definition, for longer than %s", shard, definesWait),
			Hint: "pg_locks on its node shows which. If that is of a proxy that is gone, it ends in about a minute, or by pg_terminate_backend. Run the statement again then.",
		}
	}
	return err
}

// runBounded is bounded for some statements, which go to the server in one message.
func runBounded(ctx context.Context, tx querier, wait time.Duration, list ...string) error {
	if len(list) == 0 {
		return nil
	}
	var before string
	err := inTime(ctx, wait, func(ctx context.Context) (err error) { before, err = limitLocks(ctx, tx, wait, list...); return err })
	if err == nil && before != noLimit {
		err = limitAsBefore(ctx, tx, before)
	}
	return err
}

// ask has a server compute a value from a table's rows. It may have a transaction open.
func ask(ctx context.Context, c *pgx.Conn, n shardmap.TableName, value string) (answer *string, err error) {
	err = within(ctx, c, func(tx querier) error {
		if err := frozen(ctx, tx, n); err != nil {
			return err
		}
		owner, err := ownerOf(ctx, tx, n.SQL())
		if err != nil {
			return err
		}
		if owner == "" {
			return tx.QueryRow(ctx, "SELECT ("+value+")::text").Scan(&answer)
		}
		off, on, err := forced(ctx, tx, n.SQL())
		if err == nil && len(off) > 0 {
			err = boundedLock(ctx, tx, n.SQL(), "ACCESS EXCLUSIVE")
		}
		if err == nil {
			err = run(ctx, tx, off)
		}
		if err == nil {
			answer, err = askOwner(ctx, tx, owner, nil, value)
		}
		if err == nil {
			err = run(ctx, tx, on)
		}
		return err
	})
	return answer, err
}

// forced are the statements that take a table's owner out of its policies, if it is subject to them, and back.
func forced(ctx context.Context, q queryer, table string) (off, on []string, err error) {
	names, err := strings1(ctx, q, "select $1::text from pg_class where oid = $1::text::regclass and relforcerowsecurity", table)
	for _, n := range names {
		off, on = append(off, "ALTER TABLE "+n+" NO FORCE ROW LEVEL SECURITY"), append(on, "ALTER TABLE "+n+" FORCE ROW LEVEL SECURITY")
	}
	return off, on, err
}

// within runs f in the transaction that a connection has open, or in one of its own.
func within(ctx context.Context, c *pgx.Conn, f func(querier) error) error {
	if c.PgConn().TxStatus() != 'I' {
		return f(c)
	}
	return pgx.BeginTxFunc(ctx, c, given(definitionWait/2), func(tx pgx.Tx) error { return f(tx) })
}

// given has the server end a transaction if its process stops in the middle of it for so long. Nobody would know whose the locks are.
func given(idle time.Duration) pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: fmt.Sprintf("begin; SET LOCAL idle_in_transaction_session_timeout = %d", idle.Milliseconds())}
}

// staged is what a column of a stage is, and how its value gets into the table.
type staged struct{ name, typ, value string }

// stageColumns finds, for each column that rows are copied into, a type that runs nothing of a user's when a value is read: of a domain
// the type below it, of what is made of such types the text.
func stageColumns(ctx context.Context, tx querier, table string) (out []staged, err error) {
	rows, err := tx.Query(ctx, `with recursive base (col, num, typ, mod, level) as (
	    select attname, attnum, atttypid, atttypmod, 0 from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = ''
	    union all select b.col, b.num, t.typbasetype, case when t.typtypmod >= 0 then t.typtypmod else b.mod end, b.level + 1 from base b join pg_type t on t.oid = b.typ and t.typtype = 'd')
	  select col, b.typ::oid, format_type(b.typ, b.mod), format_type(a.atttypid, a.atttypmod), a.atttypid::oid from base b join pg_attribute a on a.attrelid = $1::text::regclass and a.attnum = b.num
	   where b.level = (select max(level) from base o where o.num = b.num) order by b.num`, table)
	if err != nil {
		return nil, err
	}
	type column struct {
		Name       string
		Base       uint32
		Plain, Typ string
		OID        uint32
	}
	cols, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		return nil, err
	}
	for _, c := range cols {
		s := staged{name: pgsql.Ident(c.Name), typ: c.Plain}
		foreign, err := strings1(ctx, tx, foreignTypeSQL, c.Base)
		if err != nil {
			return nil, err
		}
		s.value = s.name + "::" + c.Typ
		if len(foreign) > 0 {
			s.typ = "text"
			cast, err := strings1(ctx, tx, "select castfunc::regprocedure::text from pg_cast where castsource = 'text'::regtype and casttarget = $1 and castfunc <> 0", c.Base)
			if err != nil {
				return nil, err
			}
			if len(cast) > 0 {
				return nil, &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("column %s of table %s cannot be copied: a cast from text, %s, stands for reading values of its type", s.name, table, cast[0]), Hint: "DROP CAST (text AS " + c.Typ + ") for the time of the statement."}
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// fill copies rows from one server into a table of another, where a transaction is open that lets nobody change the table's definition.
// where chooses among the rows, if nobody can change the other table's definition either; empty: all. With a job the other is home's, which is in use.
func fill(ctx context.Context, from, to *pgx.Conn, n shardmap.TableName, where string, progress *job) error {
	table := n.SQL()
	owner, err := ownerOf(ctx, to, table)
	if err != nil {
		return err
	}
	theirs := ""
	if where != "" {
		if theirs, err = ownerOfMoving(ctx, from, table, progress != nil); err != nil {
			return err
		}
	}
	if owner == "" && theirs == "" {
		return copyRows(ctx, from, to, n, where, progress)
	}
	cols, err := stageColumns(ctx, to, table)
	if err != nil {
		return err
	}
	stage := pgsql.Qualified("pgmosaic", "stage_"+newID())
	var defs, names, values []string
	for _, c := range cols {
		defs, names, values = append(defs, c.name+" "+c.typ), append(names, c.name), append(values, c.value)
	}
	list := strings.Join(names, ", ")
	if err := run(ctx, to, []string{fmt.Sprintf("CREATE UNLOGGED TABLE %s (%s)", stage, strings.Join(defs, ", "))}); err != nil {
		return err
	}
	if err := copyWhole(ctx, from, to, table, stage, list, progress); err != nil {
		return err
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s", table, list, strings.Join(values, ", "), stage)
	if where != "" {
		insert += " WHERE " + where
	}
	if owner != "" {
		if _, err := to.Exec(ctx, "GRANT SELECT ON "+stage+" TO "+pgsql.Ident(owner)); err != nil {
			return err
		}
	}
	if err := asDefined(ctx, to, owner, insert); err != nil {
		return err
	}
	_, err = to.Exec(ctx, "DROP TABLE "+stage)
	return err
}
