package branch

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// postgres is as much of PostgreSQL as a branch speaks to: transactions, and the two phases of their commit.
type postgres struct {
	dies    int               // behind so many statements: before the last one is run, or behind it
	behind  bool              // which of them
	refuses map[string]string // SQLSTATEs of statements that fail, by how they begin

	mu        sync.Mutex // guards the rest
	ran       []string
	status    byte // I, T or E
	prepared  bool
	committed bool
	gone      chan struct{} // closed when it has ended
}

// server is a connection to it, of a pool of its own.
func (p *postgres) server(t *testing.T) *pool.Server {
	t.Helper()
	ours, theirs := net.Pipe()
	p.status, p.gone = 'I', make(chan struct{})
	go func() {
		defer close(p.gone)
		p.serve(wire.New(theirs, 1<<20))
		_ = theirs.Close()
	}()
	t.Cleanup(func() {
		_ = ours.Close()
		<-p.gone
	})
	of := pool.NewManager(pool.Options{Verify: pool.Unasked("a test")}).Pool("shop", "s1", "s1-a", "host=node.test", "app")
	return &pool.Server{Conn: wire.New(ours, 1<<20), Pool: of, Params: map[string]string{}, TxStatus: 'I'}
}

// serve answers until the client goes, or it is time to die.
func (p *postgres) serve(c *wire.Conn) {
	sql, skipping := "", false
	for {
		m, err := c.Next()
		if err != nil {
			return
		}
		lives := true
		switch {
		case m.Type == 'S':
			skipping = false
			c.SendFrame('Z', []byte{p.at()})
			lives = c.Flush() == nil
		case m.Type == 'H':
			lives = c.Flush() == nil
		case m.Type == 'Q':
			if _, lives = p.run(c, strings.TrimRight(string(m.Body()), "\x00")); lives {
				c.SendFrame('Z', []byte{p.at()})
				lives = c.Flush() == nil
			}
		case skipping:
		case m.Type == 'P':
			sql = strings.Split(string(m.Body()), "\x00")[1]
			c.SendFrame('1', nil)
		case m.Type == 'B':
			c.SendFrame('2', nil)
		case m.Type == 'E':
			var ok bool
			ok, lives = p.run(c, sql)
			skipping = !ok
		}
		if !lives {
			return
		}
	}
}

func (p *postgres) at() byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// truth is what became of it.
func (p *postgres) truth() (status byte, prepared, committed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, p.prepared, p.committed
}

// run runs a statement; lives says that it has not died over it.
func (p *postgres) run(c *wire.Conn, sql string) (ok, lives bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ran = append(p.ran, sql)
	dies := p.dies > 0 && len(p.ran) == p.dies
	if dies && !p.behind {
		p.end(false)
		return false, false
	}
	tag, code := p.does(sql)
	switch {
	case code != "":
		if p.status == 'T' {
			p.status = 'E'
		}
		c.SendFrame('E', []byte("SERROR\x00VERROR\x00C"+code+"\x00Mit is refused\x00\x00"))
	default:
		c.SendFrame('C', []byte(tag+"\x00"))
	}
	if dies {
		p.end(false)
		return false, false
	}
	return code == "", true
}

// end ends its transaction.
func (p *postgres) end(commit bool) {
	p.committed = p.committed || commit && p.status == 'T'
	p.status = 'I'
}

// does is what a statement does, and its tag, or how it fails.
func (p *postgres) does(sql string) (tag, code string) {
	for begins, code := range p.refuses {
		if strings.HasPrefix(sql, begins) {
			if sql == "COMMIT" { // a deferred constraint
				p.end(false)
			}
			return "", code
		}
	}
	verb, rest, _ := strings.Cut(sql, " ")
	switch {
	case verb == "BEGIN" && p.status == 'I':
		p.status = 'T'
		return "BEGIN", ""
	case verb == "ROLLBACK" && strings.HasPrefix(rest, "PREPARED"), verb == "COMMIT" && strings.HasPrefix(rest, "PREPARED"):
		switch {
		case p.status != 'I':
			return "", "25001"
		case !p.prepared:
			return "", "42704"
		}
		p.prepared, p.committed = false, verb == "COMMIT"
		return verb + " PREPARED", ""
	case verb == "ROLLBACK", verb == "COMMIT" && p.status == 'E', verb == "PREPARE" && p.status == 'E':
		p.end(false)
		return "ROLLBACK", ""
	case verb == "COMMIT":
		p.end(true)
		return "COMMIT", ""
	case p.status == 'E':
		return "", "25P02"
	case verb == "PREPARE" && p.status == 'T':
		p.status, p.prepared = 'I', true
		return "PREPARE TRANSACTION", ""
	case verb == "PREPARE":
		return "", "25P01"
	}
	return "SELECT 1", ""
}

// refuse has what begins so fail from now on.
func (p *postgres) refuse(begins, code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = map[string]string{begins: code}
}
