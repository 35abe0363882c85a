package exec

import (
	"encoding/hex"
	"strings"
	"unsafe"

	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// observing is a handler as what observes its requests sees it.
type observing Handler

var _ observe.Places = (*observing)(nil)

// Shard implements observe.Places.
func (o *observing) Shard(i int) string {
	if i >= len(o.shards.Infos) {
		return ""
	}
	return o.shards.Name(i)
}

// Node implements observe.Places.
func (o *observing) Node(shard, i int) string {
	if v := o.shards.At(shard).View(); i < 0 && v != nil {
		i = v.Primary
	}
	if nodes := o.shards.Infos[shard].Nodes; i >= 0 && i < len(nodes) {
		return nodes[i].Name
	}
	return ""
}

// Parameters prints the parameters of the request's Bind; of several it is not known whose they are.
func (o *observing) Parameters() string {
	if o.request.Binds != 1 || o.ext.bound == nil {
		return ""
	}
	var out []string
	a := &o.ext.bound.args
	for i, v := range a.Params {
		switch {
		case v == nil:
			out = append(out, "NULL")
		case formatOf(a.Formats, i) == 1:
			out = append(out, `\x`+hex.EncodeToString(v[:min(len(v), 64)]))
		default:
			out = append(out, pgsql.Literal(string(v[:min(len(v), 200)])))
		}
	}
	return strings.Join(out, ", ")
}

// bytesOf is a text as bytes, which are only read.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
