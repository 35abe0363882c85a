package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/pgmosaic/pgmosaic/replication/cluster"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/dashboard"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

func (d *demo) url(path string) string { return "http://" + d.Page() + path }

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

// A node whose connection string was changed has two pools for a while, and the metrics go on.
func TestMetricsWhileAConnectionStringChanges(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "measured")
	mustExec(t, c, "begin")
	mustExec(t, c, "select from pg_class") // which keeps a server by the old one
	d.adminExec(t, fmt.Sprintf("ALTER SHARD measured_s0 IN measured ALTER NODE measured_n0 'host=127.0.0.1 port=%d dbname=measured_0 user=%s password=%s connect_timeout=7'", d.cluster.Node("s1-a").Port, cluster.Superuser, d.cluster.Password))
	mustExec(t, connectTo(t, dsnFor("app", "app", d.Server.Addr(), "measured")), "select from pg_class")
	if code, body, _ := get(t, d.url("/metrics")); code != 200 || strings.Count(body, `pgmosaic_pool_servers_active{database="measured",node="measured_n0",role="app"`) != 1 {
		t.Errorf("/metrics: %d %.500s", code, body)
	}
	mustExec(t, c, "rollback")
}

func TestHealthAndMetrics(t *testing.T) {
	t.Parallel()
	d := shop(t)
	if code, body, _ := get(t, d.url("/healthz")); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	eventually(t, "it is ready", func() bool { code, _, _ := get(t, d.url("/readyz")); return code == 200 })
	mustExec(t, connectTo(t, d.shopDSN()), "select count(*) from customers")
	code, body, _ := get(t, d.url("/metrics"))
	for _, want := range []string{`pgmosaic_shard_up{database="shop",shard="s1"} 1`, `pgmosaic_replica_lag_seconds{`, `pgmosaic_queries_total{database="shop"}`, `pgmosaic_pool_servers_idle{`, `plan="scatter"`} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics: %d, no %s: %.500s", code, want, body)
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
	dir, err := os.MkdirTemp("", "browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its helpers write for a moment after it has ended
		eventually(t, dir+" can be removed", func() bool { return os.RemoveAll(dir) == nil })
	})
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.Env("TMPDIR="+dir),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true))
	alloc, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(func(format string, args ...any) {
		if !strings.HasPrefix(format, "unhandled ") { // an event that Chromium has and chromedp does not know: nothing here waits for one
			log.Printf("chromedp: "+format, args...)
		}
	}))
	t.Cleanup(cancel)
	ctx, cancelTime := context.WithTimeout(ctx, 200*time.Second)
	t.Cleanup(cancelTime)
	return ctx
}

// webPage is the dashboard in a browser.
type webPage struct {
	t          *testing.T
	ctx        context.Context
	url        string
	complaints []string
}

func openPage(t *testing.T, url string) *webPage {
	t.Helper()
	p := &webPage{t: t, ctx: browser(t), url: url}
	chromedp.ListenTarget(p.ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			p.complaints = append(p.complaints, e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError {
				p.complaints = append(p.complaints, fmt.Sprint(e.Args))
			}
		}
	})
	p.do("open", chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url), chromedp.Poll(`document.getElementById("live").textContent === "live"`, nil))
	return p
}

func (p *webPage) do(what string, actions ...chromedp.Action) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// until waits for a condition in JavaScript.
func (p *webPage) until(what, cond string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	err := chromedp.Run(ctx, chromedp.Poll(cond, nil))
	for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "Cannot find context") { // the page before is still being left
		err = chromedp.Run(ctx, chromedp.Poll(cond, nil))
	}
	if err != nil {
		var text string
		_ = chromedp.Run(p.ctx, chromedp.Text("body", &text))
		p.t.Fatalf("%s: %v; the page says:\n%s", what, err, text)
	}
}

// see waits for a text somewhere in an element.
func (p *webPage) see(selector, text string) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s shows %q", selector, text), fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.textContent.includes(%q))`, selector, text))
}

// visit goes to an address of the page and returns when its view is there: until then the view before it is, and what is done meets that.
func (p *webPage) visit(hash string) {
	p.t.Helper()
	p.do("go to "+hash, chromedp.Evaluate(fmt.Sprintf(`new Promise((there) => {
		if (location.hash === "#" + %[1]q) return there();
		addEventListener("hashchange", () => there(), { once: true });
		location.hash = %[1]q;
	})`, hash), nil, awaited))
}

// awaited has the promise that is evaluated be waited for.
func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// readable lists texts whose contrast is below what WCAG 2.1 asks for (4.5, or 3 for large ones), and controls without a name.
const readable = `(() => {
  const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const lum = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const back = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility() || e.closest("[hidden], noscript, .skip, .hide")) continue;
    const s = getComputedStyle(e), a = lum(parse(s.color)), b = lum(back(e)), size = parseFloat(s.fontSize), large = size >= 24 || size >= 18.66 && Number(s.fontWeight) >= 700;
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (size > 0 && ratio < (large ? 3 : 4.5)) bad.push(e.tagName + " " + e.textContent.trim().slice(0, 30) + ": " + ratio.toFixed(2));
  }
  for (const e of document.querySelectorAll("a, button, input, select, textarea")) {
    const named = e.textContent.trim() || e.getAttribute("aria-label") || e.id && document.querySelector("label[for='" + e.id + "']");
    if (!named && e.checkVisibility()) bad.push(e.outerHTML.slice(0, 80) + " has no name");
  }
  return [...new Set(bad)];
})()`

// look takes pictures at each width in light and dark, and checks that nothing sticks out.
func (p *webPage) look(name string) {
	p.t.Helper()
	shots := os.Getenv("PGMOSAIC_SHOTS")
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{390, 1280, 2560} {
			var png []byte
			var overflow bool
			var faint []string
			p.do("look at "+name, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}), // what is amid a change of colours is hard to read
				chromedp.EmulateViewport(width, 900), chromedp.Sleep(200*time.Millisecond),
				chromedp.Evaluate(`document.documentElement.scrollWidth > document.documentElement.clientWidth`, &overflow), chromedp.Evaluate(readable, &faint), chromedp.FullScreenshot(&png, 100))
			if len(faint) > 0 {
				p.t.Errorf("%s, %s at %d pixels: hard to read: %s", name, scheme, width, strings.Join(faint, "; "))
			}
			if overflow {
				p.t.Errorf("%s, %s at %d pixels: the page is wider than its window", name, scheme, width)
			}
			if len(png) < 5000 {
				p.t.Errorf("%s, %s at %d pixels: an empty picture", name, scheme, width)
			}
			if shots != "" {
				if err := os.WriteFile(filepath.Join(shots, fmt.Sprintf("%s-%s-%d.png", name, scheme, width)), png, 0o644); err != nil {
					p.t.Fatal(err)
				}
			}
		}
	}
	p.do("back", chromedp.EmulateViewport(1280, 900))
}

func (p *webPage) quiet() {
	p.t.Helper()
	if len(p.complaints) > 0 {
		p.t.Errorf("the browser complains: %v", p.complaints)
	}
}

// A list that is sorted anew, or loses a row, leaves the focus where it was: the keyboard's user is not thrown out of it.
func TestListsKeepTheFocus(t *testing.T) {
	t.Parallel()
	p := openPage(t, shop(t).url("/"))
	p.until("the page is there", `document.getElementById("nav").children.length > 0`)
	var got []string
	p.do("the lists", chromedp.Evaluate(`(async () => {
		const { el, keyed } = await import("/js/dom.js");
		const list = el("ul"), seen = [];
		document.body.append(list);
		const draw = (keys) => keyed(list, [...keys], (k) => k, (k) => el("li", { tabindex: "0" }, k), () => {});
		const focused = () => list.contains(document.activeElement) ? document.activeElement.textContent : "none";
		draw("abcd");
		for (const key of "ad") {
			[...list.children].find((e) => e.textContent === key).focus();
			for (const keys of ["dcba", "abcd", "adx", "xda", "yda", "bcad", "abcd"]) { draw(keys); seen.push(list.textContent + " " + focused()); }
		}
		draw("bc");
		seen.push(list.textContent + " " + focused());
		return seen;
	})()`, &got, awaited))
	var want []string
	for _, key := range []string{"a", "d"} {
		for _, keys := range []string{"dcba", "abcd", "adx", "xda", "yda", "bcad", "abcd"} {
			want = append(want, keys+" "+key)
		}
	}
	if want = append(want, "bc none"); !slices.Equal(got, want) {
		t.Errorf("the lists and what is in focus:\n%q, not\n%q", got, want)
	}
	p.quiet()
}

// The answer to a question that is not asked any more is not shown: a row in focus would go, though the filter lets it stay.
func TestAnAnswerToAnEarlierFilterIsNotShown(t *testing.T) {
	t.Parallel()
	d := shop(t)
	connectTo(t, d.shopDSN()+"?application_name=stays")
	p := openPage(t, d.url("/"))
	var got []string
	p.do("the list", chromedp.Evaluate(`(async () => {
		const { el } = await import("/js/dom.js");
		const { grid } = await import("/js/grid.js");
		const root = el("div"), ask = window.fetch, said = [];
		document.body.append(root);
		let asked, answer, read;
		const isAsked = new Promise((r) => asked = r), mayAnswer = new Promise((r) => answer = r), isRead = new Promise((r) => read = r);
		window.fetch = async (url, o) => {
			if (!String(url).includes("q=nobody")) return ask(url, o);
			asked();
			await mayAnswer;
			const r = await ask(url, o);
			return { status: r.status, ok: r.ok, headers: r.headers, json: async () => { const v = await r.json(); read(); return v; } };
		};
		const list = grid(root, "clients", ["application_name", "id"], { key: (r) => r.id, row: () => {} });
		const row = () => [...root.querySelectorAll("tr.link")].find((e) => e.textContent.includes("stays"));
		while (!row()) await new Promise((r) => setTimeout(r, 10));
		row().focus();
		list.filter("nobody-is-called-so");
		await isAsked;
		list.filter("");
		answer();
		await isRead;
		await new Promise((r) => setTimeout(r)); // what was read is drawn, if it is
		said.push(row() ? "there" : "gone", document.activeElement === row() ? "in focus" : "not in focus");
		window.fetch = ask;
		list.drop();
		root.remove();
		return said;
	})()`, &got, awaited))
	if !slices.Equal(got, []string{"there", "in focus"}) {
		t.Errorf("the row is %q", got)
	}
	p.quiet()
}

// Every view of the page, driven in a real browser, with a lagging replica, a running job, a commit in doubt and a dead
// primary shown on it.
func TestDashboard(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, Customers: 200, Orders: 500})
	stopLoad := load(t, d)
	_, err := connectTo(t, d.shopDSN()).Exec(t.Context(), "select * from customers order by name limit 1 for update")
	wantCode(t, err, "0A000") // so that there is a refusal to show
	connectTo(t, d.shopDSN()+"?application_name=stays")
	p := openPage(t, d.url("/"))
	p.see(`[data-shard="s2"]`, "served")
	p.see("#verdict", "2 of 2 shards served")
	for _, want := range []string{"s1-a", "s1-b", "s2-a", "s2-b", "serves writes", "answers reads", "primary", "replica"} {
		p.see("#shards", want)
	}
	p.see(".tile", "shop")
	p.until("the lines are drawn", `document.querySelectorAll(".plot canvas").length === 3 && document.querySelector(".plot").getAttribute("aria-label").includes("now")`)
	for view, want := range map[string][2]string{
		"sessions": {"table", "app"}, "statements": {"table", "scatter"}, "refusals": {"table", "row-lock"}, "map": {"#main", "customers"}, "events": {"table", "a replica answers reads"},
		"jobs": {"#main", "Jobs"}, "transactions": {"#main", "None."}, "database/shop": {"h1", "Database shop"}, "shard/shop/s1": {"table", "s1-b"}, "node/shop/s1/s1-b": {".badge", "answers reads"},
	} {
		p.visit("/" + view)
		if view == "refusals" {
			p.see("table", "for update")
		} else if view == "statements" {
			p.see("table", "select * from orders where customer_id = $1")
		} else {
			p.see(want[0], want[1])
		}
		p.look(strings.ReplaceAll(view, "/", "-"))
	}
	p.visit("/statements") // the question where a statement would run
	p.do("ask", chromedp.WaitVisible("#ask"), chromedp.SendKeys("#ask", "select * from orders where customer_id = 7"), chromedp.Click(".ask .main"))
	p.see("pre", "Single on")
	p.visit("/sessions") // the keyboard leads to the filter, and to a session
	p.until("there are sessions", `document.querySelectorAll("tr.link").length > 0`)
	p.do("keys", chromedp.Evaluate(`document.getElementById("main").focus()`, nil), chromedp.KeyEvent("/"))
	p.until("the filter is in focus", `document.activeElement.id === "filter"`)
	// chromedp sends the character apart from the key, so it arrives although the page has taken the key.
	p.do("clear it", chromedp.Evaluate(`document.activeElement.value = ""; document.activeElement.dispatchEvent(new Event("input"))`, nil))
	p.until("the session that stays is in focus", `(() => { const r = [...document.querySelectorAll("tr.link")].find((x) => x.textContent.includes("stays")); r?.focus(); return Boolean(r) && document.activeElement === r })()`)
	p.do("open it", input.DispatchKeyEvent(input.KeyRawDown).WithKey("Enter").WithCode("Enter").WithWindowsVirtualKeyCode(13))
	p.until("the dialog is open, and holds the focus", `document.getElementById("dialog").open && document.getElementById("dialog").contains(document.activeElement)`)
	p.do("close it", chromedp.KeyEvent(kb.Escape))
	p.until("it is closed", `!document.getElementById("dialog").open`)
	p.visit("/sessions?q=nobody-is-called-so") // an address with a filter can be shared
	p.see(".sub", "0 of")

	// A replica is paused: it leaves the reads, and the page says so.
	p.visit("/")
	if err := d.cluster.Node("s2-b").PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.see(`[data-node="s2-b"]`, "replay is paused")
	p.see(".problems", "Replica s2-b is out of the reads")
	p.until("its lag grows", `/\d+\.\d s/.test(document.querySelector('[data-node="s2-b"] .num').textContent)`)
	time.Sleep(2 * time.Second) // a line to look at
	p.look("lagging")

	// Nobody but an admin changes anything; an admin sees the SQL first.
	if code, body := post(t, d.url("/api/exec"), `{"sql": "PAUSE shop"}`); code != 403 || !strings.Contains(body, "42501") {
		t.Errorf("PAUSE without a login: %d %s", code, body)
	}
	p.do("log in", chromedp.Click("#user"), chromedp.WaitVisible("#login-user"), chromedp.SendKeys("#login-user", "admin"), chromedp.SendKeys("#login-pw", "wrong"), chromedp.Click("dialog .main"))
	p.see(".answer", "wrong name or password")
	p.do("log in", chromedp.SetValue("#login-pw", "admin"), chromedp.Click("dialog .main"))
	p.see("#user", "admin (admin)")
	p.visit("/shard/shop/s2")
	p.do("pause", chromedp.WaitVisible(".act"), chromedp.Click(".act"))
	p.see("dialog pre", "PAUSE shop SHARD s2")
	p.look("dialog")
	p.do("run it", chromedp.Click("dialog .danger"))
	p.see(".answer", "Done: PAUSE")
	if !d.Pools.Paused("shop", "s2") || d.Pools.Paused("shop", "s1") {
		t.Error("the shard is not paused, or the other one is")
	}
	p.do("close", chromedp.Click("dialog button"))
	p.visit("/")
	p.see(".problems", "Shard s2 of shop is paused")
	d.adminExec(t, "RESUME shop SHARD s2")

	// A job: a table of that name, not yet committed on the other shard, holds the copy back for as long as is needed here.
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table big (id int primary key, t text)")
	mustExec(t, c, "insert into big select i, 'x' from generate_series(1, 1000) i")
	mustExec(t, c, "analyze big")
	d.adminExec(t, "CREATE GROUP g IN shop KEY (int) BY HASH")
	lock := connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	mustExec(t, lock, "begin")
	mustExec(t, lock, "create table big (id int)")
	done := make(chan error, 1)
	go func() { done <- adminErr(d, "DISTRIBUTE TABLE shop.public.big IN GROUP g KEY (id)") }()
	p.see(".problems", "Running: DISTRIBUTE TABLE")
	p.visit("/jobs")
	p.see("[data-job]", "of about 1,000 rows")
	p.until("its progress is shown", `!document.querySelector("[data-job] progress").hidden`)
	p.look("job")
	mustExec(t, lock, "rollback")
	if err := <-done; err != nil {
		t.Error(err)
	}
	p.see("[data-job] .badge", "done")

	// A part is prepared on s2, and s1, which decides, dies: it stays in doubt, and s1 is not served.
	stopLoad()
	part := connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	gid := txn.PartGID(txn.GID(d.Catalog.Current().Install, "s1"), 1)
	for _, sql := range []string{"begin", "create table doubtful (n int)", "prepare transaction '" + gid + "'"} {
		mustExec(t, part, sql)
	}
	d.cluster.Node("s1-a").Kill()
	p.see("#verdict", "1 of 2 shards served: s1 primary down")
	p.visit("/transactions")
	p.see("[data-gid]", "On shard s2, decided by shard s1")
	p.look("doubt")
	p.visit("/")
	p.see(`[data-shard="s1"]`, "does not answer")
	p.see(".problems", "Shard s1 of shop is not served")
	p.look("dead")
	p.visit("/shard/shop/s1")
	p.see(".events", "a node does not answer")
	p.look("dead-shard")
	p.quiet()
	mustExec(t, part, "rollback prepared '"+gid+"'")
}

func post(t testing.TB, url, body string) (int, string) {
	t.Helper()
	r, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

// Each view is there when its address is opened by itself, from a bookmark or by reloading the page.
func TestEachViewOpensByItsAddress(t *testing.T) {
	t.Parallel()
	d := shop(t)
	p := openPage(t, d.url("/"))
	for _, x := range []struct{ address, title string }{
		{"sessions", "Sessions"},
		{"statements", "Statements"},
		{"refusals", "Refused statements"},
		{"jobs", "Jobs"},
		{"transactions", ""},
		{"map", "Shard map"},
		{"events", "Events"},
		{"database/shop", "Database shop"},
		{"shard/shop/s1", "s1"},
		{"node/shop/s1/s1-b", "s1-b"},
		{"nowhere", "There is no such page"},
	} {
		p.do("open "+x.address, chromedp.Navigate("about:blank"), chromedp.Navigate(d.url("/#/"+x.address)))
		p.see("h1", x.title)
		p.until(x.address+" is live", `document.getElementById("live").textContent === "live"`)
	}
	p.quiet()
}

// The page of a large installation: 100 shards of three nodes, all of them watched. That is work for the whole machine: nothing runs beside it.
func TestDashboardOfAHundredShards(t *testing.T) {
	d := shop(t)
	primary := d.cluster.Node("s1-a")
	freshDatabase(t, primary, "hundred")
	super := connectTo(t, primary.DSN("postgres"))
	mustExec(t, super, "drop role if exists hundred")
	mustExec(t, super, "create role hundred login password 'hundred' in role pg_monitor") // it cannot write down whose the database is: a hundred share it
	t.Cleanup(func() {
		for _, sql := range []string{"drop database hundred with (force)", "drop role hundred"} {
			if _, err := super.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
	})
	doc := &shardmap.Document{Version: 1, Install: "many", Databases: []*shardmap.Database{{Name: "shop", Home: "s001"}}}
	for i := 1; i <= 100; i++ {
		s := fmt.Sprintf("s%03d", i)
		doc.Shards = append(doc.Shards, &shardmap.Shard{Database: "shop", Name: s, Ordinal: i})
		for j, n := range []string{"s1-a", "s1-b", "s1-b"} {
			doc.Nodes = append(doc.Nodes, &shardmap.Node{
				Database: "shop", Shard: s, Name: fmt.Sprintf("%s-%c", s, 'a'+j), Ordinal: j, Zone: fmt.Sprintf("zone-%c", 'a'+j),
				DSN: fmt.Sprintf("postgres://hundred:hundred@127.0.0.1:%d/hundred?sslmode=disable&connect_timeout=%d", d.cluster.Node(n).Port, 100+3*i+j),
			})
		}
	}
	doc.Nodes[50*3+1].DSN = "postgres://postgres@127.0.0.1:1/shop"
	cfg := crashConfig(t, doc)
	cfg.Monitor = config.Duration(4 * time.Second) // 300 nodes on one machine, with a race detector perhaps
	cfg.Listen, cfg.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	a, err := startWith(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.stop(0) })
	p := openPage(t, "http://"+a.Page()+"/")
	p.until("all are there", `document.querySelectorAll("[data-shard]").length === 100`)
	p.see("#verdict", "100 of 100 shards served")
	p.until("what is amiss comes first", `(() => { // on a busy machine others are late
		const all = [...document.querySelectorAll("[data-shard]")], at = all.findIndex(e => e.dataset.shard === "s051")
		return all[at].textContent.includes("■") && all.slice(0, at).every(e => e.textContent.includes("■"))
	})()`)
	var long []float64
	p.do("watch it", chromedp.Evaluate(`window.long = []; new PerformanceObserver(l => window.long.push(...l.getEntries().map(e => e.duration))).observe({type: "longtask"})`, nil),
		chromedp.Sleep(time.Second), chromedp.Evaluate(`window.long`, &long))
	t.Logf("tasks of more than 50 ms in a second: %v", long)
	p.look("hundred")
	p.do("filter", chromedp.SendKeys("#filter", "s07"))
	p.until("the filter holds", `document.querySelectorAll("[data-shard]").length === 10`)
	p.quiet()
}

// What the page lets in and what it does not.
func TestDashboardIsGuarded(t *testing.T) {
	t.Parallel()
	d := shop(t)
	cfg := crashConfig(t, mapOf(d, "shop"))
	cfg.AuthTries = 0
	cfg.Users = append(cfg.Users, config.User{Name: "eyes", Password: "eyes"})
	cfg.StatsUsers = []string{"eyes"}
	a := startApp(t, cfg)
	s := dashboard.Server{Admin: a.Admin, Gatherer: prometheus.NewRegistry(), Ready: a.Ready, Login: a.Gate.WebLogin, Standing: a.Gate.Standing, Bounds: dashboard.DefaultBounds()}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	status := func(method, path, user, body string, change func(*http.Request)) int {
		t.Helper()
		r, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			r.SetBasicAuth(user, user)
		}
		r.Header.Set("Content-Type", "application/json")
		if change != nil {
			change(r)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, c := range []struct {
		method, path, user, body string
		want                     int
	}{
		{"GET", "/healthz", "", "", 200},
		{"GET", "/", "", "", 200},
		{"GET", "/metrics", "", "", 401},
		{"GET", "/api/view/replicas", "", "", 401},
		{"GET", "/api/view/replicas", "eyes", "", 200},
		{"GET", "/api/view/replicas", "app", "", 401}, // it may use the database, not look here
		{"GET", "/api/view/config", "eyes", "", 200},
		{"GET", "/api/view/config", "admin", "", 200},
		{"GET", "/api/view/nosuch", "eyes", "", 404},
		{"GET", "/js/../style.css", "", "", 200},
		{"GET", "/js/%2e%2e%2fdashboard.go", "", "", 400},
		{"POST", "/api/exec", "eyes", `{"sql": "SHOW SHARDS"}`, 200},
		{"POST", "/api/exec", "eyes", `{"sql": "PAUSE shop"}`, 422},
		{"POST", "/api/exec", "eyes", `{"sql": "` + strings.Repeat("x", 100000) + `"}`, 400},
		{"POST", "/api/exec", "", `{"sql": "SHOW SHARDS"}`, 401},
		{"POST", "/api/login", "", `{"user": "eyes", "password": "wrong"}`, 401},
		{"POST", "/api/login", "", `{"user": "eyes", "password": "eyes"}`, 200},
	} {
		if got := status(c.method, c.path, c.user, c.body, nil); got != c.want {
			t.Errorf("%s %s as %q: %d, want %d", c.method, c.path, c.user, got, c.want)
		}
	}
	// A stream ends with the login that it came by.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { _ = s.Run(ctx) }()
	login, err := http.Post(srv.URL+"/api/login", "application/json", strings.NewReader(`{"user": "eyes", "password": "eyes"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = login.Body.Close()
	with := func(method, path string) *http.Response {
		r, err := http.NewRequestWithContext(ctx, method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range login.Cookies() {
			r.AddCookie(c)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	stream := with("GET", "/api/events")
	_ = with("POST", "/api/logout").Body.Close()
	if _, err := io.ReadAll(stream.Body); err != nil {
		t.Errorf("the stream of a login that has ended goes on: %v", err)
	}
	_ = stream.Body.Close()
	// Another site's page cannot make the browser do anything here.
	if got := status("POST", "/api/exec", "admin", `{"sql": "PAUSE shop"}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }); got != 415 {
		t.Errorf("a form of another site: %d", got)
	}
	if got := status("POST", "/api/exec", "admin", `{"sql": "PAUSE shop"}`, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); got != 403 {
		t.Errorf("a script of another site: %d", got)
	}
	if a.Pools.Paused("shop", "") {
		t.Error("the database was paused")
	}
	// Who has not logged in, on the machine itself, sees the shards and not the configuration.
	if code, _, _ := get(t, d.url("/api/view/shards")); code != 200 {
		t.Errorf("the shards without a login: %d", code)
	}
	if code, _, _ := get(t, d.url("/api/view/config")); code != 403 {
		t.Errorf("the configuration without a login: %d", code)
	}
	for sql, want := range map[string]int{"SHOW CONFIG": 403, "EXPLAIN ROUTE IN shop select 1": 200, "SHOW MAP AS SQL": 200, "PAUSE shop": 403} {
		if code, body := post(t, d.url("/api/exec"), `{"sql": "`+sql+`"}`); code != want {
			t.Errorf("%s without a login: %d %s", sql, code, body)
		}
	}
	// Where anybody on the machine may look, a name that is made to mean this machine is no way in.
	r, err := http.NewRequest("GET", d.url("/api/view/replicas"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.example:8432"
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another name for this machine: %d", res.StatusCode)
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
