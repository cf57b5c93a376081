// A figure whose lines or points belong to items: coloured and grouped by what was swept, smoothed, filtered.

class Traces {
  constructor(plot, siblings) {
    this.figure = new Figure(plot, siblings);
    this.node = this.figure.node;
    this.many = plot.at_first ?? Infinity;
    this.by = select("colour by", ["as drawn"], "as drawn", () => { this.chosen = true; this.show(); });
    this.medians = el("input", { type: "checkbox", onchange: () => { this.set = true; this.show(); } });
    this.smooth = el("input", { type: "range", min: "0", max: "0.99", step: "0.01", value: "0", oninput: () => this.show() });
    this.lines = select("show", [], "", () => { this.many = { all: Infinity }[this.lines.value] ?? parseInt(this.lines.value); this.show(); });
    this.medianLabel = el("label", {}, this.medians, "medians");
    this.smoothLabel = el("label", {}, "smooth", this.smooth);
    this.controls = el("div", { className: "controls" }, this.by.node, this.medianLabel, this.smoothLabel, this.lines.node);
    this.node.insertBefore(this.controls, this.figure.legend);
    this.listener = () => this.show();
    ITEMS.listeners.add(this.listener);
    this.update(plot);
  }

  remove() { ITEMS.listeners.delete(this.listener); this.figure.remove(); }

  update(plot) {
    this.plot = plot;
    this.ids = [...new Set(plot.layers.flatMap((l) => l.item || []))];
    const swept = ITEMS.names.filter((name) => new Set(this.ids.map((id) => ITEMS.value(id, name))).size > 1);
    this.by.set(["as drawn", ...swept]);
    const isColoured = plot.layers.some((l) => l.item && l.kind === "points" && (l.colour || l.hue !== undefined));
    if (!this.chosen && swept.length && !isColoured) this.by.value = swept.find((name) => this.isBetween(name)) ?? swept[0];
    const lines = plot.layers.filter((l) => l.kind === "lines" && l.item), most = Math.max(0, ...lines.map((l) => l.item.length));
    const values = this.by.value === "as drawn" ? 0 : new Set(this.ids.map((id) => ITEMS.value(id, this.by.value))).size;
    this.canGroup = lines.length > 0 && lines.every((l) => !Array.isArray(l.x[0]));
    if (!this.set) this.medians.checked = this.canGroup && values > 1 && values <= 10 && most >= 3 * values && this.many === Infinity;
    this.smoothLabel.hidden = !lines.some((l) => l.y[0] && l.y[0].length >= 3);
    this.lines.set([...[20, 50, 100].filter((k) => k < most).map((k) => `${k} lines`), "all"]);
    this.lines.value = this.many === Infinity || this.many >= most ? "all" : `${this.many} lines`;
    this.lines.node.hidden = most <= 20;
    this.by.node.hidden = !swept.length;
    this.controls.hidden = [...this.controls.children].every((node) => node.hidden);
    this.show();
  }

  // Whether stores of this page differ in a parameter, with few enough values for a colour each.
  isBetween(name) {
    return (STATE.content.between || []).includes(name) && new Set(this.ids.map((id) => ITEMS.value(id, name))).size <= 8;
  }

  show() {
    const by = this.by.value, grouping = by !== "as drawn", values = grouping ? grouped(this.ids, by, 5) : [];
    this.medianLabel.hidden = !grouping || !this.canGroup;
    const layers = [], notes = [], named = new Set();
    let low = null;
    for (const layer of this.plot.layers) {
      if (!layer.item) { if (!(grouping && this.medians.checked && (layer.kind === "band" || layer.strong))) layers.push(layer); continue; }
      let rows = layer.item.map((_, k) => k).filter((k) => ITEMS.isKept(layer.item[k]));
      if (layer.kind === "lines" && rows.length > this.many) {
        notes.push(`${this.many} of ${rows.length.toLocaleString("en")} lines, evenly spaced.`);
        rows = evenly(rows, this.many);
      }
      layers.push(...(grouping ? this.groups(layer, rows, values, named) : [this.some(layer, rows)]));
      low = low ?? layer;
    }
    const scale = grouping ? { label: "" } : this.plot.scale;
    this.figure.update({ ...this.plot, layers, scale, note: [this.plot.note, ...notes].filter(Boolean).join(" ") });
  }

  // One layer for each value, and its median line. named: values that the legend has already, as of the lines that points lie on.
  groups(layer, rows, values, named) {
    const out = [];
    for (const group of values) {
      const mine = rows.filter((row) => group.ids.has(layer.item[row]));
      if (!mine.length) continue;
      const colour = group.tone === null ? { hue: group.hue } : { tone: group.tone };
      const part = { ...this.some(layer, mine), colour: undefined, strong: false, name: group.label, ...colour, legend: layer.dashed || named.has(group.label) ? "" : undefined };
      if (!layer.dashed) named.add(group.label);
      const medians = this.medians.checked && this.canGroup && layer.kind === "lines" && mine.length > 1 && !layer.dashed;
      out.push(medians ? { ...part, faint: true, pale: true, name: "", of: group.label } : part);
      if (medians) out.push({ ...part, y: [median(part.y)], item: undefined, text: [`median of ${mine.length}, ${group.label}`], name: group.label, wide: true });
    }
    return out.sort((a, b) => Boolean(a.wide) - Boolean(b.wide));
  }

  // `someOf` a layer, smoothed; the texts say what was swept.
  some(layer, rows) {
    const out = someOf(layer, rows), weight = Number(this.smooth.value), named = layer.text && layer.text.length;
    out.text = rows.map((k) => [named ? layer.text[k] : `item ${layer.item[k] % OFFSET}`, ITEMS.told(layer.item[k])].filter(Boolean).join("\n"));
    if (layer.kind === "lines" && weight > 0) out.y = out.y.map((row) => smoothed(row, weight, this.plot.y.log));
    return out;
  }
}

const evenly = (rows, most) => Array.from({ length: most }, (_, k) => rows[Math.round((k * (rows.length - 1)) / Math.max(1, most - 1))]);

// The exponential moving average, without the bias of its start; of logarithms on a logarithmic axis.
function smoothed(row, weight, log) {
  let sum = 0, total = 0;
  return row.map((v) => {
    if (v === null || (log && v <= 0)) return v;
    sum = weight * sum + (1 - weight) * (log ? Math.log(v) : v);
    total = weight * total + (1 - weight);
    return log ? Math.exp(sum / total) : sum / total;
  });
}

function median(rows) {
  return rows[0].map((_, i) => {
    const sorted = rows.map((row) => row[i]).filter((v) => v !== null).sort((a, b) => a - b), n = sorted.length;
    return n ? (sorted[(n - 1) >> 1] + sorted[n >> 1]) / 2 : null;
  });
}
