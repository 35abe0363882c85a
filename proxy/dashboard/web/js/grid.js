// A table of a view, asked for again every few seconds while it is looked at. Its filter and order are in the address.

import { clock, count, el, keyed, put } from "./dom.js";
import { view } from "./live.js";

const LONG = new Set(["statement", "sample", "hint", "reason", "event"]);
const MOST = 300; // characters of a cell
const NUMBERS = /(_ms|_us|_seconds|rows|count|hits|bytes|servers|prepared_statements|remote_pid|age)$/;

export function cell(column, v) {
  if (v === null || v === undefined || v === "") return "–";
  if (/^\d{4}-\d\d-\d\dT/.test(v)) return clock(v);
  if (typeof v === "number") return NUMBERS.test(column) && column !== "remote_pid" ? count(v) : String(v);
  if (typeof v === "boolean") return v ? "yes" : "no";
  const s = String(v);
  return s.length > MOST ? s.slice(0, MOST) + "…" : s;
}

// grid shows some columns of a view. o: q, by, desc, limit, keep(row), row(row) to open one, empty, extra(row) for a last cell, changed(q).
export function grid(root, name, columns, o) {
  let by = o.by || "", desc = Boolean(o.desc), q = o.q || "", last = 0, asking = false, stale = false, gone = false;
  const say = el("p", { class: "sub", role: "status" }), body = el("tbody");
  const heads = columns.map((c) => {
    const b = el("button", { type: "button", class: "sort", onclick: () => { desc = by === c ? !desc : false; by = c; mark(); load(); } }, c.replace(/_/g, " "));
    return el("th", { scope: "col" }, b);
  });
  const mark = () => heads.forEach((h, i) => { if (columns[i] === by) h.setAttribute("aria-sort", desc ? "descending" : "ascending"); else h.removeAttribute("aria-sort"); });
  const table = el("table", null, el("thead", null, el("tr", null, heads, o.extra ? el("th", { scope: "col" }, el("span", { class: "hide" }, "actions")) : null)), body);
  root.append(say, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name.replace(/_/g, " ") }, table));
  mark();
  // load asks one question at a time. What was asked otherwise meanwhile, by another filter or order, is asked next, and the answer to the earlier question is not shown.
  async function load() {
    stale = true;
    if (asking) return;
    asking = true;
    while (stale && !gone) {
      stale = false;
      last = Date.now();
      try {
        const t = await view(name, { q, by, desc: desc ? "1" : "", limit: o.limit || 200 });
        if (!stale && !gone) draw(t);
      } catch (e) { put(say, e.message); }
    }
    asking = false;
  }
  function draw(t) {
    let rows = t.rows.map((r) => Object.fromEntries(t.columns.map((c, i) => [c, r[i]])));
    if (o.keep) rows = rows.filter(o.keep);
    const filtered = q && !o.keep && t.total !== t.found;
    if (!rows.length && !filtered) put(say, o.empty || "None.");
    else put(say, (t.found > rows.length && !o.keep ? `${rows.length} of ${count(t.found)} shown. ` : "") + (filtered ? `${count(t.found)} of ${count(t.total)} match.` : ""));
    table.hidden = !rows.length;
    keyed(body, rows.map((r, i) => [r, i]), ([r, i]) => (o.key ? o.key(r) : i), ([r]) => {
      const cells = columns.map((c) => el("td", { class: LONG.has(c) ? "long" : null })), row = el("tr", null, cells);
      row.cells2 = cells;
      if (o.row) {
        row.classList.add("link");
        row.tabIndex = 0;
        row.addEventListener("click", (e) => { if (!e.target.closest("button")) o.row(row.item); });
        row.addEventListener("keydown", (e) => { if (e.key === "Enter" && e.target === row) { e.preventDefault(); o.row(row.item); } });
      }
      if (o.extra) row.append(el("td", null, o.extra(r)));
      return row;
    }, (row, [r]) => { row.item = r; columns.forEach((c, i) => put(row.cells2[i], cell(c, r[c]))); });
  }
  load();
  return {
    update: () => { if (!asking && Date.now() - last > 2000) load(); },
    filter: (text) => { q = text; load(); },
    drop: () => { gone = true; },
  };
}
