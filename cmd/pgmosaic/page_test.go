package main

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/instance"
)

// inPlain is what warns of a page whose passwords can be read on the way.
var inPlain = instance.WarnOfPage(&config.Config{HTTP: "0.0.0.0:1"})

func TestPageOverTLS(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	begin := func(change func(*config.Config)) (*app, *lines) {
		cfg := smallConfig(t, d, 2, change)
		cfg.Listen = "127.0.0.1:0"
		log := &lines{}
		a, err := startWith(t.Context(), cfg, slog.New(slog.NewJSONHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.stop(time.Second) })
		return a, log
	}
	cert, key := certificate(t, dir)
	a, log := begin(func(c *config.Config) { c.HTTP, c.HTTPCert, c.HTTPKey = "0.0.0.0:0", cert, key })
	if len(log.with(inPlain)) > 0 {
		t.Error("a warning, though there is TLS")
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(a.Page(), "[::]"), ":")
	serial := func() string {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		res, err := c.Post("https://127.0.0.1:"+port+"/api/login", "application/json", strings.NewReader(`{"user": "admin", "password": "admin"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 || !res.Cookies()[0].Secure {
			t.Errorf("%s, cookies %v", res.Status, res.Cookies())
		}
		return string(res.TLS.PeerCertificates[0].Signature)
	}
	before := serial()
	if res, err := http.Get("http://127.0.0.1:" + port + "/healthz"); err != nil {
		t.Error(err)
	} else {
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %s", res.Status)
		}
	}
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := a.Config()
	cfg.HTTPCert, cfg.HTTPKey = certificate(t, other)
	if err := a.Apply(&cfg); err != nil {
		t.Fatal(err)
	}
	after := serial()
	if after == before {
		t.Error("RELOAD took no new certificate")
	}
	cfg.HTTPCert, cfg.HTTPKey = "", ""
	if err := a.Apply(&cfg); err != nil {
		t.Fatal(err)
	}
	if serial() != after {
		t.Error("without one the old certificate does not stay")
	}

	_, log = begin(func(c *config.Config) { c.HTTP = "0.0.0.0:0" })
	if len(log.with(inPlain)) != 1 {
		t.Error("no warning of passwords in plain")
	}
	_, log = begin(func(c *config.Config) { c.HTTP = "127.0.0.1:0" })
	if len(log.with(inPlain)) > 0 {
		t.Error("a warning on loopback")
	}
	file := filepath.Join(dir, "pgmosaic.yaml")
	for text, want := range map[string]bool{"http: 0.0.0.0:8432": true, "http: 127.0.0.1:8432": false, "http: \"off\"": false, "http: 0.0.0.0:8432\nhttp_tls_cert_file: " + cert + "\nhttp_tls_key_file: " + key: false} {
		if err := os.WriteFile(file, []byte(text+"\nstore: "+dir+"/nomap.json\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := check(t.Context(), file, false, &out); err != nil || strings.Contains(out.String(), inPlain) != want {
			t.Errorf("%s: %v\n%s", text, err, out.String())
		}
	}
}
