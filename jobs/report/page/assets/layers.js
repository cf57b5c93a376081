// The two axes of a plot and the layers over them.
//   axes: places on the canvas, ticks, labels      layers: colours, extent, how each kind is drawn, what is under a pointer
// `box`: the axes' place on the canvas; `seen`: the range that they span; `below`: the lines of the label of x.

const LEVELS = 32; // of colour, where every vertex has its own

class Layers {
  map(axis) {
    return axis.log ? (v) => (v === null || v <= 0 ? NaN : Math.log10(v)) : (v) => (v === null ? NaN : v);
  }

  // The view with equal units on both axes: the tighter one is widened.
  square([x0, x1, y0, y1]) {
    const { l, r, t, b } = this.box, sx = (x1 - x0) / (r - l), sy = (y1 - y0) / (b - t), s = Math.max(sx, sy);
    const mx = (x0 + x1) / 2, my = (y0 + y1) / 2, hx = (s * (r - l)) / 2, hy = (s * (b - t)) / 2;
    return [mx - hx, mx + hx, my - hy, my + hy];
  }

  // Places and texts on axis 0 (x) or 1 (y) between two ends, about `most` of them.
  ticks(which, low, high, most) {
    const axis = which ? this.plot.y : this.plot.x, out = [];
    if (axis.ticks.length) {
      const first = Math.max(0, Math.ceil(low - 0.01)), last = Math.min(axis.ticks.length - 1, Math.floor(high + 0.01));
      const step = Math.max(1, Math.ceil((last - first + 1) / (most * 2)));
      for (let k = first; k <= last; k += step) out.push({ at: k, text: axis.ticks[k] });
      return out;
    }
    if (axis.log && high - low > 0.7) {
      const step = Math.max(1, Math.ceil((high - low) / most)), parts = high - low < 2.5 ? [1, 2, 5] : [1];
      for (let k = Math.floor(low / step) * step; k <= high; k += step) for (const f of parts) {
        const at = k + Math.log10(f);
        if (at >= low && at <= high) out.push({ at, text: parts.length > 1 ? fmt(Number((10 ** at).toPrecision(1))) : power(k) });
      }
      return out;
    }
    const start = axis.log ? 10 ** low : low, end = axis.log ? 10 ** high : high;
    const raw = (end - start) / most, unit = 10 ** Math.floor(Math.log10(raw)), f = raw / unit;
    let step = unit * (f > 5 ? 10 : f > 2 ? 5 : f > 1 ? 2 : 1);
    if (this.whole[which]) step = Math.max(1, step);
    for (let k = Math.ceil(start / step - 1e-9); k * step <= end + step * 1e-9; k++) {
      const v = k * step;
      if (!axis.log || v > 0) out.push({ at: axis.log ? Math.log10(v) : v, text: label(v, step) });
    }
    return out;
  }

  drawAxes(c, box, w, yTicks, widest) {
    const { x, y } = this.plot;
    c.lineWidth = 1;
    c.strokeStyle = THEME.grid;
    c.fillStyle = THEME.muted;
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (const t of yTicks) {
      const py = Math.round(this.py(t.at)) + 0.5;
      if (py < box.t - 1 || py > box.b + 1) continue;
      if (!y.ticks.length) stroke(c, box.l, py, box.r, py);
      c.fillText(clip(c, t.text, widest + 2), box.l - 6, py);
    }
    c.textAlign = "center";
    c.textBaseline = "top";
    const count = Math.max(2, (box.r - box.l) / 80);
    const free = [-Infinity, -Infinity]; // in each row
    for (const [k, t] of this.ticks(0, this.seen[0], this.seen[1], count).entries()) {
      const px = Math.round(this.px(t.at)) + 0.5;
      let { text } = t, at = px, half = c.measureText(text).width / 2, row = k % this.rows;
      if (px < box.l - 1 || px > box.r + 1) continue;
      if (!x.ticks.length) stroke(c, px, box.t, px, box.b);
      // The texts of the first and the last category move inwards, and are cut where another one lies.
      else if (px - half < 0 || px + half > w) {
        text = clip(c, text, px < w / 2 ? w / Math.min(x.ticks.length, count) : w - Math.max(0, free[row]));
        half = c.measureText(text).width / 2;
        at = px < w / 2 ? half : w - half;
      }
      if (at - half < free[row] || at + half > w) continue;
      c.fillText(text, at, box.b + 6 + 14 * row);
      free[row] = at + half + 8;
    }
    c.strokeStyle = THEME.line;
    c.strokeRect(box.l + 0.5, box.t + 0.5, box.r - box.l, box.b - box.t);
    c.fillStyle = THEME.ink;
    this.below.forEach((line, k) => c.fillText(line, (box.l + box.r) / 2, box.b + 9 + 14 * (this.rows + k)));
    if (y.label) {
      c.save();
      c.translate(4, (box.t + box.b) / 2);
      c.rotate(-Math.PI / 2);
      c.fillText(clip(c, y.label, box.b - box.t), 0, 0);
      c.restore();
    }
  }

  unX(px) { return this.seen[0] + ((px - this.box.l) / (this.box.r - this.box.l)) * (this.seen[1] - this.seen[0]); }

  unY(py) { return this.seen[2] + ((this.box.b - py) / (this.box.b - this.box.t)) * (this.seen[3] - this.seen[2]); }

  // The ends of the colour scale.
  range() {
    let low = Infinity, high = -Infinity;
    for (const layer of this.layers) {
      const values = layer.kind === "image" ? layer.z : layer.colour;
      for (const v of (values || []).flat()) if (v !== null) [low, high] = [Math.min(low, v), Math.max(high, v)];
    }
    const s = this.plot.scale;
    this.low = s.low ?? (low > high ? 0 : low);
    this.high = s.high ?? (low > high ? 1 : high);
  }

  // A number of the colour scale as it is told: on a logarithmic one, layers have logarithms.
  told(v) { return this.plot.scale.log && v !== null ? 10 ** v : v; }

  // Where a number lies on the colour scale, 0 to 1: in the middle if all are equal.
  place(v) {
    if (v === null || v === undefined) return NaN;
    return this.low === this.high ? 0.5 : (v - this.low) / (this.high - this.low);
  }

  colour(v, marks = true) { return shade(this.place(v), this.plot.scale.diverging, marks); }

  layerColour(layer) {
    if (layer.tone !== undefined) return shade(layer.tone, false);
    if (layer.strong) return THEME.ink;
    if (layer.colour && layer.kind !== "image") return this.colour((this.low + this.high) / 2);
    return layer.series === undefined ? THEME.muted : THEME.series[layer.series % THEME.series.length];
  }

  extent() {
    const box = [Infinity, -Infinity, Infinity, -Infinity];
    const x = (v) => { if (Number.isFinite(v)) { box[0] = Math.min(box[0], v); box[1] = Math.max(box[1], v); } };
    const y = (v) => { if (Number.isFinite(v)) { box[2] = Math.min(box[2], v); box[3] = Math.max(box[3], v); } };
    let tight = false, floor = false;
    for (const layer of this.layers) {
      if (this.isHidden(layer)) continue;
      if (layer.kind === "lines") layer.Y.forEach((row, k) => row.forEach((v, i) => { if (Number.isFinite(v)) { x(layer.X[k][i]); y(v); } }));
      else if (layer.kind === "points") layer.X.forEach((v, i) => { if (Number.isFinite(v) && Number.isFinite(layer.Y[i])) { x(v); y(layer.Y[i]); } });
      else if (layer.kind === "band") { layer.X.forEach(x); layer.L.forEach(y); layer.H.forEach(y); }
      else if (layer.kind === "bars") { layer.A.forEach(x); layer.B.forEach(x); layer.Y.forEach(y); y(0); floor = true; }
      else if (layer.kind === "spans") { layer.A.forEach(x); layer.B.forEach(x); layer.Y.forEach((v) => { y(v - 0.6); y(v + 0.6); }); }
      else { x(-0.5); x((layer.z[0] || []).length - 0.5); y(-0.5); y(layer.z.length - 0.5); tight = true; }
    }
    if (box[0] > box[1]) [box[0], box[1]] = [0, 1];
    if (box[2] > box[3]) [box[2], box[3]] = [0, 1];
    for (const k of [0, 2]) if (box[k] === box[k + 1]) { const d = Math.abs(box[k]) * 0.05 || 0.5; box[k] -= d; box[k + 1] += d; }
    if (tight) return box;
    const [px, py] = [0.03 * (box[1] - box[0]), 0.06 * (box[3] - box[2])];
    return [box[0] - px, box[1] + px, floor && box[2] === 0 ? 0 : box[2] - py, box[3] + py];
  }

  draw_lines(c, layer) {
    const many = layer.Y.length > 40;
    c.lineWidth = layer.wide ? 2.6 : layer.strong ? 2.4 : layer.faint || many ? 1 : 1.6;
    c.lineJoin = "round";
    c.setLineDash(layer.dashed ? [5, 4] : []);
    c.globalAlpha = layer.strong || layer.wide ? 1 : layer.pale ? 0.28 : layer.faint && layer.colour ? 0.45 : layer.faint ? 0.7 : many ? 0.55 : 0.95;
    const each = layer.colour && Array.isArray(layer.colour[0]);
    if (each) this.segments(c, layer);
    else layer.Y.forEach((row, k) => {
      c.strokeStyle = layer.colour ? this.colour(layer.colour[k]) : this.layerColour(layer);
      this.trace(c, layer.X[k], row);
    });
    c.globalAlpha = 1;
    c.setLineDash([]);
  }

  trace(c, X, Y) { polyline(c, Y.length, (i) => this.px(X[i]), (i) => this.py(Y[i])); }

  segments(c, layer) {
    const bins = Array.from({ length: LEVELS + 1 }, () => []); // the last for vertices without a number
    layer.Y.forEach((row, k) => {
      for (let i = 1; i < row.length; i++) {
        const t = this.place(layer.colour[k][i]), level = Math.min(LEVELS - 1, Math.max(0, Math.floor(t * LEVELS)));
        if (Number.isFinite(row[i] + row[i - 1])) bins[Number.isNaN(t) ? LEVELS : level].push([k, i]);
      }
    });
    bins.forEach((bin, level) => {
      c.strokeStyle = shade(level === LEVELS ? NaN : (level + 0.5) / LEVELS, this.plot.scale.diverging);
      c.beginPath();
      for (const [k, i] of bin) {
        c.moveTo(this.px(layer.X[k][i - 1]), this.py(layer.Y[k][i - 1]));
        c.lineTo(this.px(layer.X[k][i]), this.py(layer.Y[k][i]));
      }
      c.stroke();
    });
  }

  radius(layer, i) {
    return layer.size ? 3 + 11 * Math.sqrt(Math.min(1, Math.max(0, layer.size[i] ?? 0))) : layer.X.length > 600 ? 2.2 : 3.4;
  }

  mark(c, layer, i, r) {
    const x = this.px(layer.X[i]), y = this.py(layer.Y[i]);
    c.beginPath();
    if (layer.marker === "diamond") { c.moveTo(x, y - r * 1.2); c.lineTo(x + r * 1.2, y); c.lineTo(x, y + r * 1.2); c.lineTo(x - r * 1.2, y); c.closePath(); }
    else c.arc(x, y, r, 0, 7);
  }

  draw_points(c, layer) {
    const many = layer.X.length > 600;
    c.globalAlpha = many ? 0.6 : 0.92;
    for (let i = 0; i < layer.X.length; i++) {
      if (!Number.isFinite(layer.X[i]) || !Number.isFinite(layer.Y[i])) continue;
      const colour = layer.colour ? this.colour(layer.colour[i]) : this.layerColour(layer);
      this.mark(c, layer, i, this.radius(layer, i));
      c.fillStyle = layer.hollow ? THEME.card : colour;
      c.fill();
      if (layer.hollow || layer.size) {
        c.strokeStyle = layer.hollow ? colour : THEME.card;
        c.lineWidth = layer.hollow ? 2 : 1;
        c.stroke();
      }
    }
    c.globalAlpha = 1;
  }

  draw_band(c, layer) {
    c.fillStyle = this.layerColour(layer);
    c.globalAlpha = 0.16;
    c.beginPath();
    const fine = layer.X.map((_, i) => i).filter((i) => Number.isFinite(layer.X[i] + layer.L[i] + layer.H[i]));
    fine.forEach((i, k) => (k ? c.lineTo : c.moveTo).call(c, this.px(layer.X[i]), this.py(layer.H[i])));
    fine.reverse().forEach((i) => c.lineTo(this.px(layer.X[i]), this.py(layer.L[i])));
    c.fill();
    c.globalAlpha = 1;
  }

  rect(layer, i) {
    const a = this.px(layer.A[i]), b = this.px(layer.B[i]), y = layer.Y[i];
    const [t, d] = layer.kind === "bars" ? [this.py(y), this.py(0)] : [this.py(y + 0.36), this.py(y - 0.36)];
    return [Math.min(a, b), Math.min(t, d), Math.max(1, Math.abs(b - a)), Math.max(y ? 1 : 0, Math.abs(d - t))];
  }

  draw_bars(c, layer) {
    for (let i = 0; i < layer.A.length; i++) {
      c.fillStyle = layer.colour ? this.colour(layer.colour[i]) : this.layerColour(layer);
      c.globalAlpha = 0.75;
      const [x, y, w, h] = this.rect(layer, i);
      c.fillRect(x + (w > 4 ? 0.5 : 0), y, w > 4 ? w - 1 : w, h);
    }
    c.globalAlpha = 1;
  }

  draw_spans(c, layer) { this.draw_bars(c, layer); }

  draw_image(c, layer) {
    layer.z.forEach((row, j) => row.forEach((v, i) => {
      if (v === null) return;
      c.fillStyle = this.colour(v, false);
      const x = this.px(i - 0.5), y = this.py(j + 0.5);
      c.fillRect(x, y, Math.ceil(this.px(i + 0.5) - x) + 0.3, Math.ceil(this.py(j - 0.5) - y) + 0.3);
    }));
  }

  find(x, y) {
    let best = null, least = 18;
    const offer = (layer, i, distance, k) => { if (distance < least) [best, least] = [{ layer, i, k }, distance]; };
    for (const layer of this.layers) {
      if (this.isHidden(layer)) continue;
      if (layer.kind === "points") for (let i = 0; i < layer.X.length; i++) offer(layer, i, Math.hypot(this.px(layer.X[i]) - x, this.py(layer.Y[i]) - y) - 6);
      else if (layer.kind === "lines") layer.Y.forEach((row, k) => { for (let i = 0; i < row.length; i++) offer(layer, i, Math.hypot(this.px(layer.X[k][i]) - x, this.py(row[i]) - y), k); });
      else if (layer.kind === "bars" || layer.kind === "spans") for (let i = 0; i < layer.A.length; i++) {
        const [a, t, w, h] = this.rect(layer, i), over = layer.kind === "bars" ? this.box.b - t : h;
        if (x >= a && x <= a + w && y >= t - 3 && y <= t + over + 3) offer(layer, i, 0);
      }
      else if (layer.kind === "image") {
        const i = Math.round(this.unX(x)), k = Math.round(this.unY(y));
        if (layer.z[k] && layer.z[k][i] !== undefined) offer(layer, i, 0, k);
      }
    }
    return best;
  }

  describe({ layer, i, k }) {
    const { x, y, scale } = this.plot;
    const name = (axis, v, fallback) => `${(axis.label || fallback).split(" (")[0]}: ${axis.ticks.length ? axis.ticks[v] ?? v : fmt(v)}`;
    if (layer.kind === "image") return `${name(x, i, "x")}\n${name(y, k, "y")}\n${scale.label}: ${fmt(this.told(layer.z[k][i]))}`;
    if (layer.kind === "lines") {
      const at = Array.isArray(layer.x[0]) ? layer.x[k][i] : layer.x[i];
      return [layer.text ? layer.text[k] : layer.name, name(x, at, "x"), y.ticks.length ? "" : name(y, layer.y[k][i], "y")].filter(Boolean).join("\n");
    }
    if (layer.text && layer.text.length) return layer.text[i];
    if (layer.kind === "points") return [layer.name, name(x, layer.x[i], "x"), name(y, layer.y[i], "y"), layer.colour && scale.label ? `${scale.label}: ${fmt(layer.colour[i])}` : ""].filter(Boolean).join("\n");
    if (layer.kind === "bars") return [layer.name, `${(x.label || "x").split(" (")[0]}: ${fmt(layer.left[i])} to ${fmt(layer.right[i])}`, `${y.label}: ${fmt(layer.height[i])}`].filter(Boolean).join("\n");
    return layer.name || "";
  }
}

// Whether a layer has whole numbers alone on an axis: there is nothing between them.
function isWhole(layer, name) {
  const values = { lines: [layer[name]], points: [layer[name]], band: name === "x" ? [layer.x] : [layer.low, layer.high], bars: name === "x" ? [[0.5]] : [layer.height], spans: [[0.5]], image: [] }[layer.kind];
  return values.every((part) => part.flat().every((v) => v === null || Number.isInteger(v)));
}

function stroke(c, x, y, x2, y2) {
  c.beginPath();
  c.moveTo(x, y);
  c.lineTo(x2, y2);
  c.stroke();
}

function clip(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let n = text.length;
  while (n > 1 && c.measureText(text.slice(0, n) + "…").width > width) n--;
  return text.slice(0, n) + "…";
}

// One line of text, or two on a small screen.
function wrap(c, text, width) {
  if (c.measureText(text).width <= width) return [text];
  const words = text.split(" ");
  let n = 1;
  while (n < words.length - 1 && c.measureText(words.slice(0, n + 1).join(" ")).width <= width) n++;
  return [words.slice(0, n).join(" "), words.slice(n).join(" ")].filter(Boolean).map((line) => clip(c, line, width));
}

function label(v, step) {
  const size = Math.max(Math.abs(v), step);
  if (v === 0) return "0";
  // With the digits that tell it from the next tick; many of a large number are written out, as of item 150,001 beside 150,002.
  const digits = Math.max(0, Math.ceil(Math.log10(Math.abs(v) / step) - 1e-9));
  if ((size >= 1e5 && digits <= 4) || size < 1e-3) return v.toExponential(Math.min(10, digits)).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  return v.toFixed(Math.max(0, Math.min(8, -Math.floor(Math.log10(step) + 1e-9)))).replace("-", "−");
}

const power = (k) => "10" + String(k).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
