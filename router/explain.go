package router

import (
	"cmp"
	"fmt"
	"strings"
)

// Lines prints a plan as EXPLAIN (ROUTE) and the golden files show it.
func (p *Plan) Lines() []string {
	names := make([]string, len(p.Shards))
	for i, s := range p.Shards {
		names[i] = p.DB.Shards[s].Name
	}
	shards := strings.Join(names, " ")
	if p.Class == Control {
		return []string{"Local"}
	}
	if p.Class == Explained {
		return []string{"Explain on each shard of: " + strings.TrimSpace(p.Inner.Stmt.Text)}
	}
	if p.Any {
		return []string{"Single on any shard (reference tables only)", p.readLine()}
	}
	if len(p.Shards) == 1 && p.Class != Copy && p.Class != Moved && p.Class != Rekey && !(p.Class == Write && p.Ref) {
		how := "by key"
		if p.Home {
			how = "home"
		}
		return []string{fmt.Sprintf("Single on %s (%s)", shards, how), p.readLine()}
	}
	out := []string{fmt.Sprintf("%s on %s", p.Class, shards)}
	switch p.Class {
	case Gathered:
		out[0] = fmt.Sprintf("Gather on %s (%s: %s)", p.DB.Home.Name, p.Gather.Why.Rule, p.Gather.Why.Message)
		out = append(out, p.copies()...)
	case Rekey:
		if r, ok := p.Rekeyed(p.Stmt.Text); ok {
			out = append(out, "  Delete: "+strings.ReplaceAll(r.Delete, "\n", " "), "  Insert where it belongs: "+r.Insert)
		}
	case Moved:
		out[0] = fmt.Sprintf("Move rows made on %s to %s", p.DB.Home.Name, shards)
		out = append(out, p.copies()...)
	case Scatter:
		m := p.Merge
		out = append(out, "  Shard: "+m.SQL, "  Merge: "+m.describe(), p.readLine())
	case Split:
		out[0] += fmt.Sprintf(" (%d rows)", len(p.Rows))
	case Write:
		if p.Ref {
			out[0] += " (every copy, home first)"
		}
		if p.NoTx {
			out[0] += " (one after the other)"
		}
	case Control, Single, Copy, Explained: // the first line says it all
	}
	if p.Shares != nil {
		out = append(out, fmt.Sprintf("  Keys: each shard is sent its own of the %d", len(p.Shares.of)))
	}
	return out
}

// copies prints what is copied and what runs on it.
func (p *Plan) copies() (out []string) {
	run := p.Gather.SQL
	for i := range p.Gather.Loads {
		l := &p.Gather.Loads[i]
		what := "  Copy: "
		if l.Part != nil {
			what = "  Part: "
			run = l.Stands(run, l.Part.Final, "")
		}
		out = append(out, what+l.SQL+"  ["+strings.Join(p.loadNames(l), " ")+"]")
	}
	return append(out, "  Run: "+run)
}

func (p *Plan) loadNames(l *Load) []string {
	shards, err := l.Shards(p.Template, cmp.Or(p.by, p.DB), &Args{Text: []byte(p.Stmt.Text)})
	if err != nil {
		return []string{"by parameter values"}
	}
	names := make([]string, len(shards))
	for i, s := range shards {
		names[i] = p.DB.Shards[s].Name
	}
	return names
}

func (p *Plan) readLine() string {
	if p.Read {
		return "  Read: a fresh replica may answer"
	}
	return "  Primary only"
}

func (m *Merge) describe() string {
	var parts []string
	switch m.Mode {
	case Aggregate:
		for i, c := range m.Cols {
			f := c.Func
			if f == "" {
				f = "group"
			}
			parts = append(parts, fmt.Sprintf("%d=%s", i+1, f))
		}
	default:
	}
	for _, s := range m.Sorts {
		dir := "asc"
		if s.Desc {
			dir = "desc"
		}
		if s.NullsFirst {
			dir += " nulls first"
		}
		parts = append(parts, fmt.Sprintf("order(%d %s)", s.Column+1, dir))
	}
	if m.Limit != nil {
		parts = append(parts, "limit")
	}
	if m.Offset != nil {
		parts = append(parts, "offset")
	}
	return strings.TrimSpace(m.Mode.String() + " " + strings.Join(parts, " "))
}
