// Lines over time: small ones drawn here, large ones by uPlot.

import { el } from "./dom.js";
import { history, state } from "./live.js";

// spark is a small line without axes. least is the value that fills it at least, so that noise looks like noise.
export function spark() {
  const line = el("path", { class: "line" }), area = el("path", { class: "area" });
  const svg = el("svg", { class: "spark", viewBox: "0 0 120 24", preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
  let was = "";
  svg.draw = (points, least) => {
    if (!points) return;
    let max = least;
    for (const p of points) if (p !== null && p > max) max = p;
    let d = "", a = "", open = null;
    const n = Math.max(points.length, 8);
    points.forEach((p, i) => {
      const x = (((n - points.length + i) / (n - 1)) * 120).toFixed(1);
      if (p === null) { if (open !== null) { a += "L" + open + " 24Z"; open = null; } return; }
      const y = (23 - (p / max) * 21).toFixed(1);
      if (open === null) { d += "M" + x + " " + y; a += "M" + x + " 24L" + x + " " + y; } else { d += "L" + x + " " + y; a += "L" + x + " " + y; }
      open = x;
    });
    if (open !== null) a += "L" + open + " 24Z";
    if (d === was) return;
    was = d;
    line.setAttribute("d", d || "M0 0");
    area.setAttribute("d", a || "M0 0");
  };
  return svg;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// chart draws some lines of the last 15 minutes and goes on. series are {key, label, colour}; unit prints a value.
export function chart(title, series, unit, least) {
  const box = el("div", { class: "plot" });
  const fig = el("figure", { class: "card chart" }, el("figcaption", null, title), box);
  let plot = null, data = [[], ...series.map(() => [])], stop = false;
  const SPAN = 900;
  function options() {
    const grid = { stroke: colour("--line"), width: 1 }, ticks = { stroke: colour("--line"), width: 1, size: 4 };
    return {
      width: box.clientWidth || 400, height: 170, cursor: { drag: { x: false, y: false }, points: { size: 6 } }, legend: { live: true },
      scales: { x: { time: true }, y: { range: (u, lo, hi) => [0, Math.max(least || 1, hi || 0) * 1.1] } },
      axes: [
        { stroke: colour("--dim"), grid, ticks, font: "12px system-ui", values: (u, s) => s.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })), space: 60 },
        { stroke: colour("--dim"), grid, ticks, font: "12px system-ui", size: 64, values: (u, s) => s.map(unit) },
      ],
      series: [
        { value: (u, v) => (v === null ? "" : new Date(v * 1000).toLocaleTimeString("en-GB")) },
        ...series.map((s) => ({ label: s.label, stroke: colour(s.colour), width: 1.5, points: { show: false }, value: (u, v) => (v === null || v === undefined ? "–" : unit(v)), spanGaps: false })),
      ],
    };
  }
  function build() {
    if (plot) plot.destroy();
    if (!window.uPlot || stop) return;
    plot = new window.uPlot(options(), data, box);
    latest();
    box.addEventListener("mouseleave", () => setTimeout(() => plot && !stop && latest(), 0));
    describe();
  }
  // latest shows the newest values in the legend while nobody points at others.
  function latest() {
    if (plot.cursor.left === undefined || plot.cursor.left < 0) plot.setLegend({ idx: data[0].length - 1 });
  }
  function describe() {
    const say = series.map((s, i) => {
      const v = data[i + 1].filter((x) => x !== null && x !== undefined);
      return s.label + ": " + (v.length ? "now " + unit(v[v.length - 1]) + ", at most " + unit(Math.max(...v)) : "unknown");
    });
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", title + " of the last 15 minutes. " + say.join("; "));
  }
  (async () => {
    try {
      const h = await history(series.map((s) => s.key));
      const end = Math.round(h.at / 1000);
      data[0] = Array.from({ length: SPAN }, (_, i) => end - SPAN + 1 + i);
      series.forEach((s, i) => {
        const l = h.lines[s.key] || [];
        data[i + 1] = [...Array(Math.max(0, SPAN - l.length)).fill(null), ...l].slice(-SPAN);
      });
      build();
    } catch (e) { box.textContent = e.message; }
  })();
  const size = new ResizeObserver(() => { if (plot && box.clientWidth && plot.width !== box.clientWidth) { plot.setSize({ width: box.clientWidth, height: 170 }); latest(); } });
  size.observe(box);
  let n = 0;
  fig.update = () => {
    if (!plot) return;
    const t = Math.round(state.at / 1000);
    if (t <= data[0][data[0].length - 1]) return;
    data[0].push(t); data[0].shift();
    series.forEach((s, i) => { const v = state.now[s.key]; data[i + 1].push(v === undefined ? null : v); data[i + 1].shift(); });
    plot.setData(data);
    latest();
    if (++n % 10 === 0) describe();
  };
  fig.rebuild = build;
  fig.drop = () => { stop = true; size.disconnect(); if (plot) plot.destroy(); };
  return fig;
}
