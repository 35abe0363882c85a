package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

const probeSQL = `select not r, (select system_identifier::text from pg_control_system()), (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
  case when r then coalesce((select received_tli from pg_stat_wal_receiver), (select timeline_id from pg_control_checkpoint()))
       else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end,
  case when r then coalesce(pg_last_wal_replay_lsn(), '0/0') else pg_current_wal_insert_lsn() end - '0/0'::pg_lsn,
  coalesce(case when r then pg_last_wal_receive_lsn() end, '0/0') - '0/0'::pg_lsn,
  case when r then pg_is_wal_replay_paused() else false end
  from (select pg_is_in_recovery() as r) s`

const probeColumns = 7

func (m *Monitor) probeLoop(ctx context.Context, w *watch, n *nodeWatch) {
	p := prober{dsn: n.DSN, expect: n.expect, means: &n.means, limit: max(m.policy.MaxAge, 500*time.Millisecond)}
	defer p.close()
	tick := time.NewTicker(m.policy.Interval)
	defer tick.Stop()
	for {
		s := p.inTurn(ctx, m.dials)
		if ctx.Err() != nil {
			return
		}
		m.observe(w, n, s)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// prober asks one node over a connection of its own. A probe is one prepared statement: with a context, or a query of pgx,
// watching many nodes would cost twice as much.
type prober struct {
	dsn    string
	limit  time.Duration // of one probe
	expect *atomic.Pointer[shardmap.Expected]
	means  *atomic.Pointer[func(addr string) bool]
	conn   *pgconn.PgConn
	addr   string
	says   shardmap.Identity // whose database it says it is
	asked  time.Time         // when it was asked that
}

// askAgain is how often a node is asked whose its database is: it may be restored, or adopted, beside a connection.
const askAgain = time.Second

func (p *prober) close() {
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.limit)
		defer cancel()
		_ = p.conn.Close(ctx)
		p.conn, p.asked = nil, time.Time{}
	}
}

// dialsAtOnce is how many nodes the monitor connects to at a time. A login takes work on both sides: of a thousand at once none may end
// before its time is over, and so on with the next try. A node that says nothing keeps one up for as long as a probe lasts.
const dialsAtOnce = 64

// moved says whether the node's name leads elsewhere than the connection, where its old server may live on.
func (p *prober) moved() bool {
	means := p.means.Load()
	return p.conn != nil && means != nil && !(*means)(p.addr)
}

// inTurn probes, and waits for a turn first if that takes a connection. The wait is not the node's.
func (p *prober) inTurn(ctx context.Context, dials chan struct{}) Sample {
	if p.moved() {
		p.close()
	}
	if p.conn == nil {
		select {
		case dials <- struct{}{}:
			defer func() { <-dials }()
		case <-ctx.Done():
			return Sample{}
		}
	}
	return p.probe(ctx)
}

// probe asks once, connecting if need be.
func (p *prober) probe(ctx context.Context) (s Sample) {
	s.Sent = time.Now()
	fail := func(err error) Sample {
		p.close()
		s.Err = plain(err)
		var pe *pgconn.PgError
		var timeout net.Error
		s.Slow = errors.As(err, &timeout) && timeout.Timeout()
		s.Alive = errors.As(err, &pe) && !strings.HasPrefix(pe.Code, "57P0") // shutting down, starting up, crashed
		return s
	}
	if p.conn == nil {
		if err := p.connect(ctx); err != nil {
			return fail(err)
		}
		s.Sent, s.First = time.Now(), true
	}
	if err := p.conn.Conn().SetDeadline(s.Sent.Add(p.limit)); err != nil {
		return fail(err)
	}
	if e := p.expect.Load(); e.Any() {
		if s.Sent.Sub(p.asked) > askAgain {
			var err error
			if p.says, err = nodeconn.Identify(context.Background(), p.conn); err != nil {
				return fail(err)
			}
			p.asked = s.Sent
		}
		if s.Err = e.Judge(p.says); s.Err != nil {
			return s
		}
	}
	r := p.conn.ExecPrepared(context.Background(), "probe", nil, nil, nil).Read()
	if r.Err != nil {
		return fail(r.Err)
	}
	if len(r.Rows) != 1 || len(r.Rows[0]) != probeColumns {
		return fail(probeError("it answers strangely"))
	}
	var bad error
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(string(r.Rows[0][i]), 10, 64)
		bad = errors.Join(bad, err)
		return n
	}
	s.Primary, s.SystemID, s.Paused = string(r.Rows[0][0]) == "t", string(r.Rows[0][1]), string(r.Rows[0][6]) == "t"
	s.Started, s.Timeline, s.LSN, s.Received = time.UnixMicro(int64(number(2))), uint32(number(3)), LSN(number(4)), LSN(number(5))
	if bad != nil {
		return fail(probeError("it answers strangely"))
	}
	if s.Err = p.expect.Load().JudgeSystem(s.SystemID); s.Err != nil {
		return s
	}
	s.Alive, s.Addr = true, p.addr
	if s.Primary {
		s.LSN = s.LSN.Round()
	}
	return s
}

func (p *prober) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	var err error
	if p.conn, err = nodeconn.OpenRaw(ctx, p.dsn, nodeconn.Monitor, nodeconn.Unasked("each probe asks, once a second"), nil); err != nil {
		return err
	}
	p.addr = p.conn.Conn().RemoteAddr().String()
	_, err = p.conn.Prepare(ctx, "probe", probeSQL, nil)
	return err
}

// probeError is a failure that is not the connection's.
type probeError string

func (e probeError) Error() string { return string(e) }

// plain shortens a connection error to what an operator needs; it never holds a password.
func plain(err error) error {
	var pe *pgconn.PgError
	var ne *net.OpError
	var own probeError
	var timeout net.Error
	switch {
	case errors.As(err, &pe):
		return fmt.Errorf("%s (%s)", pe.Message, pe.Code)
	case errors.As(err, &own):
		return own
	case errors.Is(err, nodeconn.ErrString):
		return nodeconn.ErrString
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	case errors.As(err, &ne):
		return ne.Err
	}
	return errors.New("the connection was lost")
}
