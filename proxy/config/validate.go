package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// maxSocketPath is how long the path of a Unix socket may be, in bytes: Linux has room for that and a zero.
const maxSocketPath = 107

// MaxPeer is the largest peer_id.
const MaxPeer = 1023

// Validate says everything that is wrong with a configuration, each with its key. What files say that it names is not looked at, but
// for those of authentication rules.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, fmt.Errorf(key+": "+format, args...)) }
	for _, k := range keys {
		if why := outOfBounds(k, k.of(c)); why != "" {
			bad(k.name, "%s", why)
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls_cert_file", "it needs tls_key_file, and the other way round")
	}
	if (c.HTTPCert == "") != (c.HTTPKey == "") {
		bad("http_tls_cert_file", "it needs http_tls_key_file, and the other way round")
	}
	for i, p := range c.Peers {
		if p.ID < 1 || p.ID > MaxPeer || p.Address == "" {
			bad("peers", "entry %d needs an id between 1 and %d and an address", i+1, MaxPeer)
		}
	}
	if key, err := c.PeerKey.Reveal(); err != nil {
		bad("peer_key", "%v", err)
	} else if key != "" && len(key) < 16 {
		bad("peer_key", "must have 16 characters or more")
	}
	if len(c.Peers) > 0 && c.PeerID == 0 {
		bad("peers", "they need peer_id, so that the others know this process")
	}
	if _, err := c.Proxies(); err != nil {
		bad("proxy_protocol", "%v", err)
	}
	if _, err := c.SocketMode(); err != nil {
		bad("unix_socket_mode", "%v", err)
	}
	if longest := filepath.Join(c.UnixDir, ".s.PGSQL.65535~"); c.UnixDir != "" && len(longest) > maxSocketPath {
		bad("unix_socket_dir", "the socket's path in it would be too long (maximum %d bytes): use a shorter one", maxSocketPath)
	}
	if c.AuthHBA != "" && len(c.AuthRules) > 0 {
		bad("auth_hba_file", "use either this or auth_rules")
	}
	for i, u := range c.Users {
		if u.Name == "" {
			bad("users", "entry %d has no name", i+1)
		}
		if u.Verifier != "" {
			if _, err := auth.ParseVerifier(u.Verifier); err != nil {
				bad("users", "%s: scram_verifier: %v", u.Name, err)
			}
		} else if u.Password == "" {
			bad("users", "%s has neither password nor scram_verifier", u.Name)
		}
	}
	if _, err := c.Rules(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// outOfBounds says what is wrong with a value by the key's tags min, max, zero, oneof and fold (in letters of either case); nothing if nothing is. Numbers without
// a minimum must not be negative.
func outOfBounds(k key, v reflect.Value) string {
	if list := strings.Fields(k.tag.Get("oneof")); len(list) > 0 {
		for _, w := range list {
			if v.String() == w || k.tag.Get("fold") != "" && strings.EqualFold(v.String(), w) {
				return ""
			}
		}
		return fmt.Sprintf("%q is none of %s", v.String(), strings.Join(list, ", "))
	}
	if v.Kind() != reflect.Int && v.Kind() != reflect.Int64 && v.Kind() != reflect.Float64 {
		return ""
	}
	least, most := k.tag.Get("min"), k.tag.Get("max")
	low := least != "" && number(v) < bound(v.Type(), least)
	high := most != "" && number(v) > bound(v.Type(), most)
	zero := k.tag.Get("zero") != ""
	switch {
	case v.Type() == reflect.TypeFor[Size]() && Size(v.Int()) == Unset, zero && number(v) == 0:
		return ""
	case (low || high) && least != "" && most != "":
		return fmt.Sprintf("must be from %s to %s", least, most)
	case low && zero:
		return "must be 0 or at least " + least
	case low:
		return "must be at least " + least
	case least == "" && most != "" && (high || number(v) < 0) && v.Type() != reflect.TypeFor[Duration]():
		return "must be from 0 to " + most
	case high:
		return "must be at most " + most
	case number(v) < 0:
		return "must not be negative"
	}
	return ""
}

func number(v reflect.Value) float64 {
	if v.Kind() == reflect.Float64 {
		return v.Float()
	}
	return float64(v.Int())
}

// bound reads a bound as the file would have it.
func bound(t reflect.Type, s string) float64 {
	var err error
	n := 0.0
	switch t {
	case reflect.TypeFor[Duration]():
		var d Duration
		err = d.UnmarshalYAML([]byte(s))
		n = float64(d)
	case reflect.TypeFor[Size]():
		var b int64
		b, err = pgsql.ParseSize(s)
		n = float64(b)
	default:
		n, err = strconv.ParseFloat(s, 64)
	}
	if err != nil {
		panic(err) // a tag of Config is wrong
	}
	return n
}

// SocketMode is unix_socket_mode as the file system has it.
func (c *Config) SocketMode() (os.FileMode, error) {
	n, err := strconv.ParseUint(c.UnixMode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%q is no mode such as 0770", c.UnixMode)
	}
	return os.FileMode(n), nil
}
