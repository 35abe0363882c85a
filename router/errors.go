package router

import (
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Rule names a reason for a refusal. A name is never reused for another reason.
type Rule string

// The rules. What each says stands in Reasons and Rules.
const (
	RuleCrossShardJoin      Rule = "cross-shard-join"
	RuleSubquery            Rule = "subquery"
	RuleHomeJoin            Rule = "home-join"
	RuleOuterReference      Rule = "outer-reference"
	RuleFullJoin            Rule = "full-join"
	RuleSetOperation        Rule = "set-operation"
	RuleDistinct            Rule = "distinct"
	RuleHaving              Rule = "having"
	RuleWindow              Rule = "window"
	RuleGroupingSets        Rule = "grouping-sets"
	RuleAggregate           Rule = "aggregate"
	RuleAggregateExpression Rule = "aggregate-expression"
	RuleGroupType           Rule = "group-type"
	RuleAggregateType       Rule = "aggregate-type"
	RuleOrderType           Rule = "order-type"
	RuleOrderCollation      Rule = "order-collation"
	RuleOrderStar           Rule = "order-star"
	RuleOrderGroup          Rule = "order-group"
	RuleOrderUsing          Rule = "order-using"
	RuleOrderInside         Rule = "order-inside"
	RuleWithTies            Rule = "with-ties"
	RuleLimitExpression     Rule = "limit-expression"
	RuleSetReturning        Rule = "set-returning"
	RuleOpaque              Rule = "opaque"
	RuleLocking             Rule = "locking"
	RuleLockingReference    Rule = "locking-reference"
	RuleVolatile            Rule = "volatile"
	RuleSystemColumn        Rule = "system-column"
	RuleSelectInto          Rule = "select-into"
	RuleFunctionBody        Rule = "function-body"
	RuleTriggerBody         Rule = "trigger-body"
	RulePolicyBody          Rule = "policy-body"
	RuleHomebound           Rule = "home-bound"
	RuleOneShard            Rule = "one-shard"
	RuleFanout              Rule = "fanout"
	RuleGatherLock          Rule = "gather-lock"
	RuleGatherTemporary     Rule = "gather-temporary"
	RuleGatherRight         Rule = "gather-right"
	RuleView                Rule = "view"
	RuleViewWrite           Rule = "view-write"
	RuleHomeOnly            Rule = "home-only"
	RuleInsertKey           Rule = "insert-key"
	RuleInsertKeyExpression Rule = "insert-key-expression"
	RuleNoPlace             Rule = "no-place"
	RuleInsertSelect        Rule = "insert-select"
	RuleInsertSplit         Rule = "insert-split"
	RuleConflictTarget      Rule = "conflict-target"
	RuleKeyChange           Rule = "key-change"
	RuleKeyUnreadable       Rule = "key-unreadable"
	RuleReferenceWrite      Rule = "reference-write"
	RuleReferenceFill       Rule = "reference-fill"
	RuleInexact             Rule = "inexact"
	RuleNamesObject         Rule = "names-object"
	RuleMerge               Rule = "merge"
	RuleWritingWith         Rule = "writing-with"
	RuleUndeclared          Rule = "undeclared"
	RuleHomeAway            Rule = "home-away"
	RuleMoving              Rule = "moving"
	RuleJoining             Rule = "joining"
	RuleDdl                 Rule = "ddl"
	RuleForeignKey          Rule = "foreign-key"
	RuleKeyColumn           Rule = "key-column"
	RuleMixedObjects        Rule = "mixed-objects"
	RuleCopy                Rule = "copy"
	RuleCursor              Rule = "cursor"
	RuleTwoPhase            Rule = "two-phase"
	RulePrivateSchema       Rule = "private-schema"
	RuleEncoding            Rule = "encoding"
	RuleStrings             Rule = "strings"
	RuleExplain             Rule = "explain"
	RulePrepare             Rule = "prepare"
	RuleTwoBound            Rule = "two-bound"
	RuleBoundReadOnly       Rule = "bound-read-only"
	RuleNoTwoPhase          Rule = "no-two-phase"
	RuleIsolation           Rule = "isolation"
	RuleSessionState        Rule = "session-state"
	RuleNoShard             Rule = "no-shard"
	RuleSequence            Rule = "sequence"
)

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

const unsupported = pgsql.FeatureNotSupported

// Reasons are why the rows of several shards do not merge. A SELECT then runs on copies of the rows that it needs, and
// EXPLAIN (ROUTE) names the reason; it is an error where there can be no copies, as in a write.
var Reasons = []RuleInfo{
	{RuleCrossShardJoin, unsupported, "sharded tables are joined on something other than their keys (%s)", "Join them on their key columns, or give each one the same key value with =."},
	{RuleSubquery, unsupported, "a subquery or CTE over the sharded table %s does not fix its key", "Add key = value inside the subquery, or join on the key at the top level."},
	{RuleHomeJoin, unsupported, "home table %s is joined with sharded rows of other shards", "Make it a reference table: DISTRIBUTE TABLE ... AS REFERENCE."},
	{RuleOuterReference, unsupported, "an outer join keeps the rows of a table that every shard has (%s)", "Put the sharded table on the row-keeping side, or fix its key."},
	{RuleFullJoin, unsupported, "the rows of a FULL JOIN cannot be told on one shard (%s)", "Fix the key of both tables with = in WHERE of a subquery for each."},
	{RuleSetOperation, unsupported, "the rows of UNION, INTERSECT and EXCEPT are not merged from several shards", "Fix the same key in every part, or run the parts one by one."},
	{RuleDistinct, unsupported, "DISTINCT rows are not merged from several shards", "Use GROUP BY with the same columns."},
	{RuleHaving, unsupported, "groups that HAVING picks are not merged from several shards", "Filter the grouped rows in the application."},
	{RuleWindow, unsupported, "a window function needs the rows of all shards", "Fix the key with =."},
	{RuleGroupingSets, unsupported, "GROUPING SETS, ROLLUP and CUBE are not merged from several shards", "Run one GROUP BY for each set."},
	{RuleAggregate, unsupported, "aggregate %s is not combined from several shards", "Use count, sum, min, max or avg without DISTINCT, or fix the key with =."},
	{RuleAggregateExpression, unsupported, "an output column is neither a grouping expression nor one plain aggregate (%s)", "Select the aggregates themselves and compute with them in the application."},
	{RuleGroupType, unsupported, "groups by type %s are not merged from several shards", "Group by an integer, text, uuid, date, timestamp, boolean or numeric."},
	{RuleAggregateType, unsupported, "an aggregate over type %s is not combined from several shards", "Cast its argument to numeric, or fix the key with =."},
	{RuleOrderType, unsupported, "rows ordered by type %s are not merged from several shards", "Order by an integer, float, numeric, uuid, date, timestamp, boolean, bytea or text COLLATE \"C\"."},
	{RuleOrderCollation, unsupported, "rows ordered by text in this collation are not merged from several shards", "Add COLLATE \"C\" to the ORDER BY expression."},
	{RuleOrderStar, unsupported, "an ORDER BY position or name that * may stand for is not resolved", "Name the columns, or order by the column's name."},
	{RuleOrderGroup, unsupported, "ORDER BY of a grouped query names no output column", "Add the expression to the select list and order by its position."},
	{RuleOrderUsing, unsupported, "rows ordered by ORDER BY ... USING are not merged from several shards", "Use ASC or DESC."},
	{RuleOrderInside, unsupported, "the order that a subquery in FROM gives its rows is not merged from several shards", "Say ORDER BY at the top level too, or select what the subquery is sorted by."},
	{RuleWithTies, unsupported, "FETCH FIRST ... WITH TIES is not merged from several shards", "Use LIMIT."},
	{RuleLimitExpression, unsupported, "LIMIT or OFFSET is neither a constant nor a parameter", "Compute the number before."},
	{RuleSetReturning, unsupported, "a set-returning function in the select list is not merged from several shards", "Move the function to FROM."},
}

// Rules is the catalogue of refusals: with Reasons the one list that messages, documentation and tests use.
var Rules = []RuleInfo{
	{RuleOpaque, unsupported, "a statement over sharded tables cannot use %s", "Rewrite it with plain joins and subqueries, or restrict each sharded table to one key."},
	{RuleLocking, unsupported, "FOR UPDATE and FOR SHARE with ORDER BY and LIMIT over several shards would lock rows that are not among the first", "Fix the key with =, leave ORDER BY or LIMIT out, or lock the rows by key in a second statement."},
	{RuleLockingReference, unsupported, "FOR UPDATE of the reference table %s would lock one of its copies only", "Say FOR UPDATE OF the sharded tables, or lock the rows of the reference table by a statement of its own."},
	{RuleVolatile, unsupported, "volatile function %s cannot run on several shards in one statement", "Fix the key with =, or compute the value before."},
	{RuleSystemColumn, unsupported, "system column %s means something else on each shard", "Use the table's key, or fix it with =."},
	{RuleSelectInto, unsupported, "%s from sharded tables is not supported", "CREATE TABLE first, then INSERT INTO it SELECT ..."},
	{RuleFunctionBody, unsupported, "function %s may read or write distributed tables, and a shard holds only a part of them", "Call the statements from the application, make the function IMMUTABLE if it reads no table, or say ALTER ROUTINE .. SHARD SAFE on the admin console if, run for a row, it touches rows of that row's shard only."},
	{RuleTriggerBody, unsupported, "a trigger on %s may read or write distributed tables", "Drop the trigger, do its work in the application, or say ALTER ROUTINE .. SHARD SAFE of its function on the admin console if it touches rows of the shard of its row only."},
	{RulePolicyBody, unsupported, "a policy of table %s reads what may not be on the shard of each of its rows", "Have the policy's subqueries read reference tables, or tables of the same group that they tie to the table by the whole key."},
	{RuleHomebound, unsupported, "%s, which only the home shard has", "Drop the trigger, constraint or default that runs it, or do its work in the application. If what the function means is on each shard, as after DISTRIBUTE of that table by the same key, or is something else of that name, say ALTER ROUTINE .. SHARD SAFE of it on the admin console."},
	{RuleOneShard, unsupported, "%s is not for one shard alone, which pgmosaic.shard names", "RESET pgmosaic.shard. What only reads, whatever it calls, may run under it in a READ ONLY transaction."},
	{RuleFanout, unsupported, "this statement needs %s", "Fix the key with =, or SET pgmosaic.fanout = scatter."},
	{RuleGatherLock, unsupported, "rows cannot be gathered behind a definition, TRUNCATE or LOCK in the same transaction: the copies would wait for it", "Commit first, or fix the key with =."},
	{RuleGatherTemporary, unsupported, "the temporary table %s cannot be joined with sharded tables over several shards", "Fix the key with =, or use an ordinary table."},
	{RuleGatherRight, unsupported, "this statement needs temporary tables on the home shard, and role %s may not make them", "GRANT TEMPORARY ON DATABASE ... TO the role, on the home shard; or fix the key with =."},
	{RuleView, unsupported, "view %s over sharded tables is not supported here", "Use the view in a SELECT. Where row-level security stands behind it, make it with security_invoker."},
	{RuleViewWrite, unsupported, "a write of the view %s would change one copy of a reference table only", "Write the table itself: every copy of it is written then."},
	{RuleHomeOnly, unsupported, "function %s works on the home shard only", "Call it in a statement of its own and bind the result."},
	{RuleSequence, unsupported, "%s would be of home's sequence alone", "Shards begin above all that was drawn, and need no setval; for other values UNDISTRIBUTE TABLE it first. Name another sequence as a constant, and call one of a schema on one shard in a statement of its own. RETURNING gives what was drawn."},
	{RuleInsertKey, pgsql.NotNullViolation, "null value or no value for key column %s: the row has no shard", "Name the key column and give it a value."},
	{RuleInsertKeyExpression, unsupported, "the value of key column %s must be a constant or a parameter", "Compute the key before and bind it."},
	{RuleNoPlace, pgsql.CheckViolation, "no list names the value of key column %s: the row has no shard", "An admin adds it: ALTER GROUP ... ADD VALUES (..) ON shard."},
	{RuleInsertSelect, unsupported, "INSERT ... SELECT into the sharded table %s is not supported with WITH, a view over sharded tables, a parameter or a new value for the key behind ON CONFLICT, or a subquery there or in RETURNING that one shard cannot answer, unless its rows are made on the shards where they belong", "Leave these out; or select the key of a table of the same group into the key; or fix the key with =."},
	{RuleInsertSplit, unsupported, "these rows belong to several shards and %s", "Insert the rows of each key with a statement of its own."},
	{RuleConflictTarget, unsupported, "the ON CONFLICT target must contain key column %s", "Add the key to the unique constraint and to the conflict target."},
	{RuleKeyChange, unsupported, "UPDATE would move rows to another shard by changing key column %s, in a way that is not supported", "Leave WITH, DEFAULT, (a, b) = .. and RETURNING of other tables out; a foreign key with ON DELETE CASCADE or SET forbids it. Or delete the row and insert it with the new key in one transaction."},
	{RuleKeyUnreadable, unsupported, "the value of key column %s cannot be read as a value of its type", "Give a value of the key's type; write dates and timestamps in ISO 8601, with an offset for timestamptz."},
	{RuleReferenceWrite, unsupported, "a write of reference table %s must give the same rows on every shard", "What stands in VALUES or INSERT ... SELECT, or is left to a default, is evaluated once for all copies. Elsewhere give constants and parameters: SELECT the values first."},
	{RuleReferenceFill, unsupported, "ALTER TABLE would fill a column of reference table %s with other values on each shard", "Add the column without a default, UPDATE it with values, and then SET DEFAULT."},
	{RuleInexact, unsupported, "%s, made once for all copies, has no text that is read as the same value", "With array_nulls = off arrays lose their NULLs; xml loses its declaration. Change the setting, or SELECT the value first and give it as a parameter."},
	{RuleNamesObject, unsupported, "%s names an object that has another number on each shard", "Give its name as a text, in VALUES, SET or COPY ... FROM STDIN."},
	{RuleMerge, unsupported, "MERGE would insert rows into the sharded table %s of which it is not known on what shard they belong", "Insert the key of the source's row, from a table of the same group or from constants, and join on the key; or use INSERT ... ON CONFLICT with the key."},
	{RuleWritingWith, unsupported, "a statement with a WITH query that writes needs to be on one shard", "Give all its tables the same key with =, or run the parts one after the other in a transaction."},
	{RuleUndeclared, pgsql.ObjectNotInPrerequisiteState, "table %s holds the rows of one shard only, and the map of this process does not declare it", "Give every process the same map: SHOW MAP AS SQL. A table that was made LIKE a distributed one: ALTER TABLE ... DROP CONSTRAINT pgmosaic_slot."},
	{RuleHomeAway, pgsql.CannotConnectNow, "which table %s is cannot be told while home's shard is away: its schema is not the first of the search_path", "Write schema.table, or try again when the shard answers."},
	{RuleMoving, pgsql.ObjectInUse, "table %s is being distributed", "Try again when DISTRIBUTE TABLE has finished; SHOW TABLES shows it."},
	{RuleJoining, pgsql.ObjectInUse, "a shard is just joining the database, and what all shards have in common cannot be changed", "Try again when CREATE SHARD has finished; SHOW JOBS shows it."},
	{RuleDdl, unsupported, "%s on a distributed table is not supported", "UNDISTRIBUTE TABLE it first, change it, and distribute it again."},
	{RuleForeignKey, unsupported, "this foreign key cannot be kept over shards", "Refer to a reference table, or to a table of the same group with the key among the columns on both sides."},
	{RuleKeyColumn, unsupported, "key column %s cannot be dropped or retyped", "UNDISTRIBUTE TABLE it first."},
	{RuleMixedObjects, unsupported, "one statement cannot change home and distributed tables together", "Use one statement for each kind."},
	{RuleCopy, unsupported, "COPY of %s is not supported", "Use COPY table FROM STDIN in text or csv format."},
	{RuleCursor, unsupported, "a cursor WITH HOLD over several shards is not supported", "Leave WITH HOLD out, or fix the key with =."},
	{RuleTwoPhase, unsupported, "PREPARE TRANSACTION belongs to the proxy: it commits over shards itself", "Use BEGIN and COMMIT."},
	{RulePrivateSchema, pgsql.InsufficientPrivilege, "schema pgmosaic belongs to the proxy", "Use another schema; for pg_dump, say --exclude-schema=pgmosaic."},
	{RuleEncoding, unsupported, "client_encoding %s cannot be used with several shards", "Use UTF8."},
	{RuleStrings, unsupported, "standard_conforming_strings = off cannot be used with several shards", "Write E'...' where escapes are meant."},
	{RuleExplain, unsupported, "EXPLAIN of a statement over several shards is text, of a statement without parameters, and does not run writes", "Use EXPLAIN (ROUTE), or fix the key with =."},
	{RulePrepare, unsupported, "PREPARE of this statement is not supported", "Prepare it with the driver's own prepared statements."},
	{RuleTwoBound, unsupported, "a transaction over several shards has used temporary tables, NOTIFY or a cursor WITH HOLD on more than one of them", "Use these on one shard only: in one transaction no two such parts can be committed together."},
	{RuleBoundReadOnly, unsupported, "a transaction that has written to several shards, and used temporary tables, NOTIFY or a cursor WITH HOLD, was made READ ONLY", "Leave it READ WRITE: its decision is written with the part that cannot be prepared."},
	{RuleNoTwoPhase, unsupported, "a transaction cannot write to a second shard: %s", "Set max_prepared_transactions above max_connections on every node and restart it."},
	{RuleIsolation, unsupported, "a %s transaction cannot reach a second shard: its snapshots would be taken apart", "Use READ COMMITTED, or keep the transaction on one shard; or SET pgmosaic.multi_shard_isolation = per_shard if a snapshot of each shard by itself will do, as for pg_dump while nothing writes."},
	{RuleSessionState, unsupported, "%s is not supported in transaction pooling", "Connect to the node for that session."},
	{RuleNoShard, pgsql.InvalidCatalogName, "database has no shard yet", "An admin adds one: CREATE SHARD s1 IN db NODE '<dsn>'."},
}

var ruleIndex = func() map[Rule]*RuleInfo {
	m := make(map[Rule]*RuleInfo, len(Rules)+len(Reasons))
	for _, list := range [][]RuleInfo{Rules, Reasons} {
		for i := range list {
			m[list[i].Rule] = &list[i]
		}
	}
	return m
}()

// InfoOf describes a rule; nil for one that is unknown.
func InfoOf(r Rule) *RuleInfo { return ruleIndex[r] }

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
