// What the server says, each second, and what it is asked.

import { objects } from "./dom.js";

export const state = { heard: 0, lines: {}, me: { user: "", admin: false } };
const POINTS = 60, COARSE = 15;
let listeners = [];
let source = null;

export function onState(f) { listeners.push(f); }

// small keeps the small lines going between two loads: the largest value of each 15 seconds.
function small(doc) {
  if (doc.lines) {
    state.lines = doc.lines;
    state.bucket = Math.floor(doc.at / 1000 / COARSE);
    for (const l of Object.values(state.lines)) l.push(null);
  } else {
    const b = Math.floor(doc.at / 1000 / COARSE);
    if (b > state.bucket) {
      for (const l of Object.values(state.lines)) { l.push(null); while (l.length > POINTS) l.shift(); }
      state.bucket = b;
    }
  }
  for (const [k, v] of Object.entries(doc.now || {})) {
    const l = state.lines[k] || (state.lines[k] = [null]);
    if (v !== null && (l[l.length - 1] === null || v > l[l.length - 1])) l[l.length - 1] = v;
  }
}

export function connect() {
  if (source) source.close();
  source = new EventSource("api/events");
  source.onmessage = (e) => {
    const doc = JSON.parse(e.data);
    state.heard = Date.now();
    small(doc);
    Object.assign(state, doc, { lines: state.lines });
    for (const v of ["shards", "replicas", "node_pools", "jobs", "events", "refusals", "databases"]) state[v] = objects(doc[v]);
    for (const f of listeners) f(state);
  };
  source.onerror = async () => {
    if (source.readyState === EventSource.CLOSED || state.heard === 0) { // a login that has ended closes it for good
      const r = await ask("api/me").catch(() => null);
      if (r && r.status === 401) { source.close(); for (const f of listeners) f(null); }
      else if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
    }
  };
}

function ask(url, options) {
  return fetch(url, { ...options, headers: { "X-Requested-With": "pgmosaic", ...(options || {}).headers } });
}

async function json(r) {
  if (r.status === 401) for (const f of listeners) f(null);
  const body = r.headers.get("Content-Type") === "application/json" ? await r.json() : { message: await r.text() };
  if (!r.ok) throw Object.assign(new Error(body.message || "the proxy answered " + r.status), body);
  return body;
}

export async function whoami() {
  const r = await ask("api/me");
  if (r.status === 401) return false;
  state.me = await r.json();
  return true;
}

export async function view(name, query) {
  return json(await ask("api/view/" + name + "?" + new URLSearchParams(query || {})));
}

export async function history(keys) {
  return json(await ask("api/history?" + keys.map((k) => "key=" + encodeURIComponent(k)).join("&")));
}

async function post(url, body) {
  return json(await ask(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));
}

export const exec = (sql) => post("api/exec", { sql });

export async function login(user, password) {
  const r = await ask("api/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user, password }) });
  const body = await r.json();
  if (!r.ok) throw new Error(body.message);
  state.me = body;
}

export async function logout() {
  await ask("api/logout", { method: "POST" });
  state.me = { user: "", admin: false };
}
