// A table that sorts by its headers and filters by conditions: "q < 1e-10 and kind == fixed", or any text.

const PAGE_ROWS = 25;
const AND = /(?:\s+and\s+|\s*&&\s*)(?=(?:[^'"]|'[^']*'|"[^"]*")*$)/i; // not one inside quotes
const CONDITION = /^\s*([\w.]+)\s*(<=|>=|==|!=|=|<|>|~)\s*(.*?)\s*$/;
// What a query takes and this filter does not: as a text no row would have it.
const OF_A_QUERY = /^not\s+[\w.]+\s*[<>=!]|\sor\s+[\w.]+\s*[<>=!]|^[\w.]+\s+(?:not\s+)?in\s*\[/i;

class Table {
  // sort: { name, falling } or null.
  constructor(name, sort = null) {
    this.sort = sort;
    this.page = 0;
    this.name = name;
    ITEMS.listeners.add(() => { if (this.table) { this.page = 0; this.show(); } });
    this.filter = el("input", { type: "search", placeholder: `filter: a text, or conditions such as "n > 3 and status == 'done'"`, "aria-label": `filter ${name}`, oninput: () => { this.page = 0; this.show(); } });
    this.head = el("thead");
    this.body = el("tbody");
    this.status = el("span", { role: "status" });
    this.note = el("p", { className: "note" });
    this.back = el("button", { type: "button", onclick: () => { this.page--; this.show(); } }, "previous");
    this.forth = el("button", { type: "button", onclick: () => { this.page++; this.show(); } }, "next");
    this.node = el("div", {},
      el("div", { className: "controls" }, this.filter, el("button", { type: "button", onclick: () => this.save() }, "save as CSV")),
      el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": `table ${name}` }, el("table", {}, this.head, this.body)),
      el("div", { className: "pager" }, this.back, this.forth, this.status), this.note);
  }

  update(table) {
    this.table = table;
    this.columns = table.columns;
    this.n = this.columns.length ? this.columns[0].values.length : 0;
    // A column with one value says it once, below, unless the kernel sums up by it; the row of a group says nothing to a reader.
    const same = (c) => this.n > 1 && c.name !== "item" && !c.stays && c.values.every((v) => v === c.values[0]);
    this.shown = this.columns.filter((c) => !same(c) && !(this.name === "items" && c.name === "row"));
    const constant = this.columns.filter((c) => same(c) && valueOf(c, 0) !== "").map((c) => `${c.name} = ${fmt(valueOf(c, 0))}`);
    this.note.textContent = [table.note, table.without, constant.length && `In all ${this.n < table.n ? "of these " : ""}rows: ${constant.join(", ")}.`].filter(Boolean).join(" ");
    this.note.hidden = !this.note.textContent;
    if (this.sort && !columnOf(table, this.sort.name)) this.sort = null;
    this.show();
  }

  // The rows that pass the filter; throws with what is wrong with it.
  rows() {
    const text = this.filter.value.trim(), ids = idsOf(this.table);
    let all = Array.from({ length: this.n }, (_, k) => k);
    if (ids && ITEMS.kept) all = all.filter((row) => ITEMS.isKept(ids[row]));
    if (!text) return all;
    const tests = text.split(AND).map((part) => this.test(part));
    return all.filter((row) => tests.every((test) => test(row)));
  }

  test(part) {
    if (OF_A_QUERY.test(part.replace(/'[^']*'|"[^"]*"/g, "''"))) throw new Error("this filter has conditions joined by `and` alone; ctd query takes or, not and in");
    const match = CONDITION.exec(part);
    if (!match) {
      // Numbers as they are shown, 1,024, and as they are typed, 1024; either way with the minus of a keyboard.
      const plain = (text) => text.toLowerCase().replaceAll("−", "-"), wanted = plain(part);
      const told = (v) => (typeof v === "number" ? `${fmt(v)}\n${v}` : fmt(v));
      return (row) => this.columns.some((c) => plain(told(valueOf(c, row))).includes(wanted));
    }
    const [, name, op, given] = match, column = columnOf(this.table, name);
    if (!column) throw new Error(`there is no column ${name}`);
    const text = given.replace(/^(["'])(.*)\1$/, "$2"), isText = column.kind === "text";
    const wanted = isText ? ({ true: "yes", false: "no" }[text.toLowerCase()] ?? text) : Number(text.replace(/inf$/i, "Infinity"));
    if (op !== "~" && !isText && (given === "" || Number.isNaN(wanted))) throw new Error(`${name} is a number; ${given || "nothing"} is not`);
    const compare = {
      "<": (v) => v < wanted, "<=": (v) => v <= wanted, ">": (v) => v > wanted, ">=": (v) => v >= wanted,
      "==": (v) => v === wanted, "=": (v) => v === wanted, "!=": (v) => v !== wanted,
      "~": (v) => String(v).toLowerCase().includes(text.toLowerCase()),
    }[op];
    return (row) => { const v = valueOf(column, row); return v !== null && compare(v); };
  }

  // The rows that pass the filter, in the order shown.
  save() {
    let rows = [];
    try { rows = this.sorted(this.rows()); } catch { return; }
    save(fileName(this.name, "csv"), "text/csv", csv([this.columns.map((c) => c.name), ...rows.map((row) => this.columns.map((c) => valueOf(c, row)))]));
  }

  sorted(rows) {
    if (!this.sort) return rows;
    const column = columnOf(this.table, this.sort.name), sign = this.sort.falling ? -1 : 1;
    const compare = (a, b) => {
      const [x, y] = [column.values[a], column.values[b]]; // texts have their codes in their order
      if (x === null || y === null) return (x === null) - (y === null); // what is missing comes last
      return (x - y) * sign || a - b;
    };
    return [...rows].sort(compare);
  }

  show() {
    let rows = [], wrong = "";
    try { rows = this.rows(); } catch (error) { wrong = error.message; }
    rows = this.sorted(rows);
    const pages = Math.max(1, Math.ceil(rows.length / PAGE_ROWS));
    this.page = Math.max(0, Math.min(this.page, pages - 1));
    const from = this.page * PAGE_ROWS, some = rows.slice(from, from + PAGE_ROWS);
    const heads = this.shown.map((column) => {
      const here = this.sort && this.sort.name === column.name;
      const turn = () => { this.sort = { name: column.name, falling: here && !this.sort.falling }; this.page = 0; this.show(); this.head.querySelectorAll("button")[this.shown.indexOf(column)].focus(); };
      return el("th", { scope: "col", className: column.kind === "number" ? "number" : "", "aria-sort": here ? (this.sort.falling ? "descending" : "ascending") : null }, el("button", { type: "button", title: column.title, onclick: turn }, column.name));
    });
    this.head.replaceChildren(el("tr", {}, ...heads));
    this.body.replaceChildren(...some.map((row) => el("tr", {}, ...this.shown.map((column) => {
      const v = valueOf(column, row);
      const id = column.name === "item" ? idsOf(this.table)[row] : null, isItem = id !== null && ITEMS.rows.has(id);
      return el("td", { className: column.kind === "number" ? "number" : "", title: column.kind === "text" && v.length > 40 ? v : null }, isItem ? el("a", { href: `#item=${id}`, title: "show this item" }, fmt(v)) : fmt(v));
    }))));
    this.back.disabled = this.page === 0;
    this.forth.disabled = this.page >= pages - 1;
    this.back.hidden = this.forth.hidden = pages < 2;
    const count = (k) => k.toLocaleString("en");
    this.status.className = wrong ? "error" : "";
    this.status.textContent = wrong ? wrong : rows.length ? `rows ${count(from + 1)}–${count(from + some.length)} of ${count(rows.length)}${rows.length < this.n ? ` that match, of ${count(this.n)}` : ""}` : "no row matches";
  }
}
