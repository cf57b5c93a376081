// One plot: layers over two axes on a canvas, with zoom, pan, hover and legend.
//   drag: zoom to a box        shift and drag, touch: pan        wheel: zoom, once the plot has the focus
//   double click, 0: back      + - and arrows: zoom, pan         n p: next and previous mark

const FIGURES = new Set();

class Figure extends Layers {
  constructor(plot, siblings = null) {
    super();
    this.siblings = siblings || new Set();
    this.siblings.add(this);
    FIGURES.add(this);
    this.hidden = new Set(); // names in the legend
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
    const saves = el("div", { className: "saves" }, ...["PNG", "CSV"].map((kind) => button(kind, `save as ${kind}`, () => savePlot(this, kind))));
    this.node = el("div", { className: "card figure" }, el("div", { className: "head" }, this.title, tools), this.legend, this.frame, el("div", { className: "foot" }, this.note, saves));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.frame);
    this.update(plot);
  }

  remove() { this.siblings.delete(this); FIGURES.delete(this); this.node.remove(); }

  // --- data ------------------------------------------------------------------------------------

  update(plot) {
    // Another unit or another category at a place: what the reader looked at is no longer there.
    const same = (a, b) => a.label === b.label && a.log === b.log && a.ticks.every((text, k) => text === b.ticks[k]);
    if (this.plot && !(same(this.plot.x, plot.x) && same(this.plot.y, plot.y))) this.moved = false;
    this.plot = plot;
    this.hit = null;
    this.node.classList.toggle("tall", plot.equal || plot.layers.some((l) => l.kind === "image"));
    this.title.textContent = plot.title;
    this.note.textContent = plot.note || "";
    this.note.hidden = !plot.note;
    this.over.setAttribute("aria-label", `${plot.title}: ${plot.y.label || "rows"} over ${plot.x.label}. Keys: + − arrows 0, n and p for values.`);
    const tx = this.map(plot.x), ty = this.map(plot.y);
    let next = 0;
    this.layers = plot.layers.map((layer) => {
      const out = { ...layer };
      if (layer.kind === "lines") {
        const shared = Array.isArray(layer.x[0]) ? null : layer.x.map(tx);
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

  // By name, which stays when newer content or another choice brings other layers. `of`: the median whose lines these are.
  isHidden(layer) { return this.hidden.has(layer.of || layer.name); }

  // --- drawing ---------------------------------------------------------------------------------

  drawLegend() {
    const parts = [];
    for (const layer of this.layers) {
      if (!layer.name || layer.legend === "") continue;
      const shown = !this.isHidden(layer);
      const swatch = el("span", { className: "swatch", style: { margin: 0, background: this.layerColour(layer) } });
      if (layer.hollow) Object.assign(swatch.style, { background: "none", border: `2px solid ${this.layerColour(layer)}` });
      if (layer.dashed) swatch.style.background = `repeating-linear-gradient(90deg, ${this.layerColour(layer)} 0 4px, transparent 4px 6px)`;
      if (layer.kind === "points" && layer.marker !== "diamond") swatch.style.borderRadius = "50%";
      if (layer.marker === "diamond") swatch.style.transform = "rotate(45deg) scale(.85)";
      const at = parts.length;
      parts.push(el("button", {
        type: "button", "aria-pressed": String(shown), title: "show or hide",
        onclick: () => {
          shown ? this.hidden.add(layer.name) : this.hidden.delete(layer.name);
          this.drawLegend();
          this.legend.children[at].focus();
          this.draw();
        },
      }, swatch, layer.name));
    }
    const s = this.plot.scale;
    if (this.hasScale()) {
      const ramp = el("canvas", { width: 72, height: 1 }), c = ramp.getContext("2d");
      const marks = !this.layers.some((l) => l.kind === "image");
      const one = this.low === this.high;
      for (let k = 0; k < 72; k++) { c.fillStyle = shade(one ? 0.5 : k / 71, s.diverging, marks); c.fillRect(k, 0, 1, 1); }
      const [low, high] = ends(this.told(this.low), this.told(this.high));
      parts.push(el("span", { className: "scale" }, one ? "" : low, ramp, `${high} ${s.label}${s.log ? " (log)" : ""}`));
    }
    this.legend.replaceChildren(...parts);
    this.legend.hidden = !parts.length;
  }

  hasScale() { return Boolean(this.plot.scale.label) && this.layers.some((l) => l.colour || l.kind === "image"); }

  draw() {
    const w = this.frame.clientWidth, h = this.frame.clientHeight;
    if (!w || !h || !this.node.isConnected) return;
    const [c] = [this.base, this.over].map((canvas) => fitted(canvas, w, h));
    c.clearRect(0, 0, w, h);
    this.paint(c, w, h);
    this.drawOver();
  }

  // Axes and layers on a context of a canvas.
  paint(c, w, h) {
    c.font = "11.5px system-ui, sans-serif";
    const yTicks = this.ticks(1, this.view[2], this.view[3], Math.max(2, h / 55));
    const widest = Math.max(8, ...yTicks.map((t) => Math.min(0.32 * w, c.measureText(t.text).width)));
    const l = Math.ceil(widest) + (this.plot.y.label ? 30 : 14), r = w - 12;
    this.below = this.plot.x.label ? wrap(c, this.plot.x.label, r - l) : [];
    // Names of categories that would cover each other stand in two rows.
    const half = this.plot.x.ticks.map((text) => c.measureText(text).width / 2), room = (r - l) / (this.view[1] - this.view[0]) - 8;
    this.rows = half.some((width, k) => k && width + half[k - 1] > room) ? 2 : 1;
    const box = { l, t: 8, r, b: h - 14 * (this.rows - 1) - (this.below.length ? 26 + 14 * this.below.length : 24) };
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
    for (const layer of this.layers) if (!this.isHidden(layer)) this["draw_" + layer.kind](c, layer);
    c.restore();
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
      if (!layer.key || this.isHidden(layer)) continue;
      const equal = layer.key.filter((key) => key === this.lit).length;
      layer.key.forEach((key, i) => { if (key === this.lit) layer.kind === "points" ? ring(layer, i, equal < 20) : frame(layer, i); });
    }
    c.restore();
  }

  // --- what is under the pointer ---------------------------------------------------------------

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
      if (this.isHidden(layer) || !["points", "bars", "spans"].includes(layer.kind)) continue;
      (layer.X || layer.A).forEach((x, i) => { if (Number.isFinite(x + layer.Y[i])) marks.push({ layer, i }); });
    }
    if (!marks.length) return;
    const now = this.hit ? marks.findIndex((m) => m.layer === this.hit.layer && m.i === this.hit.i) : by > 0 ? -1 : 0;
    const hit = marks[(now + by + marks.length) % marks.length];
    const [a, t, w] = hit.layer.kind === "points" ? [this.px(hit.layer.X[hit.i]), this.py(hit.layer.Y[hit.i]), 0] : this.rect(hit.layer, hit.i);
    this.point(hit, a + w / 2, t);
  }

  // --- zoom and pan ----------------------------------------------------------------------------

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

onLook(() => {
  THEME = theme();
  for (const figure of FIGURES) {
    if (!figure.node.isConnected) continue;
    figure.drawLegend();
    figure.draw();
  }
});
