package router

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// Args are a statement's values. The slices belong to the caller and are not kept.
type Args struct {
	Text     []byte             // the text that runs, which may differ from the template's in its literals
	Literals []sqlparse.Literal // of Text, in order; nil when Text is the template's own
	Params   [][]byte           // nil is NULL
	Formats  []int16            // none: text; one: for all; else one each
	Types    []uint32           // declared or described parameter types; 0 is unknown
}

// ErrNeedTypes means that the plan hangs on the type of a parameter which only the server can infer:
// describe the statement and bind again with Types.
var ErrNeedTypes = errors.New("router: parameter types are needed")

// errNull and errUnreadable are what a value can be besides a hash.
var (
	errNull       = errors.New("null")
	errUnreadable = errors.New("unreadable")
)

func (a *Args) format(n int) int16 {
	switch len(a.Formats) {
	case 0:
		return 0
	case 1:
		return a.Formats[0]
	}
	if n < len(a.Formats) {
		return a.Formats[n]
	}
	return 0
}

// LiteralIndex finds the literal of a constant of the template; neg is true for -5, whose sign is an
// operator to the lexer.
func literalAt(text []byte, lits []sqlparse.Literal, loc int) (i int, neg, ok bool) {
	lo, hi := 0, len(lits)
	for lo < hi {
		m := (lo + hi) / 2
		if lits[m].Start < loc {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo < len(lits) && lits[lo].Start == loc {
		return lo, false, true
	}
	if lo < len(lits) && loc >= 0 && loc < len(text) && text[loc] == '-' && strings.TrimSpace(string(text[loc+1:lits[lo].Start])) == "" {
		return lo, true, true
	}
	return 0, false, false
}

// Literals numbers the template's literals, so that another text with the same stripped form can be
// bound. It must be called once, before the template is shared. ok is false if that cannot be done.
func (t *Template) NumberLiterals(lits []sqlparse.Literal) bool {
	text := []byte(t.Stmt.Text)
	fix := func(vals []sqlparse.Value) bool {
		for i := range vals {
			v := &vals[i]
			if v.Kind != sqlparse.ValInt && v.Kind != sqlparse.ValNumber && v.Kind != sqlparse.ValString {
				continue
			}
			n, neg, ok := literalAt(text, lits, v.Loc)
			if !ok {
				return false
			}
			v.Loc = n
			if neg {
				v.Loc = -n - 1
			}
		}
		return true
	}
	for i := range t.pins {
		if p := t.pins[i]; len(p.vals) > 0 {
			vals := append([]sqlparse.Value(nil), p.vals...)
			if !fix(vals) {
				return false
			}
			t.pins[i].vals = vals
			if t.insert && i == 0 {
				t.rows = vals
			}
		}
	}
	return true
}

// hash computes the hash of one value as a key of type kt.
func (t *Template) hash(v sqlparse.Value, kt pghash.Type, a *Args) (uint64, error) {
	switch v.Kind {
	case sqlparse.ValNull:
		return 0, errNull
	case sqlparse.ValParam:
		return t.hashParam(v, kt, a)
	case sqlparse.ValInt:
		if a.Literals != nil {
			i, neg := v.Loc, false
			if i < 0 {
				i, neg = -i-1, true
			}
			n, err := strconv.ParseInt(string(a.Text[a.Literals[i].Start:a.Literals[i].End]), 10, 64)
			if err == nil && kt.IsInteger() {
				if neg {
					n = -n
				}
				return pghash.Int(n), nil
			}
		}
	}
	text := v.Text
	if a.Literals != nil && v.Kind != sqlparse.ValBool {
		i, sign := v.Loc, ""
		if i < 0 {
			i, sign = -i-1, "-"
		}
		text = sign + a.Literals[i].Value(a.Text)
	}
	if kt.IsInteger() { // the column may be narrower than the value, which then matches nothing
		kt = pghash.TypeInt8
	}
	h, ok := pghash.HashText(kt, text)
	if !ok {
		return 0, errUnreadable
	}
	return h, nil
}

func (t *Template) hashParam(v sqlparse.Value, kt pghash.Type, a *Args) (uint64, error) {
	n := v.Param - 1
	if n < 0 || n >= len(a.Params) {
		return 0, errNull // the server will complain
	}
	var oid uint32
	if n < len(a.Types) {
		oid = a.Types[n]
	}
	p := a.Params[n]
	if p == nil {
		return 0, errNull
	}
	if v.Cast != "" { // $1::type: the parameter has that type
		ct, ok := pghash.TypeByName(v.Cast)
		if !ok {
			return 0, errUnreadable
		}
		oid = ct.OID()
	}
	if oid == 0 || oid == 705 {
		if t.Stmt.ParamUses(v.Param) > 1 {
			return 0, ErrNeedTypes
		}
	} else if pt, ok := pghash.TypeByOID(oid); !ok || family(pt) != family(kt) {
		return 0, errUnreadable
	}
	if kt.IsInteger() {
		if a.format(n) == 1 {
			i, ok := pghash.BinaryInt(p)
			if !ok {
				return 0, errUnreadable
			}
			return pghash.Int(i), nil
		}
		if i, ok := smallInt(p); ok {
			return pghash.Int(i), nil
		}
		kt = pghash.TypeInt8
	}
	var h uint64
	var ok bool
	if a.format(n) == 1 {
		h, ok = pghash.HashBinary(kt, p)
	} else {
		h, ok = pghash.HashText(kt, string(p))
	}
	if !ok {
		return 0, errUnreadable
	}
	return h, nil
}

// smallInt reads plain decimal digits without allocating.
func smallInt(b []byte) (int64, bool) {
	neg := len(b) > 1 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// Route is the short form of Bind for a template that is tied to one key: it finds the one shard and
// allocates nothing. ok is false where Bind must be asked.
func (t *Template) Route(a *Args) (shard int, ok bool) {
	if t.Class != Single {
		return 0, false
	}
	if t.Home {
		return t.DB.Home.Index, true
	}
	if len(t.pins) != 1 || len(t.pins[0].vals) != 1 || t.pins[0].group == nil || t.pins[0].vals[0].Array {
		return 0, false
	}
	p := &t.pins[0]
	h, err := t.hash(p.vals[0], p.group.KeyType, a)
	if err != nil {
		return 0, false
	}
	return p.group.ShardOfHash(h), true
}

// Bind finds the shards of a statement for given values. Its error is an *Error or ErrNeedTypes.
func (t *Template) Bind(a *Args) (*Plan, error) {
	p := &Plan{Template: t}
	switch {
	case t.Class == Control, t.Class == Explained:
		return p, nil
	case t.Class == Single && (t.Home || len(t.DB.Shards) == 1):
		p.Shards = []int{t.DB.Home.Index}
		return p, nil
	case t.Any:
		p.Shards = []int{t.DB.Home.Index}
		return p, nil
	case t.Class == Copy, t.Class == Write && t.Ref:
		p.Shards = t.allShards()
		return p, nil
	}
	set, all, err := t.shards(a, p)
	if err != nil {
		return nil, err
	}
	if all {
		p.Shards = t.allShards()
	} else {
		p.Shards = set
	}
	if len(p.Shards) == 1 {
		p.Narrow = true
		return p, nil
	}
	if t.wide != nil {
		return nil, t.wide
	}
	if t.Class == Single {
		for _, pn := range t.pins {
			if pn.assign {
				return nil, Refuse("key-change", pn.column)
			}
		}
		return nil, Refuse("key-unreadable", t.pins[0].column)
	}
	return p, nil
}

// shards evaluates the pins. all is true when any shard may hold rows. A set is ordered and not empty.
func (t *Template) shards(a *Args, p *Plan) (set []int, all bool, err error) {
	hit := make([]bool, len(t.DB.Shards))
	n := 0
	add := func(i int) {
		if !hit[i] {
			hit[i] = true
			n++
		}
	}
	for _, pn := range t.pins {
		if pn.group == nil {
			add(t.DB.Home.Index)
			continue
		}
		if pn.vals == nil {
			all = true
			continue
		}
		for _, v := range pn.vals {
			hashes, err := t.hashes(v, pn.group.KeyType, a)
			switch {
			case errors.Is(err, ErrNeedTypes):
				return nil, false, err
			case errors.Is(err, errNull):
				if t.insert {
					return nil, false, Refuse("insert-key", pn.column)
				}
			case err != nil:
				if t.insert {
					return nil, false, Refuse("key-unreadable", pn.column)
				}
				if pn.assign {
					return nil, false, Refuse("key-change", pn.column)
				}
				all = true
			}
			for _, h := range hashes {
				s := pn.group.ShardOfHash(h)
				add(s)
				if t.insert {
					p.Rows = append(p.Rows, s)
				}
			}
		}
		if pn.assign && n > 1 {
			return nil, false, Refuse("key-change", pn.column)
		}
	}
	if n == 0 {
		add(t.DB.Home.Index) // NULL matches nothing: any shard can say so
	}
	for i, h := range hit {
		if h {
			set = append(set, i)
		}
	}
	return set, all, nil
}

func (t *Template) hashes(v sqlparse.Value, kt pghash.Type, a *Args) ([]uint64, error) {
	if !v.Array {
		h, err := t.hash(v, kt, a)
		if err != nil {
			return nil, err
		}
		return []uint64{h}, nil
	}
	n := v.Param - 1
	if n < 0 || n >= len(a.Params) || a.Params[n] == nil {
		return nil, errNull
	}
	if t.Stmt.ParamUses(v.Param) > 1 && (n >= len(a.Types) || a.Types[n] == 0) {
		return nil, ErrNeedTypes
	}
	if a.format(n) == 1 {
		return binaryArray(a.Params[n], kt)
	}
	return textArray(string(a.Params[n]), kt)
}

// binaryArray hashes the elements of a one-dimensional array in binary format. NULL elements match nothing.
func binaryArray(b []byte, kt pghash.Type) ([]uint64, error) {
	if len(b) < 12 {
		return nil, errUnreadable
	}
	et, ok := pghash.TypeByOID(binary.BigEndian.Uint32(b[8:]))
	if !ok || family(et) != family(kt) {
		return nil, errUnreadable
	}
	if binary.BigEndian.Uint32(b) == 0 {
		return nil, nil
	}
	if binary.BigEndian.Uint32(b) != 1 || len(b) < 20 {
		return nil, errUnreadable
	}
	var out []uint64
	count := int(binary.BigEndian.Uint32(b[12:]))
	b = b[20:]
	for range count {
		if len(b) < 4 {
			return nil, errUnreadable
		}
		n := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if n < 0 {
			continue
		}
		if n > len(b) {
			return nil, errUnreadable
		}
		h, ok := pghash.HashBinary(et, b[:n])
		if !ok {
			return nil, errUnreadable
		}
		out = append(out, h)
		b = b[n:]
	}
	return out, nil
}

// textArray reads {a,b} as far as no element needs quoting.
func textArray(s string, kt pghash.Type) ([]uint64, error) {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' || strings.ContainsAny(s[1:len(s)-1], `{}"\`) {
		return nil, errUnreadable
	}
	s = s[1 : len(s)-1]
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if kt.IsInteger() {
		kt = pghash.TypeInt8
	}
	var out []uint64
	for _, e := range strings.Split(s, ",") {
		e = strings.TrimSpace(e)
		if strings.EqualFold(e, "null") {
			continue
		}
		h, ok := pghash.HashText(kt, e)
		if !ok {
			return nil, errUnreadable
		}
		out = append(out, h)
	}
	return out, nil
}

func (t *Template) allShards() []int {
	out := make([]int, len(t.DB.Shards))
	for i := range out {
		out[i] = i
	}
	return out
}

// Int64 evaluates LIMIT or OFFSET. null is true for no value.
func (a *Args) Int64(v *sqlparse.Value) (n int64, null bool, err error) {
	if v == nil || v.Kind == sqlparse.ValNull {
		return 0, true, nil
	}
	text := v.Text
	if v.Kind == sqlparse.ValParam {
		i := v.Param - 1
		if i < 0 || i >= len(a.Params) || a.Params[i] == nil {
			return 0, true, nil
		}
		if a.format(i) == 1 {
			if n, ok := pghash.BinaryInt(a.Params[i]); ok {
				return n, false, nil
			}
			return 0, false, Refuse("limit-expression")
		}
		text = string(a.Params[i])
	}
	n, err = strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, false, Refuse("limit-expression")
	}
	return n, false, nil
}

// Locate names the shard and slot of a key given as text.
func Locate(g *shardmap.GroupInfo, key string) (shard, slot int, ok bool) {
	h, ok := pghash.HashText(g.KeyType, key)
	return g.ShardOfHash(h), pghash.SlotOf(h), ok
}
