// The shard map: which shard owns which keys, and the tables.

import { confirm } from "./actions.js";
import { el } from "./dom.js";
import { exec, state, view } from "./live.js";
import { grid } from "./grid.js";

const objects = (t) => t.rows.map((r) => Object.fromEntries(t.columns.map((c, i) => [c, r[i]])));

function strip(name, runs, shards) {
  const svg = el("svg", { viewBox: "0 0 16384 10", preserveAspectRatio: "none", role: "img", "aria-label": "slots of " + name + ": " + runs.slice(0, 50).map((r) => r.from + " to " + r.to + " on " + r.shard).join(", ") });
  for (const r of runs) svg.append(el("rect", { x: r.from, width: r.to - r.from + 1, height: 10, class: "c" + (shards.indexOf(r.shard) % 8) }, el("title", null, `${r.shard}: ${r.from} to ${r.to}`)));
  const names = [...new Set(runs.map((r) => r.shard))];
  const legend = el("ul", { class: "legend" }, names.slice(0, 24).map((sh) => el("li", null, el("svg", { viewBox: "0 0 10 10", class: "dot", "aria-hidden": "true" }, el("rect", { width: 10, height: 10, rx: 2, class: "c" + (shards.indexOf(sh) % 8) })), sh)), names.length > 24 ? el("li", null, "and " + (names.length - 24) + " more") : null);
  return el("figure", { class: "card strip" }, el("figcaption", null, name), svg, legend);
}

export function map(root, params) {
  const groups = el("div"), tables = el("div"), sql = el("pre", { class: "sql", tabindex: "0", hidden: true });
  const text = el("textarea", { id: "change", rows: "2", "aria-label": "admin SQL", placeholder: "ALTER SHARD s1 IN shop ADD NODE 'postgres://…'" });
  const dry = el("pre", { class: "sql", role: "status", hidden: true, tabindex: "0" });
  const change = !state.me.admin ? null : el("section", null, el("h2", null, "Change it"), el("form", { class: "ask", onsubmit: (e) => { e.preventDefault(); confirm("Change the map", "Admin SQL. DRY RUN at the end of a change says what it would do.", text.value, (r) => { dry.hidden = !r.rows.length; dry.textContent = [r.columns, ...r.rows].map((x) => (x || []).join("  ")).join("\n"); load(); }); } }, text, el("button", { type: "submit", class: "main" }, "Look at it, then run it")), dry);
  const asSQL = el("button", { type: "button", class: "quiet", onclick: async () => {
    sql.hidden = !sql.hidden;
    if (!sql.hidden) { try { const r = await exec("SHOW MAP AS SQL"); sql.textContent = r.rows.map((x) => x[0]).join("\n"); } catch (e) { sql.textContent = e.message; } }
  } }, "As SQL");
  root.append(...[el("div", { class: "head" }, el("h1", null, "Shard map"), asSQL), sql, change].filter(Boolean), el("h2", null, "Groups"), groups, el("h2", null, "Tables"), tables);
  async function load() {
    const [slots, keys, tenants] = (await Promise.all(["slots", "keys", "tenants"].map((v) => view(v, { limit: 1000 })))).map(objects);
    const by = new Map();
    for (const r of slots) { const k = r.database + "." + r.group; if (!by.has(k)) by.set(k, []); by.get(k).push(r); }
    const out = [...by].map(([name, runs]) => strip(name, runs, state.shards.filter((x) => x.database === runs[0].database).map((x) => x.shard)));
    const other = new Map();
    for (const r of keys) { const k = r.database + "." + r.group; if (!other.has(k)) other.set(k, []); other.get(k).push(r); }
    for (const [name, rows] of other) out.push(el("figure", { class: "card strip" }, el("figcaption", null, name), el("ul", { class: "plain" }, rows.slice(0, 100).map((r) => el("li", null, `${r.kind} ${r.key} on ${r.shard}`)))));
    if (tenants.length) out.push(el("figure", { class: "card strip" }, el("figcaption", null, "Schemas of one shard each"), el("ul", { class: "plain" }, tenants.slice(0, 200).map((r) => el("li", null, `${r.database}.${r.schema} on ${r.shard}` + (r.state === "serving" ? "" : ", " + r.state))))));
    groups.replaceChildren(...(out.length ? out : [el("p", { class: "empty" }, "No group yet: CREATE GROUP on the admin console makes one.")]));
  }
  load().catch((e) => groups.replaceChildren(el("p", { class: "empty" }, e.message)));
  const table = grid(tables, "tables", ["database", "schema", "table", "kind", "group", "key", "state"], { q: params.get("q") || "", limit: 500, empty: "No table is declared: all are home's." });
  return { update: table.update, drop: table.drop };
}
