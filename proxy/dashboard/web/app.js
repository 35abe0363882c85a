"use strict";
const $ = (id) => document.getElementById(id);
const lines = { lag: {}, rate: {} };
const LENGTH = 900;

function el(tag, attrs, ...children) {
  const svg = ["svg", "path", "rect"].includes(tag);
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) e.setAttribute(k, v);
  for (const c of children) if (c !== null && c !== undefined) e.append(c);
  return e;
}

function ms(v) {
  if (v === null || v === undefined) return "unknown";
  if (v < 1000) return v + " ms";
  if (v < 120000) return (v / 1000).toFixed(1) + " s";
  return Math.round(v / 60000) + " min";
}

function bytes(v) {
  if (v === null || v === undefined) return "";
  const u = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  while (v >= 1024 && i < u.length - 1) { v /= 1024; i++; }
  return (i ? v.toFixed(1) : v) + " " + u[i];
}

// spark draws a line over the last 15 minutes, or over what is known of them; unknown values leave a gap.
function spark(points, label, least) {
  const max = Math.max(least, ...points.filter((p) => p !== null));
  const span = Math.max(60, points.length);
  let d = "", pen = false;
  points.forEach((p, i) => {
    if (p === null) { pen = false; return; }
    const x = ((span - points.length + i) / (span - 1)) * 300, y = 30 - (p / max) * 28;
    d += (pen ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
    pen = true;
  });
  const first = ((span - points.length) / (span - 1)) * 300;
  const svg = el("svg", { class: "spark", viewBox: "0 0 300 32", preserveAspectRatio: "none", role: "img", "aria-label": label });
  svg.append(el("path", { class: "base", d: "M0 31H300" }));
  if (d && !points.includes(null)) svg.append(el("path", { class: "area", d: d + "L300 31L" + first.toFixed(1) + " 31Z" }));
  svg.append(el("path", { d: d || "M0 0" }));
  return svg;
}

function take(into, from, whole) {
  for (const [k, v] of Object.entries(from)) {
    if (whole) into[k] = v;
    else into[k] = (into[k] || []).concat(v).slice(-LENGTH);
  }
}

function bar(used, size) {
  const svg = el("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none" }, el("rect", { width: size ? Math.min(100, (100 * used) / size) : 0, height: 6 }));
  return el("div", { class: "bar", "aria-hidden": "true" }, svg);
}

function nodeRow(s, n) {
  const primary = n.role === "primary";
  const pools = s.node_pools.filter((p) => p.database === n.database && p.node === n.node);
  const active = pools.reduce((a, p) => a + p.sv_active, 0), idle = pools.reduce((a, p) => a + p.sv_idle, 0), waiting = pools.reduce((a, p) => a + p.cl_waiting, 0);
  const bad = n.state === "unreachable" || n.state === "unknown";
  const row = el("div", { class: "node", "data-node": n.node, "data-state": n.state });
  row.append(el("div", null, el("span", { class: "name" }, n.node), el("span", { class: "label" }, n.role + (n.zone ? " · " + n.zone : "") + (n.timeline ? " · timeline " + n.timeline : ""))));
  if (primary) {
    row.append(el("div", null, el("span", { class: "badge " + (bad ? "bad" : "ok") }, bad ? "does not answer" : "serves writes")));
    row.append(el("div", null, el("span", { class: "label" }, "at " + (n.primary_lsn || "unknown"))));
  } else {
    const cls = n.eligible ? "" : bad ? "bad" : "warn";
    row.append(el("div", null, el("span", { class: "num " + cls }, ms(n.lag_ms)), el("span", { class: "label" }, "behind" + (n.lag_bytes ? ", " + bytes(n.lag_bytes) : ""))));
    row.append(el("div", null, spark(lines.lag[n.database + "/" + n.node] || [], "lag of " + n.node + " over 15 minutes", 200)));
  }
  row.append(el("div", null, el("span", { class: "label" }, active + " in use, " + idle + " idle" + (waiting ? ", " + waiting + " waiting" : "")), bar(active, active + idle), el("span", { class: "label" }, n.reads.toLocaleString() + " reads")));
  if (!primary) {
    const b = n.eligible ? el("span", { class: "badge ok" }, "answers reads") : el("span", { class: "badge " + (bad ? "bad" : "warn") }, "out of the reads");
    row.append(el("div", { class: "why" }, b, n.reason ? " " + n.reason : ""));
  } else if (bad && n.reason) {
    row.append(el("div", { class: "why" }, n.reason));
  }
  return row;
}

function draw(s) {
  const down = s.shards.filter((x) => x.state !== "up");
  const replicas = s.replicas.filter((r) => r.role !== "primary");
  const out = replicas.filter((r) => !r.eligible);
  const worst = replicas.reduce((a, r) => Math.max(a, r.lag_ms || 0), 0);
  const v = $("verdict");
  const served = s.shards.length - down.length + " of " + s.shards.length + " shards served";
  v.className = down.length ? "bad" : out.length ? "warn" : "ok";
  v.textContent = !s.shards.length ? "No shard yet" : down.length ? served + ": " + down.map((d) => d.shard + " " + d.state).join(", ")
    : out.length ? served + " · " + out.length + " of " + replicas.length + " replicas out of the reads" : served + (replicas.length ? " · replicas at most " + ms(worst) + " behind" : "");
  document.title = (down.length ? "▲ " : "") + "pgmosaic";

  $("traffic").replaceChildren(...s.stats.map((d) => {
    const pts = lines.rate[d.database] || [], now = pts.length ? pts[pts.length - 1] : 0;
    return el("div", { class: "card tile" }, el("span", { class: "sub" }, d.database), el("div", null, el("span", { class: "big" }, Math.round(now || 0).toLocaleString()), el("span", { class: "sub" }, " statements/s")),
      spark(pts, "statements per second of " + d.database, 10), el("span", { class: "label" }, d.errors.toLocaleString() + " errors · " + d.plan_scatter.toLocaleString() + " scattered · " + d.two_phase.toLocaleString() + " commits over shards"));
  }));
  if (!s.stats.length) $("traffic").append(el("p", { class: "empty" }, "No statement yet."));

  $("shards").replaceChildren(...s.shards.map((sh) => {
    const good = sh.state === "up";
    const card = el("article", { class: "card", "data-shard": sh.shard }, el("header", null, el("h3", null, sh.shard), el("span", { class: "sub" }, sh.database + (sh.home ? " · home" : "") + " · " + sh.slots + " slots"),
      el("span", { class: "badge right " + (good ? "ok" : "bad") }, good ? "served" : sh.state)));
    for (const n of s.replicas.filter((r) => r.database === sh.database && r.shard === sh.shard).sort((a, b) => (b.role === "primary") - (a.role === "primary"))) card.append(nodeRow(s, n));
    return card;
  }));

  const groups = {};
  for (const r of s.slots) (groups[r.database + "." + r.group] = groups[r.database + "." + r.group] || []).push(r);
  $("slots").replaceChildren(...Object.entries(groups).map(([name, runs]) => {
    const shards = s.shards.filter((x) => x.database === runs[0].database).map((x) => x.shard);
    const svg = el("svg", { viewBox: "0 0 16384 10", preserveAspectRatio: "none", role: "img", "aria-label": "slots of " + name + ": " + runs.map((r) => r.from + " to " + r.to + " on " + r.shard).join(", ") });
    for (const r of runs) svg.append(el("rect", { x: r.from, width: r.to - r.from + 1, height: 10, class: "c" + (shards.indexOf(r.shard) % 8) }));
    const legend = el("div", { class: "legend" }, el("span", null, name + ":"));
    for (const sh of new Set(runs.map((r) => r.shard))) {
      const dot = el("svg", { viewBox: "0 0 10 10", class: "dot", "aria-hidden": "true" }, el("rect", { width: 10, height: 10, rx: 2, class: "c" + (shards.indexOf(sh) % 8) }));
      legend.append(el("span", null, dot, sh));
    }
    return el("div", { class: "strip" }, svg, legend);
  }));
  if (!s.slots.length) $("slots").append(el("p", { class: "empty" }, "No group yet."));

  if (s.refusals.length) {
    const t = el("table", null, el("thead", null, el("tr", null, ...["rule", "count", "last sample", "how to succeed"].map((h) => el("th", { scope: "col" }, h)))));
    const body = el("tbody");
    for (const r of s.refusals) body.append(el("tr", null, el("td", null, r.rule), el("td", null, String(r.count)), el("td", null, el("code", null, r.sample)), el("td", null, r.hint)));
    t.append(body);
    $("refusals").replaceChildren(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "refused statements" }, t));
  } else $("refusals").replaceChildren(el("p", { class: "empty" }, "None."));
  $("version").textContent = "pgmosaic " + s.version;
}

let heard = 0;
function live(on) {
  $("live").className = "live" + (on ? " on" : "");
  $("live").textContent = on ? "live" : "offline, reconnecting";
}
const events = new EventSource("api/events");
events.onmessage = (e) => {
  const s = JSON.parse(e.data);
  heard = Date.now();
  take(lines.lag, s.lag, s.whole);
  take(lines.rate, s.rate, s.whole);
  draw(s);
  live(true);
};
events.onerror = () => live(false);
setInterval(() => { if (Date.now() - heard > 4000) live(false); }, 1000);
