package sqlparse

import (
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/encoding/protowire"
)

// Trees come as messages of Protocol Buffers (https://protobuf.dev/programming-guides/encoding). The library reads messages of any kind; this
// reads those of parse trees, whose kinds are known, and allocates many nodes at once where the library allocates three times for each. What it
// does not expect it leaves to the library.

// form is how a message of one type is read.
type form struct {
	fields []field // by number
	alone  mould
	node   bool // it is nothing but a choice of what stands in it
}

// field says where a field's value belongs.
type field struct {
	kind   fieldKind
	offset uintptr
	to     *form          // of the messages that stand there
	word   unsafe.Pointer // of a choice: the first word of the interface, which says what it is
	whole  mould          // of a choice: what is allocated for it
}

type fieldKind uint8

const (
	unreadable fieldKind = iota
	aText
	aBool
	aWord32
	aWord64
	aDouble
	aMessage
	aList
	aChoice // of a oneof: an interface, in which stands a pointer to a holder whose only field is a pointer to a message
)

// mould is a type that is allocated: a message, or a choice's holder and message in one, before which stands the node that they are in.
type mould struct {
	many            reflect.Type // a slice of it
	size            uintptr
	order           int // among all
	holder, message uintptr
}

// formSet is how parse trees are read.
type formSet struct {
	root   *form
	of     map[reflect.Type]*form
	moulds int
}

var forms = sync.OnceValue(func() *formSet {
	s := &formSet{of: map[reflect.Type]*form{}}
	s.root = s.form(reflect.TypeFor[pg.ParseResult]())
	return s
})

func (s *formSet) form(t reflect.Type) *form {
	f := s.of[t]
	if f != nil {
		return f
	}
	f = &form{alone: s.mould(t), node: t == reflect.TypeFor[pg.Node]()}
	s.of[t] = f
	for i := range t.NumField() {
		sf := t.Field(i)
		switch {
		case !sf.IsExported():
		case sf.Type.Kind() == reflect.Interface:
			for _, h := range holders(t) {
				s.choice(f, t, sf, h)
			}
		default:
			kind := kindOf(sf.Type)
			to := field{kind: kind, offset: sf.Offset}
			switch kind {
			case aMessage:
				to.to = s.form(sf.Type.Elem())
			case aList:
				to.to = s.form(sf.Type.Elem().Elem())
			default: // a value
			}
			f.put(sf, to)
		}
	}
	return f
}

// choice adds one of the things that may stand in a oneof.
func (s *formSet) choice(f *form, t reflect.Type, oneof reflect.StructField, h held) {
	inner := h.holder.Field(0)
	if kindOf(inner.Type) != aMessage {
		return
	}
	parts := []reflect.StructField{{Name: "Holder", Type: h.holder}, {Name: "Message", Type: inner.Type.Elem()}}
	if f.node {
		parts = append([]reflect.StructField{{Name: "Node", Type: t}}, parts...)
	}
	typ := reflect.StructOf(parts)
	whole := s.mould(typ)
	whole.holder, whole.message = typ.Field(len(parts)-2).Offset, typ.Field(len(parts)-1).Offset
	f.put(inner, field{kind: aChoice, offset: oneof.Offset, to: s.form(inner.Type.Elem()), word: h.word, whole: whole})
}

func (s *formSet) mould(t reflect.Type) mould {
	s.moulds++
	return mould{many: reflect.SliceOf(t), size: t.Size(), order: s.moulds - 1}
}

// put notes a field under the number that its tag has second.
func (f *form) put(sf reflect.StructField, to field) {
	parts := strings.Split(sf.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return
	}
	if n >= len(f.fields) {
		f.fields = append(f.fields, make([]field, n+1-len(f.fields))...)
	}
	f.fields[n] = to
}

func (f *form) field(n protowire.Number) *field {
	if int(n) < len(f.fields) {
		return &f.fields[n]
	}
	return &field{}
}

func kindOf(t reflect.Type) fieldKind {
	pointer := func(t reflect.Type) bool {
		return t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct
	}
	switch k := t.Kind(); {
	case k == reflect.String:
		return aText
	case k == reflect.Bool:
		return aBool
	case k == reflect.Int32 || k == reflect.Uint32:
		return aWord32
	case k == reflect.Int64 || k == reflect.Uint64:
		return aWord64
	case k == reflect.Float64:
		return aDouble
	case pointer(t):
		return aMessage
	case k == reflect.Slice && pointer(t.Elem()):
		return aList
	}
	return unreadable
}

// decoder reads one tree.
type decoder struct {
	slabs []slab // by moulds
	used  []int
	texts [32]string // that it has read lately: a statement has the same few names again and again
}

// slab is room for some things of a mould.
type slab struct {
	at      unsafe.Pointer
	n, used int
}

// maxSlab bounds how much room is made at once.
const maxSlab = 64

var decoders = sync.Pool{New: func() any { return &decoder{slabs: make([]slab, forms().moulds)} }}

// decode reads a tree's bytes, of which it keeps nothing. It says false where the library is to be asked.
func decode(b []byte, tree *pg.ParseResult) bool {
	d := decoders.Get().(*decoder)
	ok := d.fill(forms().root, unsafe.Pointer(tree), b)
	for _, i := range d.used {
		d.slabs[i] = slab{}
	}
	d.used = d.used[:0]
	clear(d.texts[:])
	decoders.Put(d)
	return ok
}

// room is an empty thing of a mould.
func (d *decoder) room(m *mould) unsafe.Pointer {
	s := &d.slabs[m.order]
	if s.used == s.n {
		if s.n == 0 {
			d.used = append(d.used, m.order)
		}
		s.n, s.used = min(max(2*s.n, 1), maxSlab), 0
		s.at = reflect.MakeSlice(m.many, s.n, s.n).UnsafePointer()
	}
	s.used++
	return unsafe.Add(s.at, uintptr(s.used-1)*m.size)
}

// message reads a message into room of its own.
func (d *decoder) message(f *form, b []byte) (unsafe.Pointer, bool) {
	if !f.node || len(b) == 0 {
		p := d.room(&f.alone)
		return p, d.fill(f, p, b)
	}
	number, typ, n := consumeTag(b)
	c := f.field(max(number, 0))
	if n < 0 || c.kind != aChoice || typ != protowire.BytesType {
		return nil, false
	}
	inside, m := consumeBytes(b[n:])
	if m < 0 || n+m != len(b) {
		return nil, false
	}
	p := d.room(&c.whole)
	return p, d.choose(c, p, p, inside)
}

// choose has a message's oneof hold what is read into room.
func (d *decoder) choose(c *field, p, room unsafe.Pointer, b []byte) bool {
	holder, inner := unsafe.Add(room, c.whole.holder), unsafe.Add(room, c.whole.message)
	*(*words)(unsafe.Add(p, c.offset)) = words{c.word, holder}
	*(*unsafe.Pointer)(holder) = inner
	return d.fill(c.to, inner, b)
}

// fill reads a message's fields.
func (d *decoder) fill(f *form, p unsafe.Pointer, b []byte) bool {
	for len(b) > 0 {
		number, typ, n := consumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		to := f.field(number)
		at := unsafe.Add(p, to.offset)
		switch typ {
		case protowire.VarintType:
			v, n := consumeVarint(b)
			if n < 0 || !to.number(at, v) {
				return false
			}
			b = b[n:]
		case protowire.Fixed64Type:
			v, n := protowire.ConsumeFixed64(b)
			if n < 0 || to.kind != aDouble {
				return false
			}
			*(*float64)(at) = math.Float64frombits(v)
			b = b[n:]
		case protowire.BytesType:
			v, n := consumeBytes(b)
			if n < 0 || !d.bytes(to, number, p, v, b[n:]) {
				return false
			}
			b = b[n:]
		default:
			return false
		}
	}
	return true
}

func (f *field) number(at unsafe.Pointer, v uint64) bool {
	switch f.kind {
	case aBool:
		*(*bool)(at) = v != 0
	case aWord32:
		*(*uint32)(at) = uint32(v)
	case aWord64:
		*(*uint64)(at) = v
	default:
		return false
	}
	return true
}

// bytes reads a field that is a text or a message. What follows it says how many there are of a list.
func (d *decoder) bytes(f *field, number protowire.Number, p unsafe.Pointer, v, follows []byte) bool {
	at := unsafe.Add(p, f.offset)
	switch f.kind {
	case aText:
		*(*string)(at) = d.text(v)
		return utf8.Valid(v)
	case aMessage:
		q, ok := d.message(f.to, v)
		ok = ok && *(*unsafe.Pointer)(at) == nil // the library makes one of two
		*(*unsafe.Pointer)(at) = q
		return ok
	case aList:
		list := (*[]unsafe.Pointer)(at)
		if len(*list) == cap(*list) {
			*list = slices.Grow(*list, 1+times(number, follows))
		}
		q, ok := d.message(f.to, v)
		*list = append(*list, q)
		return ok
	case aChoice:
		return (*words)(at).p == nil && d.choose(f, p, d.room(&f.whole), v)
	case unreadable, aBool, aWord32, aWord64, aDouble:
	}
	return false
}

// text is v as a string of its own, or as one that has been read.
func (d *decoder) text(v []byte) string {
	if len(v) == 0 {
		return ""
	}
	s := &d.texts[(int(v[0])*7+int(v[len(v)-1])+len(v))%len(d.texts)]
	if *s != string(v) {
		*s = string(v)
	}
	return *s
}

// consumeTag, consumeVarint and consumeBytes are the library's, but for what is one byte long or has a length of one byte: nearly all is.

func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	if b[0] >= 1<<3 && b[0] < 0x80 {
		return protowire.Number(b[0] >> 3), protowire.Type(b[0] & 7), 1
	}
	return protowire.ConsumeTag(b)
}

func consumeVarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return protowire.ConsumeVarint(b)
}

func consumeBytes(b []byte) ([]byte, int) {
	if len(b) > 0 && b[0] < 0x80 && int(b[0]) < len(b) {
		n := 1 + int(b[0])
		return b[1:n], n
	}
	return protowire.ConsumeBytes(b)
}

// times counts how often a field of bytes stands at once.
func times(number protowire.Number, b []byte) int {
	for count := 0; ; count++ {
		next, typ, n := protowire.ConsumeTag(b)
		if n < 0 || next != number || typ != protowire.BytesType {
			return count
		}
		m := protowire.ConsumeFieldValue(number, typ, b[n:])
		if m < 0 {
			return count
		}
		b = b[n+m:]
	}
}
