package pool

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/loop"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// dial connects to a node. Where there is a password, pgconn does TLS and authentication and hands the raw
// connection over; a role of which only the keys are known logs in by itself.
func dial(ctx context.Context, p *Pool) (*Server, error) {
	cfg, err := pgconn.ParseConfig(p.key.dsn)
	if err != nil {
		return nil, fmt.Errorf("connection string of node %s cannot be read", p.Node) // the cause may hold the password
	}
	var keys auth.Keys
	if p.key.role != cfg.User {
		cfg.User = p.key.role
		cfg.Password = ""
		if p.mgr.Options().Password != nil {
			cfg.Password, _ = p.mgr.Options().Password(p.Database, p.key.role)
		}
		if cfg.Password == "" {
			keys = p.mgr.keysOf(p.Database, p.key.role)
		}
	}
	for k := range cfg.RuntimeParams {
		if k != "options" {
			delete(cfg.RuntimeParams, k)
		}
	}
	plain := p.mgr.Options().TCP.Dial
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := plain(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return loop.Adopt(nc), nil
	}
	cfg.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	ctx, cancel := context.WithTimeout(ctx, p.mgr.Options().ConnectTimeout)
	defer cancel()
	var s *Server
	if keys.Known() {
		s, err = dialWithKeys(ctx, cfg, keys)
	} else {
		s, err = dialWithPassword(ctx, cfg)
	}
	if err != nil {
		return nil, dialError(p, err)
	}
	_, s.tls = s.NetConn().(*tls.Conn)
	s.role = s.Params[userSetting]
	began := map[string]string{}
	for _, n := range Formats {
		began[n] = s.Params[n]
	}
	s.defaults = SettingsOf(began)
	s.Pool, s.settings, s.dialed, s.since = p, NoSettings, time.Now(), time.Now()
	addr := s.NetConn().RemoteAddr()
	s.addr = addr.String()
	s.cancelTo = func(ctx context.Context) (net.Conn, error) {
		return plain(ctx, addr.Network(), addr.String())
	}
	s.ForgetAll()
	return s, nil
}

func dialWithPassword(ctx context.Context, cfg *pgconn.Config) (*Server, error) {
	pc, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := pc.SyncConn(ctx); err != nil {
		return nil, err
	}
	h, err := pc.Hijack()
	if err != nil {
		return nil, err
	}
	return &Server{Conn: wire.New(h.Conn, maxMessage), PID: h.PID, key: h.SecretKey, TxStatus: h.TxStatus, Params: h.ParameterStatuses}, nil
}

// dialWithKeys connects and logs in by SCRAM with a client's keys in place of its password.
func dialWithKeys(ctx context.Context, cfg *pgconn.Config, keys auth.Keys) (*Server, error) {
	tries := append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	var errs []error
	for _, t := range tries {
		s, err := loginWithKeys(ctx, cfg, t, keys)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
		if refused(err) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// refused says whether a server would say the same to the next try, too, with TLS or without: wrong password, no such database, no privilege.
func refused(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == pgsql.InvalidPassword || pe.Code == pgsql.InvalidCatalogName || pe.Code == pgsql.InsufficientPrivilege)
}

func loginWithKeys(ctx context.Context, cfg *pgconn.Config, t *pgconn.FallbackConfig, keys auth.Keys) (s *Server, err error) {
	network, addr := pgconn.NetworkAddress(t.Host, t.Port)
	if network == "tcp" && net.ParseIP(t.Host) == nil {
		if ips, err := cfg.LookupFunc(ctx, t.Host); err == nil && len(ips) > 0 {
			_, addr = pgconn.NetworkAddress(strings.Trim(ips[0], "[]"), t.Port)
		}
	}
	plain, err := cfg.DialFunc(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		_ = plain.SetDeadline(d)
	}
	stop := whenDone(ctx, plain)
	defer func() {
		if e := stop(); err == nil && e != nil {
			err = e
		}
		if err == nil {
			err = plain.SetDeadline(time.Time{})
		}
		if err != nil {
			_ = plain.Close()
		}
	}()
	nc := plain
	if t.TLSConfig != nil {
		if nc, err = startTLS(plain, t.TLSConfig); err != nil {
			return nil, err
		}
	}
	c := wire.New(nc, maxMessage)
	params := map[string]string{"user": cfg.User, "database": cfg.Database}
	for k, v := range cfg.RuntimeParams {
		params[k] = v
	}
	c.Send(&wire.Startup{ProtocolVersion: wire.Version3, Parameters: params})
	if err := c.Flush(); err != nil {
		return nil, err
	}
	s = &Server{Conn: c, Params: map[string]string{}}
	if err := s.login(auth.NewClient(keys)); err != nil {
		return nil, err
	}
	return s, nil
}

// startTLS asks for TLS. The connection stays the caller's, who closes it after an error.
func startTLS(nc net.Conn, cfg *tls.Config) (net.Conn, error) {
	b := binary.BigEndian.AppendUint32(nil, 8)
	if err := wire.WriteAll(nc, binary.BigEndian.AppendUint32(b, wire.SSLCode)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := nc.Read(answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errors.New("server refused TLS connection")
	}
	return tls.Client(nc, cfg), nil
}

// login runs the exchange up to ReadyForQuery.
func (s *Server) login(scram *auth.Client) error {
	for {
		m, err := s.Next()
		if err != nil {
			return err
		}
		b := m.Body()
		switch m.Type {
		case 'R':
			if len(b) < 4 {
				return wire.ErrMalformed
			}
			var answer []byte
			switch kind := binary.BigEndian.Uint32(b); kind {
			case 0:
				continue
			case 10:
				if !strings.Contains("\x00"+string(b[4:]), "\x00"+auth.Mechanism+"\x00") {
					return errors.New("the server does not offer " + auth.Mechanism)
				}
				first := scram.First()
				answer = append([]byte(auth.Mechanism), 0)
				answer = append(binary.BigEndian.AppendUint32(answer, uint32(len(first))), first...)
			case 11:
				if answer, err = scram.Final(b[4:]); err != nil {
					return err
				}
			case 12:
				if err := scram.Verify(b[4:]); err != nil {
					return err
				}
				continue
			default:
				return fmt.Errorf("the server asks for authentication method %d, and of this role only the SCRAM keys are known: give it a server_password", kind)
			}
			s.SendFrame('p', answer)
			if err := s.Flush(); err != nil {
				return err
			}
		case 'E':
			e := wire.ParseError(b)
			return &pgconn.PgError{Severity: e.Severity, Code: e.Code, Message: e.Message, Hint: e.Hint, Detail: e.Detail}
		case 'S':
			s.NoteParam(b)
		case 'K':
			if len(b) < 8 {
				return wire.ErrMalformed
			}
			s.PID, s.key = binary.BigEndian.Uint32(b), append([]byte(nil), b[4:]...)
		case 'Z':
			if len(b) != 1 {
				return wire.ErrMalformed
			}
			s.TxStatus, s.owes = b[0], 0 // nothing was asked yet
			return nil
		}
	}
}
