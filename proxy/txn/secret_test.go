package txn

import (
	"bytes"
	"testing"
)

// A token holds for exactly what it was made for.
func TestTokensBindWhatIsSaid(t *testing.T) {
	s := Secret{inner: []byte("inner"), outer: []byte("outer")}
	token := s.Token("gid", "commit", []string{"s1", "s2"}, 7)
	if !bytes.Equal(token, s.Token("gid", "commit", []string{"s1", "s2"}, 7)) {
		t.Error("the same words give two tokens")
	}
	for name, other := range map[string][]byte{
		"gid": s.Token("gid2", "commit", []string{"s1", "s2"}, 7), "outcome": s.Token("gid", "part", []string{"s1", "s2"}, 7),
		"parts": s.Token("gid", "commit", []string{"s1"}, 7), "parts run together": s.Token("gid", "commit", []string{"s1s2"}, 7),
		"parts cut elsewhere": s.Token("gid", "commit", []string{"s", "1s2"}, 7), "process": s.Token("gid", "commit", []string{"s1", "s2"}, 8),
		"secret":             Secret{inner: []byte("inner"), outer: []byte("other")}.Token("gid", "commit", []string{"s1", "s2"}, 7),
		"words run together": s.Token("gidcommit", "", []string{"s1", "s2"}, 7),
	} {
		if bytes.Equal(token, other) {
			t.Errorf("another %s gives the same token", name)
		}
	}
}
