// A table that sorts by its headers; each column filters by a text.

const PAGE_ROWS = 25;
// Numbers as they are shown, 1,024, and as they are typed, 1024; either way with the minus of a keyboard.
const searchable = (v) => (typeof v === "number" ? `${fmt(v)}\n${v}` : fmt(v)).toLowerCase().replaceAll("−", "-");

class Table {
  // sort: { name, falling } or null.
  constructor(name, sort = null) {
    this.sort = sort;
    this.page = 0;
    this.name = name;
    ITEMS.listeners.add(() => { if (this.table) { this.page = 0; this.show(); } });
    this.heads = el("tr");
    this.filters = el("tr");
    this.head = el("thead", {}, this.heads, this.filters);
    this.body = el("tbody");
    this.status = el("span", { role: "status" });
    this.note = el("p", { className: "note" });
    this.back = el("button", { type: "button", onclick: () => { this.page--; this.show(); } }, "previous");
    this.forth = el("button", { type: "button", onclick: () => { this.page++; this.show(); } }, "next");
    this.node = el("div", {},
      el("div", { className: "controls" }, el("button", { type: "button", onclick: () => this.save() }, "save as CSV")),
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
    this.addFilters();
    this.show();
  }

  // A box for each column; those of an updated table keep their texts.
  addFilters() {
    const boxes = new Map(this.boxes().map((box) => [box.name, box])), names = this.shown.map((c) => c.name);
    if (names.join("\n") === [...boxes.keys()].join("\n")) return; // the focus stays
    const box = (name) => el("input", { type: "search", name, placeholder: "filter", "aria-label": `filter ${name}`, oninput: () => { this.page = 0; this.show(); } });
    this.filters.replaceChildren(...names.map((name) => el("td", {}, boxes.get(name) || box(name))));
  }

  boxes() {
    return [...this.filters.querySelectorAll("input")];
  }

  // The rows whose columns have the texts of their filters.
  rows() {
    const texts = this.boxes().map((box) => [columnOf(this.table, box.name), searchable(box.value.trim())]).filter(([, text]) => text), ids = idsOf(this.table);
    return Array.from({ length: this.n }, (_, k) => k).filter((row) => (!ids || !ITEMS.kept || ITEMS.isKept(ids[row])) && texts.every(([column, text]) => searchable(valueOf(column, row)).includes(text)));
  }

  // Saves the rows that pass the filters, in the order shown.
  save() {
    const rows = this.sorted(this.rows());
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
    const rows = this.sorted(this.rows());
    const pages = Math.max(1, Math.ceil(rows.length / PAGE_ROWS));
    this.page = Math.max(0, Math.min(this.page, pages - 1));
    const from = this.page * PAGE_ROWS, some = rows.slice(from, from + PAGE_ROWS);
    const heads = this.shown.map((column) => {
      const here = this.sort && this.sort.name === column.name;
      const turn = () => { this.sort = { name: column.name, falling: here && !this.sort.falling }; this.page = 0; this.show(); this.heads.querySelectorAll("button")[this.shown.indexOf(column)].focus(); };
      return el("th", { scope: "col", className: column.kind === "number" ? "number" : "", "aria-sort": here ? (this.sort.falling ? "descending" : "ascending") : null }, el("button", { type: "button", title: column.title, onclick: turn }, column.name));
    });
    this.heads.replaceChildren(...heads);
    this.body.replaceChildren(...some.map((row) => el("tr", {}, ...this.shown.map((column) => {
      const v = valueOf(column, row);
      const id = column.name === "item" ? idsOf(this.table)[row] : null, isItem = id !== null && ITEMS.rows.has(id);
      return el("td", { className: column.kind === "number" ? "number" : "", title: column.kind === "text" && v.length > 40 ? v : null }, isItem ? el("a", { href: `#item=${id}`, title: "show this item" }, fmt(v)) : fmt(v));
    }))));
    this.back.disabled = this.page === 0;
    this.forth.disabled = this.page >= pages - 1;
    this.back.hidden = this.forth.hidden = pages < 2;
    const count = (k) => k.toLocaleString("en");
    this.status.textContent = rows.length ? `rows ${count(from + 1)}–${count(from + some.length)} of ${count(rows.length)}${rows.length < this.n ? ` that match, of ${count(this.n)}` : ""}` : "no row matches";
  }
}
