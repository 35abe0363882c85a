package router

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
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
	Drawn    []int64            // values of the template's Draw, one for each row that wants one
}

// ErrNeedTypes means that the plan hangs on the type of a parameter which only the server can infer:
// describe the statement and bind again with Types.
var ErrNeedTypes = errors.New("router: parameter types are needed")

// ErrNeedValues means that the plan hangs on values of a sequence: draw them, and bind again with Drawn.
var ErrNeedValues = errors.New("router: values of a sequence are needed")

// errNull and errUnreadable are what a value can be besides a key.
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

// literalAt finds the literal of a constant of the template; neg is true for -5, whose sign is an
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

// NumberLiterals numbers the template's literals, so that another text with the same stripped form can be
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
	if t.rekey != nil && !t.rekey.plan.NumberLiterals(lits) {
		return false
	}
	if t.Merge != nil && t.Merge.Limit != nil {
		limit := []sqlparse.Value{*t.Merge.Limit}
		if !fix(limit) {
			return false
		}
		t.Merge.Limit = &limit[0]
	}
	for i := range t.pins {
		p := &t.pins[i]
		p.vals = slices.Clone(p.vals)
		for j := range p.vals {
			p.vals[j] = slices.Clone(p.vals[j])
			if !fix(p.vals[j]) {
				return false
			}
		}
		p.bounds = slices.Clone(p.bounds)
		for j := range p.bounds {
			val := []sqlparse.Value{p.bounds[j].Val}
			if !fix(val) {
				return false
			}
			p.bounds[j].Val = val[0]
		}
		if p.list.long && !p.list.number(p.vals[0], lits) {
			p.list = listing{}
		}
	}
	return true
}

// constant is a constant's value in the text that runs.
func (a *Args) constant(v *sqlparse.Value) string {
	if a.Literals == nil || v.Kind != sqlparse.ValInt && v.Kind != sqlparse.ValNumber && v.Kind != sqlparse.ValString {
		return v.Text
	}
	i, sign := v.Loc, ""
	if i < 0 {
		i, sign = -i-1, "-"
	}
	return sign + a.Literals[i].Value(a.Text)
}

// key reads one value as a key of type kt.
func (t *Template) key(v *sqlparse.Value, kt pghash.Type, a *Args) (pghash.Key, error) {
	switch v.Kind {
	case sqlparse.ValNull:
		return pghash.Key{}, errNull
	case sqlparse.ValParam:
		return t.paramKey(v, kt, a)
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
				return pghash.IntKey(n), nil
			}
		}
	default: // read as a text, below
	}
	text := a.constant(v)
	if kt.IsInteger() { // the column may be narrower than the value, which then matches nothing
		kt = pghash.TypeInt8
	}
	k, ok := pghash.ParseText(kt, text)
	if !ok {
		return k, errUnreadable
	}
	return k, nil
}

// OIDs of types that parameters are declared to be of, which are the same on every server.
const textType, varcharType, unknownType = 25, 1043, 705

// typeOf is a parameter's declared or described type, if it is known.
func (a *Args) typeOf(n int) (oid uint32, known bool) {
	if n < len(a.Types) {
		oid = a.Types[n]
	}
	return oid, oid != 0 && oid != unknownType
}

// castFrom is the type of a cast around a parameter, which is of that type itself unless another one is known, and the bytes and format of what the cast makes
// of the parameter's own. ok is false where that is not certain.
func castFrom(cast string, oid uint32, known bool, p []byte, bin bool) (ct pghash.Type, of []byte, binary, ok bool) {
	if ct, ok = pghash.TypeByName(cast); !ok || !known || oid == ct.OID() {
		return ct, p, bin, ok
	}
	if oid == textType || oid == varcharType { // their cast reads the text as that of a literal is read
		return ct, p, bin && family(ct) == pghash.TypeText, true
	}
	own, ok := pghash.TypeByOID(oid)
	switch {
	case !ok:
		return ct, nil, false, false
	case own.IsInteger() && ct.IsInteger():
		return ct, p, bin, true
	case own.IsInteger() && family(ct) == pghash.TypeText: // as the server writes the number that it has read
		n, read := smallInt(p)
		if bin {
			n, read = pghash.BinaryInt(p)
		}
		return ct, strconv.AppendInt(nil, n, 10), false, read
	case own == pghash.TypeNumeric && ct.IsInteger() && !bin: // what has no fraction is not rounded
		_, read := smallInt(p)
		return ct, p, false, read
	}
	return ct, nil, false, false
}

// paramKey reads a parameter by its declared or described type, from which a cast around it is made.
func (t *Template) paramKey(v *sqlparse.Value, kt pghash.Type, a *Args) (pghash.Key, error) {
	n := v.Param - 1
	if n < 0 || n >= len(a.Params) {
		return pghash.Key{}, errNull // the server will complain
	}
	p := a.Params[n]
	if p == nil {
		return pghash.Key{}, errNull
	}
	bin := a.format(n) == 1
	oid, known := a.typeOf(n)
	if !known && t.Stmt.ParamUses(v.Param) > 1 && (v.Cast == "" || !t.Stmt.ParamAlwaysCast(v.Param)) {
		return pghash.Key{}, ErrNeedTypes // another place may say of what type it is
	}
	if v.Cast != "" {
		ct, of, binary, ok := castFrom(v.Cast, oid, known, p, bin)
		if !ok {
			return pghash.Key{}, errUnreadable
		}
		oid, known, p, bin = ct.OID(), true, of, binary
	}
	if known {
		if pt, ok := pghash.TypeByOID(oid); !ok || family(pt) != family(kt) {
			return pghash.Key{}, errUnreadable
		}
	}
	if kt.IsInteger() {
		if bin {
			i, ok := pghash.BinaryInt(p)
			if !ok {
				return pghash.Key{}, errUnreadable
			}
			return pghash.IntKey(i), nil
		}
		if i, ok := smallInt(p); ok {
			return pghash.IntKey(i), nil
		}
		kt = pghash.TypeInt8
	}
	var k pghash.Key
	var ok bool
	if bin {
		k, ok = pghash.ParseBinary(kt, p)
	} else {
		k, ok = pghash.ParseText(kt, string(p))
	}
	if !ok {
		return k, errUnreadable
	}
	return k, nil
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
// allocates nothing. ok is false where Bind must be asked. key stands for the key, 0 for none: rows of the first
// t.Sharded of t.Tables that have another key are neither read nor written. Equal keys have equal ones, others may.
func (t *Template) Route(db *shardmap.DB, a *Args) (shard int, key uint64, ok bool) {
	if t.Class != Single {
		return 0, 0, false
	}
	if t.Home {
		return t.DB.Home.Index, 0, true
	}
	if len(t.pins) != 1 || !t.pins[0].one() {
		return 0, 0, false
	}
	p := &t.pins[0]
	var keys [pghash.MaxColumns]pghash.Key
	for i := range p.vals {
		var err error
		if keys[i], err = t.key(&p.vals[i][0], p.group.Keys[i], a); err != nil {
			return 0, 0, false
		}
		if p.held != nil {
			keys[i] = p.held[i].Held(keys[i])
		}
		key = pghash.Combine(key, keys[i].Hash())
	}
	key |= 1 << 63
	if p.pinRole == assigns { // the row had another key before
		key = 0
	}
	if shard, ok = db.Placement(p.group).Place(keys[:len(p.vals)]); !ok {
		return 0, 0, false
	}
	return shard, key, true
}

// Bind finds the shards of a statement for given values by a map of the template's shape, the newest of which knows which shard has which
// key. Its error is an *Error or ErrNeedTypes.
func (t *Template) Bind(db *shardmap.DB, a *Args) (*Plan, error) {
	p := &Plan{Template: t, by: db}
	switch {
	case t.Class == Control, t.Class == Explained:
		return p, nil
	case t.Class == Single && (t.Home || len(t.DB.Shards) == 1):
		p.Shards = []int{t.DB.Home.Index}
		return p, nil
	case t.Any:
		p.Shards = []int{t.DB.Home.Index}
		return p, nil
	case t.Class == Copy, t.Class == Moved, t.Class == Write && t.Ref:
		if p.Shards = t.refShards; p.Shards == nil {
			p.Shards = t.allShards()
		}
		return p, nil
	}
	if t.Draw != nil && len(a.Drawn) < t.Draw.Rows {
		return nil, ErrNeedValues
	}
	p.Drawn = a.Drawn
	var err error
	if t.rekey != nil {
		return t.bindKey(db, a, p)
	}
	if p.Shards, err = t.shards(db, a, p); err != nil {
		return nil, err
	}
	if len(p.Shards) == 1 && p.Plain() {
		p.Narrow = true
		return p, nil
	}
	if t.wide != nil {
		return nil, t.wide
	}
	if t.Class == Single {
		for i := range t.pins {
			if t.pins[i].pinRole == assigns {
				return nil, Refuse(RuleKeyChange, t.pins[i].key())
			}
		}
		return nil, Refuse(RuleKeyUnreadable, t.pins[0].key())
	}
	p.Shares = p.share(a)
	return p, nil
}

// bindKey binds an UPDATE that assigns a key: as it is if all stays on one shard, else as one that moves rows.
func (t *Template) bindKey(db *shardmap.DB, a *Args, p *Plan) (*Plan, error) {
	r := t.rekey
	if t.Class == Single {
		set, err := t.shards(db, a, p)
		if errors.Is(err, ErrNeedTypes) {
			return nil, err
		}
		if err == nil && len(set) == 1 {
			p.Shards, p.Narrow = set, true
			return p, nil
		}
	}
	set, err := r.plan.shards(db, a, &Plan{})
	if err != nil {
		return nil, err
	}
	if len(set) > 1 && r.narrow != nil {
		return nil, r.narrow
	}
	return &Plan{Template: r.plan, Shards: set, by: db}, nil
}

// hits is a set of shards.
type hits []bool

func newHits(db *shardmap.DB) hits { return make(hits, len(db.Shards)) }

func (h hits) add(shard int) { h[shard] = true }

func (h hits) list() []int {
	var out []int
	for i, hit := range h {
		if hit {
			out = append(out, i)
		}
	}
	return out
}

// shards evaluates the pins: the shards that may hold what they stand for, in order, at least one. p gets the rows of an
// INSERT.
func (t *Template) shards(db *shardmap.DB, a *Args, p *Plan) ([]int, error) {
	hit := newHits(t.DB)
	drawn := a.Drawn
	for i := range t.pins {
		pn := &t.pins[i]
		if pn.pinRole == inserts {
			shard, err := t.rowShard(db, pn, a, &drawn)
			if err != nil {
				return nil, err
			}
			hit.add(shard)
			p.Rows = append(p.Rows, shard)
			continue
		}
		if places := t.places(db, pn, a); places != nil {
			for _, shard := range places {
				if shard != everywhere {
					hit.add(shard)
				}
			}
			p.places = places
			continue
		}
		if err := t.eval(db, pn, a, hit.add); err != nil {
			return nil, err
		}
		if pn.pinRole == assigns && len(hit.list()) > 1 {
			return nil, Refuse(RuleKeyChange, pn.key())
		}
	}
	set := hit.list()
	if len(set) == 0 {
		set = []int{t.DB.Home.Index} // nothing can match: any shard can say so
	}
	return set, nil
}

// rowShard is the shard of one row of an INSERT. A drawn value is taken from drawn.
func (t *Template) rowShard(db *shardmap.DB, p *pin, a *Args, drawn *[]int64) (int, error) {
	var key [pghash.MaxColumns]pghash.Key
	for i := range p.vals {
		var err error
		if p.vals[i] == nil {
			key[i] = pghash.IntKey((*drawn)[0])
			*drawn = (*drawn)[1:]
			continue
		}
		key[i], err = t.key(&p.vals[i][0], p.group.Keys[i], a)
		switch {
		case errors.Is(err, ErrNeedTypes):
			return 0, err
		case errors.Is(err, errNull):
			return 0, Refuse(RuleInsertKey, p.columns[i])
		case err != nil:
			return 0, Refuse(RuleKeyUnreadable, p.columns[i])
		case p.held != nil:
			key[i] = p.held[i].Held(key[i])
		}
	}
	shard, ok := db.Placement(p.group).Place(key[:len(p.vals)])
	if !ok {
		return 0, Refuse(RuleNoPlace, p.key())
	}
	return shard, nil
}

// maxCombined bounds how many keys several lists of values may make.
const maxCombined = 4096

// eval calls add with the shards that may hold rows of a relation.
func (t *Template) eval(db *shardmap.DB, p *pin, a *Args, add func(int)) error {
	if p.group == nil {
		add(t.DB.Home.Index)
		return nil
	}
	var lists [pghash.MaxColumns][]pghash.Key
	known, combined := 0, 1 // columns from the first whose values are known
	for i, vals := range p.vals {
		keys, err := t.keys(vals, p.group.Keys[i], a)
		switch {
		case errors.Is(err, ErrNeedTypes):
			return err
		case err != nil && p.pinRole == assigns:
			return Refuse(RuleKeyChange, p.columns[i])
		case err != nil:
			continue
		case vals != nil && len(keys) == 0:
			return nil // NULL, or an empty list: no row
		case p.held != nil:
			for j := range keys {
				keys[j] = p.held[i].Held(keys[j])
			}
		}
		if lists[i] = keys; keys != nil && known == i && combined*len(keys) <= maxCombined {
			known, combined = i+1, combined*len(keys)
		}
	}
	key := make([]pghash.Key, 0, pghash.MaxColumns)
	if known == len(p.vals) {
		combine(lists[:known], key, func(k []pghash.Key) {
			if shard, ok := db.Placement(p.group).Place(k); ok {
				add(shard)
			}
		})
		return nil
	}
	if p.group.Scheme != shardmap.ByRange {
		for _, s := range db.Placement(p.group).Shards() {
			add(s)
		}
		return nil
	}
	combine(lists[:known], key, func(k []pghash.Key) {
		var form []byte
		for i := range k {
			form = k[i].AppendOrdered(form)
		}
		low, high := t.between(p, a, known, form)
		db.Placement(p.group).Between(low, high, add)
	})
	return nil
}

// between narrows the keys that begin with prefix by what is known of the column behind it.
func (t *Template) between(p *pin, a *Args, column int, prefix []byte) (low, high []byte) {
	if len(prefix) > 0 {
		low, high = prefix, prefix
	}
	if p.vals[column] != nil { // known, but by a list that was not read: the bounds are not this column's
		return low, high
	}
	for i := range p.bounds {
		b := &p.bounds[i]
		k, err := t.key(&b.Val, p.group.Keys[column], a)
		if err != nil {
			continue
		}
		form := k.AppendOrdered(slices.Clone(prefix))
		switch {
		case b.Upper && (len(high) <= len(prefix) || bytes.Compare(form, high) < 0):
			high = form
		case !b.Upper && (len(low) <= len(prefix) || bytes.Compare(form, low) > 0):
			low = form
		}
	}
	return low, high
}

// combine calls f with every key that takes one value of each list.
func combine(lists [][]pghash.Key, key []pghash.Key, f func([]pghash.Key)) {
	if len(lists) == 0 {
		f(key)
		return
	}
	for _, k := range lists[0] {
		combine(lists[1:], append(key, k), f)
	}
}

// keys reads a list of values, leaving NULLs out: they match nothing. Nil for nil.
func (t *Template) keys(vals []sqlparse.Value, kt pghash.Type, a *Args) ([]pghash.Key, error) {
	if vals == nil {
		return nil, nil
	}
	out := make([]pghash.Key, 0, len(vals))
	for i := range vals {
		v := &vals[i]
		if v.Array {
			more, err := t.arrayKeys(v, kt, a)
			if err != nil && !errors.Is(err, errNull) {
				return nil, err
			}
			out = append(out, more...)
			continue
		}
		k, err := t.key(v, kt, a)
		switch {
		case errors.Is(err, errNull):
		case err != nil:
			return nil, err
		default:
			out = append(out, k)
		}
	}
	return out, nil
}

// arrayTypes are the types of elements by the OIDs of their arrays. Source: pg_type.dat of PostgreSQL.
var arrayTypes = map[uint32]pghash.Type{
	1005: pghash.TypeInt2, 1007: pghash.TypeInt4, 1016: pghash.TypeInt8, 1009: pghash.TypeText, 1015: pghash.TypeVarchar, 1014: pghash.TypeBpchar, 2951: pghash.TypeUUID,
	1182: pghash.TypeDate, 1115: pghash.TypeTimestamp, 1185: pghash.TypeTimestamptz, 1001: pghash.TypeBytea, 1231: pghash.TypeNumeric, 1000: pghash.TypeBool,
}

func (t *Template) arrayKeys(v *sqlparse.Value, kt pghash.Type, a *Args) ([]pghash.Key, error) {
	n := v.Param - 1
	if n < 0 || n >= len(a.Params) || a.Params[n] == nil {
		return nil, errNull
	}
	switch oid, known := a.typeOf(n); {
	case !known && t.Stmt.ParamUses(v.Param) > 1:
		return nil, ErrNeedTypes
	case known:
		if et, ok := arrayTypes[oid]; !ok || family(et) != family(kt) {
			return nil, errUnreadable
		}
	}
	if a.format(n) == 1 {
		return binaryArray(a.Params[n], kt)
	}
	return textArray(string(a.Params[n]), kt)
}

// binaryArray reads the elements of a one-dimensional array in binary format. NULL elements match nothing.
func binaryArray(b []byte, kt pghash.Type) ([]pghash.Key, error) {
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
	var out []pghash.Key
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
		k, ok := pghash.ParseBinary(et, b[:n])
		if !ok {
			return nil, errUnreadable
		}
		out = append(out, k)
		b = b[n:]
	}
	return out, nil
}

// trimArray leaves out what PostgreSQL takes for blanks around the elements of an array. Other blanks of Unicode are a part of a text.
func trimArray(s string) string { return strings.Trim(s, " \t\n\r\v\f") }

// textArray reads {a,b} as far as no element needs quoting.
func textArray(s string, kt pghash.Type) ([]pghash.Key, error) {
	s = trimArray(s)
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' || strings.ContainsAny(s[1:len(s)-1], `{}"\`) {
		return nil, errUnreadable
	}
	s = s[1 : len(s)-1]
	if trimArray(s) == "" {
		return nil, nil
	}
	if kt.IsInteger() {
		kt = pghash.TypeInt8
	}
	var out []pghash.Key
	for _, e := range strings.Split(s, ",") {
		e = trimArray(e)
		if strings.EqualFold(e, "null") {
			continue
		}
		k, ok := pghash.ParseText(kt, e)
		if !ok {
			return nil, errUnreadable
		}
		out = append(out, k)
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
	text := a.constant(v)
	if v.Kind == sqlparse.ValParam {
		i := v.Param - 1
		if i < 0 || i >= len(a.Params) || a.Params[i] == nil {
			return 0, true, nil
		}
		oid, known := a.typeOf(i)
		pt, ok := pghash.TypeByOID(oid)
		switch text := oid == textType || oid == varcharType; {
		case a.format(i) == 0 || text: // in a cast
		case known && !(ok && pt.IsInteger()):
			return 0, false, Refuse(RuleLimitExpression)
		default:
			if n, ok := pghash.BinaryInt(a.Params[i]); ok {
				return n, false, nil
			}
			return 0, false, Refuse(RuleLimitExpression)
		}
		text = string(a.Params[i])
	}
	n, err = strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, false, Refuse(RuleLimitExpression)
	}
	return n, false, nil
}
