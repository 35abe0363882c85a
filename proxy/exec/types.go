package exec

import (
	"encoding/binary"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// typesOf translates between a shard's OIDs and home's, which the client knows; nil where they are the same.
func (h *Handler) typesOf(shard int) *schema.TypeMap {
	if len(h.planner.Schema.Maps) == 0 {
		return nil
	}
	return h.planner.Schema.Maps[h.shards.Name(shard)]
}

// deepColumn is a column whose binary values hold OIDs.
type deepColumn struct {
	at  int
	oid uint32 // on home
}

// deepOf lists the columns of a result, by home's types, whose values must be translated.
func deepOf(m *schema.TypeMap, fields []wire.Field, format func(int) int16) []deepColumn {
	if m == nil {
		return nil
	}
	var out []deepColumn
	for i := range fields {
		if format(i) == 1 && m.DeepHome(fields[i].DataTypeOID) {
			out = append(out, deepColumn{i, fields[i].DataTypeOID})
		}
	}
	return out
}

// toHome translates a row's values in place.
func toHome(m *schema.TypeMap, deep []deepColumn, vals [][]byte) error {
	for _, c := range deep {
		if c.at < len(vals) && vals[c.at] != nil {
			if err := m.ValueToHome(c.oid, vals[c.at]); err != nil {
				return err
			}
		}
	}
	return nil
}

// relayDescription passes a RowDescription on with home's OIDs, and notes which columns of the rows behind it
// must be translated. Amid an Execute there is none: the client has asked for it by Describe, or does not want it.
func (h *Handler) relayDescription(p *participant) error {
	if h.ext.executing {
		return p.Server.Skip()
	}
	m := h.typesOf(p.shard)
	if m == nil {
		p.deep = nil
		return p.Server.Forward(h.client)
	}
	msg, err := p.Server.Next()
	if err != nil {
		return err
	}
	p.deep = nil
	err = wire.EachField(msg.Body(), func(i int, table, oid []byte, format int16) {
		binary.BigEndian.PutUint32(table, m.TableToHome(binary.BigEndian.Uint32(table)))
		home := m.TypeToHome(binary.BigEndian.Uint32(oid))
		binary.BigEndian.PutUint32(oid, home)
		if format == 1 && m.DeepHome(home) {
			p.deep = append(p.deep, deepColumn{i, home})
		}
	})
	if err != nil {
		return err
	}
	if err := h.client.Write(msg.Raw); err != nil {
		return &wire.PeerError{Err: err}
	}
	return nil
}

func translateFields(m *schema.TypeMap, fields []wire.Field) {
	if m == nil {
		return
	}
	for i := range fields {
		fields[i].DataTypeOID = m.TypeToHome(fields[i].DataTypeOID)
		fields[i].TableOID = m.TableToHome(fields[i].TableOID)
	}
}

// relayRows passes rows on, translated where need be.
func (h *Handler) relayRows(p *participant) error {
	if p.deep == nil {
		return p.Server.ForwardRun(h.client)
	}
	msg, err := p.Server.Next()
	if err != nil {
		return err
	}
	if p.vals, err = wire.RowValues(p.vals, msg.Body()); err != nil {
		return err
	}
	if err := toHome(h.typesOf(p.shard), p.deep, p.vals); err != nil {
		return err
	}
	if err := h.client.Write(msg.Raw); err != nil {
		return &wire.PeerError{Err: err}
	}
	return nil
}

// typesFor are declared parameter types as a shard knows them.
func (h *Handler) typesFor(shard int, types []uint32) []uint32 {
	m := h.typesOf(shard)
	if m == nil {
		return types
	}
	var out []uint32
	for i, t := range types {
		if x := m.TypeToShard(t); x != t {
			if out == nil {
				out = append([]uint32(nil), types...)
			}
			out[i] = x
		}
	}
	if out == nil {
		return types
	}
	return out
}

// paramsFor are a Bind's parameters as a shard knows them: those that hold OIDs are copied. changed is false
// where none does.
func (h *Handler) paramsFor(shard int, types []uint32, formats []int16, params [][]byte) (out [][]byte, changed bool, err error) {
	m := h.typesOf(shard)
	if m == nil {
		return params, false, nil
	}
	for i, v := range params {
		if v == nil || i >= len(types) || formatOf(formats, i) != 1 || !m.DeepHome(types[i]) {
			continue
		}
		if !changed {
			out, changed = append([][]byte(nil), params...), true
		}
		out[i] = append([]byte(nil), v...)
		if err := m.ValueToShard(types[i], out[i]); err != nil {
			return nil, false, &pgsql.Error{Code: pgsql.InvalidBinaryRepresentation, Message: "invalid binary value of a parameter: " + err.Error()}
		}
	}
	if !changed {
		return params, false, nil
	}
	return out, true, nil
}

// hasBinary says whether any of a Bind's formats is binary.
func hasBinary(formats []int16) bool {
	for _, f := range formats {
		if f == 1 {
			return true
		}
	}
	return false
}
