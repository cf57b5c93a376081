// The two axes of a plot: places on the canvas, ticks, labels. `box` is where
// the axes meet the canvas, `seen` what they span, `below` the lines of the label of x.

class Axes {
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
    let free = -Infinity;
    for (const t of this.ticks(0, this.seen[0], this.seen[1], count)) {
      const px = Math.round(this.px(t.at)) + 0.5, half = c.measureText(t.text).width / 2;
      if (px < box.l - 1 || px > box.r + 1) continue;
      if (!x.ticks.length) stroke(c, px, box.t, px, box.b);
      if (px - half < free || px + half > w) continue;
      c.fillText(t.text, px, box.b + 6);
      free = px + half + 8;
    }
    c.strokeStyle = THEME.line;
    c.strokeRect(box.l + 0.5, box.t + 0.5, box.r - box.l, box.b - box.t);
    c.fillStyle = THEME.ink;
    this.below.forEach((line, k) => c.fillText(line, (box.l + box.r) / 2, box.b + 23 + 14 * k));
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
  if (size >= 1e5 || size < 1e-3) return v.toExponential(Math.max(0, Math.min(4, Math.ceil(Math.log10(Math.abs(v) / step) - 1e-9)))).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  return v.toFixed(Math.max(0, Math.min(8, -Math.floor(Math.log10(step) + 1e-9)))).replace("-", "−");
}

const power = (k) => "10" + String(k).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
