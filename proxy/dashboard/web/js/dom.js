// Building and changing the page. Nothing here knows what is shown.

const SVG = new Set(["svg", "path", "rect", "g", "title"]);

export function el(tag, attrs, ...children) {
  const e = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) {
    if (v === null || v === undefined || v === false) continue;
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else e.setAttribute(k, v === true ? "" : v);
  }
  for (const c of children.flat()) if (c !== null && c !== undefined && c !== false) e.append(c);
  return e;
}

// put changes a text only if it is another one: what has not changed is not drawn again, nor read out again.
export function put(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export function cls(e, name) {
  if (e.getAttribute("class") !== name) e.setAttribute("class", name);
}

// keyed keeps one element for each key, in order: make builds one, change brings it up to date. An element that is moved
// loses the focus, and who uses the keyboard would be thrown out of the list each time that it is sorted anew: it is given back.
export function keyed(parent, items, key, make, change) {
  const have = parent.kept || (parent.kept = new Map());
  const want = new Set(items.map(key)), focus = parent.contains(document.activeElement) ? document.activeElement : null;
  for (const [k, e] of have) if (!want.has(k)) { e.remove(); have.delete(k); }
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let e = have.get(k);
    if (!e) {
      e = make(item);
      have.set(k, e);
    }
    change(e, item);
    if (e === at) at = at.nextElementSibling;
    else parent.insertBefore(e, at);
  }
  if (focus && focus.isConnected && document.activeElement !== focus) focus.focus({ preventScroll: true });
}

// objects turns a table of the server into objects by column.
export function objects(t) {
  if (!t || !t.rows) return [];
  if (!t.objects) t.objects = t.rows.map((r) => Object.fromEntries(t.columns.map((c, i) => [c, r[i]])));
  return t.objects;
}

export function ms(v) {
  if (v === null || v === undefined) return "unknown";
  if (v < 10 && v > 0 && v % 1) return v.toFixed(1) + " ms";
  if (v < 1000) return Math.round(v) + " ms";
  if (v < 120000) return (v / 1000).toFixed(1) + " s";
  if (v < 7200000) return Math.round(v / 60000) + " min";
  return Math.round(v / 3600000) + " h";
}

export function bytes(v) {
  if (v === null || v === undefined) return "unknown";
  const u = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  while (v >= 1024 && i < u.length - 1) { v /= 1024; i++; }
  return (i ? v.toFixed(1) : v) + " " + u[i];
}

export function count(v) {
  if (v === null || v === undefined) return "–";
  return Math.round(v).toLocaleString("en");
}

export function clock(t) {
  const d = new Date(t);
  return isNaN(d) ? String(t) : d.toLocaleTimeString("en-GB") + (Date.now() - d > 72000000 ? ", " + d.toLocaleDateString("en-GB") : "");
}

export const path = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");
