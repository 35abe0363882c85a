package instance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/dashboard"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// buildHTTP makes the page and what Prometheus reads, unless there are none.
func (in *Instance) buildHTTP() {
	if in.cfg.HTTP == "off" || in.cfg.HTTP == "" {
		return
	}
	reg := prometheus.NewRegistry()
	in.Metrics.AddGauges(in.gauges)
	reg.MustRegister(in.Metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	in.board = &dashboard.Server{Admin: in.Admin, Gatherer: reg, Ready: in.Ready, Login: in.Gate.WebLogin, Open: dashboard.Loopback(in.cfg.HTTP), Bounds: dashboard.DefaultBounds()}
	var config *tls.Config
	if in.cfg.HTTPCert != "" {
		config = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return in.Gate.Access().Page, nil
		}}
	} else if w := WarnOfPage(&in.cfg); w != "" {
		in.log.Warn(w)
	}
	in.http = in.board.HTTP(config)
	in.http.ErrorLog = slog.NewLogLogger(in.log.Handler(), slog.LevelWarn)
}

// WarnOfPage warns of a page whose passwords can be read on the way; nothing if there is none.
func WarnOfPage(c *config.Config) string {
	if c.HTTP == "off" || c.HTTP == "" || c.HTTPCert != "" || dashboard.Loopback(c.HTTP) {
		return ""
	}
	return "http: names and passwords cross the network in plain: set http_tls_cert_file and http_tls_key_file, or listen on 127.0.0.1"
}

// listenHTTP opens the page's port.
func (in *Instance) listenHTTP() error {
	if in.http == nil {
		return nil
	}
	l, err := proxy.Listen(in.cfg.HTTP, 0, in.share())
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	in.httpLis, in.listening[in.cfg.HTTP] = l, l
	return nil
}

// serveHTTP answers on the page's port in the background.
func (in *Instance) serveHTTP() {
	if in.http == nil {
		return
	}
	in.background("dashboard", in.board.Run)
	in.background("http", func(context.Context) error {
		serve := in.http.Serve
		if in.http.TLSConfig != nil {
			serve = func(l net.Listener) error { return in.http.ServeTLS(l, "", "") }
		}
		if err := serve(in.httpLis); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
}
