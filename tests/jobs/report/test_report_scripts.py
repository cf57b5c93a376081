"""The page's scripts, function by function, in a real Chromium: numbers, files that are saved, what stays when newer content comes."""

import pytest
from page_stores import CHROMIUM, browser, finished, until

from jobs.report.page import Content, render

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]

MADE = """
const axis = (label, more = {}) => ({ label, log: false, ticks: [], ...more });
const plotOf = (layers, x = axis("x"), more = {}) => ({ title: "t", note: "", layers, x, y: axis("y"), scale: { label: "" }, ...more });
const line = (name, more = {}) => ({ kind: "lines", name, x: [0, 1], y: [[0, 1]], ...more });
const column = (name, values, more = {}) => ({ name, title: "", kind: "number", values, ...more });
const content = STATE.content, node = (selector) => document.querySelector(selector);
"""
"""What the expressions below are written with."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A tab with the page of the toy store."""
    path = tmp_path_factory.mktemp("toy") / "page.html"
    path.write_text(render(Content(finished("toy")).all()), encoding="utf-8")
    with browser() as chromium:
        page = chromium.new_page()
        page.goto(path.as_uri())
        yield page


@pytest.fixture
def evaluate(page):
    """Evaluate JavaScript on the page, which is loaded anew."""
    page.reload()
    return lambda script: page.evaluate(f"() => {{ {MADE} {script} }}")


LEGEND = """
const figure = new Figure(plotOf([line("a"), line("b")])), pressed = () => [...figure.legend.children].map((b) => [b.textContent, b.ariaPressed]);
document.body.append(figure.node);
figure.legend.children[1].click();
figure.update(plotOf([line("a"), line("c"), line("b")]));
return pressed();
"""
VIEW = """
const figure = new Figure(plotOf([line("a")], axis("time (s)"))), seen = [];
for (const x of [axis("time (s)", { at: [1] }), axis("time (min)"), axis("time (min)", { log: true }), axis("host", { ticks: ["a", "b"] }), axis("host", { ticks: ["a", "b", "c"] }), axis("host", { ticks: ["c", "a"] })]) {
  figure.update(plotOf([line("a")], x));
  seen.push(figure.view[0] === 0.2);
  figure.view = [0.2, 0.4, 0, 1];
  figure.moved = true;
}
return seen;
"""


DRAWN = """
const points = (more) => ({ kind: "points", name: "", x: [0, 1], y: [0, 1], item: [...ITEMS.rows.keys()].slice(0, 2), ...more });
return [{ hue: 0 }, { colour: [0, 1] }, {}].map((more) => new Traces(plotOf([points(more)])).by.value === "as drawn");
"""
"""Points of items that have colours keep them until the reader chooses others."""
STEPS = """
const figure = new Figure(plotOf([{ kind: "points", name: "", x: [null, 1, 2, 3], y: [1, 1, null, 3] }])), at = (by) => { figure.step(by); return figure.hit.i; };
document.body.append(figure.node);
figure.draw();
const last = at(-1);
figure.hit = null;
return [last, at(1), at(1)];
"""
"""Marks that are not drawn are passed over; the first step back is to the last one."""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        # What the reader has hidden stays hidden, wherever newer content puts it.
        (LEGEND, [["a", "true"], ["c", "true"], ["b", "false"]]),
        # The reader's view stays while the axis is the same, also with further categories.
        (VIEW, [False, False, False, False, True, False]),
        # Ticks of large numbers that are close, of far ones, and of small ones.
        (
            "return [[150001, 1], [1000000.1, 0.1], [1200000, 200000], [0.00012, 0.00001]].map(([v, step]) => label(v, step));",
            ["150001", "1000000.1", "1.2e6", "1.20e−4"],
        ),
        (DRAWN, [True, True, False]),
        (STEPS, [3, 1, 3]),
        # An image without a row.
        (
            "return new Figure(plotOf([{ kind: 'image', z: [] }])).home",
            [-0.525, -0.475, -0.525, -0.475],
        ),
        # A line without a point.
        (
            "return new Figure(plotOf([line('', { x: [], y: [[]] })])).home",
            [-0.03, 1.03, -0.06, 1.06],
        ),
    ],
    ids=["legend", "view", "ticks", "drawn", "steps", "empty image", "empty line"],
)
def test_figure(evaluate, script, expected):
    assert evaluate(script) == expected


TAGS = """
const failure = { what: "shard", ids: [2], n_ids: 1, open: true, error: "the worker died" };
return ["running", "warning"].map((mood) => {
  showFailures({ failures: [failure], learned: [], status: { mood } });
  return node("#failures .tag").textContent;
});
"""
BAR = """
const bar = (colour, scale) => new Figure(plotOf([{ kind: "points", name: "", x: [0, 1], y: [0, 1], colour }], axis(""), { scale }));
const log = bar([-1, 1], { label: "alpha", log: true }), equal = bar([null, 6.25], { label: "rate" });
const texts = [...log.legend.querySelector(".scale").childNodes].map((child) => child.textContent);
return [texts, equal.legend.textContent, equal.colour(null) === THEME.muted, equal.colour(6.25) === shade(0.5, false)];
"""
"""A logarithmic colour bar tells the values themselves; one of a single value has it alone, and grey for marks without it."""
NOTES = """
const table = sweptItems(), norm = columnOf(table, "norm"), fine = isOther(table, "failed");
const some = new Set(norm.values.map((_, row) => row).filter(fine).slice(0, 2));
const values = norm.values.map((v, row) => (some.has(row) ? "inf" : v));
const other = { ...table, columns: table.columns.map((c) => (c === norm ? { ...c, values } : c)) };
return [scatter(other, "rate", "norm", "none"), map(other, "rate", "push", "norm")].map((plot) => plot.note.split("a square. ").at(-1));
"""
"""A scatter plot and a map in which the norms of two done items are infinite."""
FEWER = """
const { sweep } = content;
sweep.effects.reduce((a, b) => (b.result !== "norm" || a.share > b.share ? a : b), { share: -1 }).n = 9;
showImportance(el("div"), sweep);
return [node("#sweep table tbody tr").textContent.includes("(over 9 items)"), node("#sweep").textContent.includes("over as many items as its row says")];
"""
"""The parameter that explains most of the norm was measured over fewer items than others."""
TONES = """
Object.assign(ITEMS, { rows: new Map([0, 1, 2, 3].map((id) => [id, null])), value: (id, name) => (name === "kernel" ? ["a", "a", "b", "b"] : [1, 3, 2, 2])[id] });
return [[0, 1], [2, 3]].map((ids) => grouped(ids, "g", 5).map((g) => [g.label, g.tone]));
"""
"""Items of two kernels, in one of which g does not vary and takes no colour."""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        # A shard that a run tries again is not given up.
        (TAGS, ["not computed yet", "not computed"]),
        (BAR, [["0.1", "", "10 alpha (log)"], "6.25 rate", True, True]),
        (NOTES, ["1 failed item and 2 without a finite value left out."] * 2),
        (FEWER, [True, True]),
        (TONES, [[["g = 1", 0], ["g = 3", 1]], [["g = 2", 0.5]]]),
    ],
    ids=["tags", "colour bar", "notes", "importance", "tones"],
)
def test_words_and_colours(evaluate, script, expected):
    assert evaluate(script) == expected


LABELS = """
const texts = [], c = el("canvas").getContext("2d");
c.fillText = (...text) => texts.push(text);
const layers = [{ kind: "points", name: "", x: NAMES.map((_, k) => k), y: NAMES.map((_, k) => k) }];
new Figure(plotOf(layers, axis("cell", { ticks: NAMES }), { y: axis("") })).paint(c, 260, 200);
return texts;
"""
"""The texts of marks over these categories, [text, x, y]."""


def test_category_labels(evaluate):
    names = ["leaky as well", "a cell with a very long name", "another cell"]
    found = evaluate(f"const NAMES = {names}; {LABELS}")
    *_, first, middle, last, label = [text for text, *_ in found]
    # Those at the ends have theirs, too; what has no room between them stands below.
    assert (first[:3], middle[:3], last[:3], label) == ("lea", "a c", "ano", "cell")
    names = ["a" * 80, "b" * 80, "c" * 80]
    places = {text[:1]: x for text, x, _ in evaluate(f"const NAMES = {names}; {LABELS}")}
    assert places["a"] < 130 < places.get("c", 260), "a long text stays at its own end"


GROUP = """
const choose = node("#pictures select"), turns = [];
choose.selectedIndex = 1;
show({ ...content, groups: content.groups.filter((g) => g.label !== "all groups") });
turns.push(choose.value);
show(content);
return [...turns, choose.value];
"""
SCATTERS = """
const titles = () => [...document.querySelectorAll("#sweep .figure h3")].map((h) => h.textContent), before = titles();
const items = { ...itemTable(), note: "newer" }, { sweep } = content;
show({ ...content, tables: [items], sweep: { ...sweep, parameters: [...sweep.parameters].reverse() } });
return titles().length - before.length;
"""
OPENED = """
node("#failures details").open = true;
const failures = [{ ...content.failures[0], error: "another" }, ...content.failures];
show({ ...content, failures });
return [...document.querySelectorAll("#failures details")].map((details) => details.open);
"""
NAV = """
node("nav a").focus();
show({ ...content, made: "later" });
return document.activeElement === node("nav a");
"""
EMPTY = """
STATE.parts.delete("tables");
show({ ...content, answers: [{ ...content.answers[0], opens: "a table without a row" }] });
return STATE.parts.get("tables").chosen === content.tables[0].name;
"""
RANGES = """
const plot = new Parallel(), frames = [], text = (labels, values) => column("b", values, { kind: "text", labels });
let kept;
plot.onkeep = (rows) => { kept = rows && rows.map(Number).join(""); };
plot.frame.style.width = "600px";
document.body.append(plot.node);
plot.update([column("a", [1, 2, 3, 4]), text(["k", "m"], [0, 1, 1, 1])], "a", "");
plot.keep(0, 0.5, 1.2);
frames.push(kept);
plot.update([column("a", [1, 2, 3, 4, 40]), text(["k", "m"], [0, 1, 1, 1, 0])], "a", "");
frames.push(kept);
plot.clear();
plot.keep(1, 0.9, 1);
plot.update([column("a", [1, 2, 3, 4, 40]), text(["a", "k", "m", "z"], [1, 2, 2, 2, 0])], "a", "");
frames.push(kept);
plot.at = 1;
plot.update([column("a", [1, 2])], "a", "");
plot.base.dispatchEvent(new KeyboardEvent("keydown", { key: "-" }));
return [...frames, plot.at];
"""


FAR = """
const values = [3, 1, 2, 4, 5, 6, 7, -9e5], x = column("x", [0, 0, 0, 0, 1, 1, 1, 1]), y = column("y", [0, 1, 2, 3, 0, 1, 2, 3]);
const drawn = (isWhole) => map({ columns: [x, y, column("v", values)] }, "x", "y", "v", isWhole), plot = new Parallel();
const second = (isWhole) => { plot.update([x, column("v", values)], "v", "", isWhole); const { low, high, isCut, hasFar, t } = plot.axes[1]; return [low, high, isCut, hasFar, t[7]]; };
const { scale, note } = drawn(false);
return [scale.low, scale.high, note, drawn(true).scale.low ?? null, second(false), plot.note.textContent.length > 9, second(true), plot.axes[0].hasFar];
"""
"""A map and parallel coordinates of values of which one is far beyond the others."""


def test_far_values(evaluate):
    cut, whole = [1, 7, True, True, 0], [-9e5, 7, False, True, 0]
    note = "1 square lies far beyond the scale."
    assert evaluate(FAR) == [1, 7, note, None, cut, True, whole, False]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (GROUP, ["group 0: n = 3", "group 0: n = 3"]),
        # The parameters have another order once further items have come.
        (SCATTERS, 0),
        (OPENED, [False, True, False]),
        (EMPTY, True),
        (NAV, True),
        # Both ends of the second range lie between texts; its last end goes with the axis.
        (RANGES, ["0011", "00111", "01110", 0]),
    ],
    ids=["group", "scatters", "opened", "empty table", "nav", "ranges"],
)
def test_newer_content_leaves_what_the_reader_chose(evaluate, script, expected):
    assert evaluate(script) == expected


BARS = """
const bars = { kind: "bars", name: "b", left: [0], right: [2], height: [7] };
return plotCsv(plotOf([bars]));
"""
SPANS = """
const spans = { kind: "spans", name: "", left: [0], right: [2], row: [1] };
return plotCsv(plotOf([spans], axis("s"), { y: axis("host", { ticks: ["p", "q"] }) }));
"""
LOGARITHMS = """
const points = { kind: "points", name: "", x: [1], y: [2], colour: [-3] };
return plotCsv(plotOf([points], axis("x"), { scale: { label: "rate", log: true } }));
"""
STORES = """
Object.assign(content, { stores: ["a.zarr", "b.zarr"], differing: [{ name: "store", values: ["a", "b"] }] });
return plotCsv(plotOf([line("l", { item: [OFFSET + 3], x: [5], y: [[6]] })]));
"""
MANY = "return plotCsv(plotOf([line('', { x: Array(200_000).fill(0), y: [Array(200_000).fill(0)] })])).length;"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (BARS, "layer,item,x,y,to\nb,,0,7,2\n"),
        (SPANS, "layer,item,s,host,to\n,,0,q,2\n"),
        # The colours are logarithms, the file has the values.
        (LOGARITHMS, "layer,item,x,y,rate\n,,1,2,0.001\n"),
        (STORES, "layer,store,item,x,y\nl,b,3,5,6\n"),
        # No spreadsheet runs a text.
        ("""return csv([["=1+1", -1.5, "a,'b"]])""", "'=1+1,-1.5,\"a,'b\"\n"),
        (MANY, len("layer,item,x,y\n") + 200_000 * len(",,0,0\n")),
    ],
    ids=["bars", "spans", "logarithms", "stores", "formula", "many"],
)
def test_plot_csv(evaluate, script, expected):
    assert evaluate(script) == expected


def test_saved_legend_names_each_layer_once_and_takes_the_rows_that_it_needs(evaluate):
    found = evaluate("""
      const figure = new Figure(plotOf([line("a".repeat(30)), line("b".repeat(30)), line("b".repeat(30), { legend: "" })]));
      return entriesOf(figure, el("canvas").getContext("2d"), 300).map(([, text, x, y]) => [text[0], x, y]);
    """)
    assert found == [["a", 8, 30], ["b", 8, 46]]


TABLE = """
const table = new Table("t");
table.update({ n: 9, note: "", columns: [column("a", [-0.5, 1024, 1e-5, Infinity]), column("b", [1, 1, 1, 1])] });
"""
FILTERS = """
const box = table.boxes()[0], matched = (text) => { box.value = text; table.show(); return table.body.querySelectorAll("tr").length; };
return ["-0.5", "−0.5", "1024", "1,024", "1e-5", "∞", "-7", ""].map(matched);
"""
TYPING = """
const box = table.boxes()[0], values = (a) => ({ n: 9, note: "", columns: [column("a", a), column("b", [1, 1, 1, 1])] });
document.body.append(table.node);
box.value = "2"; box.focus();
table.update(values([2, 12, 3, 4]));
return [document.activeElement === box, table.rows(), table.boxes().map((one) => one.name)];
"""
SUMMARY = """
table.update({ columns: [column("a", [1, 1], { stays: false }), column("b", [1, 1], { stays: true }), column("c", [1, 2], { stays: false })], note: "" });
return [table.shown.map((c) => c.name), table.note.textContent];
"""
ORDER = """
table.sort = { name: "c", falling: false };
table.update({ n: 2, note: "", columns: [column("c", [1, 0], { kind: "text", labels: ["[-1]", "[-0.5]"] })] });
return [...table.body.rows].map((row) => row.textContent);
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (FILTERS, [1, 1, 1, 1, 1, 1, 0, 4]),
        # The page has four of nine rows.
        ("return table.note.textContent;", "In all of these rows: b = 1."),
        # Newer content leaves the cursor and the text in place.
        (TYPING, [True, [0, 1], ["a"]]),
        # What all rows have is said once, but for the kernel's summary.
        (SUMMARY, [["b", "c"], "In all rows: a = 1."]),
        # Texts in the order of a query.
        (ORDER, ["[-1]", "[-0.5]"]),
    ],
    ids=["filters", "some rows", "typing", "summary", "order"],
)
def test_table(evaluate, script, expected):
    assert evaluate(TABLE + script) == expected


OTHERS = """
const table = itemTable(), rate = columnOf(table, "rate"), norm = columnOf(table, "norm");
rate.values = rate.values.map((v, row) => (row < 4 ? null : v));
ITEMS.rows.delete(43);
const groups = grouped(idsOf(table), "rate", 5), ids = groups.flatMap((g) => [...g.ids]);
const figure = new Figure(plotOf([line("", { tone: groups.at(-1).tone })]));
return [groups.at(-1).label, groups.at(-1).ids.size, ids.length, figure.layerColour(figure.layers[0]) === THEME.muted];
"""


def test_items_without_a_value_are_drawn_in_grey(evaluate):
    assert evaluate(OTHERS) == ["other items", 5, 44, True]


NUMBERS = """
const ticks = (values) => categories(column("g", values)).ticks;
return [ends(10 ** Math.log10(512), 10 ** Math.log10(1024)), ends(1209.2, 1213.8), ends(0.1, 2), ticks([512, 1024, 0.1234]), ticks(Array.from({ length: 30 }, (_, k) => 1000 + k)).slice(0, 2), fmt(-0), ends(0.00012341, 0.00012344), ends(-1e-9, 2), ticks([0.99, 0.999, 0.9995]), ticks([1 / 3, 2 / 3])];
"""
TEXTS = """
const table = itemTable(), push = columnOf(table, "push");
push.labels = Array.from({ length: 41 }, (_, k) => `[${k}]`);
push.values = push.values.map((_, row) => row % 41);
STATE.parts.delete("map");
show({ ...content, tables: [{ ...table, note: "newer" }] });
return [...FIGURES].filter((figure) => figure.plot.layers[0].kind === "image").map((figure) => figure.plot.title);
"""


def test_numbers(evaluate):
    assert evaluate(NUMBERS) == [
        # Whole numbers have all of their digits.
        ["512", "1,024"],
        ["1,209", "1,214"],
        ["0.1", "2"],
        ["0.123", "512", "1,024"],
        ["1,000–1,003", "1,003–1,006"],
        "0",
        ["0.00012341", "0.00012344"],
        ["−1e−9", "2"],
        ["0.99", "0.999", "0.9995"],
        ["0.333", "0.667"],
    ]


def test_a_map_is_not_over_more_texts_than_it_could_name(evaluate):
    assert evaluate(TEXTS) == ["norm over rate and push", "norm over rate and n"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_print_is_light_and_has_its_own_width(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.reload()
    drawn = "[THEME.ink, [...FIGURES].every((f) => f.base.width === f.frame.clientWidth)]"
    page.set_viewport_size({"width": 700, "height": 900})
    page.emulate_media(media="print")
    until(page, f"JSON.stringify({drawn}) === '[\"#1b1f27\",true]'")
    assert not page.locator(".tools, .figure .over").locator("visible=true").count()
    page.emulate_media(media="screen")


KERNELS = """
const table = itemTable(), ids = idsOf(table), norm = columnOf(table, "norm"), rate = columnOf(table, "rate");
table.columns.push(column("kernel", norm.values.map((_, row) => Number(row > 3)), { kind: "text", labels: ["other", "toy"] }));
for (const c of [norm, rate]) c.values = c.values.map((v, row) => (row > 3 ? v : null));
show(content);
location.hash = `#item=${ids[2]}`;
showItem();
const terms = [...document.querySelectorAll("dialog dt")].map((term) => term.textContent);
return [ITEMS.told(ids[2]).includes("rate"), terms.includes("norm"), terms.includes("steps"), terms.includes("push")];
"""


def test_an_item_is_told_what_its_own_kernel_has(evaluate):
    assert evaluate(KERNELS) == [False, False, True, True]
