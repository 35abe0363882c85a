package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// CREATE GROUP, ALTER GROUP, PIN KEY and UNPIN KEY: which shard owns which key.

// values reads (a, b, ..): constants, as text.
func (p *parser) values() []string {
	p.mustPunct("(")
	var out []string
	for {
		t := p.peek()
		if t.kind != 's' && t.kind != 'n' && !(t.kind == 'w' && (t.text == "true" || t.text == "false")) {
			p.fail("syntax error at %s: a value was expected", p.near())
		}
		p.next()
		out = append(out, t.text)
		if !p.punct(",") {
			break
		}
	}
	p.mustPunct(")")
	return out
}

// typeList reads (type, type): names of types may have several words and a modifier.
func (p *parser) typeList() []string {
	p.mustPunct("(")
	var out, words []string
	for depth := 0; ; {
		t := p.next()
		switch {
		case t.kind == 0:
			p.fail("syntax error at %s: \")\" was expected", p.near())
		case depth == 0 && (t.text == ")" || t.text == ",") && t.kind == 'p':
			out, words = append(out, strings.Join(words, " ")), nil
			if t.text == ")" {
				return out
			}
		case t.text == "(":
			depth++
		case t.text == ")":
			depth--
		case depth == 0:
			words = append(words, t.text)
		}
	}
}

// placement is what CREATE GROUP says behind BY.
type placement struct {
	group  shardmap.Group
	shards []string // of hash
	ranges []shardmap.Range
	lists  []shardmap.List
}

func (a *Admin) parseCreateGroup(p *parser) action {
	name := p.name("group")
	p.must("in")
	db := p.name("database")
	p.must("key")
	pl := placement{group: shardmap.Group{Database: db, Name: name, Scheme: shardmap.ByHash, Keys: p.typeList()}}
	if p.word("by") {
		switch {
		case p.word("range"):
			pl.group.Scheme, pl.ranges = shardmap.ByRange, p.ranges()
		case p.word("list"):
			pl.group.Scheme, pl.lists = shardmap.ByList, p.lists()
		case !p.word("hash"):
			p.fail("syntax error at %s: HASH, RANGE or LIST was expected", p.near())
		}
	}
	if pl.group.Scheme == shardmap.ByHash && p.word("on") {
		p.mustPunct("(")
		for {
			pl.shards = append(pl.shards, p.name("shard"))
			if !p.punct(",") {
				break
			}
		}
		p.mustPunct(")")
	}
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		defer a.Alone()()
		d, err := a.Database(db)
		if err != nil {
			return nil, err
		}
		if d.Groups[name] != nil {
			return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("group %q of database %q already exists", name, db)}
		}
		if len(pl.shards) == 0 {
			for _, s := range d.Shards {
				pl.shards = append(pl.shards, s.Name)
			}
		}
		if len(pl.shards) == 0 {
			return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("database %q has no shard", db), Hint: "CREATE SHARD first."}
		}
		return answer("CREATE GROUP", dry)(a.Change(ctx, "CREATE GROUP", dry, d, func(tx *shardmap.Tx) error {
			if err := tx.PutGroup(pl.group); err != nil {
				return err
			}
			switch pl.group.Scheme {
			case shardmap.ByRange:
				return tx.SetRanges(db, name, pl.ranges)
			case shardmap.ByList:
				return tx.SetLists(db, name, pl.lists)
			case shardmap.ByHash, shardmap.ByTenant: // slots
			}
			return tx.SetSlots(db, name, shardmap.SpreadSlots(pl.shards))
		}))
	}
}

// ranges reads (MINVALUE TO (..) ON s1, (..) TO MAXVALUE ON s2). Each begins where the one before it ends.
func (p *parser) ranges() []shardmap.Range {
	p.mustPunct("(")
	if !p.word("minvalue") {
		p.fail("syntax error at %s: the first range begins with MINVALUE", p.near())
	}
	var out []shardmap.Range
	var from []string
	for {
		p.must("to")
		var to []string
		last := p.word("maxvalue")
		if !last {
			to = p.values()
		}
		p.must("on")
		out = append(out, shardmap.Range{From: from, Shard: p.name("shard")})
		if last {
			break
		}
		p.mustPunct(",")
		at := p.peek().pos
		if from = p.values(); !slices.Equal(from, to) {
			panic(&pgsql.Error{
				Code: pgsql.InvalidObjectDefinition, Pos: at, Message: fmt.Sprintf("a range begins at (%s) where the one before it ends at (%s)", strings.Join(from, ", "), strings.Join(to, ", ")),
				Hint: "Give the ranges in ascending order, without gaps: each begins with the end of the one before it.",
			})
		}
	}
	p.mustPunct(")")
	return out
}

// lists reads (('a', 'b') ON s1, ('c') ON s2, DEFAULT ON s1).
func (p *parser) lists() []shardmap.List {
	p.mustPunct("(")
	var out []shardmap.List
	for {
		var l shardmap.List
		if l.Default = p.word("default"); !l.Default {
			l.Values = p.values()
		}
		p.must("on")
		l.Shard = p.name("shard")
		out = append(out, l)
		if !p.punct(",") {
			break
		}
	}
	p.mustPunct(")")
	return out
}

func (a *Admin) parseAlterGroup(p *parser) action {
	name := p.name("group")
	p.must("in")
	db := p.name("database")
	switch {
	case p.words("split", "at"):
		at := p.values()
		dry := p.dryRun()
		return func(ctx context.Context) (*Result, error) {
			return answer("ALTER GROUP", dry)(a.Replace(ctx, "ALTER GROUP", db, name, dry, nil, func(p *shardmap.PlacementInfo, tx *shardmap.Tx) error { return splitRange(p, tx, db, at) }))
		}
	case p.words("add", "values"):
		vals := p.values()
		p.must("on")
		shard := p.name("shard")
		dry := p.dryRun()
		var keys [][]string
		for _, v := range vals {
			keys = append(keys, []string{v})
		}
		return func(ctx context.Context) (*Result, error) {
			return answer("ALTER GROUP", dry)(a.Replace(ctx, "ALTER GROUP", db, name, dry, keys, func(p *shardmap.PlacementInfo, tx *shardmap.Tx) error {
				if p.Group.Scheme != shardmap.ByList {
					return wrongScheme(p.Group, shardmap.ByList)
				}
				return tx.SetLists(db, name, append(slices.Clone(p.Lists), shardmap.List{Values: vals, Shard: shard}))
			}))
		}
	}
	p.fail("syntax error at %s: SPLIT AT or ADD VALUES was expected", p.near())
	return nil
}

func wrongScheme(g *shardmap.GroupInfo, want shardmap.Scheme) error {
	return &pgsql.Error{Code: pgsql.WrongObjectType, Message: fmt.Sprintf("group %q is placed by %s, not by %s", g.Name, g.Scheme, want), Hint: "SHOW GROUPS shows the scheme of each group."}
}

// splitRange cuts a range in two, both on the shard that has it.
func splitRange(p *shardmap.PlacementInfo, tx *shardmap.Tx, db string, at []string) error {
	if p.Group.Scheme != shardmap.ByRange {
		return wrongScheme(p.Group, shardmap.ByRange)
	}
	i, err := p.RangeOf(at)
	if err != nil {
		return err
	}
	return tx.SetRanges(db, p.Group.Name, slices.Insert(slices.Clone(p.Ranges), i+1, shardmap.Range{From: at, Shard: p.Ranges[i].Shard}))
}

// keyRef reads KEY's (value, ..) OF database.group.
func (p *parser) keyRef() (key []string, db, group string) {
	key = p.values()
	p.must("of")
	db = p.name("database")
	p.mustPunct(".")
	return key, db, p.name("group")
}

func (a *Admin) parsePin(p *parser) action {
	key, db, group := p.keyRef()
	p.must("on")
	shard := p.name("shard")
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		return answer("PIN KEY", dry)(a.Replace(ctx, "PIN KEY", db, group, dry, [][]string{key}, func(p *shardmap.PlacementInfo, tx *shardmap.Tx) error {
			return tx.SetPins(db, group, append(slices.Clone(p.Pins), shardmap.Pin{Key: key, Shard: shard}))
		}))
	}
}

func (a *Admin) parseUnpin(p *parser) action {
	key, db, group := p.keyRef()
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) {
		return answer("UNPIN KEY", dry)(a.Replace(ctx, "UNPIN KEY", db, group, dry, [][]string{key}, func(p *shardmap.PlacementInfo, tx *shardmap.Tx) error {
			i, err := p.PinOf(key)
			if err != nil {
				return err
			}
			if i < 0 {
				return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("key (%s) of group %q is not pinned", strings.Join(key, ", "), group), Hint: "SHOW KEYS lists the pinned ones."}
			}
			return tx.SetPins(db, group, slices.Delete(slices.Clone(p.Pins), i, i+1))
		}))
	}
}
