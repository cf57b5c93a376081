"use strict";
// Elements and numbers. Text is always set as text, never as markup.

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "style") Object.assign(node.style, value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const card = (...children) => el("div", { className: "card" }, ...children);

// [name, value, title of the name or nothing]
const listed = (pairs) => el("dl", {}, ...pairs.flatMap(([name, value, title]) => [el("dt", { title: title || null }, name), el("dd", {}, value)]));

// A table that does not sort. heads: [name, whether its values are numbers]; rows: texts.
function plainTable(label, heads, rows) {
  const kind = (k) => (heads[k][1] ? "number" : null), row = (texts) => el("tr", {}, ...texts.map((text, k) => el("td", { className: kind(k) }, text)));
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": label }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map(([name], k) => el("th", { className: `plain ${kind(k) || ""}`, scope: "col" }, name)))), el("tbody", {}, ...rows.map(row))));
}

const columnOf = (table, name) => table.columns.find((c) => c.name === name);

// How many different values a column has.
const nValues = (column) => new Set(column.values).size;

// The value of a row of a column: a number or a text.
const valueOf = (column, row) => (column.kind === "text" ? column.labels[column.values[row]] : column.values[row]);

function fmt(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  if (typeof v !== "number") return String(v);
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  const size = Math.abs(v);
  let text;
  if (Number.isInteger(v) && size < 1e9) text = (v + 0).toLocaleString("en"); // -0 + 0 is 0
  else if (size !== 0 && (size >= 1e6 || size < 1e-3)) text = v.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  else text = String(Number(v.toPrecision(Math.abs(v - 1) < 5e-5 ? 6 : 5))); // what is not 1 does not read 1
  return text.replace("-", "−").replace("e-", "e−");
}

// A number with some digits, a whole one with all of its own: 1,024 is not 1,020.
function short(v, digits = 3) {
  const near = Number(v.toPrecision(12)); // that of a logarithm may be 1024.0000000000001
  return fmt(Number.isInteger(near) ? near : Number(v.toPrecision(digits)));
}

// The texts of two ends, with as many digits, at least three, as tell them apart.
function ends(low, high) {
  let digits = 3;
  while (low !== high && digits < 8 && low.toPrecision(digits) === high.toPrecision(digits)) digits++;
  const texts = [low, high].map((v) => short(v, digits));
  return low !== high && texts[0] === texts[1] ? [low, high].map((v) => String(Number(v.toPrecision(digits))).replaceAll("-", "−")) : texts;
}

// The ends of numbers. Values more than three interquartile ranges beyond the quartiles (far out, Tukey 1977) lie outside if they would
// take most of an axis: isCut says so.
function span(values) {
  const sorted = values.filter((v) => Number.isFinite(v)).sort((a, b) => a - b), n = sorted.length, low = sorted[0], high = sorted[n - 1];
  const at = (p) => sorted[Math.round(p * (n - 1))], reach = 3 * (at(0.75) - at(0.25)), inside = sorted.filter((v) => v >= at(0.25) - reach && v <= at(0.75) + reach);
  const isCut = reach > 0 && high - low > 3 * (inside.at(-1) - inside[0]);
  return isCut ? { low: inside[0], high: inside.at(-1), isCut } : { low, high, isCut };
}

// A box by which the reader asks for the values outside of `span`, too; hidden while there are none.
function wholeRange(action) {
  const box = el("input", { type: "checkbox", onchange: action }), node = el("label", { hidden: true }, box, "whole range");
  return { node, box, offer(isCut) { node.hidden = !isCut && !box.checked; } };
}

// The context of a canvas that fills w by h pixels of the page.
function fitted(canvas, w, h) {
  const dpr = window.devicePixelRatio || 1, [width, height] = [Math.round(w * dpr), Math.round(h * dpr)], c = canvas.getContext("2d");
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  c.setTransform(dpr, 0, 0, dpr, 0, 0);
  return c;
}

// A line through n points of a canvas, x(i) and y(i), which those interrupt that are no numbers.
function polyline(c, n, x, y) {
  let on = false;
  c.beginPath();
  for (let i = 0; i < n; i++) {
    const px = x(i), py = y(i), seen = Number.isFinite(px) && Number.isFinite(py);
    if (seen) on ? c.lineTo(px, py) : c.moveTo(px, py);
    on = seen;
  }
  c.stroke();
}

// As in page.css: a print of a dark page is light, and has another width.
const DARK = matchMedia("screen and (prefers-color-scheme: dark)"), PRINT = matchMedia("print");
const onLook = (action) => { for (const media of [DARK, PRINT]) media.addEventListener("change", action); };

function theme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue("--" + name).trim();
  const colours = { dark: DARK.matches };
  for (const name of ["page", "card", "ink", "muted", "line", "grid", "accent"]) colours[name] = get(name);
  colours.series = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((k) => get("c" + k));
  return colours;
}
let THEME = theme();

const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const LIGHT_ENDS = ["2c43b8", "6f8fe8", "b4b6bd", "ee8468", "b40426"];
const DARK_ENDS = ["5f86ff", "86a2f0", "9298a4", "f08a72", "ff5a55"];

// The colour at 0 <= t <= 1. Marks leave out the end of the scale that is the page's own shade.
function shade(t, diverging, marks = true) {
  if (t === null || Number.isNaN(t)) return THEME.muted;
  t = Math.min(1, Math.max(0, t));
  let stops = VIRIDIS;
  if (diverging) stops = THEME.dark ? DARK_ENDS : LIGHT_ENDS;
  // 3:1 against the card, as for any mark that says something: yellow on white and indigo on black do not have it.
  else if (marks) t = THEME.dark ? 0.36 + 0.64 * t : 0.6 * t;
  const place = t * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(place)), f = place - k;
  const part = (i) => {
    const at = (s) => parseInt(s.slice(2 * i, 2 * i + 2), 16);
    return Math.round(at(stops[k]) * (1 - f) + at(stops[k + 1]) * f);
  };
  return `rgb(${part(0)},${part(1)},${part(2)})`;
}
