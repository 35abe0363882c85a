// Sessions, statements, refusals, jobs, transactions and events.

import { confirm } from "./actions.js";
import { count, el, keyed, ms, put } from "./dom.js";
import { exec, state } from "./live.js";
import { grid } from "./grid.js";
import { logical } from "./overview.js";

// search is a filter whose text is part of the address, so that the view can be shared.
function search(label, params, apply) {
  const input = el("input", { type: "search", id: "filter", "aria-label": label, placeholder: label, value: params.get("q") || "" });
  input.addEventListener("input", () => {
    const base = location.hash.split("?")[0];
    window.history.replaceState(null, "", base + (input.value ? "?q=" + encodeURIComponent(input.value) : ""));
    apply(input.value);
  });
  return input;
}

function detail(row, skip) {
  return el("dl", { class: "facts wide" }, Object.entries(row).filter(([k, v]) => v !== null && v !== "" && !(skip || []).includes(k)).map(([k, v]) => el("div", null, el("dt", null, k.replace(/_/g, " ")), el("dd", null, String(v)))));
}

function show(title, ...content) {
  const d = document.getElementById("dialog");
  const close = el("button", { type: "button", onclick: () => d.close() }, "Close");
  d.replaceChildren(el("h2", { id: "dialog-title" }, title), ...content.filter(Boolean), el("div", { class: "buttons" }, close));
  d.showModal();
  close.focus();
}

export function sessions(root, params) {
  const box = el("div");
  const kill = (r) => () => confirm("End session " + r.id, "The client " + (r.user || "") + " from " + (r.addr || "") + " is disconnected; its transaction is rolled back.", "KILL_CLIENT " + r.id, () => table.filter(input.value));
  const input = search("user, database, state, address or application", params, (q) => table.filter(q));
  root.append(el("div", { class: "head" }, el("h1", null, "Sessions"), input), box);
  const table = grid(box, "clients", ["user", "database", "state", "tx", "application_name", "addr", "request_time", "wait", "servers", "pin", "id"], {
    q: params.get("q") || "", by: "request_time", desc: true, key: (r) => r.id, empty: "No client is connected.",
    row: (r) => show("Session " + r.id, detail(r), state.me.admin ? el("div", { class: "buttons" }, el("button", { type: "button", class: "danger", onclick: () => { document.getElementById("dialog").close(); kill(r)(); } }, "End it")) : null),
  });
  return { update: table.update, drop: table.drop };
}

export function statements(root, params) {
  const box = el("div");
  const input = search("a word of the statement, or a route", params, (q) => table.filter(q));
  const db = el("select", { "aria-label": "database" }, logical(state).map((d) => el("option", null, d.name)));
  const text = el("textarea", { id: "ask", rows: "2", placeholder: "select * from orders where customer_id = 42", "aria-label": "statement" }), out = el("pre", { class: "sql", role: "status", hidden: true, tabindex: "0" });
  const run = async () => {
    out.hidden = false;
    try {
      const r = await exec(`EXPLAIN ROUTE IN "${db.value.replace(/"/g, '""')}" ${text.value}`);
      out.textContent = r.rows.map((x) => x.join("  ")).join("\n");
    } catch (e) { out.textContent = (e.code ? e.code + ": " : "") + e.message + (e.hint ? "\n" + e.hint : ""); }
  };
  root.append(el("h1", null, "Statements"), el("section", { "aria-labelledby": "t-ask" }, el("h2", { id: "t-ask" }, "Where would it run?"), el("form", { class: "ask", onsubmit: (e) => { e.preventDefault(); run(); } }, db, text, el("button", { type: "submit", class: "main" }, "Explain the route")), out),
    el("div", { class: "head" }, el("h2", null, "Plans in the cache"), input), box);
  const table = grid(box, "plans", ["hits", "route", "database", "statement"], { q: params.get("q") || "", by: "hits", desc: true, empty: "No plan yet.", row: (r) => show("Plan", el("pre", { class: "sql", tabindex: "0" }, r.statement), detail(r, ["statement"])) });
  return { update: table.update, drop: table.drop };
}

export function refusals(root, params) {
  const box = el("div");
  const input = search("rule or a word of the sample", params, (q) => table.filter(q));
  root.append(el("div", { class: "head" }, el("h1", null, "Refused statements"), input), el("p", { class: "lead" }, "A statement is refused where no plan gives PostgreSQL's answer. Each has a way out."), box);
  const table = grid(box, "refusals", ["count", "rule", "sqlstate", "last", "sample", "hint"], { q: params.get("q") || "", by: "count", desc: true, key: (r) => r.rule, empty: "None.", row: (r) => show("Rule " + r.rule, el("pre", { class: "sql", tabindex: "0" }, r.sample), el("p", null, r.hint), detail(r, ["sample", "hint"])) });
  return { update: table.update, drop: table.drop };
}

export function jobs(root) {
  const list = el("ul", { class: "jobs" }), none = el("p", { class: "empty" });
  root.append(el("h1", null, "Jobs"), el("p", { class: "lead" }, "Statements that move rows: those that run, and the last that have ended."), list, none);
  return {
    update: (s) => {
      put(none, s.jobs.length ? "" : "None since the start.");
      keyed(list, [...s.jobs].reverse(), (j) => j.id, () => {
        const what = el("code"), state = el("span", { class: "badge" }), bar = el("progress", { max: "100" }), say = el("p", { class: "sub" });
        const li = el("li", { class: "card" }, el("header", null, what, state), bar, say);
        li.update = (j) => {
          li.dataset.job = j.id;
          put(what, j.statement);
          const over = Boolean(j.ended), bad = over && j.state !== "done";
          state.className = "badge " + (over ? (bad ? "bad" : "ok") : "info");
          put(state, j.state);
          bar.hidden = over;
          if (j.expected_rows) bar.value = Math.min(100, (100 * j.rows) / j.expected_rows); else bar.removeAttribute("value");
          bar.setAttribute("aria-label", "rows moved");
          put(say, count(j.rows) + (j.expected_rows ? " of about " + count(j.expected_rows) : "") + " rows in " + ms(j.ms) + ", since " + j.started);
        };
        return li;
      }, (e, j) => e.update(j));
    },
  };
}

export function transactions(root) {
  const list = el("ul", { class: "jobs" }), none = el("p", { class: "empty" });
  root.append(el("h1", null, "Commits over shards in doubt"), el("p", { class: "lead" }, "Parts that are prepared and not finished, and commits that have lost a part. The resolver finishes the former as soon as the deciding shard answers."), list, none);
  return {
    update: (s) => {
      put(none, s.doubt.length ? "" : "None.");
      keyed(list, s.doubt, (d) => d.shard + d.gid + d.state, () => {
        const what = el("code"), badge = el("span"), say = el("p", { class: "sub" }), li = el("li", { class: "card" }, el("header", null, what, badge), say);
        li.update = (d) => {
          const damaged = d.state !== "prepared";
          li.dataset.gid = d.gid;
          put(what, d.gid);
          badge.className = "badge " + (damaged ? "bad" : "warn");
          put(badge, damaged ? "damaged" : "prepared");
          put(say, (damaged ? d.state + ". " : "") + "On shard " + d.shard + ", decided by shard " + d.decider + ", for " + ms(d.age_ms));
        };
        return li;
      }, (e, d) => e.update(d));
    },
  };
}

export function events(root, params) {
  const box = el("div");
  const input = search("shard, node or a word", params, (q) => table.filter(q));
  root.append(el("div", { class: "head" }, el("h1", null, "Events"), input), el("p", { class: "lead" }, "What happened to the shards by itself since the process started."), box);
  const table = grid(box, "events", ["at", "level", "database", "shard", "node", "event", "reason"], { q: params.get("q") || "", limit: 500, empty: "Nothing yet." });
  return { update: table.update, drop: table.drop };
}

