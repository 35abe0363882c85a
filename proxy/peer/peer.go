// Package peer is what the processes of one installation say to one another, on the channel that also passes cancel requests
// on: whose the server processes are that take part in a deadlock over shards.
//
// A question begins with a startup packet of a code of its own, which has a nonce of who asks. The answering side sends a challenge, and both
// the question and the answer carry an HMAC of the shared key over the two, so that neither can be made, nor said again, by somebody
// else: the answering side knows by its challenge that the question is new, and who asks by the nonce that the answer is. Nothing in them is secret.
package peer

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Code is that of the startup packet which begins a question. PostgreSQL's own codes for what is no session have the same
// upper half (1234) and lower halves from 5678 to 5680. An older version had 5700, without a nonce: neither side takes the other's.
const Code = 1234<<16 | 5701

// Process is a PostgreSQL server process of a shard.
type Process struct {
	Database string `json:"database"`
	Shard    string `json:"shard"`
	PID      uint32 `json:"pid"`
}

// Owner is the client for which a process works, and since when its transaction runs. Client is 0 for none.
type Owner struct {
	Client uint32    `json:"client"`
	Since  time.Time `json:"since"`
}

// MostProcesses bounds a question.
const MostProcesses = 10000

const (
	nonceBytes     = 32
	challengeBytes = 32
	maxMessage     = 4 << 20
	timeout        = 5 * time.Second
)

var (
	// ErrKey means that a message did not come from somebody with the same key.
	ErrKey = errors.New("peer: the other side has another peer_key")

	errHungUp = errors.New("peer: the other side does not take questions: it has no peer_key, or is of another version")
)

// talk is what makes one question and its answer differ from all others.
type talk struct{ key, nonce, challenge []byte }

// Ask asks the process at addr for the owners of server processes; there is one for each. It takes at most five seconds.
func Ask(ctx context.Context, addr string, key []byte, list []Process) ([]Owner, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	defer nc.Close()
	end, _ := ctx.Deadline()
	_ = nc.SetDeadline(end)
	t := talk{key, make([]byte, nonceBytes), make([]byte, challengeBytes)}
	_, _ = rand.Read(t.nonce) // never fails
	hello := binary.BigEndian.AppendUint32(nil, uint32(8+nonceBytes))
	hello = append(binary.BigEndian.AppendUint32(hello, Code), t.nonce...)
	if _, err := nc.Write(hello); err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	switch _, err := io.ReadFull(nc, t.challenge); {
	case errors.Is(err, io.EOF):
		return nil, errHungUp
	case err != nil:
		return nil, fmt.Errorf("peer: %w", err)
	}
	if err := t.write(nc, "question", list); err != nil {
		return nil, err
	}
	var owners []Owner
	if err := t.read(nc, "answer", &owners); err != nil {
		return nil, err
	}
	if len(owners) != len(list) {
		return nil, fmt.Errorf("peer: %d answers to %d questions", len(owners), len(list))
	}
	return owners, nil
}

// Answer answers one question on a connection whose startup packet has been read; nonce is what that has behind its code. owners must give
// one for each process.
func Answer(nc net.Conn, key, nonce []byte, owners func([]Process) []Owner) error {
	_ = nc.SetDeadline(time.Now().Add(timeout))
	if len(nonce) != nonceBytes {
		return fmt.Errorf("peer: a nonce of %d bytes", len(nonce))
	}
	t := talk{key, nonce, make([]byte, challengeBytes)}
	_, _ = rand.Read(t.challenge) // never fails
	if _, err := nc.Write(t.challenge); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	var list []Process
	if err := t.read(nc, "question", &list); err != nil {
		return err
	}
	if len(list) > MostProcesses {
		return fmt.Errorf("peer: a question of %d processes", len(list))
	}
	return t.write(nc, "answer", owners(list))
}

// sum is the HMAC of a message. role keeps an answer from being taken for a question.
func (t talk) sum(role string, body []byte) []byte {
	m := hmac.New(sha256.New, t.key)
	m.Write([]byte(role))
	m.Write(t.nonce)
	m.Write(t.challenge)
	m.Write(body)
	return m.Sum(nil)
}

func (t talk) write(w io.Writer, role string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	msg := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	msg = append(append(msg, body...), t.sum(role, body)...)
	if _, err := w.Write(msg); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	return nil
}

func (t talk) read(r io.Reader, role string, into any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return fmt.Errorf("peer: a message of %d bytes", n)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n)+sha256.Size)) // grows with what comes, not with what is claimed
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	if len(body) != int(n)+sha256.Size || !hmac.Equal(body[n:], t.sum(role, body[:n])) {
		return ErrKey
	}
	if err := json.Unmarshal(body[:n], into); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	return nil
}
