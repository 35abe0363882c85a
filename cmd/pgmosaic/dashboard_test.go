package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func (d *demo) url(path string) string { return "http://" + d.httpLis.Addr().String() + path }

func get(t testing.TB, url string) (int, string, http.Header) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r.Header
}

func TestHealthAndMetrics(t *testing.T) {
	d := shop(t)
	if code, body, _ := get(t, d.url("/healthz")); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	eventually(t, "it is ready", func() bool { code, _, _ := get(t, d.url("/readyz")); return code == 200 })
	mustExec(t, connectTo(t, d.shopDSN()), "select count(*) from customers")
	code, body, _ := get(t, d.url("/metrics"))
	for _, want := range []string{`pgmosaic_shard_up{database="shop",shard="s1"} 1`, `pgmosaic_replica_lag_seconds{`, `pgmosaic_queries_total{database="shop"}`, `pgmosaic_pool_servers_idle{`, `plan="scatter"`} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics: %d, no %s", code, want)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "pgmosaic_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	_, page, header := get(t, d.url("/"))
	if !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") || strings.Contains(page, "http://") && !strings.Contains(page, "www.w3.org") {
		t.Error("the page may ask others for something")
	}
	if code, _, _ := get(t, d.url("/nosuch")); code != 404 {
		t.Errorf("/nosuch: %d", code)
	}
}

// browser starts headless Chromium, once for each test.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("Chromium is needed: install the package chromium")
	}
	profile, err := os.MkdirTemp("", "pgmosaic-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its helpers write for a moment after it has ended
		for range 50 {
			if os.RemoveAll(profile) == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("%s cannot be removed", profile)
	})
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(profile),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true))
	alloc, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, cancelTime := context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(cancelTime)
	return ctx
}

func TestDashboardShowsShardsReplicasAndALaggingOne(t *testing.T) {
	d := newDemo(t, demoOptions{shards: 2, replicas: 1, customers: 200, orders: 500})
	ctx := browser(t)
	var complaints []string
	chromedp.ListenTarget(ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError {
				complaints = append(complaints, fmt.Sprint(e.Args))
			}
		}
	})
	stopLoad := load(t, d)
	var text, verdict string
	if err := chromedp.Run(ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(d.url("/")), chromedp.WaitVisible(`[data-shard="s2"]`),
		chromedp.Poll(`document.getElementById("live").textContent === "live"`, nil), chromedp.Text("#shards", &text), chromedp.Text("#verdict", &verdict)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"s1-a", "s1-b", "s2-a", "s2-b", "serves writes", "answers reads", "primary", "replica", "reads"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %q:\n%s", want, text)
		}
	}
	if !strings.Contains(verdict, "2 of 2 shards served") {
		t.Errorf("verdict %q", verdict)
	}
	if err := d.cluster.Node("s2-b").PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Run(ctx, chromedp.Poll(`document.querySelector('[data-node="s2-b"]').textContent.includes("replay is paused")`, nil),
		chromedp.Poll(`/\d+\.\d s/.test(document.querySelector('[data-node="s2-b"] .num').textContent)`, nil)); err != nil {
		t.Fatalf("the paused replica is not shown: %v", err)
	}
	time.Sleep(4 * time.Second) // a line to look at
	shots := os.Getenv("PGMOSAIC_SHOTS")
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{390, 1280, 2560} {
			var png []byte
			var overflow bool
			if err := chromedp.Run(ctx, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
				chromedp.EmulateViewport(width, 900), chromedp.Sleep(150*time.Millisecond),
				chromedp.Evaluate(`document.documentElement.scrollWidth > document.documentElement.clientWidth`, &overflow), chromedp.FullScreenshot(&png, 100)); err != nil {
				t.Fatal(err)
			}
			if overflow {
				t.Errorf("%s at %d pixels: the page is wider than its window", scheme, width)
			}
			if len(png) < 5000 {
				t.Errorf("%s at %d pixels: an empty picture", scheme, width)
			}
			if shots != "" {
				if err := os.WriteFile(filepath.Join(shots, fmt.Sprintf("%s-%d.png", scheme, width)), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	stopLoad()
	d.cluster.Node("s1-a").Kill()
	if err := chromedp.Run(ctx, chromedp.Poll(`document.getElementById("verdict").className === "bad" && document.querySelector('[data-shard="s1"]').textContent.includes("does not answer")`, nil)); err != nil {
		t.Fatalf("the dead primary is not shown: %v", err)
	}
	if shots != "" {
		var png []byte
		if err := chromedp.Run(ctx, chromedp.EmulateViewport(1280, 900), chromedp.FullScreenshot(&png, 100)); err == nil {
			_ = os.WriteFile(filepath.Join(shots, "dead.png"), png, 0o644)
		}
	}
	if len(complaints) > 0 {
		t.Errorf("the browser complains: %v", complaints)
	}
}

// load reads and writes the shop until the function that it returns is called.
func load(t *testing.T, d *demo) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	c := connectTo(t, d.shopDSN())
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if i%10 == 0 {
				_, _ = c.Exec(ctx, "update customers set name = name where customer_id = $1", 1+i%200)
			}
			_, _ = c.Exec(ctx, "select * from orders where customer_id = $1", 1+i%200)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return func() { cancel(); <-done }
}
