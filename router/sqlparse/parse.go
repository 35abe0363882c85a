package sqlparse

import (
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// SyntaxError is the parser's complaint. Position is 1-based, in characters, as in ErrorResponse.
type SyntaxError struct {
	Message  string
	Position int
}

func (e *SyntaxError) Error() string { return e.Message }

// Parse splits sql into its statements. An empty text gives one Empty statement. The error is a *SyntaxError, or
// says by its SQLState why a statement that PostgreSQL may know is too much.
func Parse(sql string) ([]*Statement, error) {
	tree, err := parseTree(sql)
	if err != nil {
		return nil, err
	}
	if len(tree.Stmts) == 0 {
		return []*Statement{{Kind: Empty, Text: sql}}, nil
	}
	out := make([]*Statement, 0, len(tree.Stmts))
	for _, raw := range tree.Stmts {
		start, end := int(raw.StmtLocation), len(sql)
		if raw.StmtLen > 0 {
			end = start + int(raw.StmtLen)
		}
		if len(tree.Stmts) == 1 {
			start, end = 0, len(sql) // keep offsets those of the whole text
		}
		s := &Statement{Text: sql[start:end], tree: raw.Stmt, base: start}
		c := &converter{stmt: s, base: start}
		c.statement(raw.Stmt)
		c.inventory(raw.Stmt)
		out = append(out, s)
	}
	return out, nil
}

// converter reads one statement's tree.
type converter struct {
	stmt *Statement
	base int      // offset of the statement in the parsed text
	ctes []string // names of CTEs in scope
	seen int      // relations that the facts describe
}

func (c *converter) loc(l int32) int { return int(l) - c.base }

// inventory lists every relation, function and parameter, whatever the grammar around it, and marks
// the query opaque if the facts missed a relation.
func (c *converter) inventory(n *pg.Node) {
	found := 0
	walkParts(n, func(m any) bool {
		switch x := m.(type) {
		case *pg.RangeVar:
			found++
			c.stmt.Tables = append(c.stmt.Tables, TableRef{x.Schemaname, x.Relname})
		case *pg.FuncCall:
			c.call(lastName(x.Funcname))
			c.stmt.counts(x)
			c.stmt.Private = c.stmt.Private || len(x.Funcname) > 1 && x.Funcname[0].GetString_().GetSval() == "pgmosaic" && lastName(x.Funcname) != "next_id"
		case *pg.ColumnRef:
			c.stmt.attributes(m)
		case *pg.A_Indirection:
			at := len(c.stmt.Attrs)
			c.stmt.attributes(m)
			for _, f := range c.stmt.Attrs[at:] {
				if unmistakable(f.Name) {
					c.call(f.Name)
				}
			}
		case *pg.A_Expr:
			c.stmt.Ops = withName(c.stmt.Ops, x.Name)
			c.stmt.implied(x.Kind)
		case *pg.SubLink:
			c.stmt.Ops = withName(c.stmt.Ops, x.OperName)
			if x.SubLinkType == pg.SubLinkType_ANY_SUBLINK && len(x.OperName) == 0 { // IN
				c.stmt.op("=")
			}
		case *pg.CaseExpr:
			if x.Arg != nil {
				c.stmt.op("=")
			}
		case *pg.JoinExpr:
			if x.IsNatural || len(x.UsingClause) > 0 {
				c.stmt.op("=")
			}
		case *pg.SortBy:
			c.stmt.Ops = withName(c.stmt.Ops, x.UseOp)
		case *pg.TypeName:
			c.stmt.TypeNames = withName(c.stmt.TypeNames, x.Names)
		case *pg.TypeCast:
			if p := x.Arg.GetParamRef(); p != nil {
				c.castParam(int(p.Number), castName(x.TypeName))
			}
		case *pg.CollateClause:
			c.stmt.Collates = append(c.stmt.Collates, collationName(x.Collname))
		case *pg.ParamRef:
			c.param(int(x.Number))
		case *pg.CurrentOfExpr:
			c.stmt.CurrentOf = x.CursorName
		}
		c.stmt.Clock = c.stmt.Clock || readsClock(m)
		return true
	})
	if q := c.stmt.Query; q != nil && found != c.seen && q.Opaque == "" {
		q.Opaque = "a relation in an unusual place"
	}
}

// call notes the call of a function.
func (c *converter) call(name string) {
	c.stmt.Funcs = append(c.stmt.Funcs, name)
	switch name {
	case "pg_terminate_backend", "pg_cancel_backend":
		c.stmt.Signals = true
	case "pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all":
		c.stmt.Closes = true
	}
}

// withName appends the last part of a name, if there is one and the list has not got it.
func withName(list []string, name []*pg.Node) []string {
	if n := lastName(name); n != "" && !slices.Contains(list, n) {
		return append(list, n)
	}
	return list
}

// readsClock says whether a node's value differs with the server and the moment.
func readsClock(m any) bool {
	switch x := m.(type) {
	case *pg.FuncCall:
		switch lastName(x.Funcname) {
		case "now", "transaction_timestamp", "statement_timestamp", "age":
			return true
		}
	case *pg.SQLValueFunction:
		return true
	case *pg.A_Const:
		switch strings.ToLower(strings.TrimSpace(x.GetSval().GetSval())) {
		case "now", "today", "tomorrow", "yesterday":
			return true
		}
	}
	return false
}

func (c *converter) param(n int) {
	if u := c.paramUse(n); u != nil {
		u.all++
		c.stmt.Params = max(c.stmt.Params, n)
	}
}

// castParam notes a cast around $n, which is counted by itself.
func (c *converter) castParam(n int, to string) {
	u := c.paramUse(n)
	if u == nil {
		return
	}
	if u.cast == 0 {
		u.to = to
	}
	if u.to == to {
		u.cast++
	}
}

func (c *converter) paramUse(n int) *paramUse {
	if n < 1 || n > 65535 {
		return nil
	}
	for len(c.stmt.paramUse) < n {
		c.stmt.paramUse = append(c.stmt.paramUse, paramUse{})
	}
	return &c.stmt.paramUse[n-1]
}

func (c *converter) statement(n *pg.Node) {
	s := c.stmt
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		s.Kind = Select
		s.Query = c.query(x.SelectStmt)
		s.Configs = c.configs(x.SelectStmt)
	case *pg.Node_InsertStmt:
		s.Kind = Insert
		s.Query = c.insert(x.InsertStmt)
	case *pg.Node_UpdateStmt:
		s.Kind = Update
		s.Query = c.update(x.UpdateStmt)
	case *pg.Node_DeleteStmt:
		s.Kind = Delete
		s.Query = c.delete(x.DeleteStmt)
	case *pg.Node_MergeStmt:
		s.Kind = Merge
		s.Query = c.merge(x.MergeStmt)
	case *pg.Node_TransactionStmt:
		c.transaction(x.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		c.set(x.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		s.Kind, s.Var.Name = Show, strings.ToLower(x.VariableShowStmt.Name)
	case *pg.Node_DiscardStmt:
		s.Kind = Discard
		s.Name = map[pg.DiscardMode]string{
			pg.DiscardMode_DISCARD_ALL: "all", pg.DiscardMode_DISCARD_PLANS: "plans",
			pg.DiscardMode_DISCARD_SEQUENCES: "sequences", pg.DiscardMode_DISCARD_TEMP: "temp",
		}[x.DiscardStmt.Target]
	case *pg.Node_PrepareStmt:
		s.Kind, s.Name = Prepare, x.PrepareStmt.Name
		c.wrapped(x.PrepareStmt.Query)
		s.NameAt, s.Body = preparedName(s.Text)
	case *pg.Node_ExecuteStmt:
		s.Kind, s.Name = Execute, x.ExecuteStmt.Name
		s.Args = c.values(x.ExecuteStmt.Params)
		s.NameAt, _ = preparedName(s.Text)
	case *pg.Node_DeallocateStmt:
		s.Kind, s.Name = Deallocate, x.DeallocateStmt.Name
	case *pg.Node_DeclareCursorStmt:
		s.Kind, s.Name = Cursor, x.DeclareCursorStmt.Portalname
		s.Def.NoTx = x.DeclareCursorStmt.Options&0x20 != 0 // CURSOR_OPT_HOLD
		c.wrapped(x.DeclareCursorStmt.Query)
	case *pg.Node_FetchStmt:
		s.Kind, s.Name = Fetch, x.FetchStmt.Portalname
	case *pg.Node_ClosePortalStmt:
		s.Kind, s.Name, s.Closes = Fetch, x.ClosePortalStmt.Portalname, true
	case *pg.Node_ExplainStmt:
		s.Kind = Explain
		for _, o := range x.ExplainStmt.Options {
			if d := o.GetDefElem(); d != nil && strings.EqualFold(d.Defname, "route") {
				s.Name = "route"
			}
			if d := o.GetDefElem(); d != nil && strings.EqualFold(d.Defname, "analyze") {
				s.Def.NoTx = true // it runs the statement
			}
		}
		c.wrapped(x.ExplainStmt.Query)
	case *pg.Node_ListenStmt:
		s.Kind, s.Name = Listen, x.ListenStmt.Conditionname
	case *pg.Node_UnlistenStmt:
		s.Kind, s.Name = Unlisten, x.UnlistenStmt.Conditionname
	case *pg.Node_NotifyStmt:
		s.Kind = Notify
	case *pg.Node_ConstraintsSetStmt:
		constraints(s, x.ConstraintsSetStmt)
	case *pg.Node_CopyStmt:
		c.copy(x.CopyStmt)
	case *pg.Node_DoStmt, *pg.Node_CallStmt:
		s.Kind = Routine
	default:
		c.definition(n)
	}
}

// constraints reads SET CONSTRAINTS.
func constraints(s *Statement, x *pg.ConstraintsSetStmt) {
	s.Kind, s.Tx.Deferrable = Constraints, x.Deferred
	if len(x.Constraints) == 0 {
		s.Name = "all"
	}
	for _, n := range x.Constraints {
		if r := n.GetRangeVar(); r != nil {
			s.Def.Objects = append(s.Def.Objects, TableRef{Schema: r.Schemaname, Name: r.Relname})
		}
	}
}

// configs reads SELECT set_config(..), ..: nil if anything else is selected, or a value is computed.
func (c *converter) configs(x *pg.SelectStmt) []Config {
	if len(x.FromClause) > 0 || x.WhereClause != nil || x.Op != pg.SetOperation_SETOP_NONE || x.LimitCount != nil || x.LimitOffset != nil || len(x.GroupClause) > 0 {
		return nil
	}
	var out []Config
	for _, t := range x.TargetList {
		f := t.GetResTarget().GetVal().GetFuncCall()
		if f == nil || lastName(f.Funcname) != "set_config" || len(f.Args) != 3 {
			return nil
		}
		v := c.values(f.Args)
		for _, a := range v {
			if a.Kind == ValOther || a.Kind == ValNull {
				return nil
			}
		}
		out = append(out, Config{v[0], v[1], v[2]})
	}
	return out
}

// preparedName finds the name behind PREPARE or EXECUTE and, of PREPARE, the statement behind AS.
func preparedName(sql string) (name Span, body string) {
	l := lexer{s: []byte(sql)}
	next := func() token {
		t := l.next()
		for t.kind == tokComment {
			t = l.next()
		}
		return t
	}
	depth, named := 0, false
	for t := next(); t.kind != tokEOF && t.kind != tokBad; t = next() {
		word := strings.ToLower(sql[t.start:t.end])
		switch {
		case word == "(":
			depth++
		case word == ")":
			depth--
		case !named && depth == 0 && (word == "prepare" || word == "execute"):
			n := next()
			name, named = Span{n.start, n.end}, true
			if word == "execute" {
				return name, ""
			}
		case named && depth == 0 && word == "as":
			return name, strings.TrimSpace(sql[t.end:])
		}
	}
	return name, ""
}

// wrapped reads the statement inside EXPLAIN, PREPARE, DECLARE or COPY.
func (c *converter) wrapped(n *pg.Node) {
	kind := c.stmt.Kind
	c.statement(n)
	inner := c.stmt.Kind
	c.stmt.Kind = kind
	if c.stmt.Query == nil {
		c.stmt.Query = &Query{Cmd: inner, Opaque: "a statement that is no query"}
	}
}

func (c *converter) transaction(x *pg.TransactionStmt) {
	s := c.stmt
	s.Tx.Chain = x.Chain
	switch x.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START:
		s.Kind, s.Tx.Start = Begin, x.Kind == pg.TransactionStmtKind_TRANS_STMT_START
		c.txOptions(x.Options)
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		s.Kind = Commit
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		s.Kind = Rollback
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		s.Kind, s.Name = Savepoint, x.SavepointName
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		s.Kind, s.Name = Release, x.SavepointName
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		s.Kind, s.Name = RollbackTo, x.SavepointName
	default:
		s.Kind = TwoPhase
	}
}

func (c *converter) txOptions(opts []*pg.Node) {
	for _, o := range opts {
		d := o.GetDefElem()
		arg := d.GetArg().GetAConst()
		switch d.GetDefname() {
		case "transaction_isolation":
			c.stmt.Tx.Isolation = strings.ToLower(arg.GetSval().GetSval())
		case "transaction_read_only":
			c.stmt.Tx.ReadOnly = arg.GetIval().GetIval() != 0
			c.stmt.Tx.ReadWrite = !c.stmt.Tx.ReadOnly
		case "transaction_deferrable":
			c.stmt.Tx.Deferrable = arg.GetIval().GetIval() != 0
			c.stmt.Tx.NotDeferrable = !c.stmt.Tx.Deferrable
		}
	}
}

func (c *converter) set(x *pg.VariableSetStmt) {
	s := c.stmt
	s.Kind = Set
	v := &s.Var
	v.Name, v.Local = strings.ToLower(x.Name), x.IsLocal
	switch x.Kind {
	case pg.VariableSetKind_VAR_RESET_ALL:
		v.Name, v.Default = "all", true
	case pg.VariableSetKind_VAR_RESET, pg.VariableSetKind_VAR_SET_DEFAULT:
		v.Default = true
	case pg.VariableSetKind_VAR_SET_VALUE:
		var parts []string
		for _, a := range x.Args {
			if tc := a.GetTypeCast(); tc != nil { // SET TIME ZONE INTERVAL ..
				v.Special = true
			}
			parts = append(parts, constText(a.GetAConst()))
		}
		v.Value = pgsql.Literals(parts)
		v.Plain = strings.Join(parts, ", ")
	default:
		v.Special = true
		c.txOptions(x.Args)
	}
}

func constText(a *pg.A_Const) string {
	switch v := a.GetVal().(type) {
	case *pg.A_Const_Ival:
		return strconv.Itoa(int(v.Ival.GetIval()))
	case *pg.A_Const_Fval:
		return v.Fval.GetFval()
	case *pg.A_Const_Sval:
		return v.Sval.GetSval()
	case *pg.A_Const_Boolval:
		return strconv.FormatBool(v.Boolval.GetBoolval())
	}
	return ""
}

func (c *converter) copy(x *pg.CopyStmt) {
	s := c.stmt
	s.Kind = Copy
	info := CopyInfo{From: x.IsFrom, Stdio: x.Filename == "" && !x.IsProgram, Where: x.WhereClause != nil, Plain: true, Options: map[string]string{}, Lists: map[string][]string{}}
	if x.Relation != nil {
		info.Table = &TableRef{x.Relation.Schemaname, x.Relation.Relname}
	}
	for _, a := range x.Attlist {
		info.Columns = append(info.Columns, a.GetString_().GetSval())
	}
	for _, o := range x.Options {
		d := o.GetDefElem()
		name := strings.ToLower(d.GetDefname())
		val := "true"
		switch arg := d.GetArg().GetNode().(type) {
		case nil:
		case *pg.Node_String_:
			val = arg.String_.GetSval()
		case *pg.Node_Boolean:
			val = strconv.FormatBool(arg.Boolean.GetBoolval())
		case *pg.Node_Integer:
			val = strconv.FormatBool(arg.Integer.GetIval() != 0)
		case *pg.Node_List:
			for _, n := range arg.List.Items {
				info.Lists[name] = append(info.Lists[name], n.GetString_().GetSval())
			}
		case *pg.Node_AStar:
			info.Lists[name] = []string{"*"}
		default:
			info.Plain = false
		}
		info.Options[name] = val
		if name == "freeze" {
			info.Freeze = val != "false"
		}
	}
	if x.Query != nil {
		c.wrapped(x.Query)
	}
	s.Copy = info
}

func lastName(names []*pg.Node) string {
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1].GetString_().GetSval()
}
