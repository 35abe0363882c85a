package schema

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// User types (enums, domains, composites, those of extensions) have other OIDs on each server, and so have
// tables. A client is told home's. Types knows those of one server; a TypeMap translates between a shard and
// home: OIDs in descriptions, and those inside binary arrays and records.

// firstUser is PostgreSQL's FirstNormalObjectId: what initdb makes has the same OID everywhere.
const firstUser = 16384

// IsUser says whether an OID was given by a server, not by PostgreSQL itself.
func IsUser(oid uint32) bool { return oid >= firstUser }

// typeKind is how a type's binary form is made.
type typeKind byte

const (
	plainType  typeKind = iota
	arrayType           // its header names the element's type
	recordType          // each field names its type
	rangeType           // bounds of elem
	multirange          // ranges of elem
	domainType          // as elem
)

type typeInfo struct {
	kind typeKind
	elem uint32
}

// Types are the user types and relations of one server.
type Types struct {
	byName map[shardmap.TableName]uint32 // to OID
	info   map[uint32]typeInfo           // of user types, and of the arrays and records among them
	rels   map[shardmap.TableName]uint32 // to OID
}

const typesSQL = `
select n.nspname, t.typname, t.oid,
       case when t.typcategory = 'A' and t.typelem <> 0 then 'a' when t.typtype in ('c', 'd', 'r', 'm') then t.typtype::text else '' end,
       case when t.typtype = 'd' then t.typbasetype when t.typtype = 'r' then coalesce((select rngsubtype from pg_range where rngtypid = t.oid), 0) else t.typelem end
  from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.oid >= 16384`

const relsSQL = `select n.nspname, c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid >= 16384 and c.relkind in ('r', 'p', 'v', 'm', 'f')`

// LoadTypes reads the user types and relations of a server.
func (r *Reader) LoadTypes(ctx context.Context, at Server) (t *Types, err error) {
	err = r.lend(ctx, at, func(ctx context.Context, c *pgx.Conn) error {
		t, err = readTypes(ctx, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the types: %w", err)
	}
	return t, nil
}

func readTypes(ctx context.Context, conn queryer) (*Types, error) {
	t := &Types{byName: map[shardmap.TableName]uint32{}, info: map[uint32]typeInfo{}, rels: map[shardmap.TableName]uint32{}}
	rows, _ := conn.Query(ctx, typesSQL)
	var name shardmap.TableName
	var kind string
	var oid, elem uint32
	kinds := map[string]typeKind{"a": arrayType, "c": recordType, "d": domainType, "r": rangeType, "m": multirange}
	if _, err := pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &oid, &kind, &elem}, func() error {
		t.byName[name] = oid
		t.info[oid] = typeInfo{kinds[kind], elem}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the types: %w", err)
	}
	rows, _ = conn.Query(ctx, relsSQL)
	if _, err := pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &oid}, func() error { t.rels[name] = oid; return nil }); err != nil {
		return nil, fmt.Errorf("read the types: %w", err)
	}
	return t, nil
}

// TypeMap translates between a shard and home. A nil one changes nothing.
type TypeMap struct {
	toHome, toShard map[uint32]uint32
	relToHome       map[uint32]uint32
	home, shard     *Types
}

// MapTypes makes the translation between a shard and home; nil where nothing differs.
func MapTypes(home, shard *Types) *TypeMap {
	m := &TypeMap{toHome: map[uint32]uint32{}, toShard: map[uint32]uint32{}, relToHome: map[uint32]uint32{}, home: home, shard: shard}
	differs := false
	for name, oid := range shard.byName {
		if h, ok := home.byName[name]; ok {
			m.toHome[oid], m.toShard[h] = h, oid
			differs = differs || h != oid
		}
	}
	for name, oid := range shard.rels {
		if h, ok := home.rels[name]; ok {
			m.relToHome[oid] = h
			differs = differs || h != oid
		}
	}
	if !differs {
		return nil
	}
	return m
}

// Equal says whether two translations are the same.
func (m *TypeMap) Equal(o *TypeMap) bool {
	if m == nil || o == nil {
		return m == o
	}
	return maps.Equal(m.toHome, o.toHome) && maps.Equal(m.toShard, o.toShard) && maps.Equal(m.relToHome, o.relToHome)
}

// TypeToHome translates the OID of a type.
func (m *TypeMap) TypeToHome(oid uint32) uint32 { return m.translate(m.toHome, oid) }

// TypeToShard translates the OID of a type.
func (m *TypeMap) TypeToShard(oid uint32) uint32 { return m.translate(m.toShard, oid) }

// TableToHome translates the OID of a relation.
func (m *TypeMap) TableToHome(oid uint32) uint32 { return m.translate(m.relToHome, oid) }

func (m *TypeMap) translate(by map[uint32]uint32, oid uint32) uint32 {
	if oid < firstUser {
		return oid
	}
	if x, ok := by[oid]; ok {
		return x
	}
	return oid
}

// record is PostgreSQL's anonymous record; its array has another OID.
const (
	anyRecord      = 2249
	anyRecordArray = 2287
)

// DeepHome says whether a binary value of a type, by home's OID, may hold OIDs that differ.
func (m *TypeMap) DeepHome(oid uint32) bool { return m != nil && m.home.deep(oid, 0) }

func (t *Types) deep(oid uint32, depth int) bool {
	if oid == anyRecord || oid == anyRecordArray {
		return true
	}
	i, ok := t.info[oid]
	if !ok || depth > 16 {
		return false
	}
	switch i.kind {
	case recordType:
		return true
	case arrayType:
		return IsUser(i.elem)
	case rangeType, multirange, domainType:
		return t.deep(i.elem, depth+1)
	case plainType:
	}
	return false
}

// errBinary means that a value is not what its type says.
var errBinary = errors.New("schema: a binary value does not have the form of its type")

// ValueToHome translates the OIDs inside a binary value from a shard, in place. oid is the type's on home.
func (m *TypeMap) ValueToHome(oid uint32, b []byte) error {
	return m.value(m.home, m.toHome, oid, b, 0, true)
}

// ValueToShard translates the OIDs inside a binary value for a shard, in place. oid is the type's on home.
func (m *TypeMap) ValueToShard(oid uint32, b []byte) error {
	return m.value(m.home, m.toShard, oid, b, 0, false)
}

// value walks a binary value; OIDs found in it are translated by by. Types are known by home's OIDs.
func (m *TypeMap) value(t *Types, by map[uint32]uint32, oid uint32, b []byte, depth int, toHome bool) error {
	if depth > 32 {
		return errBinary
	}
	i := t.info[oid]
	switch oid {
	case anyRecord:
		i = typeInfo{kind: recordType}
	case anyRecordArray:
		i = typeInfo{kind: arrayType, elem: anyRecord}
	}
	switch i.kind {
	case domainType:
		return m.value(t, by, i.elem, b, depth+1, toHome)
	case arrayType:
		return m.array(t, by, b, depth, toHome)
	case recordType:
		return m.record(t, by, b, depth, toHome)
	case plainType, rangeType, multirange:
	}
	return nil
}

// patch translates the OID at b and returns it as home knows it.
func (m *TypeMap) patch(by map[uint32]uint32, b []byte, toHome bool) uint32 {
	was := binary.BigEndian.Uint32(b)
	now := m.translate(by, was)
	binary.BigEndian.PutUint32(b, now)
	if toHome {
		return now
	}
	return was
}

func (m *TypeMap) array(t *Types, by map[uint32]uint32, b []byte, depth int, toHome bool) error {
	if len(b) < 12 {
		return errBinary
	}
	dims := binary.BigEndian.Uint32(b)
	elem := m.patch(by, b[8:], toHome)
	if dims > 6 || len(b) < 12+8*int(dims) {
		return errBinary
	}
	if !t.deep(elem, 0) {
		return nil
	}
	b = b[12+8*int(dims):]
	for len(b) > 0 {
		v, rest, err := sized(b)
		if err != nil {
			return err
		}
		if v != nil {
			if err := m.value(t, by, elem, v, depth+1, toHome); err != nil {
				return err
			}
		}
		b = rest
	}
	return nil
}

func (m *TypeMap) record(t *Types, by map[uint32]uint32, b []byte, depth int, toHome bool) error {
	if len(b) < 4 {
		return errBinary
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	for range n {
		if len(b) < 8 {
			return errBinary
		}
		oid := m.patch(by, b, toHome)
		v, rest, err := sized(b[4:])
		if err != nil {
			return err
		}
		if v != nil && t.deep(oid, 0) {
			if err := m.value(t, by, oid, v, depth+1, toHome); err != nil {
				return err
			}
		}
		b = rest
	}
	return nil
}

// sized cuts a value with its length off; nil is NULL.
func sized(b []byte) (v, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errBinary
	}
	n := int32(binary.BigEndian.Uint32(b))
	b = b[4:]
	if n < 0 {
		return nil, b, nil
	}
	if int(n) > len(b) {
		return nil, nil, errBinary
	}
	return b[:n:n], b[n:], nil
}
