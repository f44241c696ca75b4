// Draws the figures of the page in the reader's colors, and sorts and filters the table of trials.
"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const COLORS = [
  "back", "panel", "text", "muted", "grid", "best", "finished", "pruned", "stopped", "failed", "running",
  "infeasible", "broken", "exploit", "rank0", "rank1", "rank2", "rank3", "rank4",
];
let colors = {}; // the reader's, by `var(--name)` as the figures have them
let kept = null; // trials that the reader has chosen in the parallel coordinates, by index; null: all

function themed(node) {
  if (typeof node === "string") return colors[node] ?? node;
  if (Array.isArray(node)) return node.map(themed);
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(Object.entries(node).map(([name, inner]) => [name, themed(inner)]));
}

function layout(own) {
  const axis = (given) => ({
    gridcolor: colors["var(--grid)"], zeroline: false, linecolor: colors["var(--muted)"], automargin: true, ...given,
  });
  const { xaxis, yaxis, ...rest } = own;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: colors["var(--text)"] },
    margin: { l: 56, r: 16, t: 16, b: 44 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: {
      bgcolor: colors["var(--panel)"], bordercolor: colors["var(--muted)"], align: "left",
      font: { color: colors["var(--text)"] },
    },
    hovermode: "closest", uirevision: "same", ...themed(rest), xaxis: axis(xaxis), yaxis: axis(yaxis),
  };
}

// Lines of a group are one trace with gaps: a thousand traces would take seconds.
function parallel({ axes, lines, groups }) {
  const thin = lines.length > 100; // many lines hide each other
  const traces = groups.map((name, group) => ({
    type: "scatter", mode: "lines+markers", name, x: [], y: [], text: [],
    line: { color: `var(--rank${groups.length < 5 ? [0, 3, 4][group] : group})`, width: group === 0 ? 3 : thin ? 0.6 : 1.2 },
    marker: { size: group === 0 ? 7 : thin ? 2 : 4 }, hovertemplate: "%{text}<extra></extra>",
  }));
  const other = {
    type: "scatter", mode: "lines", name: "not chosen", x: [], y: [], hoverinfo: "skip",
    line: { color: "var(--grid)", width: 0.8 },
  };
  lines.forEach((line, index) => {
    const trace = kept === null || kept.has(index) ? traces[line.group] : other;
    line.places.forEach((place, axis) => { trace.x.push(axis); trace.y.push(place); trace.text?.push(line.text); });
    trace.x.push(null); trace.y.push(null); trace.text?.push("");
  });
  const label = (text, x, y) => ({
    text, x, y, xanchor: "right", xshift: -5, showarrow: false, bgcolor: "var(--back)", opacity: 0.85,
    font: { size: 11, color: "var(--muted)" }, borderpad: 1,
  });
  return {
    // The best come last, so that they are drawn above the others.
    data: [other, ...traces.reverse()].filter((trace) => trace.x.length),
    layout: {
      dragmode: "select", showlegend: true, legend: { orientation: "h", x: 0, y: 1.1, yanchor: "bottom", traceorder: "reversed" },
      margin: { l: 90, r: 40, t: 16, b: 16 },
      xaxis: {
        side: "top", tickvals: axes.map((_, index) => index), ticktext: axes.map((axis) => axis.name),
        range: [-0.15, axes.length - 0.9], showgrid: false, tickangle: 0, fixedrange: true,
      },
      yaxis: { visible: false, range: [-0.2, 1.05], fixedrange: true },
      shapes: axes.map((_, index) => ({
        type: "line", x0: index, x1: index, y0: 0, y1: 1, line: { color: "var(--muted)", width: 1 },
      })),
      annotations: axes.flatMap((axis, index) => axis.ticks.map(([place, text]) => label(text, index, place))),
    },
  };
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  colors = Object.fromEntries(
    COLORS.map((name) => [`var(--${name})`, style.getPropertyValue(`--${name}`).trim()]));
  for (const [name, figure] of Object.entries(figures)) {
    const { data, layout: own } = name === "parallel" ? parallel(figure) : figure;
    // One of the buttons that plotly would show sends the figure to a server.
    const settings = { responsive: true, displayModeBar: false, showSendToCloud: false, showTips: false };
    Plotly.react(name, themed(data), layout(own), settings);
  }
}

function choose(event) {
  if (event === undefined || !event.range) return;
  const [left, right] = event.range.x, [low, high] = event.range.y;
  const chosen = figures.parallel.lines.flatMap(({ places }, index) =>
    places.some((y, x) => x >= left && x <= right && y >= low && y <= high) ? [index] : []);
  kept = new Set(chosen);
  draw();
}

function sorted(head) {
  const column = head.cellIndex, body = document.querySelector("#trials tbody");
  const up = head.getAttribute("aria-sort") !== "ascending";
  document.querySelectorAll("#trials th").forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => {
    const cell = row.cells[column];
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent;
  };
  const missing = (value) => typeof value === "string" && ["-", "nan"].includes(value);
  const order = (a, b) => {
    const [left, right] = [key(a), key(b)];
    if (missing(left) || missing(right)) return missing(left) - missing(right); // last in both directions
    const both = typeof left === "number" && typeof right === "number";
    return (both ? left - right : String(left).localeCompare(String(right))) * (up ? 1 : -1);
  };
  body.append(...[...body.rows].sort(order));
}

function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/);
  const status = document.getElementById("status").value;
  const rows = [...document.querySelectorAll("#trials tbody > tr[data-status]")];
  for (const row of rows) {
    // Not what is unfolded: there the best trial's values stand beside the own ones.
    const texts = [...[...row.cells].slice(0, -1), ...row.querySelectorAll("p")].map((each) => each.textContent);
    const text = texts.join("\n").toLowerCase();
    row.hidden = (status !== "" && row.dataset.status !== status) || !words.every((word) => text.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
if (document.getElementById("trials") !== null) {
  const plot = document.getElementById("parallel");
  plot.on("plotly_selected", choose);
  plot.on("plotly_deselect", () => { kept = null; draw(); });
  document.querySelectorAll("#trials thead button").forEach((button) =>
    button.addEventListener("click", () => sorted(button.parentElement)));
  document.getElementById("filter").addEventListener("input", filter);
  document.getElementById("status").addEventListener("input", filter);
  filter();
}
