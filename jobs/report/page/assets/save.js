// A plot as a PNG or a CSV file.

function save(name, kind, data) {
  const url = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type: kind }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const fileName = (title, end) => `${title.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "plot"}.${end}`;

// The legend of a saved figure: [colour or null, text, x, y] of each entry, in as many rows as they need.
function entriesOf(figure, c, width) {
  c.font = "11.5px system-ui, sans-serif";
  const entries = figure.layers.filter((l) => l.name && l.legend !== "" && !figure.isHidden(l)).map((l) => [figure.layerColour(l), l.name]);
  const { label: name, log } = figure.plot.scale;
  if (figure.hasScale()) entries.push([null, `${name}${log ? " (log)" : ""}: ${[...new Set(ends(figure.told(figure.low), figure.told(figure.high)))].join(" to ")}`]);
  let x = 8, y = 30;
  return entries.map(([colour, text]) => {
    const own = clip(c, text, width - 36), w = (colour ? 15 : 0) + c.measureText(own).width;
    if (x > 8 && x + w > width - 8) [x, y] = [8, y + 16];
    const left = x;
    x += w + 17;
    return [colour, own, left, y];
  });
}

// Title, legend and plot of a figure on a canvas's context.
function compose(figure, c, entries, width, height, top) {
  c.fillStyle = THEME.card;
  c.fillRect(0, 0, width, height + top);
  c.font = "600 14px system-ui, sans-serif";
  [c.textAlign, c.textBaseline, c.fillStyle] = ["left", "top", THEME.ink];
  c.fillText(clip(c, figure.plot.title, width - 16), 8, 8);
  c.font = "11.5px system-ui, sans-serif";
  for (const [colour, text, x, y] of entries) {
    if (colour) {
      c.fillStyle = colour;
      c.fillRect(x, y + 1, 10, 10);
    }
    c.fillStyle = THEME.muted;
    c.fillText(text, colour ? x + 15 : x, y);
  }
  c.save();
  c.translate(0, top);
  figure.paint(c, width, height);
  c.restore();
}

function savePlot(figure, kind) {
  const width = figure.frame.clientWidth, height = figure.frame.clientHeight, { title } = figure.plot;
  if (kind === "CSV") return save(fileName(title, "csv"), "text/csv", plotCsv(figure.plot));
  const canvas = el("canvas"), c = canvas.getContext("2d"), entries = entriesOf(figure, c, width), top = entries.length ? entries.at(-1)[3] + 22 : 36;
  [canvas.width, canvas.height] = [2 * width, 2 * (height + top)];
  c.scale(2, 2);
  compose(figure, c, entries, width, height, top);
  return canvas.toBlob((blob) => save(fileName(title, "png"), "image/png", blob));
}

// A text that begins like a formula, which a spreadsheet would run, gets a ' in front, as in jobs/query/files.py.
const cell = (v) => {
  const text = v === null || v === undefined ? "" : typeof v === "string" ? v.replace(/^[=+\-@\t\r]/, "'$&") : String(v);
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
};
const csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";

// One row a mark: the name of the layer, or of the line, the item if it has one, and the numbers. The last column is the colour of a
// point or a cell, or the end of what has one: the upper one of a band, the right one of a bar or a span.
function plotCsv(plot) {
  const { scale } = plot, stores = STATE.content.stores && STATE.content.differing[0].values, rows = [], last = new Set();
  const tick = (axis, v) => (axis.ticks.length ? axis.ticks[v] ?? v : v);
  const colour = (v) => { last.add(scale.label || "value"); return scale.log && v !== null ? Number((10 ** v).toPrecision(6)) : v; };
  const end = (v) => { last.add("to"); return v; };
  for (const layer of plot.layers) {
    const name = layer.name || layer.of || "";
    const line = (k) => { const text = (!layer.item && layer.text && layer.text[k]) || ""; return text.includes(name) ? text : [name, text].filter(Boolean).join(": "); };
    const add = (text, k, ...numbers) => {
      const id = layer.item && layer.item[k];
      rows.push([text, ...(stores ? [layer.item && stores[Math.floor(id / OFFSET)]] : []), layer.item && id % OFFSET, ...numbers]);
    };
    if (layer.kind === "lines") layer.y.forEach((row, k) => row.forEach((v, i) => add(line(k), k, tick(plot.x, Array.isArray(layer.x[0]) ? layer.x[k][i] : layer.x[i]), v)));
    else if (layer.kind === "points") layer.x.forEach((v, i) => add(name, i, tick(plot.x, v), tick(plot.y, layer.y[i]), ...(layer.colour ? [colour(layer.colour[i])] : [])));
    else if (layer.kind === "band") layer.x.forEach((v, i) => add(name, i, v, layer.low[i], end(layer.high[i])));
    else if (layer.kind === "image") layer.z.forEach((row, k) => row.forEach((v, i) => add(name, i, tick(plot.x, i), tick(plot.y, k), colour(v))));
    else layer.left.forEach((v, i) => add(name, i, v, layer.kind === "bars" ? layer.height[i] : tick(plot.y, layer.row[i]), end(layer.right[i])));
  }
  return csv([["layer", ...(stores ? ["store"] : []), "item", plot.x.label || "x", plot.y.label || "y", ...(last.size ? [[...last].join(" or ")] : [])], ...rows]);
}
