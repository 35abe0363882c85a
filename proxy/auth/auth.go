// Package auth is the server's side of authentication: rules, verifiers and the SCRAM exchange.
//
// The rule: an unknown user and a wrong password look alike, cost alike and are told apart by nobody.
package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// Credential is what a login is checked against.
type Credential struct{ stored scram.StoredCredentials }

// Iterations is how often PostgreSQL hashes a password, unless it is told otherwise.
const Iterations = 4096

// Salts makes users' salts out of a key that all processes share. A name has the same salt in every process and after a restart, whether
// there is such a user or not: else it would tell which.
type Salts struct{ Key []byte }

func (s Salts) of(user string) string {
	mac := hmac.New(sha256.New, s.Key)
	mac.Write([]byte(user))
	return string(mac.Sum(nil)[:16])
}

// NewCredential derives a credential from a password, with a fresh salt.
func NewCredential(password string) (Credential, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return derive(password, scram.KeyFactors{Salt: string(salt), Iters: Iterations})
}

// Credential derives a user's from a password.
func (s Salts) Credential(user, password string) (Credential, error) {
	return derive(password, scram.KeyFactors{Salt: s.of(user), Iters: Iterations})
}

func derive(password string, f scram.KeyFactors) (Credential, error) {
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return Credential{}, errors.New("the password cannot be prepared for SCRAM")
	}
	stored, err := c.GetStoredCredentialsWithError(f)
	return Credential{stored}, err
}

// MostIterations is how often a verifier may have its password hashed: half a second of a processor. PostgreSQL takes what a role has set for
// itself, whatever it is; here others wait for the processor.
const MostIterations = 1_000_000

// ParseVerifier reads a verifier as PostgreSQL stores it: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
func ParseVerifier(s string) (Credential, error) {
	bad := errors.New("not a SCRAM-SHA-256 verifier")
	rest, ok := strings.CutPrefix(s, "SCRAM-SHA-256$")
	if !ok {
		return Credential{}, bad
	}
	factors, keys, ok := strings.Cut(rest, "$")
	if !ok {
		return Credential{}, bad
	}
	it, salt64, ok1 := strings.Cut(factors, ":")
	stored64, server64, ok2 := strings.Cut(keys, ":")
	n, err := strconv.Atoi(it)
	salt, err1 := base64.StdEncoding.DecodeString(salt64)
	stored, err2 := base64.StdEncoding.DecodeString(stored64)
	server, err3 := base64.StdEncoding.DecodeString(server64)
	if n > MostIterations {
		return Credential{}, fmt.Errorf("a SCRAM-SHA-256 verifier of %d iterations, more than %d", n, MostIterations)
	}
	if !ok1 || !ok2 || errors.Join(err, err1, err2, err3) != nil || n < 1 || len(stored) != 32 || len(server) != 32 {
		return Credential{}, bad
	}
	return Credential{scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: n}, StoredKey: stored, ServerKey: server}}, nil
}

// Verifier is the credential as PostgreSQL stores it. It is as good as a password for whoever takes a place between client and
// server: it is a secret.
func (c Credential) Verifier() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", c.stored.Iters, b64([]byte(c.stored.Salt)), b64(c.stored.StoredKey), b64(c.stored.ServerKey))
}

// Fake is the credential of a user that does not exist: no password fits it. iterations are those of the users that do.
func (s Salts) Fake(user string, iterations int) Credential {
	return Credential{scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: s.of(user), Iters: iterations}}}.Unknown()
}

// SaltBytes is how long the salt is: a verifier may have any.
func (c Credential) SaltBytes() int { return len(c.stored.Salt) }

// Unknown is a credential with the same salt that no password fits.
func (c Credential) Unknown() Credential {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	c.stored.StoredKey, c.stored.ServerKey = key, key
	return c
}

// Check says whether a password fits, for logins that are not SCRAM (the dashboard's).
func (c Credential) Check(password string) bool {
	d, err := derive(password, c.stored.KeyFactors)
	return err == nil && hmac.Equal(d.stored.StoredKey, c.stored.StoredKey)
}
