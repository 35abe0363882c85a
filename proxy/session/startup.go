package session

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sort"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// start takes the connection from its first byte to ReadyForQuery.
func (s *Session) start(ctx context.Context) error {
	_ = s.conn.SetDeadline(time.Now().Add(s.cfg.LoginTimeout))
	code, body, err := s.negotiate(ctx)
	if err != nil {
		return s.malformed(err)
	}
	params, minor, err := wire.ParseStartup(code, body)
	if err != nil {
		return s.fatal(&pgsql.Error{Code: pgsql.ProtocolViolation, Message: err.Error()})
	}
	if err := s.identify(params, minor); err != nil {
		return s.fatal(err)
	}
	if err := s.room(false); err != nil {
		return s.fatal(err)
	}
	panics.Point("login")
	s.to(Authenticating)
	if err := s.authenticate(ctx); err != nil {
		return err
	}
	if err := s.room(true); err != nil {
		return s.fatal(err)
	}
	_ = s.conn.SetDeadline(time.Time{})
	h, report, err := s.cfg.Backend.Open(ctx, s.login, Client{s.conn, s.key.PID, s.Wake, s.over})
	if err != nil {
		return s.fatal(err)
	}
	s.handler = h
	s.mu.Lock()
	s.opened = h
	s.mu.Unlock()
	names := make([]string, 0, len(report))
	for n := range report {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		s.conn.SendFrame('S', []byte(n+"\x00"+report[n]+"\x00"))
	}
	key := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, s.key.PID), s.key.Secret)
	s.conn.SendFrame('K', key)
	s.conn.SendReady('I')
	s.to(Ready)
	if s.draining.Load() || s.doomed.Load() != nil { // told so before it could be woken
		s.wake()
	}
	return nil
}

// room asks whether there is room for the client.
func (s *Session) room(loggedIn bool) error {
	if s.cfg.Room == nil {
		return nil
	}
	return s.cfg.Room(s, s.cfg.Backend.Admin(s.login), loggedIn)
}

// malformed tells the client that it did not begin as a client does. Other errors mean that it is gone.
func (s *Session) malformed(err error) error {
	if !errors.Is(err, wire.ErrMalformed) {
		return err
	}
	e := &pgsql.Error{Code: pgsql.ProtocolViolation, Message: "invalid length of startup packet"}
	switch {
	case errors.Is(err, errNoHeader):
		e.Message = fmt.Sprintf("connections from %s must begin with a PROXY protocol header", s.login.Remote.Addr().Unmap())
		e.Hint = "Connect through the balancer, or take the address out of proxy_protocol."
	case errors.Is(err, errHeader):
		e.Hint = "A PROXY protocol header is taken from the addresses of proxy_protocol only."
	}
	_ = s.fatal(e)
	return fmt.Errorf("%s: %w", e.Message, err)
}

// What is amiss with PROXY protocol headers.
var (
	errNoHeader = errors.New("no header")
	errHeader   = errors.New("a header, from an address that is not in proxy_protocol")
)

// behind reads the PROXY protocol header of a connection that must have one: from then on the session is its client's. Whose
// connection has none, the balancer's own for instance, is who it is.
func (s *Session) behind() error {
	from := s.login.Remote.Addr().Unmap()
	if s.cfg.Proxied == nil || !from.IsValid() || !s.cfg.Proxied(from) {
		if b, err := s.conn.FirstByte(); err == nil && wire.StartsProxyHeader(b) {
			return fmt.Errorf("%w: %w", wire.ErrMalformed, errHeader)
		}
		return nil // what it is, or that it is gone, shows in what follows
	}
	h, err := s.conn.ReadProxyHeader()
	switch {
	case errors.Is(err, io.EOF):
		return errGone
	case errors.Is(err, wire.ErrMalformed):
		return fmt.Errorf("%w: %w", errNoHeader, err)
	case err != nil:
		return err
	}
	if h.Remote.IsValid() {
		s.mu.Lock()
		s.login.Remote, s.login.Local = h.Remote, h.Local
		s.mu.Unlock()
	}
	return nil
}

// ignoreEOF drops the errors of connections that come and go without a word.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// errGone ends a session that never began: the peer left, or only carried a cancel request.
var errGone = fmt.Errorf("no startup packet: %w", io.EOF)

// negotiate answers requests for encryption and returns the startup packet proper.
func (s *Session) negotiate(context.Context) (code uint32, body []byte, err error) {
	if err := s.behind(); err != nil {
		return 0, nil, err
	}
	triedTLS, triedGSS := false, false
	if b, err := s.conn.FirstByte(); err == nil && b == tlsHandshake {
		if err := s.directTLS(); err != nil {
			return 0, nil, err
		}
		triedTLS, triedGSS = true, true
	}
	for {
		code, body, err = s.conn.ReadStartup()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, wire.ErrMalformed) { // no startup packet, perhaps Terminate: PostgreSQL is as silent
				err = errGone
			}
			return 0, nil, err
		}
		switch code {
		case wire.CancelCode:
			if len(body) != 8 {
				return 0, nil, errGone
			}
			return 0, nil, CancelRequest{Key{binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])}}
		case wire.GSSCode:
			if triedGSS || s.conn.Pending() > 0 {
				return 0, nil, fmt.Errorf("%w: GSSENCRequest out of place", wire.ErrMalformed)
			}
			triedGSS = true
			if err := wire.WriteAll(s.conn.NetConn(), []byte{'N'}); err != nil {
				return 0, nil, err
			}
		case wire.SSLCode:
			if triedTLS || s.conn.Pending() > 0 { // bytes sent in plain behind the request: CVE-2021-3935
				return 0, nil, fmt.Errorf("%w: SSLRequest out of place", wire.ErrMalformed)
			}
			triedTLS = true
			if err := s.startTLS(); err != nil {
				return 0, nil, err
			}
		default:
			return code, body, nil
		}
	}
}

// tlsHandshake is the first byte of a TLS ClientHello: the client skips SSLRequest.
const tlsHandshake = 0x16

func (s *Session) tlsConfig() *tls.Config {
	if s.cfg.TLS == nil || s.conn.NetConn().RemoteAddr().Network() == "unix" {
		return nil
	}
	return s.cfg.TLS()
}

func (s *Session) startTLS() error {
	cfg := s.tlsConfig()
	if cfg == nil {
		return wire.WriteAll(s.conn.NetConn(), []byte{'N'})
	}
	if err := wire.WriteAll(s.conn.NetConn(), []byte{'S'}); err != nil {
		return err
	}
	return s.handshake(cfg, s.conn.NetConn())
}

// directTLS is TLS from the first byte on. It needs the protocol's name by ALPN, so that another protocol's
// client cannot be made to speak to us.
func (s *Session) directTLS() error {
	cfg := s.tlsConfig()
	if cfg == nil {
		return errGone // as PostgreSQL: it closes the connection
	}
	if err := s.handshake(cfg, s.conn.Unread()); err != nil {
		return err
	}
	if t, ok := s.conn.NetConn().(*tls.Conn); !ok || t.ConnectionState().NegotiatedProtocol != "postgresql" {
		return fmt.Errorf("a direct TLS connection without the ALPN protocol postgresql: %w", errGone)
	}
	return nil
}

func (s *Session) handshake(cfg *tls.Config, nc net.Conn) error {
	tc := tls.Server(nc, cfg)
	if err := tc.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.conn.SetNetConn(tc)
	s.mu.Lock()
	s.login.TLS = true
	for _, chain := range tc.ConnectionState().VerifiedChains {
		s.login.Peer = chain
		break
	}
	s.mu.Unlock()
	if len(cfg.Certificates) > 0 && cfg.Certificates[0].Leaf != nil {
		s.binding = auth.ServerEndpoint(cfg.Certificates[0].Leaf)
	}
	return nil
}

// identify reads who wants what from the startup parameters.
func (s *Session) identify(params map[string]string, minor int) error {
	var unknown []string
	for n := range params {
		if strings.HasPrefix(n, "_pq_.") {
			unknown = append(unknown, n)
			delete(params, n)
		}
	}
	if minor > 0 || len(unknown) > 0 {
		sort.Strings(unknown)
		b := binary.BigEndian.AppendUint32(nil, wire.Version3)
		b = binary.BigEndian.AppendUint32(b, uint32(len(unknown)))
		for _, n := range unknown {
			b = append(append(b, n...), 0)
		}
		s.conn.SendFrame('v', b)
	}
	l := Login{User: params["user"], Database: params["database"], Params: params, Remote: s.login.Remote, Local: s.login.Local, TLS: s.login.TLS, Peer: s.login.Peer}
	if l.User == "" {
		return &pgsql.Error{Code: pgsql.InvalidAuthorizationSpecification, Message: "no PostgreSQL user name specified in startup packet"}
	}
	if l.Database == "" {
		l.Database = l.User
	}
	if r := params["replication"]; r != "" && r != "false" && r != "off" && r != "0" {
		return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "replication connections are not supported", Hint: "Connect to the node."}
	}
	delete(params, "user")
	delete(params, "database")
	delete(params, "replication")
	if err := expandOptions(params); err != nil {
		return err
	}
	s.mu.Lock()
	s.login = l
	s.mu.Unlock()
	return nil
}

// expandOptions turns -c name=value and --name=value in "options" into parameters of their own. Those that the packet names
// itself win, as in PostgreSQL, and no name is there twice in different letters.
func expandOptions(params map[string]string) error {
	opts := params["options"]
	delete(params, "options")
	named := make(map[string]string, len(params))
	for n, v := range params {
		named[strings.ToLower(n)] = v
	}
	clear(params)
	defer maps.Copy(params, named)
	words := splitOptions(opts)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			return &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("unrecognized option %q in startup packet", w), Hint: "Use -c name=value."}
		}
		name, val, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return &pgsql.Error{Code: pgsql.SyntaxError, Message: fmt.Sprintf("option %q in startup packet has no value", w), Hint: "Use -c name=value."}
		}
		params[strings.ReplaceAll(strings.ToLower(name), "-", "_")] = val
	}
	return nil
}

func splitOptions(s string) []string {
	var out []string
	var b strings.Builder
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
			in = true
		case c == ' ' || c == '\t' || c == '\n':
			if in {
				out = append(out, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		out = append(out, b.String())
	}
	return out
}
