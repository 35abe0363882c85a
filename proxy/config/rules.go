package config

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
)

// Proxies are the networks of proxy_protocol.
func (c *Config) Proxies() (out []netip.Prefix, err error) {
	for _, s := range c.Proxied {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("%q is no address and no network such as 10.0.0.0/8", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Rules are auth_rules, or those of the file of rules, as logins are judged by.
func (c *Config) Rules() ([]auth.Rule, error) {
	out, err := c.ownRules()
	if err != nil {
		return nil, err
	}
	if c.AuthHBA != "" {
		return c.hba()
	}
	if c.Direct.User != "" {
		for _, n := range []string{"127.0.0.0/8", "::1/128"} {
			out = append(out, auth.Rule{Users: []string{c.Direct.User}, Network: netip.MustParsePrefix(n), Method: auth.Trust})
		}
		out = append(out, auth.Rule{Users: []string{c.Direct.User}, Origins: []auth.Origin{auth.Local}, Method: auth.Trust})
	}
	if len(c.AuthRules) == 0 {
		out = append(out, auth.Rule{Method: auth.SCRAM})
	}
	return out, nil
}

func (c *Config) ownRules() ([]auth.Rule, error) {
	var out []auth.Rule
	maps, err := c.ident()
	if err != nil {
		return nil, err
	}
	for i, r := range c.AuthRules {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("auth_rules: entry %d: %s", i+1, fmt.Sprintf(format, args...))
		}
		var rule auth.Rule
		if r.Database != "" {
			rule.Databases = []string{r.Database}
		}
		if r.User != "" {
			rule.Users = []string{r.User}
		}
		switch {
		case r.TLS && r.Local:
			return nil, bad("tls and local exclude each other")
		case r.TLS:
			rule.Origins = []auth.Origin{auth.TLS}
		case r.Local:
			rule.Origins = []auth.Origin{auth.Local}
		}
		if r.Address != "" {
			p, err := netip.ParsePrefix(r.Address)
			if err != nil {
				return nil, bad("address %q is no network such as 10.0.0.0/8", r.Address)
			}
			rule.Network = p.Masked()
		}
		m, ok := auth.ParseMethod(r.Method)
		rule.Method = m
		switch {
		case !ok:
			return nil, bad("method %q is none of scram-sha-256, password, cert, trust, reject", r.Method)
		case (m == auth.Password || m == auth.Cert) && !r.TLS && !(m == auth.Password && r.Local):
			return nil, bad("method %s needs tls: true", r.Method)
		case m == auth.Cert:
			rule.Map = maps["pgmosaic"]
		}
		if err := rule.Check(); err != nil {
			return nil, bad("%v", err)
		}
		out = append(out, rule)
	}
	return out, nil
}

func (c *Config) ident() (map[string]map[string]string, error) {
	if c.AuthIdent == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.AuthIdent)
	if err != nil {
		return nil, fmt.Errorf("auth_ident_file: %w", err)
	}
	maps, err := auth.ParseIdent(string(b))
	if err != nil {
		return nil, fmt.Errorf("auth_ident_file: %s: %w", c.AuthIdent, err)
	}
	return maps, nil
}

func (c *Config) hba() ([]auth.Rule, error) {
	maps, err := c.ident()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(c.AuthHBA)
	if err != nil {
		return nil, fmt.Errorf("auth_hba_file: %w", err)
	}
	rules, err := auth.ParseHBA(string(b), maps)
	if err != nil {
		return nil, fmt.Errorf("auth_hba_file: %s: %w", c.AuthHBA, err)
	}
	return rules, nil
}

// AllUsers are users and those of auth_file.
func (c *Config) AllUsers() ([]User, error) {
	out := append([]User(nil), c.Users...)
	if c.AuthFile == "" {
		return out, nil
	}
	b, err := os.ReadFile(c.AuthFile)
	if err != nil {
		return nil, fmt.Errorf("auth_file: %w", err)
	}
	list, err := auth.ParseUserlist(string(b))
	if err != nil {
		return nil, fmt.Errorf("auth_file: %s: %w", c.AuthFile, err)
	}
	for _, u := range list {
		x := User{Name: u[0]}
		switch {
		case strings.HasPrefix(u[1], "SCRAM-SHA-256$"):
			x.Verifier = u[1]
		case u[1] == "":
			continue // PgBouncer's way to say that the user may not log in
		case strings.HasPrefix(u[1], "md5") && len(u[1]) == 35:
			return nil, fmt.Errorf("auth_file: %s: user %q has an MD5 hash: use a SCRAM verifier or the password", c.AuthFile, u[0])
		default:
			x.Password = Secret(u[1])
		}
		out = append(out, x)
	}
	return out, nil
}
