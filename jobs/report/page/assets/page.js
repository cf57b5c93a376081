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
    return { node, body, show(on) { node.hidden = !on; } };
  });
}

function infinities({ tables, answers }) {
  for (const table of [...tables, ...answers.map((a) => a.table).filter(Boolean)]) for (const column of table.columns) {
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
    ...(content.note || content.tags ? [el("p", { className: "note" }, [content.note, content.tags && `tags: ${content.tags}`].filter(Boolean).join(" · "))] : []),
    ...(content.trouble ? [el("p", { className: "note error" }, content.trouble)] : []));
}

function showNav() {
  const sections = [...document.querySelectorAll("section:not([hidden])")];
  if (!isNew("nav", sections.map((s) => s.id))) return; // else a link would lose the focus each second
  STATE.parts.get("top").nav.replaceChildren(...sections.map((s) => el("a", { href: `#${s.id}` }, s.querySelector("h2").textContent)));
}

// --- pictures -------------------------------------------------------------------------------------

function showFigures(node, name, plots) {
  const group = part(`figures ${name}`, () => ({ figures: [], siblings: ["answer", "pictures"].includes(name) ? part("siblings", () => new Set()) : new Set() }));
  plots.forEach((plot, k) => {
    const Kind = plot.layers.some((l) => l.item && l.item.length > 1) ? Traces : Figure;
    if (group.figures[k] && !(group.figures[k] instanceof Kind)) { group.figures.splice(k).forEach((figure) => figure.remove()); }
    if (!group.figures[k]) { group.figures[k] = new Kind(plot, group.siblings); node.append(group.figures[k].node); isNew(`${name} ${k}`, plot); }
    else if (isNew(`${name} ${k}`, plot)) group.figures[k].update(plot);
  });
  for (const figure of group.figures.splice(plots.length)) figure.remove();
}

function showPictures(content) {
  const s = section("pictures", "Pictures"), groups = content.groups, below = (group) => group.plots.slice(hasPicture(STATE.content) ? 1 : 0);
  s.show(groups.some((g) => below(g).length || g.error));
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
      items.textContent = [group.items, STATE.content.groups_left_out && `${STATE.content.groups_left_out} further groups are left out: the page would be too large; jobs.figure(store, GROUP) draws one`].filter(Boolean).join(". ");
      extra.replaceChildren(...(group.error ? [el("p", { className: "card note error" }, group.error)] : []));
      showFigures(plots, "pictures", below(group));
    };
    return { choose, controls, show, labels: [] };
  });
  // Newer content puts groups between others. The only group was no choice.
  const labels = groups.map((g) => g.label), chosen = box.labels.length > 1 ? box.labels[box.choose.selectedIndex] : null;
  if (isNew("groups", labels)) {
    box.choose.replaceChildren(...labels.map((text) => el("option", {}, text.length > 90 ? text.slice(0, 90) + "…" : text)));
    box.choose.selectedIndex = Math.max(0, labels.indexOf(chosen));
    box.labels = labels;
  }
  box.controls.hidden = groups.length < 2;
  box.show();
}

// --- tables ---------------------------------------------------------------------------------------

function showTables(content) {
  const s = section("tables", "Tables"), tables = content.tables;
  s.show(tables.length > 0);
  if (!tables.length) return;
  const box = part("tables", () => {
    const tabs = el("div", { className: "controls", role: "tablist" }), place = el("div");
    s.body.append(card(tabs, place));
    return { tabs, place };
  });
  for (const table of tables) {
    const made = part(`table ${table.name}`, () => new Table(table.name, table.name === "items" && content.sweep && content.sweep.metric ? { name: content.sweep.metric, falling: content.sweep.falling } : null));
    if (isNew(`table ${table.name}`, table)) made.update(table);
  }
  // A table without a row is not here.
  const names = tables.map((t) => t.name), first = (content.answers[0] || {}).opens;
  box.chosen ??= names.includes(first) ? first : names[0];
  const show = () => {
    for (const [k, tab] of [...box.tabs.children].entries()) tab.setAttribute("aria-selected", String(names[k] === box.chosen));
    const table = STATE.parts.get(`table ${box.chosen}`).node;
    if (box.place.firstChild !== table) box.place.replaceChildren(table);
  };
  const tab = (t) => el("button", { type: "button", role: "tab", onclick: () => { box.chosen = t.name; show(); } }, `${t.name} (${t.n.toLocaleString("en")})`);
  if (isNew("tabs", tables.map((t) => [t.name, t.n]))) box.tabs.replaceChildren(...tables.map(tab));
  show();
}

// --- several stores -------------------------------------------------------------------------------

// What differs between the stores of a page.
function showStores(content) {
  const s = section("stores", "Stores"), columns = content.differing || [];
  s.show(columns.length > 0);
  if (!columns.length || !isNew("stores", columns)) return;
  s.body.replaceChildren(card(plainTable("stores", columns.map((c) => [c.name]), columns[0].values.map((_, k) => columns.map((c) => c.values[k])))));
}

// --- the job --------------------------------------------------------------------------------------

function showJob(content) {
  const s = section("job", "Job");
  s.show(true);
  if (!isNew("job", [content.spec, content.versions, content.command])) return;
  const versions = listed([...Object.entries(content.versions), ["command", el("code", {}, content.command)]]);
  s.body.replaceChildren(el("div", { className: "grid" }, card(el("h3", {}, "As it was given"), el("pre", { tabIndex: 0 }, content.spec)), card(el("h3", {}, "With what"), el("p"), versions)));
}

// --- all of it ------------------------------------------------------------------------------------

function show(content) {
  STATE.content = content;
  ITEMS.update(content);
  showTop(content);
  showStores(content);
  showAnswer(content);
  showNow(content);
  showFailures(content);
  showPictures(content);
  showSweep(content);
  showTables(content);
  showRun(content);
  showJob(content);
  showNav();
  showKept();
}

// How many items are kept, wherever the reader is on the page.
function showKept() {
  const bar = part("kept", () => {
    const said = el("span", { role: "status" }), node = el("aside", { className: "kept", "aria-label": "kept items" }, said, el("button", { type: "button", onclick: () => { STATE.parts.get("parallel").clear(); } }, "show all items"));
    document.body.append(node);
    ITEMS.listeners.add(showKept);
    return { node, said };
  });
  bar.node.hidden = ITEMS.kept === null;
  if (ITEMS.kept) bar.said.textContent = `${ITEMS.kept.size.toLocaleString("en")} item${ITEMS.kept.size === 1 ? "" : "s"} kept, by parallel coordinates`;
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
        infinities(content);
        show(content);
      } else if (answer.status !== 204) throw new Error(`the server answers ${answer.status}`);
      else if (document.getElementById("made").dataset.lost) showTop(STATE.content);
    } catch (error) {
      const made = document.getElementById("made");
      if (!made.dataset.lost) made.textContent += " · no longer updated: ctd watch has ended";
      made.dataset.lost = "yes";
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

const GIVEN = JSON.parse(document.getElementById("content").textContent);
infinities(GIVEN.content);
show(GIVEN.content);
showItem();
if (GIVEN.live) follow(GIVEN.live);
