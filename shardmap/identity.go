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
	marked bool // the shard is known to have said so: silence will not do
}

// Expected is what the nodes of a shard must say. Of a database with one shard nothing is expected: there is none to take it for,
// and the proxy needs nothing of its own there.
func (s *Snapshot) Expected(database, shard string) Expected {
	d := s.Databases[database]
	if d == nil || len(d.Shards) < 2 {
		return Expected{}
	}
	i, ok := d.Shard(shard)
	if !ok {
		return Expected{}
	}
	return Expected{Identity{s.Install, database, shard}, i.Marked}
}

// Any says whether anything is expected.
func (e Expected) Any() bool { return e.Identity != Identity{} }

// StrangerError means that a node's database is not that of the shard which the map says it is.
type StrangerError struct{ Message, Hint string }

func (e *StrangerError) Error() string { return e.Message }

// SQLState is PostgreSQL's object_not_in_prerequisite_state: to wait, or try again, does not help.
func (e *StrangerError) SQLState() string { return "55000" }

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
