// The layers of a plot over its axes: their colours, how far they reach, how each kind is drawn, what is under a pointer.

const LEVELS = 32; // of colour, where every vertex has its own

class Layers extends Axes {
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

  layerColour(layer) {
    if (layer.tone !== undefined) return shade(layer.tone, false);
    if (layer.strong) return THEME.ink;
    if (layer.colour && layer.kind !== "image") return this.colour((this.low + this.high) / 2);
    return layer.series === undefined ? THEME.muted : THEME.series[layer.series % 8];
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
}
