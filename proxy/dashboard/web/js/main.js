// The page's frame: addresses, the verdict, who looks, light and dark.

import { askLogin, askLogout } from "./actions.js";
import { cls, el, put } from "./dom.js";
import { connect, onState, state, whoami } from "./live.js";
import { events, jobs, refusals, sessions, statements, transactions } from "./lists.js";
import { map } from "./map.js";
import { overview, problems, verdict } from "./overview.js";
import { database, node, shard } from "./place.js";

const VIEWS = {
  "": ["Overview", (root) => overview(root)],
  sessions: ["Sessions", sessions], statements: ["Statements", statements], refusals: ["Refusals", refusals], jobs: ["Jobs", (root) => jobs(root)],
  transactions: ["In doubt", (root) => transactions(root)], map: ["Map", map], events: ["Events", events],
};
const PLACES = { database, shard, node };
const $ = (id) => document.getElementById(id);
let current = null, ready = false, routed = false;

// route builds the view that the address names. Views are made of what was heard: before that there is none.
function route() {
  if (!state.heard) return;
  routed = true;
  const [address, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = address.split("/").map(decodeURIComponent);
  if (current && current.drop) current.drop();
  const root = $("main");
  root.replaceChildren();
  const params = new URLSearchParams(query || "");
  if (VIEWS[name]) current = VIEWS[name][1](root, params);
  else if (PLACES[name]) current = PLACES[name](root, ...rest);
  else { root.append(el("h1", null, "There is no such page"), el("p", null, el("a", { href: "#/" }, "Overview"))); current = null; }
  for (const a of $("nav").children) if (a.dataset.view === name || (name in PLACES && a.dataset.view === "")) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
  const here = $("nav").querySelector("[aria-current]");
  if (here) $("nav").scrollLeft = here.offsetLeft - 40; // on a phone it may be out of sight
  root.dataset.view = name;
  if (current) current.update(state);
  titled();
}

function titled() {
  const h = $("main").querySelector("h1"), bad = state.heard && verdict(state)[0] === "bad";
  document.title = (bad ? "■ " : "") + (h ? h.textContent + " – " : "") + "pgmosaic";
}

function frame(s) {
  const [kind, text] = verdict(s);
  cls($("verdict"), kind);
  put($("verdict"), text);
  const p = problems(s);
  for (const a of $("nav").children) {
    const n = { transactions: s.doubt.length, jobs: s.jobs.filter((j) => !j.ended).length, "": p.filter((x) => x.kind !== "info").length }[a.dataset.view] || 0;
    put(a.lastChild, n ? String(n) : "");
  }
  put($("version"), "pgmosaic " + s.version);
  titled();
}

function live(on) {
  cls($("live"), "live" + (on ? " on" : ""));
  put($("live"), on ? "live" : "offline, reconnecting");
}

const THEMES = ["auto", "light", "dark"];
function theme(next) {
  let t = "auto";
  try { t = localStorage.getItem("theme") || "auto"; } catch { /* not to be had */ }
  if (next) {
    t = THEMES[(THEMES.indexOf(t) + 1) % THEMES.length];
    try { localStorage.setItem("theme", t); } catch { /* for this page only */ }
  }
  if (t === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = t;
  $("theme").replaceChildren({ auto: "◐", light: "○", dark: "●" }[t], el("span", { class: "wide-only" }, " " + t));
  $("theme").setAttribute("aria-label", "Colours: " + t + ". Change.");
  if (current && current.rebuild) current.rebuild();
}

function who() {
  $("user").replaceChildren(state.me.user || "Log in", state.me.admin ? el("span", { class: "wide-only" }, " (admin)") : "");
}

async function enter() {
  const ok = await whoami().catch(() => null);
  who();
  if (ok === false) { askLogin(enter, true); return; }
  if (ok === null) { live(false); setTimeout(enter, 2000); return; }
  ready = true;
  connect();
  route();
}

for (const [name, [title]] of Object.entries(VIEWS)) $("nav").append(el("a", { href: "#/" + name, "data-view": name }, title, el("span", { class: "n" })));
$("theme").addEventListener("click", () => theme(true));
$("user").addEventListener("click", () => (state.me.user ? askLogout(enter) : askLogin(enter, false)));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(false));
window.addEventListener("hashchange", () => { if (ready) { route(); window.scrollTo(0, 0); $("main").focus({ preventScroll: true }); } });
document.addEventListener("keydown", (e) => {
  if (e.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName) && !$("dialog").open) { const f = $("filter"); if (f && !f.hidden) { e.preventDefault(); f.focus(); } }
});
onState((s) => {
  if (s === null) { if (!$("dialog").open) askLogin(enter, true); return; }
  frame(s);
  if (!routed) route();
  else if (current) current.update(s);
  live(true);
});
setInterval(() => { if (Date.now() - state.heard > 4000) live(false); }, 1000);
theme(false);
enter();
