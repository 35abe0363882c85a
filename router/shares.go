package router

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// longList is how many constants a list of keys has at least that is divided: a shorter one costs a server less than it costs to divide it.
const longList = 16

// listing says where the list of a pin's values stands in the text that each shard runs, if each may be sent its own of them.
type listing struct {
	long  bool
	at    int         // the place of its IN; where literals are numbered, how far before literal first that is
	first int         // its first literal
	of    pghash.Type // the column's, which may be narrower than the key's
}

// noteList finds a long list of keys that is divided over the shards. It stands as a condition by itself, which no row meets on a shard by a key that
// is another's; in a subquery, NOT or OR it may be asked for something else. Its constants are of one kind: PostgreSQL makes them one type, whichever are left.
func noteList(a *analysis) {
	t, q := a.t, a.stmt.Query
	if q == nil || a.stmt.Kind != q.Cmd || !(t.Class == Scatter && q.Cmd == sqlparse.Select || t.Class == Write && !t.Ref && (q.Cmd == sqlparse.Update || q.Cmd == sqlparse.Delete)) {
		return
	}
	var b *block
	for i := range q.Facts {
		f := &q.Facts[i]
		if f.Into != nil || f.At <= 0 || len(f.In) < longList || !alike(f.In) {
			continue
		}
		if b == nil {
			b = newBlock(a, q, nil)
		}
		id, col, ok := b.resolve(q, f.L)
		if !ok {
			continue
		}
		kt, isKey := keyType(col)
		info := a.declared(id.rel)
		if !isKey || info == nil || info.Kind != shardmap.Sharded || len(info.Keys) != 1 || !info.IsKey(id.name) {
			continue
		}
		p := slices.IndexFunc(t.pins, func(p pin) bool { // another condition may say more of the key
			return p.group == info.Group && p.pinRole == reads && len(p.vals) == 1 && len(p.vals[0]) == len(f.In) && &p.vals[0][0] == &f.In[0]
		})
		at := f.At
		if t.Merge != nil && t.Merge.SQL != a.stmt.Text {
			at, ok = sqlparse.FindInList(t.Merge.SQL, f.In)
		}
		if ok && p >= 0 {
			t.pins[p].list = listing{long: true, at: at, of: kt}
			return
		}
	}
}

// alike says whether all constants are integers, or all strings, but for NULLs.
func alike(vals []sqlparse.Value) bool {
	kind := sqlparse.ValNull
	for i := range vals {
		v := &vals[i]
		switch {
		case v.Cast != "":
			return false
		case v.Kind == sqlparse.ValNull:
		case v.Kind != sqlparse.ValInt && v.Kind != sqlparse.ValString, kind != sqlparse.ValNull && kind != v.Kind:
			return false
		default:
			kind = v.Kind
		}
	}
	return kind != sqlparse.ValNull
}

// number says where the list stands in any text of the template, by its first literal. ok is false where that cannot be said.
func (l *listing) number(vals []sqlparse.Value, lits []sqlparse.Literal) (ok bool) {
	i := slices.IndexFunc(vals, func(v sqlparse.Value) bool { return v.Kind != sqlparse.ValNull })
	if i < 0 {
		return false
	}
	l.first = numbered(&vals[i])
	in := l.at
	l.at = lits[l.first].Start - in
	return l.at > 0 && (l.first == 0 || lits[l.first-1].End <= in)
}

// numbered is the number of a constant's literal.
func numbered(v *sqlparse.Value) int {
	if v.Loc < 0 { // with a sign
		return -v.Loc - 1
	}
	return v.Loc
}

// everywhere is the place of a constant that every shard is sent.
const everywhere = -1

// places are the shards of the keys in a long list, everywhere for what has none; nil for a list that is not divided.
func (t *Template) places(db *shardmap.DB, p *pin, a *Args) []int {
	if !p.list.long {
		return nil
	}
	vals, kt, place := p.vals[0], p.group.Keys[0], db.Placement(p.group)
	out := make([]int, len(vals))
	key := make([]pghash.Key, 1)
	for i := range vals {
		v := &vals[i]
		out[i] = everywhere
		if v.Kind == sqlparse.ValNull {
			continue
		}
		if v.Kind == sqlparse.ValString && p.list.of.IsInteger() { // a server may say that it is none of the column's
			if _, ok := pghash.ParseText(p.list.of, a.constant(v)); !ok {
				return nil
			}
		}
		var err error
		if key[0], err = t.key(v, kt, a); err != nil {
			return nil
		}
		if shard, ok := place.Place(key); ok {
			out[i] = shard
		}
	}
	return out
}

// Shares says which constants of a long list of keys each shard is sent: its own, and those that are no shard's. Each is sent to one shard at least.
type Shares struct {
	text  string
	items []sqlparse.Span
	of    []int // the shard of each, or everywhere
}

// share divides the list of a bound plan. It gives nil where each shard is sent the whole text.
func (p *Plan) share(a *Args) *Shares {
	i := slices.IndexFunc(p.pins, func(x pin) bool { return x.list.long })
	if i < 0 || p.places == nil || len(p.Shards) < 2 {
		return nil
	}
	l, vals := &p.pins[i].list, p.pins[i].vals[0]
	s := &Shares{text: p.Stmt.Text, of: p.places}
	switch {
	case p.Merge != nil:
		s.text = p.ShardText(a)
	case a.Text != nil:
		s.text = string(a.Text)
	}
	at := l.at
	if a.Literals != nil {
		at = a.Literals[l.first].Start - l.at
	}
	var ok bool
	if s.items, ok = sqlparse.InList(s.text, at); !ok || len(s.items) != len(vals) || !utf8.ValidString(s.text) { // a wrong byte is an error, whatever shard has it
		return nil
	}
	return s
}

// TextOn is what a shard is sent of the text that the others are sent, too.
func (p *Plan) TextOn(shard int, whole string) string {
	if p.Shares == nil {
		return whole
	}
	return p.Shares.Text(shard)
}

// parts are what a shard is sent of the text, in order. One that has none of the keys is asked for another reason, and is sent all.
func (s *Shares) parts(shard int) []sqlparse.Span {
	out := []sqlparse.Span{{Start: 0, End: s.items[0].Start}}
	add := func(from, to int) {
		if last := &out[len(out)-1]; last.End == from {
			last.End = to
		} else {
			out = append(out, sqlparse.Span{Start: from, End: to})
		}
	}
	kept := -1
	for i, of := range s.of {
		if of != shard && of != everywhere {
			continue
		}
		if kept >= 0 {
			add(s.items[kept].Start, s.items[kept+1].Start) // with its comma
		}
		kept = i
	}
	if kept < 0 {
		return []sqlparse.Span{{Start: 0, End: len(s.text)}}
	}
	add(s.items[kept].Start, s.items[kept].End)
	add(s.items[len(s.items)-1].End, len(s.text))
	return out
}

// Text is what a shard is sent.
func (s *Shares) Text(shard int) string {
	parts, n := s.parts(shard), 0
	for _, x := range parts {
		n += x.End - x.Start
	}
	var b strings.Builder
	b.Grow(n)
	for _, x := range parts {
		b.WriteString(s.text[x.Start:x.End])
	}
	return b.String()
}

// Place is where in the whole text stands what stands at a place of a shard's, both in characters from 1.
func (s *Shares) Place(shard, place int) int {
	at, sent := 1, 1
	for _, x := range s.parts(shard) {
		at = utf8.RuneCountInString(s.text[:x.Start]) + 1
		n := utf8.RuneCountInString(s.text[x.Start:x.End])
		if place < sent+n {
			break
		}
		at, sent = at+n, sent+n
	}
	return at + place - sent
}
