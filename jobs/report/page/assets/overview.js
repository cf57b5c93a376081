// The answer, how far a run is, how it ran, and what failed.

// The best item, or how many of what were found, with a picture and what to type next.
function showAnswer(content) {
  const s = section("answer", "Answer"), p = content.progress, answers = content.answers;
  s.show(answers.length > 0 || content.warnings.length > 0 || p.share === undefined);  // else Now says how far it is
  const box = part("answer", () => {
    const out = { said: card(), plots: el("div", { className: "figures" }), node: el("div", { className: "grid" }) };
    out.node.append(out.said, out.plots);
    s.body.append(out.node);
    return out;
  });
  const plots = [...answers.flatMap((a) => a.plots), ...(hasPicture(content) ? content.groups[0].plots.slice(0, 1) : [])];
  box.plots.hidden = !plots.length;
  if (isNew("answer", [answers, p.counted, content.warnings])) {
    const commands = (pairs) => pairs.flatMap(([what, command]) => [el("p", { className: "note" }, what), el("pre", { tabIndex: 0, className: "command" }, command)]);
    const rows = ({ columns }) => plainTable("the first of them", columns.map((c) => [c.name, c.kind === "number"]), columns[0].values.map((_, k) => columns.map((c) => fmt(valueOf(c, k)))));
    const one = (a) => [el("h3", { className: "lead" }, a.lead), ...(a.facts.length ? [listed(a.facts)] : []), ...(a.table ? [rows(a.table), ...(a.table.note ? [el("p", { className: "note" }, a.table.note)] : [])] : [])];
    box.said.replaceChildren(
      ...answers.flatMap(one), el("p", { className: "counted" }, `Items: ${p.counted}`),
      ...content.warnings.map((text) => el("p", { className: "note mood-warning warned" }, text)),
      ...(answers.length === 1 && answers[0].next.length ? [el("h3", {}, "Next"), ...commands(answers[0].next)] : []));
  }
  showFigures(box.plots, "answer", plots);
}

// Whether the answer shows the first picture of the only group, which the pictures then leave out.
const hasPicture = ({ answers }) => answers.some((a) => a.picture);

// How far a run is that goes on, and the curves of the shards that are being computed.
function showNow(content) {
  const s = section("live", "Now"), p = content.progress, plots = content.live ? content.live.plots : [];
  s.show(plots.length > 0 || p.share !== undefined);
  const box = part("live", () => {
    const out = { said: card(), grid: el("div", { className: "grid" }) };
    s.body.append(out.said, out.grid);
    return out;
  });
  box.said.hidden = p.share === undefined;
  if (!box.said.hidden) {
    const percent = `${Math.floor(100 * p.share)} %`;
    box.said.replaceChildren(el("div", { className: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.floor(100 * p.share)), "aria-label": "work" }, el("i", { style: { width: `${100 * p.share}%`, background: "var(--c0)" } })),
      el("p", { className: "counted" }, [percent, p.texts.length !== 1 && p.left_s && `${time(p.left_s)} left`].filter(Boolean).join(", ")), ...p.texts.map((text) => el("p", { className: "note" }, text)));
  }
  showFigures(box.grid, "live", plots);
}

// How it ran: items, shards, workers, times.
function showRun(content) {
  const s = section("run", "Run"), p = content.progress, count = (k) => k.toLocaleString("en");
  s.show(true);
  const box = part("run", () => {
    const out = { tiles: el("div", { className: "tiles" }), bar: card(), facts: card(), workers: card(), plots: el("div", { className: "grid" }) };
    s.body.append(out.tiles, out.bar, out.plots, el("div", { className: "grid" }, out.facts, out.workers));
    return out;
  });
  const plural = (n, what) => `${what}${n === 1 ? "" : "s"}`;
  const tile = (value, name) => el("div", { className: "card tile" }, el("b", {}, value), el("span", {}, name));
  const tiles = [tile(count(p.items_done), `of ${count(p.items)} ${plural(p.items, "item")} done`), tile(count(p.shards_done), `of ${count(p.shards)} ${plural(p.shards, "shard")}`), tile(count(p.items_failed), "items failed")];
  if (p.items_dropped) tiles.splice(1, 0, tile(count(p.items_dropped), "dropped by the search"));
  if (p.worker_time) tiles.push(tile(p.worker_time, "worker time of the last run's shards"));
  if (content.hosts.length) tiles.push(tile(count(content.n_workers), content.n_workers === 1 ? "worker" : "workers"));
  box.tiles.replaceChildren(...tiles);
  showBar(box.bar, content);
  showFigures(box.plots, "run", content.plots);
  if (isNew("facts", content.facts)) box.facts.replaceChildren(listed(content.facts));
  box.workers.hidden = content.n_workers < 2;
  if (isNew("hosts", content.hosts)) {
    const names = ["host", "pid", "device", "shards", "items", "seconds"];
    box.workers.replaceChildren(el("h3", {}, "Workers"), plainTable("workers", names.map((n, k) => [n, k > 2]), content.hosts.map((h) => names.map((n) => (n === "pid" ? String(h[n]) : fmt(h[n]))))));
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
  const tried = p.items_done + p.items_dropped + p.items_failed, errors = tried - known;
  if (errors > 0) kinds.push({ name: "failed with an error", reason: "an exception; see failures", n: errors, colour: "var(--warning)" });
  if (tried < p.items) kinds.push({ name: "not computed", reason: "waiting, running, or given up", n: p.items - tried, colour: "var(--line)" });
  node.replaceChildren(
    el("div", { className: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": String(p.items), "aria-valuenow": String(tried), "aria-label": "items" },
      ...kinds.filter((o) => o.n).map((o) => el("i", { style: { width: percent(o.n), background: o.colour }, title: `${o.name}: ${o.n}` }))),
    el("table", {}, el("tbody", {}, ...kinds.map((o) => el("tr", {}, el("td", {}, el("span", { className: "swatch", style: { background: o.colour } }), o.name), el("td", { className: "number" }, o.n.toLocaleString("en")), el("td", { className: "wrap" }, o.reason))))));
}

// --- failures -------------------------------------------------------------------------------------

function showFailures(content) {
  const s = section("failures", "Failures"), list = content.failures;
  s.show(list.length > 0);
  if (!list.length || !isNew("failures", [list, content.failures_left_out, content.status.mood])) return;
  // What the reader has opened stays open when another error comes.
  const box = part("failures", () => ({ shown: [] })), open = new Set(box.shown.filter(([, details]) => details.open).map(([of]) => of));
  const key = (f) => JSON.stringify([f.what, f.store, f.error]);
  const entry = (f) => {
    const ids = `${f.what}${f.n_ids > 1 ? "s" : ""} ${f.ids.slice(0, 20).join(", ")}${f.n_ids > 20 ? ` ... (${f.n_ids})` : ""}`;
    // A run tries a shard again, or has given it up: its progress tells how many.
    const yet = f.what !== "item" && content.status.mood === "running";
    const word = f.what === "item" ? "failed" : f.open ? `not computed${yet ? " yet" : ""}` : f.in_part ? "the rest succeeded" : "succeeded later";
    const tag = el("span", { className: `tag mood-${!f.open ? "good" : yet ? "warning" : "bad"}` }, word);
    const where = [f.fault && `fault: ${f.fault}`, f.host && `on ${f.host}`, `last ${f.time} UTC`, f.n > 1 && `${f.n} times`].filter(Boolean).join(", ");
    const of = content.stores ? `${content.differing[0].values[f.store]}: ` : "";
    return el("details", { open: open.has(key(f)) }, el("summary", {}, tag, `${of}${ids}: ${f.error.split("\n")[0]}`), el("p", { className: "note" }, where), el("pre", { tabIndex: 0 }, f.trace || f.error));
  };
  const more = content.failures_left_out ? [el("p", { className: "note" }, `${content.failures_left_out} further errors are left out; ctd logs tells them.`)] : [];
  const learned = content.learned.length ? [el("p", { className: "note" }, `Decided on the way: ${content.learned.join("; ")}.`)] : [];
  box.shown = list.map((f) => [key(f), entry(f)]);
  s.body.replaceChildren(card(...box.shown.map(([, details]) => details), ...more, ...learned));
}

