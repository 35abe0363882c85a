package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// heldBy is what a table's key columns make of the values that they are given, by the length or precision that they are declared with; nil
// where all are kept as they are.
func heldBy(t *schema.Table, info *shardmap.TableInfo) (out []pghash.Declared) {
	if t == nil {
		return nil
	}
	for i, k := range info.Keys {
		c, _ := t.Column(k)
		if c == nil {
			continue
		}
		if d := pghash.ParseDeclared(c.Type); d != (pghash.Declared{}) {
			if out == nil {
				out = make([]pghash.Declared, len(info.Keys))
			}
			out[i] = d
		}
	}
	return out
}

// keepsKeys says whether a table of the same group holds keys of another as these are.
func keepsKeys(a *analysis, from, into *shardmap.TableInfo) bool {
	held := heldBy(a.sch.Tables[into.TableName], into)
	return held == nil || slices.Equal(held, heldBy(a.sch.Tables[from.TableName], from))
}

// HeldKeys is what the key columns of the table that is written make of values: see heldBy. It is nil where these stay as they are.
func HeldKeys(t *Template) []pghash.Declared {
	return heldBy(t.Schema.Tables[t.Target.TableName], t.Target)
}
