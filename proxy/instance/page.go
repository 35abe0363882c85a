package instance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/dashboard"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// page is the dashboard, its API and what Prometheus reads. A nil one is none.
type page struct {
	board  *dashboard.Server
	server *http.Server
	lis    net.Listener // nil until it listens
}

// newPage makes the page, unless there is none.
func (in *Instance) newPage() *page {
	if in.cfg.HTTP == "off" || in.cfg.HTTP == "" {
		return nil
	}
	reg := prometheus.NewRegistry()
	in.Metrics.AddGauges(in.gauges)
	reg.MustRegister(in.Metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p := &page{board: &dashboard.Server{Admin: in.Admin, Gatherer: reg, Ready: in.Ready, Login: in.Gate.WebLogin, Standing: in.Gate.Standing, Open: dashboard.Loopback(in.cfg.HTTP), Bounds: dashboard.DefaultBounds()}}
	var config *tls.Config
	if in.cfg.HTTPCert != "" {
		config = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return in.Gate.Access().Page, nil
		}}
	} else if w := WarnOfPage(&in.cfg); w != "" {
		in.log.Warn(w)
	}
	p.server = p.board.HTTP(config)
	p.server.ErrorLog = slog.NewLogLogger(in.log.Handler(), slog.LevelWarn)
	return p
}

// WarnOfPage warns of a page whose passwords can be read on the way; nothing if there is none.
func WarnOfPage(c *config.Config) string {
	if c.HTTP == "off" || c.HTTP == "" || c.HTTPCert != "" || dashboard.Loopback(c.HTTP) {
		return ""
	}
	return "http: names and passwords cross the network in plain: set http_tls_cert_file and http_tls_key_file, or listen on 127.0.0.1"
}

// listen opens the page's port.
func (p *page) listen(d *door, addr string) (err error) {
	if p == nil {
		return nil
	}
	if p.lis, err = d.listen(addr); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

// serve answers on the page's port until it is closed.
func (p *page) serve(context.Context) error {
	serve := p.server.Serve
	if p.server.TLSConfig != nil {
		serve = func(l net.Listener) error { return p.server.ServeTLS(l, "", "") }
	}
	if err := serve(p.lis); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// finish leaves the port and answers what has come; answered returns when that is done.
func (p *page) finish() (answered func()) {
	if p == nil || p.lis == nil {
		return func() {}
	}
	_ = p.lis.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), AnswerWithin)
		defer cancel()
		_ = panics.Catch(panics.Dashboard, func() error { p.board.Finish(ctx, p.server); return nil }, nil) // what takes longer is cut off
	}()
	return func() { <-done }
}

func (p *page) close() {
	if p != nil {
		_ = p.server.Close()
	}
}

// addr is where it is; empty for nowhere.
func (p *page) addr() string {
	if p == nil || p.lis == nil {
		return ""
	}
	return p.lis.Addr().String()
}
