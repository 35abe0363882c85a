package session

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// maxPassword bounds a password message, in bytes.
const maxPassword = 64 << 10

// maxSASL bounds a message of a SASL exchange, in bytes.
const maxSASL = 4096

func authMessage(kind uint32, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, kind), data...)
}

// Origin is how the client of a login has connected.
func (l *Login) Origin() auth.Origin {
	switch {
	case l.TLS:
		return auth.TLS
	case l.Remote.IsValid():
		return auth.Plain
	}
	return auth.Local
}

// authenticate runs the exchange that the rules ask for and ends with AuthenticationOk.
func (s *Session) authenticate(ctx context.Context) error {
	rule := s.cfg.Backend.Rule(s.login)
	if rule.Method == auth.SCRAM || rule.Method == auth.Password { // there is nothing to guess for others
		if err := s.cfg.Backend.Admit(ctx, s.login); err != nil {
			return s.fatal(err)
		}
	}
	if rule.ClientCert && len(s.login.Peer) == 0 {
		return s.fatal(&pgsql.Error{Code: pgsql.InvalidAuthorizationSpecification, Message: "connection requires a valid client certificate"})
	}
	var err error
	switch rule.Method {
	case auth.Trust:
	case auth.SCRAM:
		err = s.scram(ctx)
	case auth.Password:
		err = s.password(ctx)
	case auth.Cert:
		err = s.certificate(&rule)
	default:
		enc := "no encryption"
		if s.login.TLS {
			enc = "SSL encryption"
		}
		from := "[local]"
		if s.login.Remote.IsValid() {
			from = s.login.Remote.Addr().String()
		}
		return s.fatal(&pgsql.Error{Code: pgsql.InvalidAuthorizationSpecification, Message: fmt.Sprintf("no authentication rule for host %q, user %q, database %q, %s",
			from, s.login.User, s.login.Database, enc)})
	}
	if err == nil && rule.CertName && rule.Method != auth.Cert {
		err = s.certificate(&rule)
	}
	if err != nil {
		return err
	}
	s.conn.SendFrame('R', authMessage(0, nil))
	return nil
}

// denied ends a login whose password is wrong.
func (s *Session) denied() error {
	_ = s.fatal(&pgsql.Error{Code: pgsql.InvalidPassword, Message: fmt.Sprintf("password authentication failed for user %q", s.login.User)})
	return fmt.Errorf("user %q: password authentication failed", s.login.User)
}

// response waits for the client's answer to an authentication request.
func (s *Session) response(limit int) ([]byte, error) {
	if err := s.conn.Flush(); err != nil {
		return nil, err
	}
	typ, n, err := s.conn.Peek()
	if err != nil {
		return nil, s.broken(err)
	}
	if typ != 'p' || n > limit+5 {
		return nil, s.fatal(&pgsql.Error{Code: pgsql.ProtocolViolation, Message: "expected password response, got message type " + fmt.Sprint(typ)})
	}
	m, err := s.conn.Next()
	if err != nil {
		return nil, s.broken(err)
	}
	return m.Body(), nil
}

func (s *Session) scram(ctx context.Context) error {
	cred, err := s.cfg.Backend.Credential(ctx, s.login)
	if err != nil {
		return s.fatal(err)
	}
	offer := auth.Mechanism + "\x00\x00"
	if s.binding.Possible() {
		offer = auth.MechanismPlus + "\x00" + offer
	}
	s.conn.SendFrame('R', authMessage(10, []byte(offer)))
	in, err := s.response(maxSASL)
	if err != nil {
		return err
	}
	mech, rest, err := wire.CString(in)
	plus := string(mech) == auth.MechanismPlus
	if err != nil || !(plus && s.binding.Possible() || string(mech) == auth.Mechanism) || len(rest) < 4 {
		return s.fatal(&pgsql.Error{Code: pgsql.ProtocolViolation, Message: "client selected an invalid SASL authentication mechanism"})
	}
	ex, err := auth.Begin(cred, s.binding, plus)
	if err != nil {
		return s.fatal(err)
	}
	in = rest[4:]
	for {
		out, done, err := ex.Step(in)
		if done || err != nil {
			if barred := s.cfg.Backend.Tried(s.login, done && err == nil); barred != nil {
				return s.fatal(barred)
			}
		}
		if err != nil {
			return s.denied()
		}
		if done {
			s.mu.Lock()
			s.login.Keys = ex.Keys()
			s.mu.Unlock()
			s.conn.SendFrame('R', authMessage(12, out))
			return nil
		}
		s.conn.SendFrame('R', authMessage(11, out))
		if in, err = s.response(maxSASL); err != nil {
			return err
		}
	}
}

// password asks for the password itself.
func (s *Session) password(ctx context.Context) error {
	if s.login.Origin() == auth.Plain {
		return s.fatal(&pgsql.Error{Code: pgsql.InvalidAuthorizationSpecification, Message: "password authentication needs TLS"})
	}
	s.conn.SendFrame('R', authMessage(3, nil))
	in, err := s.response(maxPassword)
	if err != nil {
		return err
	}
	pw, _, err := wire.CString(in)
	if err != nil {
		return s.fatal(&pgsql.Error{Code: pgsql.ProtocolViolation, Message: "invalid password packet"})
	}
	cred, err := s.cfg.Backend.Credential(ctx, s.login)
	if err != nil {
		return s.fatal(err)
	}
	right, err := s.cfg.Backend.Check(ctx, s.login, cred, string(pw))
	switch {
	case err != nil:
		return s.fatal(err)
	case !right:
		return s.denied()
	}
	return nil
}

// certificate lets the client's certificate name its user.
func (s *Session) certificate(r *auth.Rule) error {
	if len(s.login.Peer) == 0 {
		return s.fatal(&pgsql.Error{Code: pgsql.InvalidAuthorizationSpecification, Message: "connection requires a valid client certificate"})
	}
	if name := s.login.Peer[0].Subject.CommonName; !r.CertUser(name, s.login.User) {
		s.cfg.Backend.Failed(s.login)
		_ = s.fatal(&pgsql.Error{Code: pgsql.InvalidAuthorizationSpecification, Message: fmt.Sprintf("certificate authentication failed for user %q", s.login.User)})
		return fmt.Errorf("user %q with a certificate for %q: certificate authentication failed", s.login.User, name)
	}
	return nil
}
