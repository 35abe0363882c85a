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
)

// Client is the client's side of a SCRAM-SHA-256 exchange (RFC 5802) with keys in place of a password. It
// works against a server that stores the very verifier that the keys belong to.
type Client struct {
	keys  Keys
	nonce string
	first string
	auth  string
}

// NewClient starts an exchange.
func NewClient(k Keys) *Client {
	b := make([]byte, 18)
	_, _ = rand.Read(b) // never fails
	c := &Client{keys: k, nonce: base64.StdEncoding.EncodeToString(b)}
	c.first = "n=,r=" + c.nonce
	return c
}

// First is the client's first message, without channel binding.
func (c *Client) First() []byte { return []byte("n,," + c.first) }

// Final answers the server's first message.
func (c *Client) Final(serverFirst []byte) ([]byte, error) {
	s := string(serverFirst)
	if len(s) > 4096 {
		return nil, errors.New("scram: the server's message is too long")
	}
	f := strings.Split(s, ",")
	if len(f) < 3 || !strings.HasPrefix(f[0], "r="+c.nonce) || len(f[0]) <= len("r="+c.nonce) || !strings.HasPrefix(f[1], "s=") || !strings.HasPrefix(f[2], "i=") {
		return nil, errors.New("scram: the server's first message cannot be read")
	}
	if n, err := strconv.Atoi(f[2][2:]); err != nil || n < 1 {
		return nil, errors.New("scram: the server's iteration count is no number")
	}
	bare := "c=biws," + f[0]
	c.auth = c.first + "," + s + "," + bare
	stored := sha256.Sum256(c.keys.client)
	proof := sign(stored[:], c.auth)
	for i := range proof {
		proof[i] ^= c.keys.client[i]
	}
	return []byte(bare + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// Verify checks the server's last message: that it knows the verifier, too.
func (c *Client) Verify(serverFinal []byte) error {
	got, ok := strings.CutPrefix(string(serverFinal), "v=")
	sig, err := base64.StdEncoding.DecodeString(got)
	if !ok || err != nil || !hmac.Equal(sig, sign(c.keys.server, c.auth)) {
		return fmt.Errorf("scram: the server's signature is wrong")
	}
	return nil
}

func sign(key []byte, msg string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(msg))
	return mac.Sum(nil)
}
