// The page from its content. Every part has an `update` of its own, so that newer content of a run that
// goes on keeps what the reader has sorted, filtered and zoomed.

const STATE = { parts: new Map(), text: new Map() };

function part(name, make) {
  if (!STATE.parts.has(name)) STATE.parts.set(name, make());
  return STATE.parts.get(name);
}

// Whether a piece of content differs from what it was the last time.
function isNew(name, value) {
  const text = JSON.stringify(value) ?? "";
  if (STATE.text.get(name) === text) return false;
  STATE.text.set(name, text);
  return true;
}

function section(id, title) {
  return part(`section ${id}`, () => {
    const body = el("div", { className: "stack" });
    const node = el("section", { id, hidden: true }, el("h2", {}, title), body);
    document.getElementById("page").append(node);
    return { node, body, title, show(on) { node.hidden = !on; } };
  });
}

function infinities(tables) {
  for (const table of tables) for (const column of table.columns) {
    if (column.kind === "number") column.values = column.values.map((v) => (v === "inf" ? Infinity : v === "-inf" ? -Infinity : v));
  }
}

// --- the top --------------------------------------------------------------------------------------

function showTop(content) {
  const top = part("top", () => {
    const node = el("div", { className: "top" }), nav = el("nav", { "aria-label": "sections" });
    document.getElementById("page").prepend(node, nav);
    return { node, nav };
  });
  const { word, mood, text } = content.status;
  top.node.replaceChildren(
    el("div", { className: "line" }, el("h1", {}, content.title), el("span", { className: `pill mood-${mood}` }, word), el("span", { className: "note", style: { margin: 0 } }, text)),
    el("div", { className: "where" }, `${content.kernel} · ${content.store} · `, el("span", { id: "made" }, content.made)),
    ...(content.trouble ? [el("p", { className: "note error" }, content.trouble)] : []));
}

function showNav() {
  const links = [...document.querySelectorAll("section:not([hidden])")].map((s) => el("a", { href: `#${s.id}` }, s.querySelector("h2").textContent));
  STATE.parts.get("top").nav.replaceChildren(...links);
}

// --- how far it is, and how it ran -----------------------------------------------------------------

function showOverview(content) {
  const s = section("overview", "Overview"), p = content.progress, count = (k) => k.toLocaleString("en");
  s.show(true);
  const box = part("overview", () => {
    const out = { tiles: el("div", { className: "tiles" }), bar: card() };
    s.body.append(out.tiles, out.bar);
    return out;
  });
  const tile = (value, name) => el("div", { className: "card tile" }, el("b", {}, value), el("span", {}, name));
  const tiles = [tile(count(p.items_done), `of ${count(p.items)} items`), tile(count(p.shards_done), `of ${count(p.shards)} shards`), tile(count(p.items_failed), "items failed")];
  if (p.rate !== undefined) tiles.push(tile(fmt(p.rate), "items a second"), tile(time(p.left_s), "to go, at this rate"));
  if (p.worker_time) tiles.push(tile(p.worker_time, "worker time"));
  if (content.hosts.length) tiles.push(tile(count(content.hosts.length), content.hosts.length === 1 ? "worker" : "workers"));
  box.tiles.replaceChildren(...tiles);
  showBar(box.bar, content);
}

function showRun(content) {
  const s = section("run", "Run");
  s.show(true);
  const box = part("run", () => {
    const out = { facts: card(), workers: card(), plots: el("div", { className: "grid" }) };
    s.body.append(out.plots, el("div", { className: "grid" }, out.facts, out.workers));
    return out;
  });
  showFigures(box.plots, "run", content.plots);
  if (isNew("facts", content.facts)) box.facts.replaceChildren(el("dl", {}, ...content.facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
  box.workers.hidden = !content.hosts.length;
  if (isNew("hosts", content.hosts)) {
    const names = ["host", "pid", "device", "shards", "items", "seconds"], number = (n) => (["shards", "items", "seconds"].includes(n) ? "number" : "");
    box.workers.replaceChildren(el("h3", {}, "Workers"), el("div", { className: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...names.map((n) => el("th", { className: `plain ${number(n)}`, scope: "col" }, n)))),
      el("tbody", {}, ...content.hosts.map((h) => el("tr", {}, ...names.map((n) => el("td", { className: number(n) }, n === "pid" ? String(h[n]) : fmt(h[n])))))))));
  }
}

function time(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function showBar(node, content) {
  const p = content.progress, percent = (n) => `${(100 * n) / Math.max(1, p.items)}%`;
  const known = content.outcomes.reduce((sum, o) => sum + o.n, 0);
  const kinds = content.outcomes.map((o, k) => ({ ...o, colour: o.failed ? "var(--bad)" : `var(--c${[0, 2, 5, 3, 6, 7][k % 6]})` }));
  if (known < p.items_done) kinds.push({ name: kinds.length ? "failed with an error" : "done", reason: kinds.length ? "an exception; see failures" : "computed", n: p.items_done - known, colour: kinds.length ? "var(--warning)" : "var(--c0)" });
  if (p.items_done < p.items) kinds.push({ name: "not computed", reason: "waiting, running, or given up", n: p.items - p.items_done, colour: "var(--line)" });
  node.replaceChildren(
    el("div", { className: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": String(p.items), "aria-valuenow": String(p.items_done), "aria-label": "items" },
      ...kinds.filter((o) => o.n).map((o) => el("i", { style: { width: percent(o.n), background: o.colour }, title: `${o.name}: ${o.n}` }))),
    el("table", {}, el("tbody", {}, ...kinds.map((o) => el("tr", {}, el("td", {}, el("span", { className: "swatch", style: { background: o.colour } }), o.name), el("td", { className: "number" }, o.n.toLocaleString("en")), el("td", { className: "wrap" }, o.reason))))));
}

// --- failures -------------------------------------------------------------------------------------

function showFailures(content) {
  const s = section("failures", "Failures"), list = content.failures;
  s.show(list.length > 0);
  if (!list.length || !isNew("failures", [list, content.failures_left_out])) return;
  const entry = (f) => {
    const ids = `${f.what}${f.n_ids > 1 ? "s" : ""} ${f.ids.join(", ")}${f.n_ids > f.ids.length ? ` ... (${f.n_ids})` : ""}`;
    const word = f.what === "item" ? "failed" : f.open ? "not computed" : "succeeded later";
    const tag = el("span", { className: `tag mood-${f.open ? "bad" : "good"}` }, word);
    const where = [f.fault && `fault: ${f.fault}`, f.host && `on ${f.host}`, `last ${f.time} UTC`, f.n > 1 && `${f.n} times`].filter(Boolean).join(", ");
    return el("details", {}, el("summary", {}, tag, `${ids}: ${f.error.split("\n")[0]}`), el("p", { className: "note" }, where), el("pre", { tabIndex: 0 }, f.trace || f.error));
  };
  const more = content.failures_left_out ? [el("p", { className: "note" }, `${content.failures_left_out} further errors are left out; ctd logs tells them.`)] : [];
  const learned = content.learned.length ? [el("p", { className: "note" }, `Decided on the way: ${content.learned.join("; ")}.`)] : [];
  s.body.replaceChildren(card(...list.map(entry), ...more, ...learned));
}

// --- pictures -------------------------------------------------------------------------------------

function showFigures(node, name, plots) {
  const group = part(`figures ${name}`, () => ({ figures: [], siblings: new Set() }));
  if (group.node !== node) group.figures.forEach((figure) => node.append(figure.node));
  group.node = node;
  plots.forEach((plot, k) => {
    if (!group.figures[k]) { group.figures[k] = new Figure(plot, group.siblings); node.append(group.figures[k].node); isNew(`${name} ${k}`, plot); }
    else if (isNew(`${name} ${k}`, plot)) group.figures[k].update(plot);
  });
  for (const figure of group.figures.splice(plots.length)) { figure.node.remove(); FIGURES.delete(figure); }
}

function showPictures(content) {
  const s = section("pictures", "Pictures"), groups = content.groups;
  s.show(groups.length > 0);
  if (!groups.length) return;
  const box = part("pictures", () => {
    const choose = el("select", { "aria-label": "group", onchange: () => show() }), plots = el("div", { className: "grid" });
    const turn = (by) => { choose.selectedIndex = (choose.selectedIndex + by + choose.length) % choose.length; show(); };
    const controls = el("div", { className: "controls" }, el("label", {}, "group", choose),
      el("button", { type: "button", "aria-label": "previous group", onclick: () => turn(-1) }, "‹"), el("button", { type: "button", "aria-label": "next group", onclick: () => turn(1) }, "›"));
    const items = el("p", { className: "note" }), extra = el("div");
    s.body.append(controls, extra, plots, items);
    const show = () => {
      const now = STATE.content.groups, k = Math.min(Math.max(0, choose.selectedIndex), now.length - 1), group = now[k];
      items.textContent = [group.items, STATE.content.groups_left_out && `${STATE.content.groups_left_out} further groups are left out: the page would be too large`].filter(Boolean).join(". ");
      extra.replaceChildren(...(group.error ? [el("p", { className: "card note error" }, group.error)] : []));
      showFigures(plots, "pictures", group.plots);
    };
    return { choose, controls, show };
  });
  const labels = groups.map((g) => g.label), before = box.choose.selectedIndex;
  if (isNew("groups", labels)) {
    box.choose.replaceChildren(...labels.map((text) => el("option", {}, text.length > 90 ? text.slice(0, 90) + "…" : text)));
    box.choose.selectedIndex = Math.max(0, before);
  }
  box.controls.hidden = groups.length < 2;
  box.show();
}

// --- the sweep ------------------------------------------------------------------------------------

function showSweep(content) {
  const s = section("sweep", "Sweep"), items = content.tables.find((t) => t.name === "items"), sweep = content.sweep;
  const useful = Boolean(sweep && items && sweep.results.length);
  s.show(useful);
  if (!useful) return;
  const box = part("sweep", () => {
    const importance = card(), grid = el("div", { className: "grid" }, importance), parallel = el("div");
    s.body.append(grid, parallel);
    return { importance, parallel, scatter: grid };
  });
  showImportance(box.importance, sweep);
  showParallel(box.parallel, sweep, items);
  showScatter(box.scatter, sweep, items);
}

function select(label, names, chosen, action) {
  const node = el("select", { "aria-label": label, onchange: action }, ...names.map((name) => el("option", { selected: name === chosen }, name)));
  return { node: el("label", {}, label, node), get value() { return node.value; }, set(names2) {
    const now = node.value;
    if (names2.join("\n") === [...node.options].map((o) => o.value).join("\n")) return;
    node.replaceChildren(...names2.map((name) => el("option", { selected: name === now }, name)));
  } };
}

function showImportance(node, sweep) {
  node.hidden = !sweep.effects.length;
  if (node.hidden) return;
  const results = [...new Set(sweep.effects.map((e) => e.result))];
  const box = part("importance", () => {
    const choose = select("result", results, results[0], () => draw());
    const body = el("tbody"), caption = el("p", { className: "note" });
    node.append(el("h3", {}, "Which parameters matter"), el("div", { className: "controls", style: { marginTop: "8px" } }, choose.node), el("div", { className: "scroll" },
      el("table", {}, el("thead", {}, el("tr", {}, ...["parameter", "share of the variance", "Spearman ρ"].map((t) => el("th", { className: "plain", scope: "col" }, t)))), body)), caption);
    const draw = () => {
      const found = STATE.content.sweep.effects.filter((e) => e.result === choose.value).sort((a, b) => (b.share ?? -1) - (a.share ?? -1));
      body.replaceChildren(...found.map((e) => el("tr", {}, el("td", {}, e.parameter),
        el("td", { className: "share" }, el("i", { style: { width: `calc(${100 * (e.share ?? 0)}% - ${20 * (e.share ?? 0)}px)` } }), el("span", {}, e.share === null ? "too few items" : `${(100 * e.share).toFixed(1)} %`)),
        el("td", {}, e.rho === null ? "–" : `${e.rho < 0 ? "−" : "+"}${Math.abs(e.rho).toFixed(2)}`))));
      caption.textContent = `One parameter at a time, over ${found.length ? found[0].n.toLocaleString("en") : 0} items with a finite result: the share of the variance of the result's ranks that lies between the parameter's values (or up to 10 equally filled bins), adjusted for chance; and Spearman's rank correlation. Interactions are not seen.`;
    };
    return { choose, draw };
  });
  box.choose.set(results);
  box.draw();
}

function showParallel(node, sweep, items) {
  const names = [...sweep.parameters, ...sweep.results].filter((name) => items.columns.some((c) => c.name === name));
  node.hidden = !sweep.parameters.length || names.length < 2;
  if (node.hidden) return;
  const box = part("parallel", () => {
    const plot = new Parallel(), varies = (name) => new Set(items.columns.find((c) => c.name === name).values).size > 1;
    const chosen = new Set([...sweep.parameters.slice(0, 6), ...sweep.results.filter(varies).slice(0, 3)]);
    const colour = select("colour", names, sweep.results[0], () => draw());
    const boxes = el("div", { className: "controls" });
    node.append(card(el("h3", {}, "Parallel coordinates"), el("div", { className: "controls", style: { marginTop: "8px" } }, colour.node), boxes, plot.node));
    const draw = () => {
      const table = STATE.content.tables.find((t) => t.name === "items");
      plot.update(table.columns.filter((c) => chosen.has(c.name) || c.name === colour.value), colour.value);
    };
    const offer = (all) => {
      if (!isNew("parallel names", all)) return;
      boxes.replaceChildren(...all.map((name) => el("label", {}, el("input", { type: "checkbox", checked: chosen.has(name), onchange: (e) => { e.target.checked ? chosen.add(name) : chosen.delete(name); draw(); } }), name)));
    };
    return { colour, draw, offer };
  });
  box.colour.set(names);
  box.offer(names);
  if (isNew("parallel", items)) box.draw();
}

function showScatter(node, sweep, items) {
  const usable = items.columns.filter((c) => c.kind === "number" || c.labels.length <= 40).map((c) => c.name);
  const box = part("scatter", () => {
    const [first, second] = [sweep.parameters[0] || sweep.results[1] || "item", sweep.results[0]];
    const x = select("x", usable, first, () => draw()), y = select("y", usable, second, () => draw());
    const colour = select("colour", ["none", ...usable], sweep.parameters[1] || "none", () => draw());
    const controls = el("div", { className: "controls" }, x.node, y.node, colour.node);
    let figure = null;
    const draw = () => {
      const plot = scatter(STATE.content.tables.find((t) => t.name === "items"), x.value, y.value, colour.value);
      if (figure) { figure.moved = figure.moved && figure.shown === `${x.value} ${y.value}`; figure.update(plot); }
      else { figure = new Figure(plot); figure.node.insertBefore(controls, figure.legend); node.append(figure.node); }
      figure.shown = `${x.value} ${y.value}`;
    };
    return { draw, set(names) { x.set(names); y.set(names); colour.set(["none", ...names]); } };
  });
  box.set(usable);
  if (isNew("scatter", items)) box.draw();
}

function scatter(table, xName, yName, colourName) {
  const find = (name) => table.columns.find((c) => c.name === name), x = find(xName), y = find(yName), colour = find(colourName), id = find("item");
  const axis = (c) => ({ label: c.name, log: isWide(c), ticks: c.kind === "text" ? c.labels : [] });
  const at = (c) => c.values.map((v) => (Number.isFinite(v) ? v : null));
  const logColour = colour && isWide(colour), value = (c, row) => (c.kind === "text" ? c.labels[c.values[row]] : fmt(c.values[row]));
  const text = x.values.map((_, row) => [id && `item ${id.values[row]}`, ...[x, y, colour].filter(Boolean).map((c) => `${c.name}: ${value(c, row)}`)].filter(Boolean).join("\n"));
  const layers = colour && colour.kind === "text"
    ? colour.labels.map((name, code) => { const rows = x.values.map((_, k) => k).filter((k) => colour.values[k] === code); return { kind: "points", x: rows.map((k) => at(x)[k]), y: rows.map((k) => at(y)[k]), name, marker: "circle", text: rows.map((k) => text[k]) }; })
    : [{ kind: "points", x: at(x), y: at(y), name: "", marker: "circle", text, colour: colour ? at(colour).map((v) => (v === null || !logColour ? v : Math.log10(v))) : undefined }];
  return { title: `${yName} against ${xName}`, layers, x: axis(x), y: axis(y), scale: { label: colour ? (logColour ? `log10 ${colourName}` : colourName) : "", diverging: false, low: null, high: null }, equal: false, note: table.note };
}

// --- tables ---------------------------------------------------------------------------------------

function showTables(content) {
  const s = section("tables", "Tables"), tables = content.tables;
  s.show(tables.length > 0);
  if (!tables.length) return;
  const box = part("tables", () => {
    const tabs = el("div", { className: "controls", role: "tablist" }), place = el("div");
    s.body.append(card(tabs, place));
    return { tabs, place, chosen: tables.length > 1 && tables[1].name !== "shards" ? tables[1].name : tables[0].name };
  });
  for (const table of tables) {
    const made = part(`table ${table.name}`, () => new Table(table.name));
    if (isNew(`table ${table.name}`, table)) made.update(table);
  }
  const show = () => {
    box.tabs.replaceChildren(...tables.map((t) => el("button", { type: "button", role: "tab", "aria-selected": String(t.name === box.chosen), onclick: () => { box.chosen = t.name; show(); } }, `${t.name} (${t.n.toLocaleString("en")})`)));
    const table = STATE.parts.get(`table ${box.chosen}`).node;
    if (box.place.firstChild !== table) box.place.replaceChildren(table);
  };
  show();
}

// --- the job --------------------------------------------------------------------------------------

function showJob(content) {
  const s = section("job", "Job");
  s.show(true);
  if (!isNew("job", [content.spec, content.versions, content.command])) return;
  const versions = el("dl", {}, ...Object.entries(content.versions).flatMap(([name, v]) => [el("dt", {}, name), el("dd", {}, v)]), el("dt", {}, "command"), el("dd", {}, el("code", {}, content.command)));
  s.body.replaceChildren(el("div", { className: "grid" }, card(el("h3", {}, "As it was given"), el("pre", { tabIndex: 0 }, content.spec)), card(el("h3", {}, "With what"), el("p"), versions)));
}

// --- all of it ------------------------------------------------------------------------------------

function show(content) {
  STATE.content = content;
  showTop(content);
  showOverview(content);
  showFailures(content);
  showPictures(content);
  showSweep(content);
  showTables(content);
  showRun(content);
  showJob(content);
  showNav();
}

// Ask the server that watches a run for newer content, until it is gone.
async function follow(address) {
  let have = "";
  for (;;) {
    try {
      const answer = await fetch(`${address}&have=${encodeURIComponent(have)}`, { cache: "no-store" });
      if (answer.status === 200) {
        const { version, content } = await answer.json();
        have = version;
        infinities(content.tables);
        show(content);
      } else if (answer.status !== 204) throw new Error(`the server answers ${answer.status}`);
    } catch (error) {
      const made = document.getElementById("made");
      if (!made.dataset.lost) made.textContent += " · no longer updated: ctd watch has ended";
      made.dataset.lost = "yes";
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

const GIVEN = JSON.parse(document.getElementById("content").textContent);
infinities(GIVEN.content.tables);
show(GIVEN.content);
if (GIVEN.live) follow(GIVEN.live);
