// What was swept of each item, which items are kept (by parallel coordinates), and which is open.

const ITEMS = {
  kept: null, // a Set of ids, or null: all
  listeners: new Set(),
  names: [], // swept columns, what matters most first
  rows: new Map(), // id -> [table, row]

  update(content) {
    const tables = [content.live && content.live.table, content.tables.find((t) => t.name === "items")].filter(Boolean);
    this.rows = new Map();
    for (const table of tables) {
      (idsOf(table) || []).forEach((id, row) => this.rows.set(id, [table, row]));
    }
    const first = content.sweep ? content.sweep.parameters : [], all = new Set(tables.flatMap((t) => t.columns.map((c) => c.name)));
    this.names = [...new Set([...first, ...content.swept])].filter((name) => all.has(name));
  },

  // The value of a column for an item: a number, a text, or undefined where the page does not have it.
  value(id, name) {
    const [table, row] = this.rows.get(id) || [], column = table && table.columns.find((c) => c.name === name);
    if (!column) return undefined;
    return column.kind === "text" ? column.labels[column.values[row]] : column.values[row];
  },

  // "rate: 0.1", one line for each swept column.
  told(id) { return this.names.map((name) => [name, this.value(id, name)]).filter(([, v]) => v !== undefined).map(([name, v]) => `${name}: ${fmt(v)}`).join("\n"); },

  isKept(id) { return this.kept === null || this.kept.has(id) || !this.rows.has(id); },

  keep(ids) {
    if (ids === null && this.kept === null) return;
    this.kept = ids;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; for (const listener of this.listeners) listener(); });
  },
};

// The page's numbers of a table's items, row by row: their ids, if the page is about one store.
function idsOf(table) {
  const column = table.columns.find((c) => c.name === "item");
  return table.ids || (column ? column.values : null);
}

const OFFSET = 2 ** 32; // see jobs/report/page/several.py

// Items in groups of equal values of a column: [{ label, tone: 0 to 1 or null, ids: Set }]. Many numbers are put
// into `bins` groups of about equal counts.
function grouped(ids, name, bins) {
  const values = ids.map((id) => ITEMS.value(id, name)), known = [...new Set(values.filter((v) => v !== undefined && v !== null))];
  if (!known.length) return [];
  const number = known.every((v) => typeof v === "number");
  known.sort(number ? (a, b) => a - b : (a, b) => String(a).localeCompare(String(b), undefined, { numeric: true }));
  const ends = number && known.length > 10 ? Array.from({ length: bins }, (_, k) => known[Math.min(known.length - 1, Math.round(((k + 1) * known.length) / bins) - 1)]) : known;
  const groups = ends.map((end, k) => ({ label: `${name} = ${fmt(end)}`, tone: number ? k / Math.max(1, ends.length - 1) : null, ids: new Set(), low: Infinity }));
  values.forEach((v, k) => {
    if (v === undefined || v === null) return;
    const at = number ? ends.findIndex((end) => v <= end) : ends.indexOf(v);
    groups[at].ids.add(ids[k]);
    if (number) groups[at].low = Math.min(groups[at].low, v);
  });
  if (ends !== known) groups.forEach((g, k) => { g.label = `${name} ${fmt(Number(g.low.toPrecision(3)))} to ${fmt(Number(ends[k].toPrecision(3)))}`; });
  return groups.filter((g) => g.ids.size);
}
