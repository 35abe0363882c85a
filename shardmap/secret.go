package shardmap

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// newSecret makes an installation's secret.
func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Key is what all processes of the installation know for a purpose, and nobody else: it is the same after a restart, and tells
// nothing of the keys for other purposes. A map that an older version wrote has no secret until its next change; its keys are made
// of the installation's id until then, which whoever may read the shards knows.
func (s *Snapshot) Key(purpose string) []byte {
	secret := s.Document.Secret
	if secret == "" {
		secret = s.Install
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// fingerprinted is Fingerprint. Connection strings are in what is declared, and so is a password: the key keeps it from being guessed.
func (s *Snapshot) fingerprinted() uint64 {
	mac := hmac.New(sha256.New, s.Key("fingerprint"))
	mac.Write([]byte(s.Install + " " + s.Document.Declared()))
	return binary.BigEndian.Uint64(mac.Sum(nil)) >> 16
}
