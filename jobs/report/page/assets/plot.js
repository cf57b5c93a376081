// One plot: layers over two axes on a canvas, with zoom, pan, hover and legend.
//   drag: zoom to a box        shift and drag, touch: pan        wheel: zoom, once the plot has the focus
//   double click, 0: back      + - and arrows: zoom, pan         n p: next and previous mark

const FIGURES = new Set();
const LEVELS = 32; // of colour, where every vertex has its own

class Figure {
  constructor(plot, siblings = null) {
    this.siblings = siblings || new Set();
    this.siblings.add(this);
    FIGURES.add(this);
    this.hidden = new Set();
    this.title = el("h3");
    this.legend = el("div", { className: "legend" });
    this.note = el("p", { className: "note" });
    this.base = el("canvas");
    this.over = el("canvas", { className: "over", tabIndex: 0, role: "img" });
    this.tip = el("div", { className: "tip", role: "status" });
    this.frame = el("div", { className: "draw" }, this.base, this.over, this.tip);
    const button = (text, label, action) => el("button", { type: "button", title: label, onclick: action }, text);
    const tools = el("div", { className: "tools" },
      button("+", "zoom in", () => this.zoom(0.6)),
      button("−", "zoom out", () => this.zoom(1 / 0.6)),
      button("reset", "show everything", () => this.reset()));
    const saves = el("div", { className: "saves" }, ...["PNG", "SVG", "CSV"].map((kind) => button(kind, `save as ${kind}`, () => savePlot(this, kind))));
    this.node = el("div", { className: "card figure" }, el("div", { className: "head" }, this.title, tools), this.legend, this.frame, el("div", { className: "foot" }, this.note, saves));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.frame);
    this.update(plot);
  }

  remove() { this.siblings.delete(this); FIGURES.delete(this); this.node.remove(); }

  // --- data ---------------------------------------------------------------------------------------

  update(plot) {
    this.plot = plot;
    this.hit = null;
    this.node.classList.toggle("tall", plot.equal || plot.layers.some((l) => l.kind === "image"));
    this.title.textContent = plot.title;
    this.note.textContent = plot.note || "";
    this.note.hidden = !plot.note;
    this.over.setAttribute("aria-label", `${plot.title}: ${plot.y.label || "rows"} over ${plot.x.label}. Keys: + − arrows 0, n and p for values.`);
    const tx = this.map(plot.x), ty = this.map(plot.y);
    let next = 0;
    this.layers = plot.layers.map((layer, index) => {
      const out = { ...layer, index };
      if (layer.kind === "lines") {
        const shared = typeof layer.x[0] === "number" || layer.x[0] === null ? layer.x.map(tx) : null;
        out.X = layer.y.map((_, k) => shared || layer.x[k].map(tx));
        out.Y = layer.y.map((row) => row.map(ty));
      } else if (layer.kind === "points") [out.X, out.Y] = [layer.x.map(tx), layer.y.map(ty)];
      else if (layer.kind === "band") [out.X, out.L, out.H] = [layer.x.map(tx), layer.low.map(ty), layer.high.map(ty)];
      else if (layer.kind === "bars" || layer.kind === "spans") {
        out.A = layer.left.map(tx);
        out.B = layer.right.map(tx);
        out.Y = layer.kind === "bars" ? layer.height.map(ty) : layer.row;
      }
      const plain = layer.kind !== "image" && layer.tone === undefined && !layer.strong && !(layer.faint && !layer.colour && !layer.pale) && !layer.colour;
      if (plain) out.series = layer.hue ?? next++;
      return out;
    });
    this.whole = ["x", "y"].map((name) => this.layers.every((layer) => isWhole(layer, name)));
    this.range();
    this.home = this.extent();
    if (!this.moved) this.view = this.home;
    this.drawLegend();
    this.draw();
  }

  map(axis) {
    return axis.log ? (v) => (v === null || v <= 0 ? NaN : Math.log10(v)) : (v) => (v === null ? NaN : v);
  }

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
    if (this.low === this.high) this.high = this.low + 1;
  }

  colour(v, marks = true) {
    return shade(v === null || v === undefined ? NaN : (v - this.low) / (this.high - this.low), this.plot.scale.diverging, marks);
  }

  extent() {
    const box = [Infinity, -Infinity, Infinity, -Infinity];
    const x = (v) => { if (Number.isFinite(v)) { box[0] = Math.min(box[0], v); box[1] = Math.max(box[1], v); } };
    const y = (v) => { if (Number.isFinite(v)) { box[2] = Math.min(box[2], v); box[3] = Math.max(box[3], v); } };
    let tight = false, floor = false;
    for (const layer of this.layers) {
      if (this.hidden.has(layer.index)) continue;
      if (layer.kind === "lines") layer.Y.forEach((row, k) => row.forEach((v, i) => { if (Number.isFinite(v)) { x(layer.X[k][i]); y(v); } }));
      else if (layer.kind === "points") layer.X.forEach((v, i) => { if (Number.isFinite(v) && Number.isFinite(layer.Y[i])) { x(v); y(layer.Y[i]); } });
      else if (layer.kind === "band") { layer.X.forEach(x); layer.L.forEach(y); layer.H.forEach(y); }
      else if (layer.kind === "bars") { layer.A.forEach(x); layer.B.forEach(x); layer.Y.forEach(y); y(0); floor = true; }
      else if (layer.kind === "spans") { layer.A.forEach(x); layer.B.forEach(x); layer.Y.forEach((v) => { y(v - 0.6); y(v + 0.6); }); }
      else { x(-0.5); x(layer.z[0].length - 0.5); y(-0.5); y(layer.z.length - 0.5); tight = true; }
    }
    if (box[0] > box[1]) [box[0], box[1]] = [0, 1];
    if (box[2] > box[3]) [box[2], box[3]] = [0, 1];
    for (const k of [0, 2]) if (box[k] === box[k + 1]) { const d = Math.abs(box[k]) * 0.05 || 0.5; box[k] -= d; box[k + 1] += d; }
    if (tight) return box;
    const [px, py] = [0.03 * (box[1] - box[0]), 0.06 * (box[3] - box[2])];
    return [box[0] - px, box[1] + px, floor && box[2] === 0 ? 0 : box[2] - py, box[3] + py];
  }

  // --- drawing ------------------------------------------------------------------------------------

  drawLegend() {
    const parts = [];
    for (const layer of this.layers) {
      if (!layer.name || layer.legend === "") continue;
      const shown = !this.hidden.has(layer.index);
      const swatch = el("span", { className: "swatch", style: { margin: 0, background: this.layerColour(layer) } });
      if (layer.hollow) Object.assign(swatch.style, { background: "none", border: `2px solid ${this.layerColour(layer)}` });
      if (layer.dashed) swatch.style.background = `repeating-linear-gradient(90deg, ${this.layerColour(layer)} 0 4px, transparent 4px 6px)`;
      if (layer.kind === "points" && layer.marker !== "diamond") swatch.style.borderRadius = "50%";
      if (layer.marker === "diamond") swatch.style.transform = "rotate(45deg) scale(.85)";
      parts.push(el("button", {
        type: "button", "aria-pressed": String(shown), title: "show or hide",
        onclick: () => {
          const hide = shown, same = this.layers.filter((l) => l === layer || (layer.wide && l.of === layer.name) || (l.legend === "" && l.name === layer.name));
          for (const l of same) hide ? this.hidden.add(l.index) : this.hidden.delete(l.index);
          this.drawLegend();
          this.draw();
        },
      }, swatch, layer.name));
    }
    const s = this.plot.scale;
    if (this.hasScale()) {
      const ramp = el("canvas", { width: 72, height: 1 }), c = ramp.getContext("2d");
      const marks = !this.layers.some((l) => l.kind === "image");
      for (let k = 0; k < 72; k++) { c.fillStyle = shade(k / 71, s.diverging, marks); c.fillRect(k, 0, 1, 1); }
      let digits = 3;
      while (digits < 8 && this.low.toPrecision(digits) === this.high.toPrecision(digits)) digits++;
      const end = (v) => fmt(Number(v.toPrecision(digits)));
      parts.push(el("span", { className: "scale" }, end(this.low), ramp, `${end(this.high)} ${s.label}`));
    }
    this.legend.replaceChildren(...parts);
    this.legend.hidden = !parts.length;
  }

  hasScale() { return Boolean(this.plot.scale.label) && this.layers.some((l) => l.colour || l.kind === "image"); }

  layerColour(layer) {
    if (layer.tone !== undefined) return shade(layer.tone, false);
    if (layer.strong) return THEME.ink;
    if (layer.colour && layer.kind !== "image") return this.colour((this.low + this.high) / 2);
    return layer.series === undefined ? THEME.muted : THEME.series[layer.series % 8];
  }

  draw() {
    const w = this.frame.clientWidth, h = this.frame.clientHeight;
    if (!w || !h || !this.node.isConnected) return;
    const dpr = window.devicePixelRatio || 1;
    for (const canvas of [this.base, this.over]) {
      if (canvas.width !== Math.round(w * dpr) || canvas.height !== Math.round(h * dpr)) [canvas.width, canvas.height] = [Math.round(w * dpr), Math.round(h * dpr)];
      canvas.getContext("2d").setTransform(dpr, 0, 0, dpr, 0, 0);
    }
    const c = this.base.getContext("2d");
    c.clearRect(0, 0, w, h);
    this.paint(c, w, h);
    this.drawOver();
  }

  // Axes and layers on a context of a canvas, or an Svg.
  paint(c, w, h) {
    c.font = "11.5px system-ui, sans-serif";
    const yTicks = this.ticks(1, this.view[2], this.view[3], Math.max(2, h / 55));
    const widest = Math.max(8, ...yTicks.map((t) => Math.min(0.32 * w, c.measureText(t.text).width)));
    const box = { l: Math.ceil(widest) + (this.plot.y.label ? 30 : 14), t: 8, r: w - 12, b: h - (this.plot.x.label ? 40 : 24) };
    this.box = box;
    this.seen = this.plot.equal ? this.square(this.view) : this.view;
    const [x0, x1, y0, y1] = this.seen;
    this.px = (x) => box.l + ((x - x0) / (x1 - x0)) * (box.r - box.l);
    this.py = (y) => box.b - ((y - y0) / (y1 - y0)) * (box.b - box.t);
    this.drawAxes(c, box, w, this.plot.equal ? this.ticks(1, y0, y1, Math.max(2, h / 55)) : yTicks, widest);
    c.save();
    c.beginPath();
    c.rect(box.l, box.t, box.r - box.l, box.b - box.t);
    c.clip();
    for (const layer of this.layers) if (!this.hidden.has(layer.index)) this["draw_" + layer.kind](c, layer);
    c.restore();
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
    if (x.label) c.fillText(clip(c, x.label, box.r - box.l), (box.l + box.r) / 2, box.b + 23);
    if (y.label) {
      c.save();
      c.translate(4, (box.t + box.b) / 2);
      c.rotate(-Math.PI / 2);
      c.fillText(clip(c, y.label, box.b - box.t), 0, 0);
      c.restore();
    }
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

  trace(c, X, Y) {
    c.beginPath();
    let on = false;
    for (let i = 0; i < Y.length; i++) {
      if (!Number.isFinite(Y[i]) || !Number.isFinite(X[i])) { on = false; continue; }
      on ? c.lineTo(this.px(X[i]), this.py(Y[i])) : c.moveTo(this.px(X[i]), this.py(Y[i]));
      on = true;
    }
    c.stroke();
  }

  segments(c, layer) {
    const bins = Array.from({ length: LEVELS }, () => []);
    layer.Y.forEach((row, k) => {
      for (let i = 1; i < row.length; i++) {
        const t = (layer.colour[k][i] - this.low) / (this.high - this.low);
        if (Number.isFinite(row[i] + row[i - 1])) bins[Math.min(LEVELS - 1, Math.max(0, Math.floor(t * LEVELS)))].push([k, i]);
      }
    });
    bins.forEach((bin, level) => {
      c.strokeStyle = shade((level + 0.5) / LEVELS, this.plot.scale.diverging);
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

  // --- what is under the pointer ------------------------------------------------------------------

  find(x, y) {
    let best = null, least = 18;
    const offer = (layer, i, distance, k) => { if (distance < least) [best, least] = [{ layer, i, k }, distance]; };
    for (const layer of this.layers) {
      if (this.hidden.has(layer.index)) continue;
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
    if (layer.kind === "image") return `${name(x, i, "x")}\n${name(y, k, "y")}\n${scale.label}: ${fmt(layer.z[k][i])}`;
    if (layer.kind === "lines") {
      const at = Array.isArray(layer.x[0]) ? layer.x[k][i] : layer.x[i];
      return [layer.text ? layer.text[k] : layer.name, name(x, at, "x"), y.ticks.length ? "" : name(y, layer.y[k][i], "y")].filter(Boolean).join("\n");
    }
    if (layer.text && layer.text.length) return layer.text[i];
    if (layer.kind === "points") return [layer.name, name(x, layer.x[i], "x"), name(y, layer.y[i], "y"), layer.colour && scale.label ? `${scale.label}: ${fmt(layer.colour[i])}` : ""].filter(Boolean).join("\n");
    if (layer.kind === "bars") return [layer.name, `${(x.label || "x").split(" (")[0]}: ${fmt(layer.left[i])} to ${fmt(layer.right[i])}`, `${y.label}: ${fmt(layer.height[i])}`].filter(Boolean).join("\n");
    return layer.name || "";
  }

  drawOver() {
    const c = this.over.getContext("2d");
    c.clearRect(0, 0, this.frame.clientWidth, this.frame.clientHeight);
    if (this.drag && this.drag.box) {
      const { x, y, x2, y2 } = this.drag;
      c.fillStyle = c.strokeStyle = THEME.accent;
      c.globalAlpha = 0.12;
      c.fillRect(x, y, x2 - x, y2 - y);
      c.globalAlpha = 1;
      c.strokeRect(x, y, x2 - x, y2 - y);
    }
    c.save();
    c.beginPath();
    c.rect(this.box.l - 2, this.box.t - 2, this.box.r - this.box.l + 4, this.box.b - this.box.t + 4);
    c.clip();
    c.strokeStyle = THEME.ink;
    const ring = (layer, i, wide = true) => { c.lineWidth = wide ? 2 : 1.2; this.mark(c, layer, i, this.radius(layer, i) + (wide ? 3 : 0.5)); c.stroke(); };
    const frame = (layer, i) => { c.lineWidth = 1.5; c.strokeRect(...this.rect(layer, i)); };
    if (this.hit) {
      const { layer, i, k } = this.hit;
      if (layer.kind === "points") ring(layer, i);
      else if (layer.kind === "bars" || layer.kind === "spans") frame(layer, i);
      else if (layer.kind === "lines") {
        c.lineWidth = 2.4;
        if (layer.text || layer.Y.length === 1) this.trace(c, layer.X[k], layer.Y[k]);
        c.beginPath();
        c.arc(this.px(layer.X[k][i]), this.py(layer.Y[k][i]), 4, 0, 7);
        c.fillStyle = THEME.ink;
        c.fill();
      } else c.strokeRect(this.px(i - 0.5), this.py(k + 0.5), this.px(i + 0.5) - this.px(i - 0.5), this.py(k - 0.5) - this.py(k + 0.5));
    }
    if (this.lit !== undefined && this.lit !== null) for (const layer of this.layers) {
      if (!layer.key || this.hidden.has(layer.index)) continue;
      const equal = layer.key.filter((key) => key === this.lit).length;
      layer.key.forEach((key, i) => { if (key === this.lit) layer.kind === "points" ? ring(layer, i, equal < 20) : frame(layer, i); });
    }
    c.restore();
  }

  point(hit, x, y) {
    this.hit = hit;
    const key = hit && hit.layer.key ? hit.layer.key[hit.i] : null;
    for (const figure of this.siblings) {
      const lit = figure === this ? null : key;
      if (figure.lit !== lit && figure.box && figure.node.isConnected) { figure.lit = lit; figure.drawOver(); }
    }
    this.drawOver();
    this.tip.style.visibility = hit ? "visible" : "hidden";
    if (!hit) return;
    this.tip.textContent = this.describe(hit);
    const w = this.frame.clientWidth, tw = this.tip.offsetWidth, th = this.tip.offsetHeight;
    this.tip.style.left = `${Math.max(0, Math.min(w - tw, x + 14 + tw > w ? x - tw - 14 : x + 14))}px`;
    this.tip.style.top = `${Math.max(0, y - th - 10 < 0 ? y + 14 : y - th - 10)}px`;
  }

  // Walk through the marks by keyboard.
  step(by) {
    const marks = [];
    for (const layer of this.layers) {
      if (this.hidden.has(layer.index) || !["points", "bars", "spans"].includes(layer.kind)) continue;
      (layer.X || layer.A).forEach((_, i) => marks.push({ layer, i }));
    }
    if (!marks.length) return;
    const now = this.hit ? marks.findIndex((m) => m.layer === this.hit.layer && m.i === this.hit.i) : -1;
    const hit = marks[(now + by + marks.length) % marks.length];
    const [a, t, w] = hit.layer.kind === "points" ? [this.px(hit.layer.X[hit.i]), this.py(hit.layer.Y[hit.i]), 0] : this.rect(hit.layer, hit.i);
    this.point(hit, a + w / 2, t);
  }

  // --- zoom and pan -------------------------------------------------------------------------------

  unX(px) { return this.seen[0] + ((px - this.box.l) / (this.box.r - this.box.l)) * (this.seen[1] - this.seen[0]); }
  unY(py) { return this.seen[2] + ((this.box.b - py) / (this.box.b - this.box.t)) * (this.seen[3] - this.seen[2]); }

  look(view) {
    const least = (k) => Math.max(Math.abs(view[k]), Math.abs(view[k + 1]), 1e-12) * 1e-9;
    if (!(view[1] - view[0] > least(0)) || !(view[3] - view[2] > least(2)) || !view.every(Number.isFinite)) return;
    this.view = view;
    this.moved = true;
    this.hit = null;
    this.tip.style.visibility = "hidden";
    this.draw();
  }

  zoom(factor, x = (this.box.l + this.box.r) / 2, y = (this.box.t + this.box.b) / 2) {
    const cx = this.unX(x), cy = this.unY(y), v = this.seen;
    this.look([cx + (v[0] - cx) * factor, cx + (v[1] - cx) * factor, cy + (v[2] - cy) * factor, cy + (v[3] - cy) * factor]);
  }

  pan(dx, dy) {
    const v = this.seen, x = (-dx * (v[1] - v[0])) / (this.box.r - this.box.l), y = (dy * (v[3] - v[2])) / (this.box.b - this.box.t);
    this.look([v[0] + x, v[1] + x, v[2] + y, v[3] + y]);
  }

  reset() {
    this.home = this.extent();
    this.look(this.home);
    this.moved = false;
  }

  listen() {
    const over = this.over, fingers = new Map();
    const at = (event) => { const box = over.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    over.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const [x, y] = at(event);
      fingers.set(event.pointerId, [x, y]);
      over.setPointerCapture(event.pointerId);
      this.drag = fingers.size > 1 ? null : { x, y, x2: x, y2: y, box: event.pointerType === "mouse" && !event.shiftKey };
    });
    over.addEventListener("pointermove", (event) => {
      const [x, y] = at(event), before = fingers.get(event.pointerId);
      if (!before) {
        if (this.waiting) return;
        this.waiting = true;
        requestAnimationFrame(() => { this.waiting = false; if (this.box) this.point(this.find(x, y), x, y); });
        return;
      }
      if (fingers.size === 2) {
        const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
        const span = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        this.zoom(span(before) / span([x, y]), (x + other[0]) / 2, (y + other[1]) / 2);
      } else if (this.drag && this.drag.box) {
        [this.drag.x2, this.drag.y2] = [x, y];
        this.drawOver();
      } else if (this.drag) this.pan(x - before[0], y - before[1]);
      fingers.set(event.pointerId, [x, y]);
    });
    const end = (event) => {
      fingers.delete(event.pointerId);
      const drag = this.drag;
      this.drag = null;
      if (drag && drag.box && event.type === "pointerup") this.zoomBox(drag);
      else if (this.box) this.drawOver();
    };
    over.addEventListener("pointerup", end);
    over.addEventListener("pointercancel", end);
    over.addEventListener("pointerleave", () => { if (!fingers.size && this.box) this.point(null); });
    over.addEventListener("dblclick", () => this.reset());
    over.addEventListener("wheel", (event) => {
      if (document.activeElement !== over && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(1.0016 ** (event.deltaY * (event.deltaMode ? 16 : 1)), ...at(event));
    }, { passive: false });
    over.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (move) this.pan(...move);
      else if (event.key === "+" || event.key === "=") this.zoom(0.8);
      else if (event.key === "-") this.zoom(1.25);
      else if (event.key === "0" || event.key === "Escape") { this.point(null); this.reset(); }
      else if (event.key === "n") this.step(1);
      else if (event.key === "p") this.step(-1);
      else return;
      event.preventDefault();
    });
  }

  // A flat box zooms one axis alone.
  zoomBox({ x, y, x2, y2 }) {
    const wide = Math.abs(x2 - x) > 8, high = Math.abs(y2 - y) > 8, v = [...this.seen];
    if (!wide && !high) return this.drawOver();
    if (wide) [v[0], v[1]] = [this.unX(Math.min(x, x2)), this.unX(Math.max(x, x2))];
    if (high) [v[2], v[3]] = [this.unY(Math.max(y, y2)), this.unY(Math.min(y, y2))];
    return this.look(v);
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

function label(v, step) {
  const size = Math.max(Math.abs(v), step);
  if (v === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return v.toExponential(Math.max(0, Math.min(4, Math.ceil(Math.log10(Math.abs(v) / step) - 1e-9)))).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  return v.toFixed(Math.max(0, Math.min(8, -Math.floor(Math.log10(step) + 1e-9)))).replace("-", "−");
}

const power = (k) => "10" + String(k).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  THEME = theme();
  for (const figure of FIGURES) {
    if (!figure.node.isConnected) continue;
    figure.drawLegend();
    figure.draw();
  }
});
