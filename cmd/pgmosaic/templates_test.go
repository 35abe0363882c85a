package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// templates are demos that were made by statements, without replicas, and stopped: tests' demos are copies of their servers' files. That takes
// a fifth of the time. Copies are systems of their own, as PostgreSQL sees it, of one installation.
var templates sync.Map // of shape to func() (*template, error)

// shape is what demos of one template have in common.
type shape struct {
	shards, customers, orders int
	empty                     bool
}

type template struct {
	cluster *cluster.Cluster
	store   *filestore.Store
}

// templateFor is the template of demos like this one.
func templateFor(o showcase.Options) (*template, error) {
	s := shape{o.Shards, o.Customers, o.Orders, o.NoLoad}
	f, _ := templates.LoadOrStore(s, sync.OnceValues(func() (*template, error) { return makeTemplate(o) }))
	made, err := f.(func() (*template, error))()
	if err != nil { // one that does not start in time is no reason to start no other
		templates.Delete(s)
	}
	return made, err
}

func makeTemplate(o showcase.Options) (*template, error) {
	dir, err := testDir()
	if err != nil {
		return nil, err
	}
	o.Dir, o.Replicas = dir, 0
	d, err := showcase.Start(context.Background(), o, &bytes.Buffer{}) // a test that ends takes no template of others with it
	if err != nil {
		return nil, err
	}
	if err := d.Stop(); err != nil {
		return nil, err
	}
	return &template{d.Cluster, demoStore(o)}, nil
}

func demoStore(o showcase.Options) *filestore.Store {
	return filestore.New(filepath.Join(o.Dir, "map.json"))
}

// copyTo lays a demo's folder out as one that was stopped has left it.
func (t *template) copyTo(ctx context.Context, o showcase.Options) (err error) {
	servers := o.Servers
	servers.Dir = filepath.Join(o.Dir, "nodes")
	cl, err := cluster.Open(ctx, servers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	doc, err := t.store.Load(ctx)
	if err != nil {
		return err
	}
	systems := map[string]string{}
	var nodes []*shardmap.Node
	for _, n := range doc.Nodes {
		primary, err := cl.Copy(t.cluster.Node(n.Name))
		if err != nil {
			return err
		}
		if systems[n.Shard], err = primary.System(); err != nil {
			return err
		}
		n.DSN = primary.DSN(n.Database)
		nodes = append(nodes, n)
		for r := range o.Replicas {
			replica, err := cl.Replica(ctx, primary, fmt.Sprintf("%s-%c", n.Shard, 'b'+r), 0)
			if err != nil {
				return err
			}
			nodes = append(nodes, &shardmap.Node{Database: n.Database, Shard: n.Shard, Name: replica.Name, DSN: replica.DSN(n.Database), Ordinal: n.Ordinal + r + 1})
		}
	}
	doc.Nodes = nodes
	for _, s := range doc.Shards {
		s.System = systems[s.Name]
	}
	return demoStore(o).Save(ctx, 0, doc)
}

// startCopy starts a demo that is a copy of its template. As in one that was made by statements, its replicas stream and serve.
func startCopy(ctx context.Context, o showcase.Options) (*demo, error) {
	t, err := templateFor(o)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	if err := t.copyTo(ctx, o); err != nil {
		return nil, err
	}
	d, err := startDemo(ctx, o, &bytes.Buffer{})
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); !d.serves(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return nil, errors.Join(errors.New("the demo's servers do not all serve within a minute"), d.stop())
		}
	}
	return d, nil
}

// serves says whether each node of the shop serves.
func (d *demo) serves() bool {
	for _, s := range d.Catalog.Current().Document.Shards {
		v := d.Monitor.View(s.Database, s.Name)
		if v == nil || !v.Up() {
			return false
		}
		for i := range v.Nodes {
			if !v.Nodes[i].Primary && v.Nodes[i].Verdict.Health != replication.Eligible {
				return false
			}
		}
	}
	return true
}
