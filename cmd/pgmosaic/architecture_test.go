package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"testing"
)

// What a reader can hold in the head. Whatever is larger stands in larger, with its size now: it may shrink, and not grow.
const (
	mostMethods = 60 // of a type
	mostFields  = 25 // of a struct
	mostLines   = 80 // of a function
	mostParams  = 6  // of a function
)

// larger are the exceptions: what it is, its size, and why it is so.
var larger = map[string]struct {
	size int
	why  string
}{
	"fields of proxy/config.Config":                           {83, "one for each key of the file"},
	"fields of proxy/metrics.Database":                        {31, "one for each counter"},
	"fields of router/sqlparse.Definition":                    {32, "a union of all definitions: becomes types of their own"},
	"fields of router/sqlparse.Query":                         {46, "a union of all queries: becomes types of their own"},
	"fields of router.Template":                               {46, "a union of all plans: becomes router/step"},
	"fields of proxy/pool.Server":                             {31, "its states are booleans: become one state with a table"},
	"fields of proxy/exec.Engine":                             {37, "becomes the rooms of exec"},
	"fields of proxy/exec.Handler":                            {61, "becomes the rooms of exec"},
	"methods of replication/reshard.Mover":                    {105, "each kind of move becomes a job of its own"},
	"methods of proxy/exec.Handler":                           {320, "becomes the rooms of exec"},
	"methods of proxy/wire.Conn":                              {67, "one for each message, and each way to read and write"},
	"methods of router.analysis":                              {150, "the proof becomes router/prove"},
	"lines of proxy/exec.Handler.answers":                     {102, "becomes exec/pipeline"},
	"lines of proxy/exec.Handler.bindMsg":                     {147, "becomes exec/pipeline"},
	"lines of proxy/exec.Handler.copyIn":                      {104, "becomes exec/run"},
	"lines of proxy/exec.Handler.writeMany":                   {88, "becomes exec/run"},
	"lines of router.analysis.query":                          {95, "becomes router/step"},
	"parameters of replication/reshard.Mover.distributeTable": {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.Mover.move":            {8, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.Mover.onlineTo":        {8, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.Mover.changePlacement": {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.Mover.Replace":         {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.Mover.schemaHome":      {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.Mover.takeHome":        {8, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.copyBetween":           {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.copyQuery":             {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.copyWhole":             {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of replication/reshard.placedAs":              {7, "each kind of move becomes a job, with what it is about as its fields"},
	"parameters of proxy/exec.Handler.ask":                    {7, "becomes exec/run"},
	"parameters of proxy/exec.Handler.askOne":                 {7, "becomes exec/run"},
	"parameters of proxy/exec.Handler.insertMany":             {7, "becomes exec/run"},
}

func TestNothingOutgrowsItsReader(t *testing.T) {
	t.Parallel()
	methods, seen := map[string]int{}, map[string]bool{}
	check := func(what string, size, most int) {
		x, listed := larger[what]
		switch {
		case listed && size <= most:
			t.Errorf("%s: %d, no more than %d: take it off the list", what, size, most)
		case listed && size > x.size:
			t.Errorf("%s: %d, and it was %d: it may not grow", what, size, x.size)
		case !listed && size > most:
			t.Errorf("%s: %d, more than %d", what, size, most)
		}
		seen[what] = true
	}
	sources(t, func(path string, set *token.FileSet, f *ast.File) {
		dir := filepath.ToSlash(filepath.Dir(path))
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := dir + "." + d.Name.Name
				if d.Recv != nil {
					owner := dir + "." + receiver(d.Recv.List[0].Type)
					methods[owner]++
					name = owner + "." + d.Name.Name
				}
				check("lines of "+name, set.Position(d.End()).Line-set.Position(d.Pos()).Line+1, mostLines)
				check("parameters of "+name, d.Type.Params.NumFields(), mostParams)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok {
						if st, ok := ts.Type.(*ast.StructType); ok {
							check("fields of "+dir+"."+ts.Name.Name, st.Fields.NumFields(), mostFields)
						}
					}
				}
			}
		}
	})
	for owner, n := range methods {
		check("methods of "+owner, n, mostMethods)
	}
	for what := range larger {
		if !seen[what] {
			t.Errorf("%s: it does not exist", what)
		}
	}
}

// receiver is the name of a method's type.
func receiver(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	panic(fmt.Sprintf("a receiver of type %T", x))
}
