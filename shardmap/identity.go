package shardmap

import (
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Identity is what the database of a shard says of itself: whose it is. The zero value is that of one that says nothing.
type Identity struct{ Install, Database, Shard string }

// String names the shard.
func (i Identity) String() string { return fmt.Sprintf("shard %s of database %s", i.Shard, i.Database) }

// Expected is what the map expects a shard's nodes to say. The zero value expects nothing.
type Expected struct {
	Identity
	marked bool     // the shard is known to have said so: silence will not do
	system string   // what its servers' system identifier must be; empty for any
	who    Identity // the shard, also where nothing is expected
}

// Expected is what the nodes of a shard must say. Of a database with one shard no identity is expected: there is none to take it for,
// and the proxy needs nothing of its own there.
func (s *Snapshot) Expected(database, shard string) Expected {
	d := s.Databases[database]
	if d == nil {
		return Expected{}
	}
	i, ok := d.Shard(shard)
	if !ok {
		return Expected{}
	}
	e := Expected{system: i.System, who: Identity{s.Install, database, shard}}
	if len(d.Shards) > 1 {
		e.Identity, e.marked = e.who, i.Marked
	}
	return e
}

// System is the system identifier that the shard's servers must have; empty if any will do.
func (e Expected) System() string { return e.system }

// JudgeSystem says what is wrong with a node whose server has this system identifier; nil if nothing is. It is pure.
func (e Expected) JudgeSystem(found string) error {
	if e.system == "" || found == e.system {
		return nil
	}
	return &StrangerError{
		fmt.Sprintf("its system identifier is %s, and that of the servers of %s is %s", found, e.who, e.system),
		fmt.Sprintf("It is no copy of the shard's. If pg_upgrade made it, or it was restored from a dump to be this shard: ALTER SHARD %s IN %s ADOPT.", pgsql.Ident(e.who.Shard), pgsql.Ident(e.who.Database)),
	}
}

// Any says whether an identity is expected.
func (e Expected) Any() bool { return e.Identity != Identity{} }

// StrangerError means that a node's database is not that of the shard which the map says it is.
type StrangerError struct{ Message, Hint string }

func (e *StrangerError) Error() string { return e.Message }

// SQLState is PostgreSQL's object_not_in_prerequisite_state: to wait, or try again, does not help.
func (e *StrangerError) SQLState() string { return pgsql.ObjectNotInPrerequisiteState }

// ErrorHint says what to do.
func (e *StrangerError) ErrorHint() string { return e.Hint }

// Judge says what is wrong with a node that says found of itself; nil if nothing is. It is pure.
func (e Expected) Judge(found Identity) error {
	adopt := fmt.Sprintf("ALTER SHARD %s IN %s ADOPT", pgsql.Ident(e.Shard), pgsql.Ident(e.Database))
	switch {
	case !e.Any() || found == e.Identity || found == Identity{} && !e.marked:
		return nil
	case found == Identity{}:
		return &StrangerError{"it does not say that it is " + e.String(), "If its connection string is right, its database was restored without the schema pgmosaic: " + adopt + "."}
	case found.Install == e.Install:
		return &StrangerError{
			fmt.Sprintf("it is %s, not %s", found, e.Identity),
			"Its connection string names another server or database: ALTER SHARD .. ALTER NODE. If it was copied from there to be this shard: " + adopt + ".",
		}
	}
	return &StrangerError{
		fmt.Sprintf("it is %s of the installation %s, not of this one", found, found.Install),
		"Its connection string names another installation's server. If it was copied from there to be this shard: " + adopt + ".",
	}
}
