package sqlparse

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Scope says what a definition defines.
type Scope uint8

// The scopes. OnRelation is also that of what is unknown.
const (
	OnRelation Scope = iota // relations
	OnIndex                 // indexes: Objects are their names
	OnTable                 // what hangs on tables and each shard can have by itself: triggers, policies, statistics
	OnDatabase              // what is no relation and every shard has: types, functions, schemas, extensions
	OnCluster               // roles: every server has them, whatever databases it holds
)

// AlterSequence is what is unsafe of ALTER SEQUENCE, with SET SCHEMA too.
const AlterSequence = "ALTER SEQUENCE"

// shared are the kinds of objects that every shard has.
var shared = map[pg.ObjectType]bool{
	pg.ObjectType_OBJECT_AGGREGATE: true, pg.ObjectType_OBJECT_CAST: true, pg.ObjectType_OBJECT_COLLATION: true, pg.ObjectType_OBJECT_CONVERSION: true,
	pg.ObjectType_OBJECT_DEFACL: true, pg.ObjectType_OBJECT_DOMAIN: true, pg.ObjectType_OBJECT_DOMCONSTRAINT: true, pg.ObjectType_OBJECT_EXTENSION: true,
	pg.ObjectType_OBJECT_FUNCTION: true, pg.ObjectType_OBJECT_LANGUAGE: true, pg.ObjectType_OBJECT_OPCLASS: true, pg.ObjectType_OBJECT_OPERATOR: true,
	pg.ObjectType_OBJECT_OPFAMILY: true, pg.ObjectType_OBJECT_PROCEDURE: true, pg.ObjectType_OBJECT_ROUTINE: true, pg.ObjectType_OBJECT_SCHEMA: true,
	pg.ObjectType_OBJECT_TRANSFORM: true, pg.ObjectType_OBJECT_TSCONFIGURATION: true, pg.ObjectType_OBJECT_TSDICTIONARY: true,
	pg.ObjectType_OBJECT_TSPARSER: true, pg.ObjectType_OBJECT_TSTEMPLATE: true, pg.ObjectType_OBJECT_TYPE: true, pg.ObjectType_OBJECT_ATTRIBUTE: true,
	pg.ObjectType_OBJECT_STATISTIC_EXT: true, // of a table, which DROP and ALTER do not name
}

// onTables are the kinds of objects that hang on a table.
var onTables = map[pg.ObjectType]bool{
	pg.ObjectType_OBJECT_TRIGGER: true, pg.ObjectType_OBJECT_POLICY: true, pg.ObjectType_OBJECT_TABCONSTRAINT: true, pg.ObjectType_OBJECT_COLUMN: true,
}

// exactly are collations of PostgreSQL's own by which only like texts are equal.
var exactly = map[string]bool{"default": true, "C": true, "POSIX": true, "ucs_basic": true, "unicode": true, "C.UTF-8": true, "C.utf8": true, "pg_c_utf8": true}

// definition reads DDL and maintenance.
func (c *converter) definition(n *pg.Node) {
	s := c.stmt
	s.Kind = DDL
	d := &s.Def
	defer c.temporary(n)
	switch x := n.GetNode().(type) {
	case *pg.Node_LoadStmt:
		s.Kind = Load
	case *pg.Node_TruncateStmt:
		s.Kind = Truncate
		c.objects(x.TruncateStmt.Relations...)
		d.Cascade, d.Restart = x.TruncateStmt.Behavior == pg.DropBehavior_DROP_CASCADE, x.TruncateStmt.RestartSeqs
	case *pg.Node_VacuumStmt:
		s.Kind = Vacuum
		d.NoTx = x.VacuumStmt.IsVacuumcmd
		for _, r := range x.VacuumStmt.Rels {
			c.object(r.GetVacuumRelation().GetRelation())
		}
	case *pg.Node_LockStmt:
		s.Kind = Lock
		c.objects(x.LockStmt.Relations...)
	case *pg.Node_CreateTableAsStmt:
		s.Kind = CreateTableAs
		c.object(x.CreateTableAsStmt.GetInto().GetRel())
		c.makes(x.CreateTableAsStmt.GetInto().GetRel())
		d.NoData = x.CreateTableAsStmt.GetInto().GetSkipData()
		d.View = x.CreateTableAsStmt.Objtype == pg.ObjectType_OBJECT_MATVIEW
		if e := x.CreateTableAsStmt.GetQuery().GetExecuteStmt(); e != nil {
			s.Name = e.Name
			s.NameAt, _ = preparedName(s.Text)
		}
	case *pg.Node_ViewStmt:
		s.Kind = CreateView
		c.object(x.ViewStmt.View)
		c.makes(x.ViewStmt.View)
	case *pg.Node_DropOwnedStmt:
		d.Owned = true
	case *pg.Node_RefreshMatViewStmt:
		d.Refresh = true
	default:
		if !c.tableDefinition(n) && !c.alteration(n) {
			c.sharedDefinition(n)
		}
	}
}

func (c *converter) object(r *pg.RangeVar) {
	if r != nil {
		d := &c.stmt.Def
		d.Objects = append(d.Objects, TableRef{r.Schemaname, r.Relname})
	}
}

// makes notes the name that a relation is made under.
func (c *converter) makes(r *pg.RangeVar) {
	d := &c.stmt.Def
	d.Bare = r.GetSchemaname() == ""
	d.Temp = d.Temp || r.GetRelpersistence() == "t" || isTemp(r.GetSchemaname())
}

// isTemp says whether a schema is that of a session's temporary objects, by its usual name or by its own.
func isTemp(schema string) bool { return schema == "pg_temp" || strings.HasPrefix(schema, "pg_temp_") }

// temporary finds whether a definition is about temporary objects: it says TEMPORARY, or names their schema anywhere but in a value.
func (c *converter) temporary(n *pg.Node) {
	d := &c.stmt.Def
	walk(n, func(m any) bool {
		switch x := m.(type) {
		case *pg.A_Const, *pg.VariableSetStmt, *pg.SelectStmt: // of what a view or table is made of does not make it temporary here
			return false
		case *pg.RangeVar:
			d.Temp = d.Temp || x.Relpersistence == "t" || isTemp(x.Schemaname)
		case *pg.String:
			d.Temp = d.Temp || isTemp(x.Sval)
		}
		return true
	})
}

func (c *converter) objects(list ...*pg.Node) {
	for _, n := range list {
		c.object(n.GetRangeVar())
	}
}

// tableDefinition reads what makes or maintains a table, or what hangs on one.
func (c *converter) tableDefinition(n *pg.Node) bool {
	s := c.stmt
	d := &s.Def
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		s.Kind = CreateTable
		c.object(x.CreateStmt.Relation)
		c.makes(x.CreateStmt.Relation)
		d.Chooses = true
		d.Parent = len(x.CreateStmt.InhRelations) > 0
		d.Partition = x.CreateStmt.Partbound != nil && len(x.CreateStmt.TableElts) == 0 && len(x.CreateStmt.Constraints) == 0
		for _, e := range x.CreateStmt.TableElts {
			d.Serial = d.Serial || drawsSequence(e.GetColumnDef())
			if l := e.GetTableLikeClause(); l.GetOptions()&(likeConstraints|likeIdentity) != 0 {
				d.Like = append(d.Like, TableRef{l.Relation.GetSchemaname(), l.Relation.GetRelname()})
			}
			if con := e.GetConstraint(); con.GetContype() == pg.ConstrType_CONSTR_FOREIGN {
				c.foreign(con)
			}
			for _, con := range e.GetColumnDef().GetConstraints() {
				if con.GetConstraint().GetContype() == pg.ConstrType_CONSTR_FOREIGN {
					c.foreign(con.GetConstraint(), e.GetColumnDef().Colname)
				}
			}
		}
	case *pg.Node_IndexStmt:
		s.Kind = CreateIndex
		c.object(x.IndexStmt.Relation)
		d.Unique, d.NoTx, d.Chooses = x.IndexStmt.Unique, x.IndexStmt.Concurrent, true // those of partitions are chosen in any case
		var key []string
		for _, e := range x.IndexStmt.IndexParams {
			name := e.GetIndexElem().GetName()
			if c := collationName(e.GetIndexElem().GetCollation()); c != "" && !exactly[strings.TrimPrefix(c, "pg_catalog.")] {
				name = "" // it may take unlike values for equal
			}
			key = append(key, name)
		}
		d.Keys = append(d.Keys, key)
	case *pg.Node_CreateTrigStmt:
		d.Scope = OnTable
		c.object(x.CreateTrigStmt.Relation)
	case *pg.Node_CreatePolicyStmt:
		d.Scope = OnTable
		c.object(x.CreatePolicyStmt.Table)
	case *pg.Node_AlterPolicyStmt:
		d.Scope = OnTable
		c.object(x.AlterPolicyStmt.Table)
	case *pg.Node_CreateStatsStmt:
		d.Scope = OnTable
		c.objects(x.CreateStatsStmt.Relations...)
		d.Chooses = len(x.CreateStatsStmt.Defnames) == 0
	case *pg.Node_ClusterStmt:
		d.Scope = OnTable
		c.object(x.ClusterStmt.Relation)
	case *pg.Node_ReindexStmt:
		d.Scope = OnTable
		if x.ReindexStmt.Kind == pg.ReindexObjectType_REINDEX_OBJECT_INDEX {
			d.Scope = OnIndex
		}
		c.object(x.ReindexStmt.Relation)
		for _, o := range x.ReindexStmt.Params {
			d.NoTx = d.NoTx || strings.EqualFold(o.GetDefElem().GetDefname(), "concurrently")
		}
	default:
		return false
	}
	return true
}

// alteration reads what alters, renames or drops.
func (c *converter) alteration(n *pg.Node) bool {
	s := c.stmt
	d := &s.Def
	switch x := n.GetNode().(type) {
	case *pg.Node_AlterTableStmt:
		s.Kind = AlterTable
		c.object(x.AlterTableStmt.Relation)
		switch {
		case x.AlterTableStmt.Objtype == pg.ObjectType_OBJECT_INDEX:
			d.Scope = OnIndex
		case shared[x.AlterTableStmt.Objtype]: // a composite type
			d.Scope, d.Alters = OnDatabase, true
		}
		for _, cmd := range x.AlterTableStmt.Cmds {
			c.alter(cmd.GetAlterTableCmd())
		}
		one := x.AlterTableStmt.Cmds[0].GetAlterTableCmd()
		d.Frees = len(x.AlterTableStmt.Cmds) == 1 && one.GetSubtype() == pg.AlterTableType_AT_DropConstraint && isOurs(one.GetName())
	case *pg.Node_DropStmt:
		c.drop(x.DropStmt)
	case *pg.Node_RenameStmt:
		r := x.RenameStmt
		s.Kind = Rename
		c.object(r.Relation)
		d.Alters = true
		switch {
		case r.RenameType == pg.ObjectType_OBJECT_ROLE:
			d.Scope = OnCluster
		case r.RenameType == pg.ObjectType_OBJECT_SCHEMA:
			d.Schemas, d.Scope = []string{r.Subname}, OnDatabase
		case r.RenameType == pg.ObjectType_OBJECT_INDEX:
			d.Scope = OnIndex
		case shared[r.RenameType]:
			d.Scope = OnDatabase
		case r.RenameType == pg.ObjectType_OBJECT_TABLE:
			d.Renamed.Table = r.Newname
		case onTables[r.RenameType]:
			d.Scope = OnTable
			if r.RenameType == pg.ObjectType_OBJECT_COLUMN {
				d.Renamed.Column, d.Renamed.NewColumn = r.Subname, r.Newname
			}
			if isOurs(r.Subname) {
				d.Unsafe = "RENAME of the placement's own constraint"
			}
		}
	case *pg.Node_AlterObjectSchemaStmt:
		if x.AlterObjectSchemaStmt.ObjectType == pg.ObjectType_OBJECT_SEQUENCE {
			d.Unsafe = AlterSequence
		}
		if x.AlterObjectSchemaStmt.ObjectType != pg.ObjectType_OBJECT_TABLE {
			return false
		}
		s.Kind, d.Alters = Rename, true
		c.object(x.AlterObjectSchemaStmt.Relation)
		d.Renamed.Schema = x.AlterObjectSchemaStmt.Newschema
	default:
		return false
	}
	return true
}

// isOurs says whether a name is of the kind that is given to what keeps rows on their shard.
func isOurs(name string) bool { return strings.HasPrefix(name, "pgmosaic_") }

func (c *converter) drop(x *pg.DropStmt) {
	s := c.stmt
	d := &s.Def
	s.Kind, s.Closes = Drop, true
	d.Alters = true
	d.IfExists, d.NoTx = x.MissingOk, x.Concurrent
	d.TableDrop = x.RemoveType == pg.ObjectType_OBJECT_TABLE
	d.Cascade = x.Behavior == pg.DropBehavior_DROP_CASCADE
	switch {
	case x.RemoveType == pg.ObjectType_OBJECT_INDEX:
		d.Scope = OnIndex
	case shared[x.RemoveType]:
		d.Scope = OnDatabase
	case onTables[x.RemoveType]:
		d.Scope = OnTable
	}
	for _, o := range x.Objects {
		if x.RemoveType == pg.ObjectType_OBJECT_SCHEMA {
			d.Schemas = append(d.Schemas, o.GetString_().GetSval())
		}
		names := o.GetList().GetItems()
		if d.Scope == OnTable && len(names) > 0 { // the table's name, and that of what hangs on it
			names = names[:len(names)-1]
		}
		if ref, ok := refOf(names); ok && d.Scope != OnDatabase {
			d.Objects = append(d.Objects, ref)
			s.Tables = append(s.Tables, ref)
		}
	}
}

// refOf is what a qualified name means.
func refOf(names []*pg.Node) (ref TableRef, ok bool) {
	if len(names) == 0 {
		return ref, false
	}
	ref.Name = lastName(names)
	if len(names) > 1 {
		ref.Schema = names[len(names)-2].GetString_().GetSval()
	}
	return ref, ref.Name != ""
}

// sharedDefinition reads the definition of what is no relation.
func (c *converter) sharedDefinition(n *pg.Node) {
	d := &c.stmt.Def
	of := func(t pg.ObjectType) {
		d.Alters = true
		if shared[t] {
			d.Scope = OnDatabase
		}
	}
	d.Bare = isBare(n)
	if made := typeMade(n); len(made) > 0 {
		if ref, ok := refOf(made); ok {
			d.Chooses, d.Makes = true, []TableRef{ref}
		}
	}
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateFunctionStmt, *pg.Node_CreateEnumStmt, *pg.Node_CompositeTypeStmt, *pg.Node_CreateRangeStmt, *pg.Node_CreateDomainStmt, *pg.Node_DefineStmt,
		*pg.Node_CreateCastStmt, *pg.Node_CreateExtensionStmt, *pg.Node_CreateOpClassStmt, *pg.Node_CreateOpFamilyStmt, *pg.Node_CreateConversionStmt,
		*pg.Node_CreateTransformStmt, *pg.Node_CreatePlangStmt:
		d.Scope = OnDatabase
	case *pg.Node_AlterFunctionStmt, *pg.Node_AlterEnumStmt, *pg.Node_AlterDomainStmt, *pg.Node_AlterTypeStmt, *pg.Node_AlterExtensionStmt,
		*pg.Node_AlterExtensionContentsStmt, *pg.Node_AlterOpFamilyStmt, *pg.Node_AlterOperatorStmt, *pg.Node_AlterTsdictionaryStmt, *pg.Node_AlterTsconfigurationStmt,
		*pg.Node_AlterCollationStmt, *pg.Node_AlterStatsStmt, *pg.Node_ReassignOwnedStmt, *pg.Node_AlterDefaultPrivilegesStmt:
		d.Scope, d.Alters = OnDatabase, true
	case *pg.Node_CreateSchemaStmt:
		if len(x.CreateSchemaStmt.SchemaElts) == 0 {
			d.Scope = OnDatabase
		}
	case *pg.Node_CreateRoleStmt:
		d.Scope = OnCluster
		d.Password = passwordOf(x.CreateRoleStmt.Options).GetSval()
	case *pg.Node_AlterRoleStmt:
		d.Scope, d.Alters = OnCluster, true
		d.Password = passwordOf(x.AlterRoleStmt.Options).GetSval()
	case *pg.Node_AlterDatabaseSetStmt:
		d.Logins = true
	case *pg.Node_AlterRoleSetStmt:
		d.Logins = true
		if x.AlterRoleSetStmt.Database == "" { // a database has another name on each shard
			d.Scope, d.Alters = OnCluster, true
		}
	case *pg.Node_DropRoleStmt, *pg.Node_GrantRoleStmt:
		d.Scope, d.Alters = OnCluster, true
	case *pg.Node_AlterSeqStmt:
		d.Unsafe = AlterSequence
	case *pg.Node_AlterOwnerStmt:
		of(x.AlterOwnerStmt.ObjectType)
	case *pg.Node_AlterObjectSchemaStmt:
		of(x.AlterObjectSchemaStmt.ObjectType)
	case *pg.Node_AlterObjectDependsStmt:
		of(x.AlterObjectDependsStmt.ObjectType)
	case *pg.Node_CommentStmt:
		of(x.CommentStmt.Objtype)
	case *pg.Node_GrantStmt:
		of(x.GrantStmt.Objtype)
		if x.GrantStmt.Targtype == pg.GrantTargetType_ACL_TARGET_ALL_IN_SCHEMA {
			d.Scope = OnDatabase
		}
	}
	if d.Scope != OnDatabase {
		return
	}
	walk(n, func(m any) bool { // the types that it names may be those of rows
		if t, ok := m.(*pg.TypeName); ok {
			names := t.Names
			if t.PctType && len(names) > 1 {
				names = names[:len(names)-1]
			}
			if ref, ok := refOf(names); ok {
				d.Types = append(d.Types, ref)
			}
		}
		return true
	})
}

// likeConstraints and likeIdentity are the bits of INCLUDING CONSTRAINTS and INCLUDING IDENTITY, in INCLUDING ALL as well.
const (
	likeConstraints = 1 << 2
	likeIdentity    = 1 << 5
)

// typeMade is the name of a type that a definition makes, or of a domain that gets a constraint: it has an array type, and a domain's
// constraints have names.
func typeMade(n *pg.Node) []*pg.Node {
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateEnumStmt:
		return x.CreateEnumStmt.TypeName
	case *pg.Node_CreateRangeStmt:
		return x.CreateRangeStmt.TypeName
	case *pg.Node_CreateDomainStmt:
		return x.CreateDomainStmt.Domainname
	case *pg.Node_AlterDomainStmt:
		return x.AlterDomainStmt.TypeName
	case *pg.Node_CompositeTypeStmt:
		v := x.CompositeTypeStmt.Typevar
		return []*pg.Node{pg.MakeStrNode(v.GetSchemaname()), pg.MakeStrNode(v.GetRelname())}
	case *pg.Node_DefineStmt:
		if x.DefineStmt.Kind == pg.ObjectType_OBJECT_TYPE {
			return x.DefineStmt.Defnames
		}
	}
	return nil
}

// isBare says whether what a definition makes, which is no table or view, has no schema in its name.
func isBare(n *pg.Node) bool {
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateSeqStmt:
		return x.CreateSeqStmt.Sequence.GetSchemaname() == ""
	case *pg.Node_CompositeTypeStmt:
		return x.CompositeTypeStmt.Typevar.GetSchemaname() == ""
	case *pg.Node_CreateFunctionStmt:
		return len(x.CreateFunctionStmt.Funcname) == 1
	case *pg.Node_CreateEnumStmt:
		return len(x.CreateEnumStmt.TypeName) == 1
	case *pg.Node_CreateRangeStmt:
		return len(x.CreateRangeStmt.TypeName) == 1
	case *pg.Node_CreateDomainStmt:
		return len(x.CreateDomainStmt.Domainname) == 1
	case *pg.Node_DefineStmt:
		return len(x.DefineStmt.Defnames) == 1
	}
	return false
}

// passwordOf is the constant behind PASSWORD, nil for none.
func passwordOf(options []*pg.Node) *pg.String {
	for _, o := range options {
		if e := o.GetDefElem(); e.GetDefname() == "password" {
			return e.GetArg().GetString_()
		}
	}
	return nil
}

// fill notes what an expression calls that fills a column of rows which are there.
func (d *Definition) fill(expr *pg.Node) {
	if expr == nil {
		return
	}
	walk(expr, func(m any) bool {
		if x, ok := m.(*pg.FuncCall); ok {
			d.Fills = append(d.Fills, lastName(x.Funcname))
		} else if readsClock(m) {
			d.Fills = append(d.Fills, Moment)
		}
		var c Called
		c.attributes(m)
		for _, at := range c.Attrs { // a field's name is at worst that of a function that is not called
			d.Fills = append(d.Fills, at.Name)
		}
		return true
	})
}

// alter reads one command of ALTER TABLE.
func (c *converter) alter(cmd *pg.AlterTableCmd) {
	d := &c.stmt.Def
	d.Chooses = d.Chooses || cmd.Subtype == pg.AlterTableType_AT_AddConstraint || cmd.Subtype == pg.AlterTableType_AT_AddColumn
	switch cmd.Subtype {
	case pg.AlterTableType_AT_AddColumn:
		if col := cmd.Def.GetColumnDef(); col != nil {
			if drawsSequence(col) {
				d.Unsafe = "ADD COLUMN that draws from a sequence"
			}
			for _, con := range col.Constraints {
				switch k := con.GetConstraint(); k.GetContype() {
				case pg.ConstrType_CONSTR_DEFAULT, pg.ConstrType_CONSTR_GENERATED:
					d.fill(k.RawExpr)
				case pg.ConstrType_CONSTR_UNIQUE, pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_IDENTITY:
					d.Unsafe = "ADD COLUMN with a constraint"
				case pg.ConstrType_CONSTR_FOREIGN:
					c.foreign(k, col.Colname)
				}
			}
		}
	case pg.AlterTableType_AT_DropColumn, pg.AlterTableType_AT_AlterColumnType:
		d.Columns = append(d.Columns, cmd.Name)
		d.fill(cmd.Def.GetColumnDef().GetRawDefault())
	case pg.AlterTableType_AT_ColumnDefault, pg.AlterTableType_AT_DropNotNull, pg.AlterTableType_AT_SetNotNull, pg.AlterTableType_AT_SetStatistics,
		pg.AlterTableType_AT_SetStorage, pg.AlterTableType_AT_SetCompression, pg.AlterTableType_AT_SetOptions, pg.AlterTableType_AT_ResetOptions,
		pg.AlterTableType_AT_SetRelOptions, pg.AlterTableType_AT_ResetRelOptions, pg.AlterTableType_AT_ChangeOwner, pg.AlterTableType_AT_ReplicaIdentity,
		pg.AlterTableType_AT_ClusterOn, pg.AlterTableType_AT_DropCluster, pg.AlterTableType_AT_DropExpression,
		pg.AlterTableType_AT_EnableTrig, pg.AlterTableType_AT_EnableAlwaysTrig, pg.AlterTableType_AT_EnableReplicaTrig, pg.AlterTableType_AT_DisableTrig,
		pg.AlterTableType_AT_EnableTrigAll, pg.AlterTableType_AT_DisableTrigAll, pg.AlterTableType_AT_EnableTrigUser, pg.AlterTableType_AT_DisableTrigUser,
		pg.AlterTableType_AT_EnableRowSecurity, pg.AlterTableType_AT_DisableRowSecurity, pg.AlterTableType_AT_ForceRowSecurity, pg.AlterTableType_AT_NoForceRowSecurity:
	case pg.AlterTableType_AT_DropConstraint, pg.AlterTableType_AT_ValidateConstraint, pg.AlterTableType_AT_AlterConstraint:
		if isOurs(cmd.Name) || isOurs(cmd.Def.GetConstraint().GetConname()) {
			d.Unsafe = "DROP of the placement's own constraint"
		}
	case pg.AlterTableType_AT_AddConstraint:
		con := cmd.Def.GetConstraint()
		switch {
		case isOurs(con.GetConname()):
			d.Unsafe = "ADD CONSTRAINT of a name that is kept for the placement"
		case con.GetContype() == pg.ConstrType_CONSTR_CHECK:
		case con.GetContype() == pg.ConstrType_CONSTR_FOREIGN:
			c.foreign(con)
		case con.GetContype() == pg.ConstrType_CONSTR_PRIMARY || con.GetContype() == pg.ConstrType_CONSTR_UNIQUE:
			var key []string
			for _, k := range con.Keys {
				key = append(key, k.GetString_().GetSval())
			}
			d.Unique, d.Keys = true, append(d.Keys, key) // USING INDEX names no column
		default:
			d.Unsafe = "ADD CONSTRAINT"
		}
	default:
		d.Unsafe = strings.ReplaceAll(strings.TrimPrefix(cmd.Subtype.String(), "AT_"), "_", " ")
	}
}

func (c *converter) foreign(con *pg.Constraint, columns ...string) {
	f := ForeignKey{Table: TableRef{con.Pktable.GetSchemaname(), con.Pktable.GetRelname()}, Columns: columns}
	for _, k := range con.FkAttrs {
		f.Columns = append(f.Columns, k.GetString_().GetSval())
	}
	for _, k := range con.PkAttrs {
		f.Refs = append(f.Refs, k.GetString_().GetSval())
	}
	c.stmt.Def.Foreign = append(c.stmt.Def.Foreign, f)
}

// drawsSequence says whether a column takes its values from a sequence: serial, identity, or DEFAULT nextval(..).
func drawsSequence(col *pg.ColumnDef) bool {
	if col == nil {
		return false
	}
	switch lastName(col.GetTypeName().GetNames()) {
	case "serial", "serial2", "serial4", "serial8", "bigserial", "smallserial":
		return true
	}
	found := false
	for _, n := range col.Constraints {
		walk(n, func(m any) bool {
			switch x := m.(type) {
			case *pg.Constraint:
				found = found || x.Contype == pg.ConstrType_CONSTR_IDENTITY
			case *pg.FuncCall:
				found = found || lastName(x.Funcname) == "nextval"
			}
			return true
		})
	}
	return found
}

// GrantedOn writes a GRANT or REVOKE with those of its tables, or sequences, that keep picks. some is false if there are none, ok if the statement is none
// that lists tables, or is not understood.
func (s *Statement) GrantedOn(keep func(TableRef) bool) (text string, some, ok bool) {
	g := s.inner().GetGrantStmt()
	if g == nil || g.Targtype != pg.GrantTargetType_ACL_TARGET_OBJECT || g.Objtype != pg.ObjectType_OBJECT_TABLE && g.Objtype != pg.ObjectType_OBJECT_SEQUENCE || len(g.Objects) == 0 {
		return "", false, false
	}
	var kept []string
	first, end := -1, 0
	for _, o := range g.Objects {
		r := o.GetRangeVar()
		if r == nil {
			return "", false, false
		}
		start := int(r.Location) - s.base
		if first < 0 {
			first = start
		}
		if end = nameEnd(s.Text, start); end < 0 {
			return "", false, false
		}
		if keep(TableRef{r.Schemaname, r.Relname}) {
			kept = append(kept, s.Text[start:end])
		}
	}
	return s.Text[:first] + strings.Join(kept, ", ") + s.Text[end:], len(kept) > 0, true
}

// nameEnd is where a name of a relation ends that begins at a place; -1 if none does.
func nameEnd(text string, start int) int {
	if start < 0 || start > len(text) {
		return -1
	}
	l, end, dot := lexer{s: []byte(text), pos: start}, -1, true
	for {
		switch t := l.next(); {
		case t.kind == tokComment:
		case dot && (t.kind == tokWord || t.kind == tokQuotedName):
			end, dot = t.end, false
		case !dot && t.kind == tokSymbol && text[t.start] == '.':
			dot = true
		default:
			return end
		}
	}
}
