// The first view: is every shard served, and how stale are its copies?

import { chart, spark } from "./chart.js";
import { bytes, cls, count, el, keyed, ms, path, put } from "./dom.js";
import { state } from "./live.js";

export function health(n) {
  if (n.role === "primary") return n.state === "up" ? (n.reason === "primary" ? ["ok", "serves writes"] : ["bad", n.reason]) : ["bad", "does not answer"];
  if (n.eligible) return ["ok", "answers reads"];
  return [n.state === "lagging" ? "warn" : "bad", n.state === "unreachable" ? "does not answer" : n.state === "stranger" ? "not the shard's" : "out of the reads"];
}

const SIGN = { ok: "●", warn: "▲", bad: "■", info: "◆" };
export const sign = (kind) => SIGN[kind] || "";

function nodeLine() {
  const mark = el("span", { class: "mark", "aria-hidden": "true" }), name = el("a", { class: "name" }), role = el("span", { class: "role" });
  const num = el("span", { class: "num" }), line = spark(), what = el("span", { class: "what" }), why = el("span", { class: "why" });
  const li = el("li", { class: "node" }, mark, el("span", { class: "who" }, name, role), num, line, what, why);
  li.update = (n) => {
    const [kind, say] = health(n), primary = n.role === "primary";
    li.dataset.node = n.node;
    cls(li, "node " + kind);
    put(mark, SIGN[kind]);
    put(name, n.node);
    name.setAttribute("href", path("node", n.database, n.shard, n.node));
    put(role, n.role + (n.zone ? ", " + n.zone : ""));
    put(num, primary ? "" : n.state === "unreachable" ? "" : ms(n.lag_ms));
    const key = n.database + "/" + n.node;
    line.draw(primary ? state.lines["reads:" + key] : state.lines["lag:" + key], primary ? 10 : 200);
    put(what, say);
    put(why, kind === "ok" ? "" : (n.reason || "") + (n.lag_bytes && !primary ? ", " + bytes(n.lag_bytes) + " behind" : ""));
  };
  return li;
}

export function shardCard() {
  const name = el("a"), sub = el("span", { class: "sub" }), badge = el("span"), nodes = el("ul", { class: "nodes" });
  const card = el("article", { class: "card shard" }, el("header", null, el("h3", null, name), sub, badge), nodes);
  card.update = (sh) => {
    const good = sh.state === "up";
    card.dataset.shard = sh.shard;
    cls(card, "card shard" + (good ? "" : " bad"));
    put(name, sh.shard);
    name.setAttribute("href", path("shard", sh.database, sh.shard));
    put(sub, sh.database + (sh.home ? ", home" : ""));
    cls(badge, "badge " + (good ? "ok" : "bad"));
    put(badge, good ? "served" : sh.state);
    const mine = state.replicas.filter((r) => r.database === sh.database && r.shard === sh.shard).sort((a, b) => (b.role === "primary") - (a.role === "primary"));
    keyed(nodes, mine, (n) => n.node, nodeLine, (e, n) => e.update(n));
  };
  return card;
}

// problems are what somebody should look at, the worst first, with where to look.
export function problems(s) {
  const out = [];
  for (const sh of s.shards) if (sh.state !== "up") out.push({ kind: "bad", text: "Shard " + sh.shard + " of " + sh.database + " is not served: " + sh.state, to: path("shard", sh.database, sh.shard) });
  const damaged = s.doubt.filter((d) => d.state !== "prepared"), old = s.doubt.filter((d) => d.state === "prepared" && d.age_ms > 10000);
  if (damaged.length) out.push({ kind: "bad", text: damaged.length + " committed " + (damaged.length === 1 ? "transaction has" : "transactions have") + " lost a part", to: path("transactions") });
  if (old.length) out.push({ kind: "warn", text: old.length + (old.length === 1 ? " commit" : " commits") + " over shards in doubt, the oldest for " + ms(Math.max(...old.map((d) => d.age_ms))), to: path("transactions") });
  const out2 = s.replicas.filter((r) => r.role !== "primary" && !r.eligible);
  for (const r of out2.slice(0, 5)) out.push({ kind: "warn", text: "Replica " + r.node + " is out of the reads: " + (r.reason || r.state), to: path("node", r.database, r.shard, r.node) });
  if (out2.length > 5) out.push({ kind: "warn", text: out2.length - 5 + " more replicas are out of the reads", to: "#/" });
  for (const sh of s.shards) if (sh.paused && !s.databases.some((d) => d.name === sh.database && Number(d.paused))) out.push({ kind: "warn", text: "Shard " + sh.shard + " of " + sh.database + " is paused", to: path("shard", sh.database, sh.shard) });
  for (const d of s.databases) if (Number(d.paused)) out.push({ kind: "warn", text: "Database " + d.name + " is paused", to: path("sessions") });
  const waiting = s.node_pools.reduce((a, p) => a + (p.cl_waiting || 0), 0);
  if (waiting > 0) out.push({ kind: "warn", text: waiting + (waiting === 1 ? " client waits" : " clients wait") + " for a server", to: path("sessions") });
  for (const j of s.jobs) if (j.state === "running" || !j.ended) out.push({ kind: "info", text: "Running: " + j.statement + (j.expected_rows ? ", " + count(j.rows) + " of " + count(j.expected_rows) + " rows" : ""), to: path("jobs") });
  return out;
}

export function verdict(s) {
  const down = s.shards.filter((x) => x.state !== "up"), replicas = s.replicas.filter((r) => r.role !== "primary"), gone = replicas.filter((r) => !r.eligible);
  if (!s.shards.length) return ["warn", "No shard yet"];
  const served = s.shards.length - down.length + " of " + s.shards.length + " shards served";
  if (down.length) return ["bad", served + ": " + down.slice(0, 4).map((d) => d.shard + " " + d.state).join(", ") + (down.length > 4 ? " and others" : "")];
  if (gone.length) return ["warn", served + ", " + gone.length + " of " + replicas.length + " replicas out of the reads"];
  const worst = replicas.reduce((a, r) => Math.max(a, r.lag_ms || 0), 0);
  return ["ok", served + (replicas.length ? ", replicas " + (worst < 1000 ? "less than 1 s" : "up to " + ms(worst)) + " behind" : "")];
}

function tile() {
  const name = el("a"), big = el("span", { class: "big" }), line = spark(), rest = el("dl", { class: "facts" });
  const facts = ["median", "99 in 100 within", "errors", "reads on replicas"].map((t) => { const v = el("dd"); rest.append(el("div", null, el("dt", null, t), v)); return v; });
  const card = el("article", { class: "card tile" }, el("h3", null, name), el("p", null, big, el("span", { class: "sub" }, " statements/s")), line, rest);
  card.update = (d) => {
    const now = (k) => state.now[k + ":" + d.name];
    put(name, d.name);
    name.setAttribute("href", path("database", d.name));
    put(big, count(now("rate") ?? 0));
    line.draw(state.lines["rate:" + d.name], 10);
    const share = now("share");
    put(facts[0], now("p50") == null ? "–" : ms(now("p50")));
    put(facts[1], now("p99") == null ? "–" : ms(now("p99")));
    put(facts[2], count(now("errors") ?? 0) + "/s");
    put(facts[3], share == null ? "–" : Math.round(share) + " %");
  };
  return card;
}

export const logical = (s) => s.databases.filter((d) => d.name !== "pgmosaic" && d.name !== "pgbouncer");

export function charts(db) {
  const per = (v) => count(v) + "/s";
  return [
    chart("Statements", [{ key: "rate:" + db, label: "statements", colour: "--blue" }, { key: "errors:" + db, label: "errors", colour: "--bad" }], per, 10),
    chart("Time of a request", [{ key: "p50:" + db, label: "median", colour: "--green" }, { key: "p99:" + db, label: "99 in 100", colour: "--violet" }], ms, 1),
    chart("Reads on replicas", [{ key: "share:" + db, label: "of those that may", colour: "--green" }], (v) => Math.round(v) + " %", 100),
  ];
}

export function overview(root) {
  const list = el("ul", { class: "problems" }), lookAt = el("section", { "aria-labelledby": "t-look" }, el("h2", { id: "t-look" }, "To look at"), list);
  const tiles = el("div", { class: "tiles" }), plots = el("div", { class: "plots" });
  const filter = el("input", { type: "search", placeholder: "name, state or node", "aria-label": "Show only shards with", id: "filter" });
  const cards = el("div", { class: "cards", id: "shards" }), none = el("p", { class: "empty" });
  root.append(lookAt, tiles, el("section", { "aria-labelledby": "t-shards" }, el("div", { class: "head" }, el("h2", { id: "t-shards" }, "Shards"), filter), cards, none),
    el("section", { "aria-labelledby": "t-traffic" }, el("h2", { id: "t-traffic" }, "Traffic"), plots));
  let figures = [], of = "";
  const rank = (sh) => (sh.state === "up" ? (state.replicas.some((r) => r.database === sh.database && r.shard === sh.shard && r.role !== "primary" && !r.eligible) ? 1 : 2) : 0);
  const update = (s) => {
    const p = problems(s);
    lookAt.hidden = !p.length;
    keyed(list, p, (x) => x.to + x.kind + x.text.replace(/[\d.]+/g, "#"), () => {
      const a = el("a"), li = el("li", null, a);
      li.update = (x) => { cls(li, x.kind); a.setAttribute("href", x.to); put(a, SIGN[x.kind] + " " + x.text); };
      return li;
    }, (e, x) => e.update(x));
    const dbs = logical(s);
    keyed(tiles, dbs, (d) => d.name, tile, (e, d) => e.update(d));
    const only = dbs.length === 1 ? dbs[0].name : "";
    if (only !== of) {
      figures.forEach((f) => f.drop());
      of = only;
      figures = only ? charts(only) : [];
      plots.replaceChildren(...figures);
    }
    figures.forEach((f) => f.update());
    const many = s.shards.length > 12;
    filter.hidden = !many;
    cls(cards, "cards" + (s.shards.length > 24 ? " dense" : ""));
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let show = s.shards;
    if (words.length) show = show.filter((sh) => {
      const text = [sh.database, sh.shard, sh.state, ...s.replicas.filter((r) => r.shard === sh.shard && r.database === sh.database).flatMap((r) => [r.node, r.zone, health(r)[1], r.reason])].join(" ").toLowerCase();
      return words.every((w) => text.includes(w));
    });
    if (many) show = [...show].sort((a, b) => rank(a) - rank(b));
    keyed(cards, show, (sh) => sh.database + "/" + sh.shard, shardCard, (e, sh) => e.update(sh));
    put(none, show.length ? "" : s.shards.length ? "No shard has this." : "No shard yet: CREATE SHARD on the admin console makes one.");
  };
  filter.addEventListener("input", () => update(state));
  return { update, rebuild: () => figures.forEach((f) => f.rebuild()), drop: () => figures.forEach((f) => f.drop()) };
}
