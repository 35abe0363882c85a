package schema

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

func name(n string) shardmap.TableName { return shardmap.TableName{Schema: "public", Name: n} }

func sides() (home, shard *Types) {
	home = &Types{
		byName: map[shardmap.TableName]uint32{name("mood"): 20000, name("_mood"): 20001, name("spot"): 20010, name("_spot"): 20011, name("dom"): 20020},
		info:   map[uint32]typeInfo{20000: {}, 20001: {arrayType, 20000}, 20010: {recordType, 0}, 20011: {arrayType, 20010}, 20020: {domainType, 20011}},
		rels:   map[shardmap.TableName]uint32{name("t"): 20100},
	}
	shard = &Types{byName: map[shardmap.TableName]uint32{}, info: map[uint32]typeInfo{}, rels: map[shardmap.TableName]uint32{name("t"): 30100}}
	for n, oid := range home.byName {
		shard.byName[n] = oid + 10000
		i := home.info[oid]
		if IsUser(i.elem) {
			i.elem += 10000
		}
		shard.info[oid+10000] = i
	}
	return home, shard
}

func array(elem uint32, vals ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, elem)
	b = binary.BigEndian.AppendUint32(b, uint32(len(vals)))
	b = binary.BigEndian.AppendUint32(b, 1)
	for _, v := range vals {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return b
}

func record(fields ...any) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(fields)/2))
	for i := 0; i < len(fields); i += 2 {
		b = binary.BigEndian.AppendUint32(b, uint32(fields[i].(int)))
		v := fields[i+1].([]byte)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return b
}

func TestOIDsInsideValuesAreTranslatedBothWays(t *testing.T) {
	home, shard := sides()
	m := MapTypes(home, shard)
	spot := func(base int) []byte {
		return record(23, []byte{0, 0, 0, 7}, base, []byte("sad"), base+1, array(uint32(base), []byte("ok"), []byte("happy")))
	}
	for oid, make := range map[uint32]func(base int) []byte{
		20001: func(base int) []byte { return array(uint32(base), []byte("sad")) },
		20010: spot,
		20011: func(base int) []byte { return array(uint32(base+10), spot(base), spot(base)) },
		20020: func(base int) []byte { return array(uint32(base+10), spot(base)) },
	} {
		if !m.DeepHome(oid) {
			t.Errorf("type %d is said to hold no OIDs", oid)
		}
		v := make(30000)
		if err := m.ValueToHome(oid, v); err != nil || !bytes.Equal(v, make(20000)) {
			t.Errorf("to home, type %d: %v\n%v\n%v", oid, err, v, make(20000))
		}
		if err := m.ValueToShard(oid, v); err != nil || !bytes.Equal(v, make(30000)) {
			t.Errorf("to the shard, type %d: %v", oid, err)
		}
	}
	if m.DeepHome(20000) || m.DeepHome(1007) || m.TypeToHome(30000) != 20000 || m.TypeToShard(20000) != 30000 || m.TypeToHome(23) != 23 || m.TableToHome(30100) != 20100 {
		t.Error("plain types")
	}
	if MapTypes(home, home) != nil {
		t.Error("the same OIDs need no translation")
	}
}

func FuzzBinary(f *testing.F) {
	home, shard := sides()
	m := MapTypes(home, shard)
	f.Add(uint16(11), array(30010, record(30000, []byte("sad"))))
	f.Fuzz(func(t *testing.T, which uint16, b []byte) { // values come from servers and clients alike
		oid := []uint32{20000, 20001, 20010, 20011, 20020, anyRecord, anyRecordArray}[which%7]
		n := len(b)
		_ = m.ValueToHome(oid, b)
		_ = m.ValueToShard(oid, b)
		if len(b) != n {
			t.Error("the length changed")
		}
	})
}
