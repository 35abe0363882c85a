package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"
)

// Binding is what ties a SCRAM exchange to its TLS connection; the zero value is none.
type Binding struct{ data []byte }

// ServerEndpoint is the binding tls-server-end-point of a server's certificate (RFC 5929): its hash by the
// signature's algorithm, but SHA-256 for the weak ones.
func ServerEndpoint(cert *x509.Certificate) Binding {
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h := sha512.Sum384(cert.Raw)
		return Binding{h[:]}
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h := sha512.Sum512(cert.Raw)
		return Binding{h[:]}
	}
	h := sha256.Sum256(cert.Raw)
	return Binding{h[:]}
}

// Possible says whether there is a binding to offer.
func (b Binding) Possible() bool { return len(b.data) > 0 }

// The names of the mechanisms.
const (
	Mechanism     = "SCRAM-SHA-256"
	MechanismPlus = "SCRAM-SHA-256-PLUS"
)

// Keys are what a client proved to know in its exchange: enough to log in wherever the same verifier is
// stored, and less than the password. The zero value is none.
type Keys struct{ client, server []byte }

// Known says whether there are keys.
func (k Keys) Known() bool { return len(k.client) > 0 }

// Exchange is the server's side of one SCRAM-SHA-256 exchange.
type Exchange struct {
	conv   *scram.ServerConversation
	stored scram.StoredCredentials
	log    []string // client-first-bare, server-first, client-final without proof: SCRAM's AuthMessage
	keys   Keys
}

// Begin starts an exchange against a credential. offered is the binding that was offered to the client, if
// any; plus says that the client chose to use it.
func Begin(c Credential, offered Binding, plus bool) (*Exchange, error) {
	srv, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return c.stored, nil })
	if err != nil {
		return nil, fmt.Errorf("scram: %w", err)
	}
	cb := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: offered.data}
	e := &Exchange{stored: c.stored}
	switch {
	case plus:
		e.conv = srv.NewConversationWithChannelBindingRequired(cb)
	case offered.Possible():
		e.conv = srv.NewConversationWithChannelBinding(cb)
	default:
		e.conv = srv.NewConversation()
	}
	return e, nil
}

// ErrFailed means that the password does not fit.
var ErrFailed = errors.New("password authentication failed")

// Step takes the client's message and returns ours. done is true when the client has proved itself.
func (e *Exchange) Step(in []byte) (out []byte, done bool, err error) {
	msg := string(in)
	if len(e.log) == 0 {
		parts := strings.SplitN(msg, ",", 3) // gs2-cbind-flag, authzid, the bare message
		if len(parts) < 3 {
			return nil, false, ErrFailed
		}
		if parts[1] != "" { // PostgreSQL knows no authorization identity
			return nil, false, ErrFailed
		}
		// The user is the startup packet's; libpq sends none here, others their own.
		e.log = append(e.log, parts[2])
	} else {
		bare, _, _ := strings.Cut(msg, ",p=")
		e.log = append(e.log, bare)
	}
	resp, err := e.conv.Step(msg)
	if err != nil {
		return nil, false, ErrFailed
	}
	if e.conv.Done() {
		if !e.conv.Valid() {
			return nil, false, ErrFailed
		}
		e.learn(msg)
		return []byte(resp), true, nil
	}
	e.log = append(e.log, resp)
	return []byte(resp), false, nil
}

// learn takes the client's key from its proof (RFC 5802: ClientProof = ClientKey XOR ClientSignature).
func (e *Exchange) learn(final string) {
	_, proof64, _ := strings.Cut(final, ",p=")
	proof, err := base64.StdEncoding.DecodeString(proof64)
	if err != nil || len(proof) != sha256.Size || len(e.log) != 3 {
		return
	}
	mac := hmac.New(sha256.New, e.stored.StoredKey)
	mac.Write([]byte(strings.Join(e.log, ",")))
	key := mac.Sum(nil)
	for i := range key {
		key[i] ^= proof[i]
	}
	if h := sha256.Sum256(key); hmac.Equal(h[:], e.stored.StoredKey) {
		e.keys = Keys{client: key, server: append([]byte(nil), e.stored.ServerKey...)}
	}
}

// Keys are what the client proved to know, once Step is done.
func (e *Exchange) Keys() Keys { return e.keys }
