// Parallel coordinates: one vertical axis a column, one line an item. Drag along an axis to keep a range;
// by keyboard: ← → choose an axis, ↑ ↓ move the range, + − size it, 0 clears it.

class Parallel {
  constructor() {
    this.ranges = new Map();
    this.onkeep = () => {}; // called with which rows are kept, or null for all
    this.at = 0;
    this.base = el("canvas", { className: "over", tabIndex: 0, role: "img", "aria-label": "parallel coordinates; keys: arrows + − 0" });
    this.frame = el("div", { className: "draw" }, this.base);
    this.count = el("span", { role: "status" });
    this.note = el("span");
    this.node = el("div", {}, el("div", { className: "scroll" }, this.frame), el("p", { className: "note" }, "Drag along an axis to keep a range; double click clears. ", this.count, this.note));
    new ResizeObserver(() => this.draw()).observe(this.frame);
    onLook(() => this.draw());
    this.listen();
  }

  // columns: those of a table; colour: the name of one of them; note: what is said below; isWhole: whether axes reach to their farthest
  // values.
  update(columns, colour, note, isWhole) {
    const before = new Map((this.axes || []).map((axis) => [axis.column.name, axis]));
    this.axes = columns.map((column) => {
      const finite = column.values.filter((v) => Number.isFinite(v)), log = isLog(column);
      const isText = column.kind === "text", map = log ? Math.log10 : isText ? (v) => column.labels.indexOf(v) : (v) => v;
      const placed = log ? finite.map(map) : finite, every = [finite.reduce((a, b) => Math.min(a, b), Infinity), finite.reduce((a, b) => Math.max(a, b), -Infinity)];
      const inner = span(isText ? [] : placed), isCut = inner.isCut && !isWhole;
      let [low, high] = isCut ? [inner.low, inner.high] : log ? every.map(map) : every;
      if (!finite.length) [low, high] = [0, 1];
      if (low === high) [low, high] = [low - 0.5, high + 0.5];
      const place = (v) => Math.max(0, Math.min(1, (v - low) / (high - low))), at = (t) => low + t * (high - low);
      return {
        column, low, high, isCut, hasFar: inner.isCut, t: column.values.map((v) => (Number.isFinite(v) && !(log && v <= 0) ? place(log ? map(v) : v) : NaN)),
        // The place of a value, and the value at a place: of texts the first from there, or the last up to there.
        place: (value) => place(map(value)),
        value: (t, isLast) => (isText ? column.labels[isLast ? Math.floor(at(t) + 1e-9) : Math.ceil(at(t) - 1e-9)] : log ? 10 ** at(t) : at(t)),
      };
    });
    const far = this.axes.some((axis) => axis.isCut) && "Values far beyond the rest lie at the ends of their axes.";
    this.note.textContent = [" ", far, note].filter(Boolean).join(" ");
    this.at = Math.min(this.at, this.axes.length - 1);
    this.colour = this.axes.findIndex((axis) => axis.column.name === colour);
    this.n = columns.length ? columns[0].values.length : 0;
    // A range keeps its values when newer items move the ends of its axis; an end of the range that lay there follows.
    for (const [name, range] of [...this.ranges]) {
      const now = this.axes.find((axis) => axis.column.name === name), old = before.get(name);
      if (now) this.ranges.set(name, range.map((t, end) => (t === end ? t : now.place(old.value(t, end)))));
      else this.ranges.delete(name);
    }
    this.frame.style.minWidth = `${82 * columns.length}px`; // narrower screens scroll
    this.draw();
  }

  isKept(row) {
    return this.axes.every((axis) => {
      const range = this.ranges.get(axis.column.name), t = axis.t[row];
      return !range || (t >= range[0] - 1e-9 && t <= range[1] + 1e-9);
    });
  }

  clear() { this.ranges.clear(); this.draw(); }

  x(k) { return 46 + (k * (this.frame.clientWidth - 92)) / Math.max(1, this.axes.length - 1); }
  y(t) { return this.frame.clientHeight - 26 - t * (this.frame.clientHeight - 62); }

  draw() {
    const w = this.frame.clientWidth, h = this.frame.clientHeight;
    if (!w || !this.axes) return;
    const c = fitted(this.base, w, h);
    c.clearRect(0, 0, w, h);
    c.font = "11.5px system-ui, sans-serif";
    const kept = Array.from({ length: this.n }, (_, row) => this.isKept(row));
    const n = kept.filter(Boolean).length, told = this.ranges.size ? kept.map(Number).join("") : "";
    if (told !== this.told) { this.told = told; this.onkeep(this.ranges.size ? kept : null); }
    for (const pass of [false, true]) {
      c.globalAlpha = pass ? Math.max(0.12, Math.min(0.7, 60 / Math.sqrt(n * 20 + 1))) : 0.12;
      for (let row = 0; row < this.n; row++) if (kept[row] === pass) {
        c.strokeStyle = pass ? (this.colour < 0 ? THEME.accent : shade(this.axes[this.colour].t[row], false)) : THEME.muted;
        polyline(c, this.axes.length, (k) => this.x(k), (k) => this.y(this.axes[k].t[row]));
      }
    }
    c.globalAlpha = 1;
    this.axes.forEach((axis, k) => this.drawAxis(c, axis, k));
    this.count.textContent = this.ranges.size ? `${n.toLocaleString("en")} of ${this.n.toLocaleString("en")} items kept.` : "";
  }

  drawAxis(c, axis, k) {
    const x = this.x(k), focus = document.activeElement === this.base && k === this.at;
    const room = (this.frame.clientWidth - 92) / Math.max(1, this.axes.length - 1) - 6;
    c.strokeStyle = focus ? THEME.accent : THEME.muted;
    c.lineWidth = focus ? 2 : 1;
    stroke(c, x, this.y(0), x, this.y(1));
    c.lineWidth = 1;
    c.textAlign = "center";
    const both = [axis.value(0, false), axis.value(1, true)], [low, high] = axis.column.kind === "number" ? ends(...both) : both.map((text) => text ?? "");
    const write = (s, y, base, fill) => { c.textBaseline = base; c.fillStyle = fill; c.fillText(clip(c, s, Math.max(30, room)), x, y); };
    write(axis.column.name, 2, "top", THEME.ink);
    const far = (sign) => (axis.isCut ? `${sign} ` : "");
    write(far("≥") + high, this.y(1) - 3, "bottom", THEME.muted);
    write(far("≤") + low, this.y(0) + 5, "top", THEME.muted);
    this.nameOthers(c, axis, x, room);
    const range = this.ranges.get(axis.column.name);
    if (!range) return;
    c.fillStyle = THEME.accent;
    c.globalAlpha = 0.25;
    c.fillRect(x - 7, this.y(range[1]), 14, this.y(range[0]) - this.y(range[1]));
    c.globalAlpha = 1;
    c.strokeStyle = THEME.accent;
    c.strokeRect(x - 7, this.y(range[1]), 14, this.y(range[0]) - this.y(range[1]));
  }

  // The categories between the first and the last, beside the axis, unless they would cover each other.
  nameOthers(c, axis, x, room) {
    if (axis.column.kind === "number" || (this.y(0) - this.y(1)) / (axis.high - axis.low) < 14) return;
    [c.textAlign, c.textBaseline] = ["left", "middle"];
    for (let code = axis.low + 1; code < axis.high; code++) c.fillText(clip(c, axis.column.labels[code], Math.min(room, this.frame.clientWidth - x - 6)), x + 6, this.y((code - axis.low) / (axis.high - axis.low)));
  }

  keep(k, low, high) {
    this.ranges.set(this.axes[k].column.name, [low, high].map((t) => Math.max(0, Math.min(1, t))).sort((a, b) => a - b));
    this.draw();
  }

  listen() {
    let from = null;
    const t = (event) => (this.frame.clientHeight - 26 - (event.clientY - this.base.getBoundingClientRect().top)) / (this.frame.clientHeight - 62);
    this.base.addEventListener("pointerdown", (event) => {
      const x = event.clientX - this.base.getBoundingClientRect().left;
      this.at = this.axes.reduce((best, _, k) => (Math.abs(this.x(k) - x) < Math.abs(this.x(best) - x) ? k : best), 0);
      from = t(event);
      this.base.setPointerCapture(event.pointerId);
    });
    this.base.addEventListener("pointermove", (event) => { if (from !== null && Math.abs(t(event) - from) > 0.015) this.keep(this.at, from, t(event)); });
    for (const name of ["pointerup", "pointercancel"]) this.base.addEventListener(name, () => { from = null; this.draw(); });
    this.base.addEventListener("dblclick", () => this.clear());
    for (const name of ["focus", "blur"]) this.base.addEventListener(name, () => this.draw());
    this.base.addEventListener("keydown", (event) => {
      const name = this.axes[this.at].column.name, [low, high] = this.ranges.get(name) || [0, 1];
      const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key], move = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
      const size = { "+": 0.025, "=": 0.025, "-": -0.025 }[event.key];
      if (turn) this.at = (this.at + turn + this.axes.length) % this.axes.length;
      else if (move && high - low < 1) this.keep(this.at, low + Math.max(-low, Math.min(1 - high, move)), high + Math.max(-low, Math.min(1 - high, move)));
      else if (size && high - low + 2 * size > 0.01) this.keep(this.at, low - size, high + size);
      else if (event.key === "0" || event.key === "Escape") this.ranges.clear();
      else if (!move && !size) return;
      event.preventDefault();
      this.draw();
    });
  }
}
