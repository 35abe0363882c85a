package router

import "fmt"

// Rule names a reason for a refusal. A name is never reused for another reason.
type Rule string

// Error is a refusal, or a mistake of the statement that the planner can see.
type Error struct {
	Code    string // SQLSTATE
	Rule    Rule
	Message string
	Hint    string
	Pos     int // 1-based character position in the statement; 0 for none
}

func (e *Error) Error() string { return e.Message }

// SQLState is the error's SQLSTATE.
func (e *Error) SQLState() string { return e.Code }

// RuleInfo describes a rule for docs/errors.md and SHOW REFUSALS.
type RuleInfo struct {
	Rule    Rule
	Code    string
	Message string // may hold one %s
	Hint    string
}

const unsupported = "0A000"

// Rules is the catalogue of refusals: the one list that messages, documentation and tests use.
var Rules = []RuleInfo{
	{"opaque", unsupported, "a statement over sharded tables cannot use %s", "Rewrite it with plain joins and subqueries, or restrict each sharded table to one key."},
	{"cross-shard-join", unsupported, "sharded tables are joined on something other than their keys (%s)", "Join them on their key columns, or give each one the same key value with =."},
	{"subquery", unsupported, "a subquery or CTE over the sharded table %s does not fix its key", "Add key = value inside the subquery, or join on the key at the top level."},
	{"home-join", unsupported, "home table %s cannot be joined with a sharded table whose rows are on another shard", "Make it a reference table: DISTRIBUTE TABLE ... AS REFERENCE."},
	{"outer-reference", unsupported, "an outer join that keeps the rows of a table copied to every shard (%s) cannot run on several shards", "Put the sharded table on the row-keeping side, or fix its key."},
	{"full-join", unsupported, "FULL JOIN over several shards is not supported (%s)", "Fix the key of both tables with = in WHERE of a subquery for each."},
	{"set-operation", unsupported, "UNION, INTERSECT and EXCEPT over several shards are not supported", "Fix the same key in every part, or run the parts one by one."},
	{"distinct", unsupported, "DISTINCT over several shards is not supported", "Use GROUP BY with the same columns."},
	{"having", unsupported, "HAVING over several shards is not supported", "Filter the grouped rows in the application."},
	{"window", unsupported, "window functions over several shards are not supported", "Fix the key with =."},
	{"grouping-sets", unsupported, "GROUPING SETS, ROLLUP and CUBE over several shards are not supported", "Run one GROUP BY for each set."},
	{"locking", unsupported, "FOR UPDATE and FOR SHARE over several shards are not supported", "Fix the key with =."},
	{"aggregate", unsupported, "aggregate %s cannot be combined over several shards", "Use count, sum, min, max or avg without DISTINCT, or fix the key with =."},
	{"aggregate-expression", unsupported, "over several shards an output column must be a grouping expression or one plain aggregate (%s)", "Select the aggregates themselves and compute with them in the application."},
	{"group-type", unsupported, "rows cannot be grouped over several shards by type %s", "Group by an integer, text, uuid, date, timestamp, boolean or numeric."},
	{"aggregate-type", unsupported, "this aggregate over type %s cannot be combined over several shards", "Cast its argument to numeric, or fix the key with =."},
	{"order-type", unsupported, "rows cannot be ordered over several shards by type %s", "Order by an integer, float, numeric, uuid, date, timestamp, boolean, bytea or text COLLATE \"C\"."},
	{"order-collation", unsupported, "rows cannot be ordered over several shards by text in this collation", "Add COLLATE \"C\" to the ORDER BY expression."},
	{"order-star", unsupported, "ORDER BY position cannot be resolved behind *", "Name the columns, or order by the column's name."},
	{"order-group", unsupported, "over several shards ORDER BY of a grouped query must name an output column", "Add the expression to the select list and order by its position."},
	{"order-using", unsupported, "ORDER BY ... USING over several shards is not supported", "Use ASC or DESC."},
	{"with-ties", unsupported, "FETCH FIRST ... WITH TIES over several shards is not supported", "Use LIMIT."},
	{"limit-expression", unsupported, "over several shards LIMIT and OFFSET must be a constant or a parameter", "Compute the number before."},
	{"volatile", unsupported, "volatile function %s cannot run on several shards in one statement", "Fix the key with =, or compute the value before."},
	{"system-column", unsupported, "system column %s means something else on each shard", "Use the table's key, or fix it with =."},
	{"set-returning", unsupported, "set-returning functions in the select list over several shards are not supported", "Move the function to FROM."},
	{"select-into", unsupported, "%s from sharded tables is not supported", "Create the table, then INSERT the rows."},
	{"function-body", unsupported, "function %s may read or write distributed tables, and a shard holds only a part of them", "Call the statements from the application, or make the function IMMUTABLE if it reads no table."},
	{"trigger-body", unsupported, "a trigger on %s may read or write distributed tables", "Drop the trigger, or do its work in the application."},
	{"gather-temporary", unsupported, "the temporary table %s cannot be joined with sharded tables over several shards", "Fix the key with =, or use an ordinary table."},
	{"gather-right", unsupported, "this statement needs temporary tables on the home shard, and role %s may not make them", "GRANT TEMPORARY ON DATABASE ... TO the role, on the home shard; or fix the key with =."},
	{"view", unsupported, "view %s reads sharded tables", "Use the view's query itself."},
	{"home-only", unsupported, "function %s works on the home shard only", "Call it in a statement of its own and bind the result."},
	{"insert-key", "23502", "null value or no value for key column %s: the row has no shard", "Name the key column and give it a value."},
	{"insert-key-expression", unsupported, "the value of key column %s must be a constant or a parameter", "Compute the key before and bind it."},
	{"insert-select", unsupported, "INSERT ... SELECT into the sharded table %s is not supported unless source and key are on one shard", "Fix the key in the SELECT list with a constant, or copy the rows with the application."},
	{"insert-split", unsupported, "these rows belong to several shards and %s", "Insert the rows of each key with a statement of its own."},
	{"conflict-target", unsupported, "the ON CONFLICT target must contain key column %s", "Add the key to the unique constraint and to the conflict target."},
	{"key-change", unsupported, "UPDATE would move the row to another shard by changing key column %s", "Delete the row and insert it with the new key in one transaction."},
	{"key-unreadable", unsupported, "the value of key column %s cannot be read as a value of its type", "Give a value of the key's type; write dates and timestamps in ISO 8601, with an offset for timestamptz."},
	{"write-join", unsupported, "UPDATE or DELETE over several shards with a join, subquery or CTE is not supported (%s)", "Fix the key with =."},
	{"reference-write", unsupported, "a write of reference table %s must give the same rows on every shard", "Use constants and parameters, no volatile function, subquery or sequence."},
	{"merge", unsupported, "MERGE on a distributed table is not supported", "Use INSERT ... ON CONFLICT with the key."},
	{"moving", "55006", "table %s is being distributed", "Try again when DISTRIBUTE TABLE has finished; SHOW TABLES shows it."},
	{"ddl", unsupported, "%s on a distributed table is not supported", "UNDISTRIBUTE TABLE it first, change it, and distribute it again."},
	{"key-column", unsupported, "key column %s cannot be dropped, renamed or retyped", "UNDISTRIBUTE TABLE it first."},
	{"mixed-objects", unsupported, "one statement cannot change home and distributed tables together", "Use one statement for each kind."},
	{"copy", unsupported, "COPY of %s is not supported", "Use COPY table FROM STDIN in text or csv format."},
	{"cursor", unsupported, "a cursor over several shards is not supported", "Fix the key with =, or fetch the rows with LIMIT and ORDER BY."},
	{"two-phase", unsupported, "PREPARE TRANSACTION belongs to the proxy: it commits over shards itself", "Use BEGIN and COMMIT."},
	{"private-schema", "42501", "schema pgmosaic belongs to the proxy", "Use another schema."},
	{"encoding", unsupported, "client_encoding %s cannot be used with several shards", "Use UTF8."},
	{"strings", unsupported, "standard_conforming_strings = off cannot be used with several shards", "Write E'...' where escapes are meant."},
	{"syntax", unsupported, "this syntax is not known to the planner of a database with several shards", "Write it in the grammar of PostgreSQL 16."},
	{"explain", unsupported, "EXPLAIN of a statement over several shards is not supported", "Use EXPLAIN (ROUTE), or fix the key with =."},
	{"prepare", unsupported, "PREPARE of this statement is not supported", "Prepare it with the driver's own prepared statements."},
	{"no-two-phase", unsupported, "a transaction cannot write to a second shard: %s", "Set max_prepared_transactions above max_connections on every node and restart it."},
	{"chain", unsupported, "COMMIT AND CHAIN is not supported", "Use COMMIT, then BEGIN."},
	{"isolation", unsupported, "a %s transaction cannot reach a second shard: its snapshots would be taken apart", "Use READ COMMITTED, or keep the transaction on one shard."},
	{"session-state", unsupported, "%s is not supported in transaction pooling", "Connect to the node for that session."},
	{"replication", unsupported, "replication connections are not supported", "Connect to the node."},
	{"pipeline-copy", unsupported, "COPY FROM STDIN of a sharded table needs the simple query protocol", "Send COPY as a simple query."},
	{"no-shard", "3D000", "database has no shard yet", "An admin adds one: CREATE SHARD s1 IN db NODE '<dsn>'."},
}

var ruleIndex = func() map[Rule]*RuleInfo {
	m := make(map[Rule]*RuleInfo, len(Rules))
	for i := range Rules {
		m[Rules[i].Rule] = &Rules[i]
	}
	return m
}()

// Refuse makes the error of a rule. args fill its message. An unknown rule is our own mistake.
func Refuse(rule Rule, args ...any) *Error {
	info := ruleIndex[rule]
	if info == nil {
		panic("router: unknown rule " + string(rule))
	}
	return &Error{Code: info.Code, Rule: rule, Message: fmt.Sprintf(info.Message, args...), Hint: info.Hint}
}

// ErrorHint is the error's hint.
func (e *Error) ErrorHint() string { return e.Hint }

// ErrorPosition is where in the statement it is, in characters from 1; 0 for nowhere.
func (e *Error) ErrorPosition() int { return e.Pos }

// ErrorDetail names the rule.
func (e *Error) ErrorDetail() string {
	if e.Rule == "" {
		return ""
	}
	return "pgmosaic rule: " + string(e.Rule)
}
