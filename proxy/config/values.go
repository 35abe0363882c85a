package config

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Duration reads 500ms, 10s, 2min.
type Duration time.Duration

// UnmarshalYAML implements yaml's interface for bytes.
func (d *Duration) UnmarshalYAML(b []byte) error {
	s := unquoted(b)
	v, err := time.ParseDuration(strings.Replace(s, "min", "m", 1))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no time: write 500ms, 10s or 2min", s)
	}
	*d = Duration(v)
	return nil
}

// Value is the time as Go has it.
func (d Duration) Value() time.Duration { return time.Duration(d) }

// String is the number of seconds, as PgBouncer shows times.
func (d Duration) String() string { return strconv.FormatFloat(d.Value().Seconds(), 'f', -1, 64) }

// Size is a number of bytes; it reads 64MB, 512kB, 0.
type Size int64

// Unset is the size of a key that nobody has given, where that means something else than 0.
const Unset Size = -1

// UnmarshalYAML implements yaml's interface for bytes.
func (s *Size) UnmarshalYAML(b []byte) error {
	text := unquoted(b)
	if text == "" && *s == Unset {
		return nil
	}
	n, err := pgsql.ParseSize(text)
	if err != nil {
		return err
	}
	*s = Size(n)
	return nil
}

// String prints the size so that a file can have it; nothing for Unset.
func (s Size) String() string {
	if s == Unset {
		return ""
	}
	return pgsql.SizeText(int64(s))
}

// Secret is a password or key, or says where it is: file:/path or env:NAME. It prints as stars.
type Secret string

// Reveal is what the secret says, or what is where it says. A file's last line end is not part of it.
func (s Secret) Reveal() (string, error) {
	if name, ok := strings.CutPrefix(string(s), "env:"); ok {
		v, set := os.LookupEnv(name)
		if !set {
			return "", fmt.Errorf("environment variable %s is not set", name)
		}
		return v, nil
	}
	if name, ok := strings.CutPrefix(string(s), "file:"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("secret: %w", err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return string(s), nil
}

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "********"
}

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func unquoted(b []byte) string { return strings.Trim(strings.TrimSpace(string(b)), `"'`) }
