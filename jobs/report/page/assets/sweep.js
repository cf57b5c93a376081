// The sweep: which parameters matter, the best item so far, scatter plots, a map over two parameters, parallel coordinates.

const MAX_SLICES = 8; // Most parameters with a scatter plot of their own.

function showSweep(content) {
  const s = section("sweep", "Sweep"), items = content.sweep && sweptItems(), there = (names) => names.filter((name) => columnOf(items, name));
  const sweep = items && { ...content.sweep, parameters: there(content.sweep.parameters), results: there(content.sweep.results) };
  const useful = Boolean(sweep && items && sweep.results.length && (sweep.parameters.length || sweep.plots.length));
  s.show(useful);
  if (!useful) return;
  const box = part("sweep", () => {
    const importance = card(), grid = el("div", { className: "grid" }, importance), parallel = el("div");
    s.body.append(...(sweep.kernel ? [el("p", { className: "note" }, `Over the items of ${sweep.kernel} alone: results of different kernels do not compare.`)] : []), grid, parallel);
    return { importance, parallel, scatter: grid };
  });
  showImportance(box.importance, sweep);
  showParallel(box.parallel, sweep, items);
  showFigures(box.scatter, "sweep", sweep.plots);
  if (isNew("scatter", items)) showScatters(box.scatter, sweep, items);
  showMap(box.scatter, sweep, items);
}

// The table of the items that the sweep is about: of several kernels those of one.
const sweptItems = () => ofKernel(itemTable(), STATE.content.sweep.kernel);

// A table's items of one kernel, with the columns that they have.
function ofKernel(table, kernel) {
  const of = kernel && table && columnOf(table, "kernel");
  if (!of) return table;
  const rows = of.values.map((_, row) => row).filter((row) => valueOf(of, row) === kernel), some = (values) => rows.map((row) => values[row]);
  const mine = (c) => {
    const values = some(c.values), used = [...new Set(values)].sort((a, b) => a - b);
    return c.kind === "text" ? { ...c, labels: used.map((code) => c.labels[code]), values: values.map((code) => used.indexOf(code)) } : { ...c, values };
  };
  const columns = table.columns.map(mine).filter((c) => c.values.some((_, row) => ![null, ""].includes(valueOf(c, row))));
  return { ...table, columns, ids: table.ids && some(table.ids) };
}

function select(label, names, chosen, action) {
  const node = el("select", { "aria-label": label, onchange: action }, ...names.map((name) => el("option", { selected: name === chosen }, name)));
  return { node: el("label", {}, label, node), get value() { return node.value; }, set value(v) { node.value = v; }, set(names2) {
    const now = node.value;
    if (names2.join("\n") === [...node.options].map((o) => o.value).join("\n")) return;
    node.replaceChildren(...names2.map((name) => el("option", { selected: name === now }, name)));
  } };
}

function showImportance(node, sweep) {
  const none = part("unmeasured", () => { const said = el("p", { className: "note" }); node.append(said); return { said }; });
  none.said.textContent = sweep.unmeasured || "";
  node.hidden = !sweep.effects.length && !sweep.unmeasured;
  if (!sweep.effects.length) return;
  const results = [...new Set(sweep.effects.map((e) => e.result))];
  const box = part("importance", () => {
    const choose = select("result", results, results[0], () => draw());
    const body = el("tbody"), caption = el("p", { className: "note" });
    node.append(el("h3", {}, "Which parameters matter"), el("div", { className: "controls", style: { marginTop: "8px" } }, choose.node), el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "which parameters matter" },
      el("table", {}, el("thead", {}, el("tr", {}, ...["parameter", "share of the variance", "Spearman ρ"].map((t) => el("th", { className: "plain", scope: "col" }, t)))), body)), caption);
    const draw = () => {
      const found = STATE.content.sweep.effects.filter((e) => e.result === choose.value).sort((a, b) => (b.share ?? -1) - (a.share ?? -1));
      const differ = found.some((e) => e.n !== found[0].n), over = (n) => `${n.toLocaleString("en")} items`;
      const isNone = (e) => e.share !== null && e.share < 0.0005, none = found.filter(isNone).map((e) => e.parameter);
      body.replaceChildren(...found.filter((e) => !isNone(e)).map((e) => el("tr", {}, el("td", {}, differ ? `${e.parameter} (over ${over(e.n)})` : e.parameter),
        el("td", { className: "share" }, el("i", { style: { width: `calc(${100 * (e.share ?? 0)}% - ${20 * (e.share ?? 0)}px)` } }), el("span", {}, e.share === null ? "too few items" : `${(100 * e.share).toFixed(1)} %`)),
        el("td", {}, e.rho === null ? "–" : `${e.rho <= -0.005 ? "−" : "+"}${Math.abs(e.rho).toFixed(2)}`))));
      caption.textContent = `One parameter at a time, over ${differ ? "as many items as its row says" : over(found.length ? found[0].n : 0)} with a finite result: the share of the variance of the result's ranks that lies between the parameter's values (or up to 10 equally filled bins), adjusted for chance; and Spearman's rank correlation. ${STATE.content.stores ? "Ranks of a parameter that varies within stores are those within each store. " : ""}Interactions are not seen.${none.length ? ` No share above chance: ${none.join(", ")}.` : ""}`;
    };
    return { choose, draw };
  });
  box.choose.set(results);
  box.draw();
}

function showParallel(node, sweep, items) {
  const names = [...sweep.parameters, ...sweep.results].filter((name) => columnOf(items, name));
  node.hidden = !sweep.parallel || !sweep.parameters.length || names.length < 2;
  if (node.hidden) return;
  const box = part("parallel", () => {
    const plot = new Parallel(), varies = (name) => nValues(columnOf(items, name)) > 1;
    const chosen = new Set([...sweep.parameters.slice(0, 6), ...sweep.results.filter(varies).slice(0, 3)]);
    const colour = select("colour", names, sweep.results[0], () => draw());
    const boxes = el("div", { className: "controls" }), whole = wholeRange(() => draw());
    node.append(card(el("h3", {}, "Parallel coordinates"), el("div", { className: "controls", style: { marginTop: "8px" } }, colour.node, whole.node), boxes, plot.node));
    const draw = () => {
      const columns = fineItems().columns.filter((c) => chosen.has(c.name) || c.name === colour.value);
      plot.update(columns, colour.value, leftOut(sweptItems(), [], () => false), whole.box.checked);
      whole.offer(plot.axes.some((axis) => axis.hasFar));
    };
    const offer = (all) => {
      if (!isNew("parallel names", all)) return;
      boxes.replaceChildren(...all.map((name) => el("label", {}, el("input", { type: "checkbox", checked: chosen.has(name), onchange: (e) => { e.target.checked ? chosen.add(name) : chosen.delete(name); draw(); } }), name)));
    };
    plot.onkeep = (kept) => {
      const ids = idsOf(fineItems());
      ITEMS.keep(kept && new Set(ids.filter((_, row) => kept[row])));
    };
    return { colour, draw, offer, clear: () => plot.clear() };
  });
  box.colour.set(names);
  box.offer(names);
  if (isNew("parallel", items)) box.draw();
}

// The parameters of a sweep without those that only repeat items.
const varied = (sweep) => sweep.parameters.filter((name) => !sweep.replicates.includes(name));

// Whether a column has numbers, or few enough texts to name each.
const isAxis = (column) => column.kind === "number" || column.labels.length <= 40;

// The metric against each parameter (of one search, in colours of the items' order), and two parameters in colours of the metric
// if their values are draws, which a map would put into cells of one item; without a metric, a result against a parameter.
function showScatters(node, sweep, items) {
  // Newer content may change the order of the parameters: figures that are there stay, and none comes twice.
  const made = part("scatters", () => new Map()), usable = items.columns.filter(isAxis).map((c) => c.name);
  const offer = (name, ...axes) => { if (!made.has(name)) made.set(name, scatterOf(node, usable, ...axes)); };
  const [first, second] = varied(sweep), result = sweep.results[0], known = varied(sweep).filter((name) => made.has(`slice ${name}`));
  const slices = sweep.metric ? [...new Set([...known, ...varied(sweep)])].slice(0, MAX_SLICES) : [];
  const drawn = (name) => nValues(columnOf(items, name)) > columnOf(items, name).values.length / 2;
  for (const name of slices) offer(`slice ${name}`, name, result, sweep.searched && !STATE.content.stores ? "item" : [first, second].find((other) => other && other !== name) || "none");
  if (slices.length > 1 && drawn(first) && drawn(second)) offer("pair", first, second, result);
  if (!slices.length && first) offer("only", first, result, second || "none");
  for (const one of made.values()) one.update(usable);
}

// Draws a plot that the reader has chosen by controls.
function chosenFigure(node, controls, plot) {
  let figure = null;
  return () => {
    if (figure) figure.update(plot());
    else { figure = new Figure(plot()); figure.node.insertBefore(controls, figure.legend); node.append(figure.node); }
  };
}

// usable: names of columns. first, second, shade: those of x, y and colour, until the reader chooses others.
function scatterOf(node, usable, first, second, shade) {
  const x = select("x", usable, first, () => draw()), y = select("y", usable, second, () => draw());
  const colour = select("colour", ["none", ...usable], shade, () => draw());
  ITEMS.listeners.add(() => draw());
  const controls = el("div", { className: "controls" }, x.node, y.node, colour.node);
  const draw = chosenFigure(node, controls, () => scatter(sweptItems(), x.value, y.value, colour.value));
  return { update(names) { x.set(names); y.set(names); colour.set(["none", ...names]); draw(); } };
}

// Whether an item's status is another than these; whole numbers of an item that failed are 0.
function isOther(table, ...words) {
  const status = columnOf(table, "status");
  return (row) => !status || !words.includes(valueOf(status, row));
}

// `sweptItems` without those that failed, whose values would flatten all others.
function fineItems() {
  const table = sweptItems(), rows = table.columns[0].values.map((_, row) => row).filter(isOther(table, "failed")), some = (values) => rows.map((row) => values[row]);
  return { ...table, columns: table.columns.map((c) => ({ ...c, values: some(c.values) })), ids: table.ids && some(table.ids) };
}

// How many items a picture of these columns leaves out, as ctd/words.py says it; "" of none. drawn: whether a row's status is drawn.
function leftOut(table, columns, drawn) {
  const rows = table.columns[0].values.map((_, row) => row), isFine = isOther(table, "failed"), items = (n, failed = "") => `${n.toLocaleString("en")} ${failed}item${n > 1 ? "s" : ""}`;
  const failed = rows.filter((row) => !isFine(row)).length, others = rows.filter((row) => drawn(row) && columns.some((c) => !Number.isFinite(c.values[row]))).length;
  const said = [failed && items(failed, "failed "), others && `${failed ? others.toLocaleString("en") : items(others)} without a finite value`].filter(Boolean);
  return said.length ? `${said.join(" and ")} left out.` : "";
}

function scatter(table, xName, yName, colourName) {
  const find = (name) => columnOf(table, name), x = find(xName), y = find(yName), colour = find(colourName), ids = idsOf(table), item = find("item"), counts = isOther(table, "failed");
  const axis = (c) => ({ label: c.name, log: isLog(c), ticks: c.kind === "text" ? c.labels : [] });
  const at = (c) => c.values.map((v) => (Number.isFinite(v) ? v : null));
  const logColour = colour && isLog(colour);
  const told = [...new Set([...ITEMS.names, xName, yName, ...(colour ? [colourName] : [])])].map(find).filter((c) => c && c !== item), [X, Y, C] = [at(x), at(y), colour && at(colour)];
  const text = (rows) => rows.map((row) => [item && `item ${item.values[row]}`, ...told.map((c) => `${c.name}: ${fmt(valueOf(c, row))}`)].filter(Boolean).join("\n"));
  const kept = x.values.map((_, k) => k).filter((k) => counts(k) && (!ids || ITEMS.isKept(ids[k]))), base = { kind: "points", marker: "circle" };
  const part = (rows) => ({ ...base, x: rows.map((k) => X[k]), y: rows.map((k) => Y[k]), text: text(rows), ...(ids && { key: rows.map((k) => ids[k]), item: rows.map((k) => ids[k]) }) });
  const few = colour && ids && (colour.kind === "text" || (ITEMS.names.includes(colourName) && nValues(colour) <= 10));
  const layers = few // in the colours of the curves
    ? grouped(ids, colourName, 10).map((g) => ({ ...part(kept.filter((k) => g.ids.has(ids[k]))), name: g.label, ...(g.tone === null ? { hue: g.hue } : { tone: g.tone }) }))
    : [{ ...part(kept), name: "", colour: colour ? kept.map((k) => (C[k] === null || !logColour ? C[k] : Math.log10(C[k]))) : undefined }];
  return { title: `${yName} against ${xName}`, layers, x: axis(x), y: axis(y), scale: { label: colour ? colourName : "", log: logColour }, note: [table.note, leftOut(table, [x, y], counts)].filter(Boolean).join(" ") };
}


// --- a map over two parameters ----------------------------------------------------------------------

function showMap(node, sweep, items) {
  const usable = varied(sweep).filter((name) => isAxis(columnOf(items, name)) && nValues(columnOf(items, name)) > 1);
  const box = part("map", () => {
    const pairs = usable.flatMap((x, k) => usable.slice(k + 1).map((y) => [x, y])), first = pairs.find(([x, y]) => comparesCells(map(items, x, y, sweep.results[0])));
    if (!first) return null;
    const x = select("x", usable, first[0], () => draw()), y = select("y", usable, first[1], () => draw()), value = select("median of", sweep.results, sweep.results[0], () => draw()), whole = wholeRange(() => draw());
    const controls = el("div", { className: "controls" }, value.node, x.node, y.node, whole.node);
    const draw = chosenFigure(node, controls, () => {
      const plot = map(sweptItems(), x.value, y.value, value.value, whole.box.checked);
      whole.offer(plot.scale.low !== undefined);
      return plot;
    });
    ITEMS.listeners.add(draw);
    return { update(names, results) { x.set(names); y.set(names); value.set(results); draw(); } };
  });
  if (!box) { STATE.parts.delete("map"); return; }
  if (isNew("map", items)) box.update(usable, sweep.results);
}

// Whether a row and a column of a map have two filled cells each: less says nothing that the points do not.
function comparesCells({ layers: [{ z }] }) {
  const two = (cells) => cells.filter((value) => value !== null).length > 1;
  return z.some(two) && z[0].some((_, k) => two(z.map((row) => row[k])));
}

// A number with the digits, at least three, that place it between its neighbours: .9995 beside .999 is not 1.
function apart(v, ...neighbours) {
  const gap = Math.min(...neighbours.filter((n) => n !== undefined).map((n) => Math.abs(n - v)));
  return short(v, [3, 4, 5].find((digits) => Math.abs(Number(v.toPrecision(digits)) - v) < gap / 20) ?? 6);
}

// The values of a column as categories: themselves, or ten intervals where there are more than 24 numbers.
function categories(column) {
  const known = [...new Set(column.values.filter((v) => v !== null))].sort((a, b) => a - b);
  if (column.kind === "text") return { ticks: column.labels, of: (v) => v };
  if (known.length <= 24) { const at = new Map(known.map((v, k) => [v, k])); return { ticks: known.map((v, k) => apart(v, known[k - 1], known[k + 1])), of: (v) => at.get(v) }; }
  const log = isLog(column), f = log ? Math.log10 : (v) => v, low = f(known[0]), step = (f(known.at(-1)) - low) / 10;
  // As many digits as tell the ends of an interval apart.
  const digits = log ? 2 : Math.max(2, 1 + Math.ceil(Math.log10(Math.max(Math.abs(known[0]), Math.abs(known.at(-1))) / step))), end = (k) => fmt(Number((log ? 10 ** (low + k * step) : low + k * step).toPrecision(digits)));
  return { ticks: Array.from({ length: 10 }, (_, k) => `${end(k)}–${end(k + 1)}`), of: (v) => (v === null || (log && v <= 0) ? undefined : Math.min(9, Math.floor((f(v) - low) / step))) };
}

// isWhole: whether the colours reach to the farthest values.
function map(table, xName, yName, valueName, isWhole) {
  const find = (name) => columnOf(table, name), [x, y, v] = [xName, yName, valueName].map(find), ids = idsOf(table), done = isOther(table, "failed", "dropped"), X = categories(x), Y = categories(y);
  const cells = Y.ticks.map(() => X.ticks.map(() => []));
  v.values.forEach((value, row) => {
    const i = X.of(x.values[row]), k = Y.of(y.values[row]);
    if (done(row) && Number.isFinite(value) && i !== undefined && k !== undefined && (!ids || ITEMS.isKept(ids[row]))) cells[k][i].push(value);
  });
  let z = cells.map((row) => row.map((some) => (some.length ? median(some.map((value) => [value]))[0] : null)));
  const log = isLog(v), counts = cells.flat().map((some) => some.length).filter(Boolean);
  if (log) z = z.map((row) => row.map((value) => (value === null ? null : Math.log10(value))));
  const inner = span(z.flat()), isCut = inner.isCut && !isWhole, beyond = z.flat().filter((value) => value !== null && (value < inner.low || value > inner.high)).length;
  const [few, many] = [Math.min(...counts), Math.max(...counts)];
  return { title: `${valueName} over ${xName} and ${yName}`, layers: [{ kind: "image", z }], x: { label: xName, log: false, ticks: X.ticks }, y: { label: yName, log: false, ticks: Y.ticks }, scale: { label: `${many > 1 ? "median " : ""}${valueName}`, log, ...(isCut && { low: inner.low, high: inner.high }) }, note: [isCut && `${beyond} square${beyond > 1 ? "s lie" : " lies"} far beyond the scale.`, many > 1 && `Medians over ${few === many ? few : `${few} to ${many}`} done items a square${table.note ? `, of those that the page has` : ""}.`, leftOut(table, [x, y, v], done)].filter(Boolean).join(" ") };
}
