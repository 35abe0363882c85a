package sqlparse

import (
	"encoding/binary"
	"reflect"
	"sync"
	"unsafe"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
)

// A layout says where in the parser's messages other messages hang, and what else they say. It is found out once for
// each type; to ask the library for each message is ten times slower.
type layout struct {
	word  unsafe.Pointer // of an interface that holds a pointer to it: its type
	links []link
	plain []plain
	bare  bool // it means something only where it stands
	order int  // of the type, among all
}

// link is a field that holds messages.
type link struct {
	offset uintptr
	kind   linkKind
	to     *layout    // what hangs there; of oneof nothing
	oneofs *wordTable // of oneof: what may hang there
}

type linkKind uint8

const (
	single linkKind = iota
	many
	oneof // an interface, in which stands a pointer to a struct whose only field is the message or value
)

// plain is a field that holds a value.
type plain struct {
	offset   uintptr
	kind     reflect.Kind
	spelling bool // it says where the text had it, or how it was spelt, and nothing about what it means
	location bool
}

// words are those of an interface: what says its type, and the pointer that it holds.
type words struct{ typ, p unsafe.Pointer }

func wordsOf(i unsafe.Pointer) words { return *(*words)(i) }

// known are the layouts of all messages of a tree by their types, and of what stands in their oneofs by the first word of
// the interface there.
type known struct {
	messages map[reflect.Type]*layout
	node     *layout
	oneofs   wordTable
}

// wordTable finds layouts by first words of interfaces. A map would take longer to find them than the walk takes for all else.
type wordTable [2048]struct {
	word unsafe.Pointer
	to   *layout
}

// at is a word's place: where it stands, or would stand.
func (t *wordTable) at(word unsafe.Pointer) int {
	i := int(uint64(uintptr(word)) * 0x9e3779b97f4a7c15 >> 53) // https://en.wikipedia.org/wiki/Hash_function#Fibonacci_hashing
	for t[i].word != word && t[i].word != nil {
		i = (i + 1) % len(t)
	}
	return i
}

var layouts = sync.OnceValue(func() *known {
	k := &known{messages: map[reflect.Type]*layout{}}
	all := k.messages
	var find func(t reflect.Type) *layout
	find = func(t reflect.Type) *layout {
		if l := all[t]; l != nil {
			return l
		}
		pointer := reflect.Zero(reflect.PointerTo(t)).Interface()
		l := &layout{word: wordsOf(unsafe.Pointer(&pointer)).typ, order: len(all)}
		all[t] = l
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() {
				continue
			}
			switch {
			case f.Type.Kind() == reflect.Pointer:
				l.links = append(l.links, link{offset: f.Offset, kind: single, to: find(f.Type.Elem())})
			case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Pointer:
				l.links = append(l.links, link{offset: f.Offset, kind: many, to: find(f.Type.Elem().Elem())})
			case f.Type.Kind() == reflect.Interface:
				l.links = append(l.links, link{offset: f.Offset, kind: oneof, oneofs: &k.oneofs})
			default:
				l.plain = append(l.plain, plain{f.Offset, f.Type.Kind(), f.Name == "Funcformat", f.Name == "Location"})
			}
		}
		return l
	}
	find(reflect.TypeFor[pg.ParseResult]())
	for _, t := range []reflect.Type{reflect.TypeFor[pg.Node](), reflect.TypeFor[pg.String](), reflect.TypeFor[pg.Integer](), reflect.TypeFor[pg.Float](), reflect.TypeFor[pg.Boolean](), reflect.TypeFor[pg.BitString]()} {
		find(t).bare = true
	}
	k.node = find(reflect.TypeFor[pg.Node]())
	for _, t := range []reflect.Type{reflect.TypeFor[pg.Node](), reflect.TypeFor[pg.A_Const]()} {
		for _, h := range holders(t) {
			slot := &k.oneofs[k.oneofs.at(h.word)]
			slot.word, slot.to = h.word, find(h.holder)
		}
	}
	return k
})

// held is what may stand in a oneof: the first word of the interface then, and the struct that the second points to.
type held struct {
	word   unsafe.Pointer
	holder reflect.Type
}

// holders are what may stand in the only oneof of a message of a type.
func holders(t reflect.Type) (all []held) {
	fields := reflect.Zero(reflect.PointerTo(t)).Interface().(proto.Message).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range fields.Len() { // each of them, by making one
		m := reflect.New(t)
		r := m.Interface().(proto.Message).ProtoReflect()
		r.Set(fields.Get(i), r.NewField(fields.Get(i)))
		for j := range t.NumField() {
			if f := m.Elem().Field(j); f.Kind() == reflect.Interface {
				all = append(all, held{wordsOf(f.Addr().UnsafePointer()).typ, f.Elem().Type().Elem()})
			}
		}
	}
	return all
}

// inside is what a oneof holds, nil for nothing.
func (k *link) inside(p unsafe.Pointer) (*layout, unsafe.Pointer) {
	w := wordsOf(unsafe.Add(p, k.offset))
	if w.p == nil {
		return nil, nil
	}
	return k.oneofs[k.oneofs.at(w.typ)].to, w.p
}

// walk visits a message and every message below it, depth first, while visit returns true.
func walk(m any, visit func(any) bool) {
	v := reflect.ValueOf(m)
	if l := layouts().messages[v.Type().Elem()]; !v.IsNil() {
		l.walk(v.UnsafePointer(), true, visit)
	}
}

// walkParts is walk of a tree that passes over nodes, which are whatever they hold, and names and numbers, which are parts of something: more
// than half of all messages.
func walkParts(n *pg.Node, visit func(any) bool) {
	if n != nil {
		layouts().node.walk(unsafe.Pointer(n), false, visit)
	}
}

func (l *layout) walk(p unsafe.Pointer, bare bool, visit func(any) bool) {
	if l.bare && !bare {
		l.below(p, bare, visit)
		return
	}
	var m any
	*(*words)(unsafe.Pointer(&m)) = words{l.word, p}
	if visit(m) {
		l.below(p, bare, visit)
	}
}

func (l *layout) below(p unsafe.Pointer, bare bool, visit func(any) bool) {
	for i := range l.links {
		k := &l.links[i]
		switch k.kind {
		case single:
			if q := *(*unsafe.Pointer)(unsafe.Add(p, k.offset)); q != nil {
				k.to.walk(q, bare, visit)
			}
		case many:
			for _, q := range *(*[]unsafe.Pointer)(unsafe.Add(p, k.offset)) {
				if q != nil {
					k.to.walk(q, bare, visit)
				}
			}
		case oneof:
			if in, q := k.inside(p); in != nil {
				in.below(q, bare, visit)
			}
		}
	}
}

// canonical is a text that is equal for equal expressions: the tree without its positions.
func canonical(n *pg.Node) string { return string(meaning(nil, n, false)) }

// meaning appends what a tree says, but for places in its text and, without spelling, how a call was spelt.
func meaning(b []byte, n *pg.Node, anySpelling bool) []byte {
	return layouts().node.meaning(b, unsafe.Pointer(n), anySpelling)
}

func (l *layout) meaning(b []byte, p unsafe.Pointer, anySpelling bool) []byte {
	b = binary.AppendUvarint(b, uint64(l.order)+2)
	for i := range l.plain {
		f := &l.plain[i]
		if f.location || anySpelling && f.spelling {
			continue
		}
		at := unsafe.Add(p, f.offset)
		switch f.kind {
		case reflect.String:
			s := *(*string)(at)
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		case reflect.Bool:
			b = append(b, *(*byte)(at))
		case reflect.Int32, reflect.Uint32:
			b = binary.AppendUvarint(b, uint64(*(*uint32)(at)))
		case reflect.Int64, reflect.Uint64, reflect.Float64:
			b = binary.AppendUvarint(b, *(*uint64)(at))
		case reflect.Slice: // of numbers, which no statement has before it is analysed
			b = binary.AppendUvarint(b, uint64(len(*(*[]byte)(at))))
		}
	}
	for i := range l.links {
		k := &l.links[i]
		switch k.kind {
		case single:
			b = k.to.meaningOf(b, *(*unsafe.Pointer)(unsafe.Add(p, k.offset)), anySpelling)
		case many:
			all := *(*[]unsafe.Pointer)(unsafe.Add(p, k.offset))
			b = binary.AppendUvarint(b, uint64(len(all)))
			for _, q := range all {
				b = k.to.meaningOf(b, q, anySpelling)
			}
		case oneof:
			in, q := k.inside(p)
			b = in.meaningOf(b, q, anySpelling)
		}
	}
	return b
}

func (l *layout) meaningOf(b []byte, p unsafe.Pointer, anySpelling bool) []byte {
	if p == nil {
		return append(b, 0)
	}
	return l.meaning(append(b, 1), p, anySpelling)
}
