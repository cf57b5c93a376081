// What was swept of each item, which items are kept (by parallel coordinates), and which is open.

const ITEMS = {
  kept: null, // a Set of ids, or null: all
  listeners: new Set(),
  names: [], // swept columns, what matters most first
  rows: new Map(), // id -> [table, row]

  update(content) {
    const tables = [content.live && content.live.table, itemTable()].filter(Boolean);
    this.rows = new Map();
    for (const table of tables) {
      (idsOf(table) || []).forEach((id, row) => this.rows.set(id, [table, row]));
    }
    const first = content.sweep ? content.sweep.parameters : [], all = new Set(tables.flatMap((t) => t.columns.map((c) => c.name)));
    this.names = [...new Set([...first, ...content.swept])].filter((name) => all.has(name));
  },

  // The value of a column for an item: a number, a text, or undefined where the page does not have it.
  value(id, name) {
    const [table, row] = this.rows.get(id) || [], column = table && columnOf(table, name);
    return column && valueOf(column, row);
  },

  // "rate: 0.1", one line for each swept column that the item has.
  told(id) { return this.names.map((name) => [name, this.value(id, name)]).filter(([, v]) => ![undefined, null, ""].includes(v)).map(([name, v]) => `${name}: ${fmt(v)}`).join("\n"); },

  isKept(id) { return this.kept === null || this.kept.has(id) || !this.rows.has(id); },

  keep(ids) {
    if (ids === null && this.kept === null) return;
    this.kept = ids;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; for (const listener of this.listeners) listener(); });
  },
};

// Whether a column of the items needs a logarithmic axis.
const isLog = (column) => STATE.content.sweep.log.includes(column.name);

const itemTable = () => STATE.content.tables.find((t) => t.name === "items");

// The page's numbers of a table's items, row by row: their ids, if the page is about one store.
function idsOf(table) {
  const column = columnOf(table, "item");
  return table.ids || (column ? column.values : null);
}

const OFFSET = 2 ** 32; // see jobs/report/page/several.py

// Items in groups of equal values of a column: [{ label, tone: 0 to 1, NaN without a value, or null, hue, ids: Set }]. Many numbers are put into `bins`
// groups of about equal counts. A value has one colour in all figures: the page's items make the groups, those of each kernel in
// whose items the column varies.
function grouped(ids, name, bins) {
  const has = (v) => v !== undefined && v !== null, value = (id) => ITEMS.value(id, name), of = new Map();
  for (const id of ITEMS.rows.keys()) { const kernel = ITEMS.value(id, "kernel"); if (has(value(id))) of.set(kernel, (of.get(kernel) || new Set()).add(value(id))); }
  const known = [...new Set([...[...of.values()].filter((own) => own.size > 1).flatMap((own) => [...own]), ...ids.map(value).filter(has)])];
  if (!known.length) return [];
  const number = known.every((v) => typeof v === "number");
  known.sort(number ? (a, b) => a - b : (a, b) => String(a).localeCompare(String(b), undefined, { numeric: true }));
  const ends = number && known.length > 10 ? Array.from({ length: bins }, (_, k) => known[Math.min(known.length - 1, Math.round(((k + 1) * known.length) / bins) - 1)]) : known;
  const groups = ends.map((end, k) => ({ label: `${name} = ${fmt(end)}`, tone: number ? k / Math.max(1, ends.length - 1) : null, hue: k, ids: new Set(), low: Infinity }));
  const groupOf = (v) => groups[number ? ends.findIndex((end) => v <= end) : ends.indexOf(v)];
  for (const v of known) if (number) groupOf(v).low = Math.min(groupOf(v).low, v);
  // Items without a value, or whose rows the page does not have, are drawn, too.
  const others = { label: "other items", tone: NaN, ids: new Set() };
  for (const id of ids) (has(value(id)) ? groupOf(value(id)) : others).ids.add(id);
  if (ends !== known) groups.forEach((g, k) => { g.label = `${name} ${short(g.low)} to ${short(ends[k])}`; });
  return [...groups, others].filter((g) => g.ids.size);
}

// A layer with some of its lines or points alone.
function someOf(layer, rows) {
  const n = layer.item.length, pick = (v) => (Array.isArray(v) && v.length === n ? rows.map((k) => v[k]) : v), out = { ...layer };
  for (const name of ["colour", "text", "item", "size", "key", "y"]) out[name] = pick(layer[name]);
  if (layer.kind === "points" || Array.isArray(layer.x[0])) out.x = pick(layer.x);
  return out;
}

// --- one item in a dialog ---------------------------------------------------------------------------

// What was swept, what came out, why it failed, its place in the pictures, and how to get at it.
// #item=78 in the address opens it.

const ITEM = { node: null, figures: [] };

function showItem() {
  const match = /^#item=(\d+)$/.exec(location.hash), id = match && Number(match[1]);
  if (id === null || !ITEMS.rows.has(id)) { if (ITEM.node && ITEM.node.open) ITEM.node.close(); return; }
  if (!ITEM.node) {
    ITEM.node = el("dialog", { className: "card item", "aria-labelledby": "item-title" });
    ITEM.node.addEventListener("close", () => {
      ITEM.figures.splice(0).forEach((figure) => figure.remove());
      if (location.hash.startsWith("#item=")) history.replaceState(null, "", location.pathname + location.search);
      if (ITEM.from && ITEM.from.isConnected) ITEM.from.focus();
    });
    ITEM.node.addEventListener("click", (event) => { if (event.target === ITEM.node) ITEM.node.close(); });
    document.body.append(ITEM.node);
  }
  const pictures = el("div", { className: "grid" });
  ITEM.figures.splice(0).forEach((figure) => figure.remove());
  ITEM.node.replaceChildren(...itemParts(id), pictures);
  if (!ITEM.node.open) { ITEM.from = document.activeElement; ITEM.node.showModal(); }
  for (const plot of itemPlots(id)) {
    const figure = new Figure(plot);
    ITEM.figures.push(figure);
    pictures.append(figure.node);
  }
}

function itemParts(id) {
  const [table, row] = ITEMS.rows.get(id), own = id % OFFSET, store = (STATE.content.stores || [STATE.content.store])[Math.floor(id / OFFSET)], quoted = shellQuoted(store);
  const names = new Set(ofKernel(table, ITEMS.value(id, "kernel")).columns.map((c) => c.name)), columns = table.columns.filter((c) => names.has(c.name));
  const swept = columns.filter((c) => ITEMS.names.includes(c.name)), rest = columns.filter((c) => !ITEMS.names.includes(c.name) && c.name !== "item");
  const told = (columns) => listed(columns.map((c) => [c.name, fmt(valueOf(c, row)), c.title]));
  const mine = STATE.content.failures.filter((f) => f.what === "item" && f.ids.includes(own) && (f.store || 0) === Math.floor(id / OFFSET));
  const ids = [...ITEMS.rows.keys()].sort((a, b) => a - b), at = ids.indexOf(id), link = (to, text) => el("a", { href: `#item=${to}` }, text);
  const commands = [`ctd query ${quoted} --where 'item == ${own}' --columns all`, `ctd logs ${quoted} --item ${own}`, `ctd export ${quoted} ${own} ${shellQuoted(`${store.replace(/^.*\//, "").replace(/\.(zarr|zip)$/, "")}-${own}.h5`)}`];
  return [
    el("div", { className: "head" }, el("h2", { id: "item-title" }, `Item ${own}${STATE.content.stores ? ` of ${ITEMS.value(id, "store")}` : ""}`),
      el("div", { className: "controls" }, ...(at > 0 ? [link(ids[at - 1], "‹ previous")] : []), ...(at < ids.length - 1 ? [link(ids[at + 1], "next ›")] : []),
        link(id, "link to this item"), el("button", { type: "button", onclick: () => ITEM.node.close() }, "close"))),
    el("div", { className: "grid" },
      el("div", {}, el("h3", {}, "Swept"), told(swept)),
      el("div", {}, el("h3", {}, "Results"), told(rest))),
    ...mine.map((f) => el("details", { open: true }, el("summary", {}, el("span", { className: "tag mood-bad" }, "failed"), f.error.split("\n")[0]), el("pre", { tabIndex: 0 }, f.trace || f.error))),
    ...log(table, row, Math.floor(id / OFFSET)),
    el("h3", {}, "From a terminal"), el("pre", { tabIndex: 0 }, commands.join("\n")),
  ];
}

function shellQuoted(text) {
  return /^[\w./:@-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}

// What happened to the shard that holds a row of the table of items.
function log(table, row, store) {
  const at = (name) => columnOf(table, name)?.values[row];
  const group = at("group") ?? 0, place = at("row"), found = (STATE.content.logs || []).find((l) => l.group === group && l.start <= place && place < l.stop && (l.store || 0) === store);
  return found ? [el("h3", {}, "Its log"), el("pre", { tabIndex: 0 }, found.lines.join("\n"))] : [];
}

// The pictures in which the item is, with its line strong among the others.
function itemPlots(id) {
  const all = [...(STATE.content.live ? STATE.content.live.plots : []), ...STATE.content.groups.filter((g) => !g.shared).flatMap((g) => g.plots)];
  return all.filter((plot) => plot.layers.some((l) => l.item && l.item.includes(id))).slice(0, 4).map((plot) => {
    const layers = plot.layers.flatMap((layer) => {
      if (!layer.item) return [];
      const k = layer.item.indexOf(id), quiet = { ...layer, colour: undefined, faint: true, name: "", dashed: false, hollow: true, hue: 7 };
      if (k < 0) return [quiet];
      const size = layer.kind === "points" ? [0.1] : undefined;
      return [quiet, { ...someOf(layer, [k]), colour: undefined, faint: false, strong: true, name: `item ${id % OFFSET}`, hue: 1, size }];
    });
    return { ...plot, layers, note: "" };
  });
}

addEventListener("hashchange", showItem);
