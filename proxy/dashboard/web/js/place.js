// A database, a shard, a node.

import { action, quote } from "./actions.js";
import { chart } from "./chart.js";
import { bytes, clock, cls, count, el, keyed, ms, path, put } from "./dom.js";
import { view } from "./live.js";
import { charts, health, shardCard, sign } from "./overview.js";
import { grid } from "./grid.js";

function crumbs(...parts) {
  return el("nav", { class: "crumbs", "aria-label": "Where this is" }, el("a", { href: "#/" }, "Overview"), ...parts.flatMap(([t, to]) => [el("span", { "aria-hidden": "true" }, "›"), to ? el("a", { href: to }, t) : el("span", { "aria-current": "page" }, t)]));
}

export function database(root, name) {
  const figures = charts(name), cards = el("div", { class: "cards" });
  const acts = el("div", { class: "acts" },
    action("Pause", "Pause " + name, "New transactions of the database wait until it is resumed; the running ones are let finish.", "PAUSE " + quote(name)),
    action("Resume", "Resume " + name, "Transactions that wait go on.", "RESUME " + quote(name)),
    action("Reconnect", "Reconnect " + name, "Server connections are replaced as they come free.", "RECONNECT " + quote(name)));
  root.append(crumbs([name]), el("div", { class: "head" }, el("h1", null, "Database " + name), acts), el("div", { class: "plots" }, figures), el("h2", null, "Shards"), cards);
  return {
    update: (s) => { figures.forEach((f) => f.update()); keyed(cards, s.shards.filter((x) => x.database === name), (x) => x.shard, shardCard, (e, x) => e.update(x)); },
    rebuild: () => figures.forEach((f) => f.rebuild()), drop: () => figures.forEach((f) => f.drop()),
  };
}

function facts(list) {
  const dl = el("dl", { class: "facts wide" }), cells = {};
  for (const [k, t] of list) { cells[k] = el("dd"); dl.append(el("div", null, el("dt", null, t), cells[k])); }
  dl.set = (k, v) => put(cells[k], v === null || v === undefined || v === "" ? "–" : String(v));
  return dl;
}

function eventList() {
  const ul = el("ul", { class: "events" });
  ul.update = (events) => {
    keyed(ul, events.slice(0, 20), (e) => e.at + e.event + e.node, (e) => {
      const kind = { error: "bad", warn: "warn" }[e.level] || "ok";
      return el("li", { class: kind }, el("time", { datetime: e.at }, clock(e.at)), " ", sign(kind) + " " + (e.node ? e.node + ": " : "") + e.event + (e.reason ? ": " + e.reason : ""));
    }, () => {});
    if (!events.length && !ul.firstChild) ul.append(el("li", { class: "empty" }, "Nothing since the start."));
    else if (events.length) for (const x of ul.querySelectorAll(".empty")) x.remove();
  };
  return ul;
}

export function shard(root, db, name) {
  const badge = el("span"), say = el("p", { class: "lead" }), body = el("tbody"), events = eventList();
  const heads = ["node", "role", "state", "lag", "behind", "timeline", "position", "in use", "reads", "why"];
  const table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "nodes of " + name }, el("table", null, el("thead", null, el("tr", null, heads.map((h) => el("th", { scope: "col" }, h)))), body));
  const owns = el("div"), plots = el("div", { class: "plots" });
  const acts = el("div", { class: "acts" },
    action("Pause", "Pause shard " + name, "New transactions of this shard wait until it is resumed; the running ones are let finish. Other shards go on.", `PAUSE ${quote(db)} SHARD ${quote(name)}`),
    action("Resume", "Resume shard " + name, "Transactions that wait go on.", `RESUME ${quote(db)} SHARD ${quote(name)}`));
  root.append(crumbs([db, path("database", db)], [name]), el("div", { class: "head" }, el("h1", null, "Shard " + name), badge, acts), say, table, plots, el("h2", null, "What happened"), events, el("h2", null, "What it owns"), owns);
  let figure = null, drawn = "";
  (async () => {
    const [slots, keys, tenants] = await Promise.all(["slots", "keys", "tenants"].map((v) => view(v, { limit: 1000 })));
    const rows = (t) => t.rows.map((r) => Object.fromEntries(t.columns.map((c, i) => [c, r[i]]))).filter((r) => r.database === db && r.shard === name);
    const lines = [...rows(slots).map((r) => `${r.group}: slots ${r.from} to ${r.to}`), ...rows(keys).map((r) => `${r.group}: ${r.kind} ${r.key}`), ...rows(tenants).map((r) => `schema ${r.schema}`)];
    owns.replaceChildren(lines.length ? el("ul", { class: "plain" }, lines.slice(0, 200).map((l) => el("li", null, l))) : el("p", { class: "empty" }, "No key of any group."));
  })().catch((e) => owns.replaceChildren(el("p", { class: "empty" }, e.message)));
  const update = (s) => {
    const sh = s.shards.find((x) => x.database === db && x.shard === name);
    if (!sh) { put(say, "There is no such shard in the map."); return; }
    const good = sh.state === "up";
    cls(badge, "badge " + (good ? "ok" : "bad"));
    put(badge, good ? "served" : sh.state);
    const nodes = s.replicas.filter((r) => r.database === db && r.shard === name);
    put(say, good ? `${sh.primary} takes its writes.` : sh.state === "fenced" ? "More than one node claims to be its primary. Nothing is written until one is gone, or an admin says which it is." : "Its primary does not answer. New work waits for the next one, within failover_buffer.");
    keyed(body, nodes, (n) => n.node, (n) => {
      const cells = heads.map((h) => el("td", { class: h === "why" ? "long" : null })), link = el("a", { href: path("node", db, name, n.node) }, n.node), row = el("tr", null, cells);
      cells[0].append(link);
      row.cells2 = cells;
      return row;
    }, (row, n) => {
      const [kind, what] = health(n), c = row.cells2;
      row.dataset.node = n.node;
      put(c[1], n.role);
      cls(c[2], kind);
      put(c[2], sign(kind) + " " + what);
      put(c[3], n.role === "primary" ? "" : ms(n.lag_ms));
      put(c[4], n.role === "primary" ? "" : bytes(n.lag_bytes));
      put(c[5], n.timeline ? String(n.timeline) : "–");
      put(c[6], (n.role === "primary" ? n.primary_lsn : n.replay_lsn) || "–");
      put(c[7], count(n.in_flight));
      put(c[8], count(n.reads));
      put(c[9], n.reason && n.reason !== "primary" ? n.reason : "");
    });
    const COLOURS = ["--blue", "--green", "--violet", "--amber"];
    const replicas = nodes.filter((n) => n.role !== "primary"), key = replicas.map((n) => n.node).join();
    if (key !== drawn) {
      drawn = key;
      if (figure) figure.drop();
      figure = replicas.length ? chart("Lag of the replicas", replicas.slice(0, 4).map((n, i) => ({ key: "lag:" + db + "/" + n.node, label: n.node, colour: COLOURS[i] })), ms, 100) : null;
      const reads = chart("Reads", nodes.slice(0, 4).map((n, i) => ({ key: "reads:" + db + "/" + n.node, label: n.node, colour: COLOURS[i] })), (v) => count(v) + "/s", 10);
      if (plots.other) plots.other.drop();
      plots.other = reads;
      plots.replaceChildren(...[figure, reads].filter(Boolean));
    }
    if (figure) figure.update();
    if (plots.other) plots.other.update();
    events.update(s.events.filter((e) => e.database === db && e.shard === name));
  };
  const all = (f) => [figure, plots.other].filter(Boolean).forEach(f);
  return { update, rebuild: () => all((f) => f.rebuild()), drop: () => all((f) => f.drop()) };
}

export function node(root, db, sh, name) {
  const badge = el("span"), say = el("p", { class: "lead" }), events = eventList();
  const dl = facts([["role", "role"], ["zone", "zone"], ["lag", "lag"], ["behind", "behind"], ["timeline", "timeline"], ["replayed", "has replayed"], ["primary", "the primary is at"], ["seen", "last answered"], ["reads", "reads so far"], ["pool", "servers in use, idle"], ["waiting", "clients waiting"]]);
  const acts = el("div", { class: "acts" },
    action("Make it the primary", "Set the primary of " + sh, "Of the nodes that claim to be the primary, this one is. The others get nothing until they are replicas. pgmosaic promotes nobody.", `ALTER SHARD ${quote(sh)} IN ${quote(db)} SET PRIMARY ${quote(name)}`),
    action("Drop", "Drop node " + name, "The map forgets the node. Its server is left alone.", `ALTER SHARD ${quote(sh)} IN ${quote(db)} DROP NODE ${quote(name)}`, () => { location.hash = path("shard", db, sh); }));
  const lag = chart("Lag", [{ key: "lag:" + db + "/" + name, label: name, colour: "--blue" }], ms, 100), reads = chart("Reads", [{ key: "reads:" + db + "/" + name, label: name, colour: "--green" }], (v) => count(v) + "/s", 10);
  const servers = el("div");
  root.append(crumbs([db, path("database", db)], [sh, path("shard", db, sh)], [name]), el("div", { class: "head" }, el("h1", null, "Node " + name), badge, acts), say, dl, el("div", { class: "plots" }, lag, reads), el("h2", null, "What happened"), events, el("h2", null, "Server connections"), servers);
  const table = grid(servers, "servers", ["state", "user", "remote_pid", "client", "application_name", "prepared_statements", "connect_time", "addr"], { q: name, keep: (r) => r.node === name && r.shard === sh && r.database === db, empty: "None is open." });
  return {
    update: (s) => {
      const n = s.replicas.find((r) => r.database === db && r.node === name);
      if (!n) { put(say, "There is no such node in the map."); return; }
      const [kind, what] = health(n);
      cls(badge, "badge " + kind);
      put(badge, what);
      put(say, n.reason && n.reason !== "primary" ? n.reason : "");
      const pools = s.node_pools.filter((p) => p.database === db && p.node === name), sum = (k) => pools.reduce((a, p) => a + (p[k] || 0), 0);
      const primary = n.role === "primary";
      for (const [k, v] of [["role", n.role], ["zone", n.zone], ["lag", primary ? "" : ms(n.lag_ms)], ["behind", primary ? "" : bytes(n.lag_bytes)], ["timeline", n.timeline], ["replayed", n.replay_lsn], ["primary", n.primary_lsn],
        ["seen", n.last_seen_ms === null ? "never" : ms(n.last_seen_ms) + " ago"], ["reads", count(n.reads)], ["pool", sum("sv_active") + ", " + sum("sv_idle")], ["waiting", sum("cl_waiting")]]) dl.set(k, v);
      lag.hidden = primary;
      if (!primary) lag.update();
      reads.update();
      events.update(s.events.filter((e) => e.database === db && e.node === name));
      table.update();
    },
    rebuild: () => [lag, reads].forEach((f) => f.rebuild()), drop: () => { [lag, reads].forEach((f) => f.drop()); table.drop(); },
  };
}
