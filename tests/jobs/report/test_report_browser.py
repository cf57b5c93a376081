"""The page in a real Chromium: no error, no request, no overflow; tables sort and filter, plots zoom."""

import io
import json
import sys
from pathlib import Path

import axe_playwright_python
import numpy as np
import pandas as pd
import pytest
from page_stores import CHROMIUM, HOSTILE, JOBS, browser, finished, until
from search_jobs import HALVING, RATE
from stores import FOUR_SLOTS, SMALL_RNN, Hostile, run

from ctd.plots import Axis, Plot, Points, Scale
from jobs import keys
from jobs.query.collection import StoreCollection
from jobs.query.query import query, table
from jobs.report import sweep
from jobs.report.page import Content, render, several
from jobs.report.page.encode import plot_json
from jobs.report.page.pictures import write_pictures
from jobs.storage import objects
from jobs.storage.checksums import checksummed
from jobs.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")

# The figures of the page, by the beginning of their titles.
FIGURE = "(title) => [...FIGURES].find((f) => f.plot.title.startsWith(title))"


AXIS_OF = """(ticks) => {
    const axis = { label: "cell", log: false, ticks: [] }, c = el("canvas").getContext("2d"), texts = [];
    c.fillText = (...text) => texts.push(text);
    const layers = [{ kind: "points", name: "", x: ticks.map((_, k) => k), y: ticks.map((_, k) => k) }];
    const figure = new Figure({ title: "", note: "", layers, x: { ...axis, ticks }, y: { ...axis, label: "" }, scale: {} });
    figure.paint(c, 260, 200);
    figure.remove();
    return texts;
}"""
# The texts of marks over these categories, [text, x, y].


LOG_BAR = """() => {
    const axis = { label: "", log: false, ticks: [] }, scale = { label: "alpha", log: true };
    const layers = [{ kind: "points", name: "", x: [0, 1], y: [0, 1], colour: [-1, 1] }];
    const figure = new Figure({ title: "", note: "", layers, x: axis, y: axis, scale });
    figure.remove();
    return [...figure.legend.querySelector(".scale").childNodes].map((node) => node.textContent);
}"""
# The texts of a logarithmic colour bar.


EQUAL_BAR = """() => {
    const axis = { label: "", log: false, ticks: [] }, layers = [{ kind: "points", name: "", x: [0, 1], y: [0, 1], colour: [null, 6.25] }];
    const figure = new Figure({ title: "", note: "", layers, x: axis, y: axis, scale: { label: "rate" } });
    figure.remove();
    return [figure.legend.textContent, figure.colour(null) === THEME.muted, figure.colour(6.25) === shade(0.5, false)];
}"""
# The text of a colour bar of one value; whether marks without it are grey, others in its colour.


INFINITE_NORMS = """() => {
    const table = sweptItems(), norm = columnOf(table, "norm"), fine = isOther(table, "failed");
    const some = new Set(norm.values.map((_, row) => row).filter(fine).slice(0, 2));
    const values = norm.values.map((v, row) => (some.has(row) ? "inf" : v));
    const other = { ...table, columns: table.columns.map((c) => (c === norm ? { ...c, values } : c)) };
    return [scatter(other, "rate", "norm", "none"), map(other, "rate", "push", "norm")].map((plot) => plot.note.split("a square. ").at(-1));
}"""
# The notes of a scatter plot and a map in which the norms of two done items are infinite.


COLOURS_BESIDE_OTHERS = """() => {
    const node = el("div");
    STATE.parts.clear();
    STATE.content.stores = [];
    showScatters(node, STATE.content.sweep, sweptItems());
    return [...node.querySelectorAll("select[aria-label=colour]")].map((box) => box.value);
}"""
# By what the points are coloured where there are several stores.


FEWER_ITEMS = """() => {
    const { sweep } = STATE.content;
    sweep.effects.reduce((a, b) => (b.result !== "norm" || a.share > b.share ? a : b), { share: -1 }).n = 9;
    showImportance(el("div"), sweep);
}"""
# The parameter that explains most of the norm was measured over fewer items than others.


TONES = """() => {
    const { rows, value } = ITEMS, one = (ids) => grouped(ids, "g", 5).map((g) => [g.label, g.tone]);
    ITEMS.rows = new Map([0, 1, 2, 3].map((id) => [id, null]));
    ITEMS.value = (id, name) => (name === "kernel" ? ["a", "a", "b", "b"] : [1, 3, 2, 2])[id];
    const found = [one([0, 1]), one([2, 3])];
    Object.assign(ITEMS, { rows, value });
    return found;
}"""
# The colours of items of two kernels, in one of which g does not vary.


WHOLE = """() => {
    const ticks = (values) => categories({ kind: "number", values }).ticks, some = Array.from({ length: 30 }, (_, k) => 1000 + k);
    return [ends(10 ** Math.log10(512), 10 ** Math.log10(1024)), ticks([512, 1024, 0.1234]), ticks(some).slice(0, 2)];
}"""
# The ends of a logarithmic axis, the values of a parameter in a map, the first intervals of one that has many.


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """name -> (store, the address of its page), made when it is asked for."""

    class Pages(dict):
        def __missing__(self, name):
            store = finished(name)
            path = tmp_path_factory.mktemp(name) / "page.html"
            # Small stores have parallel coordinates, too.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sweep, "FEWEST_PARALLEL", 2)
                path.write_text(render(Content(store).all()), encoding="utf-8")
            self[name] = store, path.as_uri()
            return self[name]

    return Pages()


@pytest.fixture(scope="module")
def tab(chromium):
    """The tests' one tab, in which each loads its page anew: a process for each would take most of the time."""
    return chromium.new_page()


@pytest.fixture
def visit(tab, pages):
    """Open the page of a store, or in a file; whatever it complains of or asks for must be nothing at the end."""
    trouble, addresses = [], []
    heard = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
        "request": lambda r: None if r.url in addresses else trouble.append(r.url),
    }
    for event, listener in heard.items():
        tab.on(event, listener)

    def open_page(what, width=1280, scheme="light"):
        addresses.append(what.as_uri() if isinstance(what, Path) else pages[what][1])
        tab.mouse.move(0, 0)
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.goto(addresses[-1])
        until(tab, "FIGURES.size > 0 && [...FIGURES].every((f) => f.box)")
        return tab

    yield open_page
    for event, listener in heard.items():
        tab.remove_listener(event, listener)
    # A picture in the page itself is no request to anybody.
    assert [t for t in trouble if not t.startswith("data:")] == []


def view(page, title):
    return page.evaluate(f"(title) => ({FIGURE})(title).seen", title)


def canvas(page, title):
    figure = page.locator(".figure", has=page.get_by_role("heading", name=title, exact=True))
    figure.scroll_into_view_if_needed()
    return figure.locator("canvas.over")


def centre(canvas):
    box = canvas.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("toy", 390, "dark"),
        ("train_rnn", 390, "dark"),
        ("fixed_points", 1280, "light"),
        ("esn", 1920, "light"),
        *(
            pytest.param(*case, marks=pytest.mark.endurance)
            for case in (
                ("esn", 390, "dark"),
                ("fixed_points", 390, "dark"),
                ("toy", 1280, "light"),
            )
        ),
    ],
)
def test_page_shows_everything_without_overflow(visit, name, width, scheme):
    page = visit(name, width, scheme)
    # What axe-core knows of accessibility: names, contrast, reach by keyboard.
    page.evaluate(AXE)
    faults = page.evaluate("axe.run().then((found) => found.violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))")  # fmt: skip
    assert faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Candidates of fixed points only number the items: nothing was swept that a result could depend on.
    swept = ["Sweep"] * (name != "fixed_points")
    for section in ("Answer", "Pictures", *swept, "Tables", "Run", "Job"):
        assert page.get_by_role("heading", name=section, exact=True).is_visible(), section
    # Every plot has something drawn in it: other colours than those of axes and background.
    colours = page.evaluate(
        """() => [...FIGURES].filter((f) => f.node.isConnected).map((f) => {
            const c = f.base.getContext("2d"), d = window.devicePixelRatio, { l, t, r, b } = f.box;
            const data = c.getImageData((l + 2) * d, (t + 2) * d, (r - l - 4) * d, (b - t - 4) * d).data;
            const seen = new Set();
            for (let k = 0; k < data.length; k += 4) if (data[k + 3] > 200) seen.add(data.slice(k, k + 3).join());
            return [f.plot.title, seen.size];
        })"""
    )
    assert len(colours) >= 3
    assert all(n >= 2 for _, n in colours), colours


def test_hostile_names_and_traces_are_only_text(visit):
    page = visit("toy")
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == JOBS["toy"]["name"]
    page.locator("#failures summary").first.click()
    assert "<script>hacked()</script>" in page.locator("#failures pre").first.inner_text()


def test_a_shard_that_a_run_tries_again_is_not_given_up(visit):
    page, failure = visit("toy"), {"what": "shard", "ids": [2], "n_ids": 1, "open": True, "error": "the worker died"}  # fmt: skip
    tags = []
    for mood in ("running", "warning"):
        content = {"failures": [failure], "learned": [], "status": {"mood": mood}}
        page.evaluate("showFailures", content)
        tags.append(page.locator("#failures .tag").text_content())
    assert tags == ["not computed yet", "not computed"]


def test_a_strangers_store_is_only_text_and_pictures(visit, tmp_path, monkeypatch):
    """Whatever a store says of its kernel, and the pictures that it keeps, is the stranger's."""
    monkeypatch.delitem(sys.modules, "payload", raising=False)
    evil = Hostile(tmp_path / "evil.zarr")
    store = Store.open(str(evil.path))
    said = store.description.to_json()
    said["dims"]["norm"]["long_name"] = said["fields"]["rate"] = HOSTILE
    said["outcomes"] = [{"name": HOSTILE, "reason": HOSTILE, "failed": True}] * 2
    objects.write(store.objects, keys.KERNEL, checksummed(said))
    points = Points([0, 1], [0, 1], HOSTILE, text=[HOSTILE] * 2)
    axis = Axis(HOSTILE, ticks=[HOSTILE, HOSTILE])
    plot = Plot(f"Kept {HOSTILE}", [points], axis, axis, Scale(HOSTILE), note=HOSTILE)
    write_pictures(store, 0, [plot_json(plot)])
    path = tmp_path / "page.html"
    path.write_text(render(Content(Store.open(store.address)).all()), encoding="utf-8")
    page = visit(path)
    assert page.get_by_role("heading", name=f"Kept {HOSTILE}", exact=True).is_visible()
    canvas(page, f"Kept {HOSTILE}").hover()
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    assert not evil.ran


def cells(page, column):
    heads = page.locator("#tables th").all_inner_texts()
    return page.locator(f"#tables tbody td:nth-child({heads.index(column) + 1})").all_inner_texts()


def test_table_sorts_like_query(visit, pages):
    page = visit("toy")
    page.get_by_role("tab", name="items").click()
    head = page.locator("#tables th", has_text="rate").get_by_role("button")
    frame = table(pages["toy"][0], "items")
    shown = lambda: [float(t.replace("−", "-")) for t in cells(page, "rate")]
    head.click()
    assert page.locator("#tables th", has_text="rate").get_attribute("aria-sort") == "ascending"
    assert shown() == pytest.approx(list(frame.rate.sort_values()[:25]), abs=1e-5)
    page.keyboard.press("Enter")  # the header keeps the focus
    assert page.locator("#tables th", has_text="rate").get_attribute("aria-sort") == "descending"
    assert shown() == pytest.approx(list(frame.rate.sort_values(ascending=False)[:25]), abs=1e-5)
    page.get_by_role("button", name="next", exact=True).click()
    assert len(cells(page, "rate")) == 44 - 25
    # The item that failed has no norm: it comes last, whichever way.
    for _ in range(2):
        page.locator("#tables th", has_text="norm").get_by_role("button").click()
        page.get_by_role("button", name="next", exact=True).click()
        assert cells(page, "norm")[-1] == "–"


def test_table_says_once_what_all_rows_have_but_for_the_kernels_summary(visit):
    page = visit("toy", 1280, "light")
    found = page.evaluate("""() => {
      const column = (name, values, stays) => ({ name, title: "", kind: "number", values, stays });
      const table = new Table("t");
      table.update({ columns: [column("a", [1, 1], false), column("b", [1, 1], true), column("c", [1, 2], false)], note: "" });
      return [table.shown.map((c) => c.name), table.note.textContent];
    }""")
    assert found == [["b", "c"], "In all rows: a = 1."]


def test_table_filters(visit, pages):
    page = visit("toy")
    page.get_by_role("tab", name="items").click()
    by = lambda name: page.get_by_role("searchbox", name=f"filter {name}", exact=True)
    status = page.locator("#tables .pager [role=status]")
    expected = query(pages["toy"][0], where="n == 3 and status == 'done'")
    by("n").fill("3")
    by("status").fill("DONE")
    assert f"of {len(expected)} that match, of 44" in status.inner_text()
    page.locator("#tables th", has_text="item").get_by_role("button").click()
    assert [int(t) for t in cells(page, "item")] == list(expected.item)[:25]
    by("n").fill("no such number")
    assert status.inner_text() == "no row matches"
    for name in ("n", "status"):
        by(name).fill("")
    assert "of 44" in status.inner_text()


def test_plot_zooms_by_wheel_drag_and_keys_and_comes_back(visit):
    page = visit("fixed_points")
    title = "State space, components 1 and 2"
    plot, home = canvas(page, title), view(page, title)
    width = lambda: view(page, title)[1] - view(page, title)[0]
    full = width()
    x, y = centre(plot)
    page.mouse.move(x, y)
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(200)
    assert view(page, title) == home  # without the focus, the wheel scrolls the page
    assert page.evaluate("scrollY") != before
    plot.scroll_into_view_if_needed()
    x, y = centre(plot)
    page.mouse.click(x, y)
    at = page.evaluate(f"([t, x, y]) => {{ const f = ({FIGURE})(t), b = f.over.getBoundingClientRect(); return f.unX(x - b.left); }}", [title, x, y])  # fmt: skip
    page.mouse.wheel(0, -300)
    until(page, f"(t) => ({FIGURE})(t).moved", title)
    assert width() == pytest.approx(full / 1.0016**300, rel=1e-6)
    # What is under the pointer stays there.
    assert page.evaluate(f"([t, x]) => {{ const f = ({FIGURE})(t), b = f.over.getBoundingClientRect(); return f.unX(x - b.left); }}", [title, x]) == pytest.approx(at, abs=1e-9 * full)  # fmt: skip
    page.mouse.dblclick(x, y)
    assert view(page, title) == pytest.approx(home)
    box = plot.bounding_box()
    left, top = box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"]
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 60, top + 50)
    page.mouse.up()
    inner = page.evaluate(f"(t) => {{ const b = ({FIGURE})(t).box; return b.r - b.l; }}", title)
    assert width() == pytest.approx(full * 60 / inner, rel=0.03)  # whole pixels
    page.keyboard.down("Shift")
    held = view(page, title)
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 30, top)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert width() == pytest.approx(full * 60 / inner, rel=0.03)
    assert view(page, title)[0] < held[0]  # panned: what was left came in
    page.keyboard.press("0")
    assert view(page, title) == pytest.approx(home)
    page.keyboard.press("+")
    assert width() == pytest.approx(0.8 * full)
    page.keyboard.press("ArrowRight")
    assert view(page, title)[0] > home[0]
    page.locator(".figure", has=page.get_by_role("heading", name=title)).get_by_title("show everything").click()  # fmt: skip
    assert view(page, title) == pytest.approx(home)


def test_hover_tells_values_and_lights_up_the_same_point_elsewhere(visit, pages):
    page = visit("fixed_points")
    title = "State space, components 1 and 2"
    plot = canvas(page, title)
    place = page.evaluate(
        f"""(t) => {{ const f = ({FIGURE})(t), l = f.layers.find((l) => l.key), b = f.over.getBoundingClientRect();
            return [b.left + f.px(l.X[0]), b.top + f.py(l.Y[0]), l.key[0]]; }}""",
        title,
    )
    page.mouse.move(*place[:2])
    tip = plot.locator("xpath=../div")
    until(page, "[...document.querySelectorAll('.tip')].some((t) => t.style.visibility === 'visible')")  # fmt: skip
    assert tip.inner_text().startswith(f"point {place[2]}: ")
    assert page.evaluate(f"({FIGURE})('Spectra').lit") == place[2]
    # By keyboard too: to the next mark, and on.
    plot.focus()
    first = tip.inner_text()
    page.keyboard.press("n")
    page.keyboard.press("n")
    assert tip.inner_text() != first or page.evaluate(f"({FIGURE})('State').layers.filter((l) => l.key).length") == 1  # fmt: skip


def test_legend_hides_a_layer(visit):
    page = visit("fixed_points")
    figure = page.locator(".figure", has=page.get_by_role("heading", name="Spectra"))
    before = figure.locator(".draw canvas").first.evaluate("(c) => c.toDataURL()")
    button = figure.get_by_role("button", name="unit circle")
    button.click()
    assert figure.get_by_role("button", name="unit circle").get_attribute("aria-pressed") == "false"
    assert figure.locator(".draw canvas").first.evaluate("(c) => c.toDataURL()") != before
    figure.get_by_role("button", name="unit circle").click()
    assert figure.locator(".draw canvas").first.evaluate("(c) => c.toDataURL()") == before


def test_groups_scatter_and_importance_follow_their_choices(visit):
    page = visit("toy")
    shown = lambda: page.evaluate(f"({FIGURE})('x').layers[0].y[0].length")
    page.locator(".figure").filter(has_text="x").get_by_label("colour by").first.select_option("n")
    names = page.evaluate(f"({FIGURE})('x').layers.map((l) => l.name)")
    assert {"n = 3", "n = 5"} <= set(names)  # the curves of both groups
    for lengths in (3, 5):
        page.get_by_role("button", name="next group").click()
        assert shown() == lengths
    scatter = page.locator("#sweep .figure", has=page.get_by_role("heading", name="norm against"))
    scatter.get_by_label("x", exact=True).select_option("rate")
    assert page.get_by_role("heading", name="norm against rate").is_visible()
    scatter.get_by_label("colour", exact=True).select_option("push")
    layers = page.evaluate(f"({FIGURE})('norm against').layers.map((l) => l.name)")
    assert layers == ["push = [0, 0]", "push = [1, -1]"]
    assert page.evaluate(f"({FIGURE})('norm against').plot.note") == "1 failed item left out."
    scatter.get_by_label("colour", exact=True).select_option("n")
    tones = "(title) => [...FIGURES].find((f) => f.plot.title.startsWith(title)).layers.map((l) => [l.name, l.tone])"
    assert page.evaluate(tones, "norm against") == [["n = 3", 0], ["n = 5", 1]]
    told = "1 failed item and 2 without a finite value left out."
    assert page.evaluate(INFINITE_NORMS) == [told, told]
    rows = page.locator("#sweep table tbody tr")
    effects = json.loads(page.locator("#content").text_content())["content"]["sweep"]["effects"]
    assert rows.count() == len([e for e in effects if e["result"] == "norm" and e["share"]]) > 0
    assert "No share above chance: n." in page.locator("#sweep").inner_text()
    assert "over 43 items with a finite result" in page.locator("#sweep").inner_text()
    page.evaluate(FEWER_ITEMS)
    assert "(over 9 items)" in rows.first.inner_text()
    assert "over as many items as its row says" in page.locator("#sweep").inner_text()


def test_parallel_coordinates_keep_a_range(visit):
    page = visit("esn")
    plot = page.locator("#sweep canvas[aria-label^=parallel]")
    plot.scroll_into_view_if_needed()
    plot.focus()
    for _ in range(4):
        page.keyboard.press("-")
    assert "of 12 items kept" in page.locator("#sweep").inner_text()
    page.keyboard.press("0")
    assert "items kept" not in page.locator("#sweep").inner_text()
    assert page.evaluate("[...ends(1209.2, 1213.8), ...ends(0.1, 2)]") == [
        "1,209",
        "1,214",
        "0.1",
        "2",
    ]
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 46, box["y"] + box["height"] - 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 46, box["y"] + box["height"] - 80)
    page.mouse.up()
    assert "4 of 12 items kept" in page.locator("#sweep").inner_text()  # g = 0.5 alone


def test_parallel_coordinates_leave_out_items_that_failed(visit):
    page = visit("toy")
    page.locator("#sweep canvas[aria-label^=parallel]").focus()
    page.keyboard.press("-")
    note = page.locator("#sweep .note", has_text="Drag along an axis").inner_text()
    assert note.endswith("of 43 items kept. 1 failed item left out.")


def test_page_follows_the_colour_scheme(visit):
    page = visit("esn", scheme="dark")
    dark = page.evaluate("[getComputedStyle(document.body).backgroundColor, THEME.ink]")
    image = page.evaluate("[...FIGURES][0].base.toDataURL()")
    page.emulate_media(color_scheme="light")
    until(page, "(old) => [...FIGURES][0].base.toDataURL() !== old", image)
    light = page.evaluate("[getComputedStyle(document.body).backgroundColor, THEME.ink]")
    assert dark[0] != light[0]
    assert dark[1] != light[1]


def shown_items(page, title):
    return page.evaluate(
        f"(t) => [...new Set(({FIGURE})(t).layers.flatMap((l) => l.item || []))].sort((a, b) => a - b)", title
    )  # fmt: skip


def test_a_range_in_parallel_coordinates_filters_curves_table_and_map(visit, pages):
    page = visit("train_rnn")
    frame = table(pages["train_rnn"][0], "items")
    assert shown_items(page, "Training") == list(range(10))
    plot = page.locator("#sweep canvas[aria-label^=parallel]")
    plot.focus()
    for _ in range(10):  # the first axis is the learning rate, on a logarithmic scale
        page.keyboard.press("-")
    until(page, "ITEMS.kept !== null && document.querySelector('.kept button')")
    rate = np.log(frame.learning_rate)
    place = (rate - rate.min()) / (rate.max() - rate.min())
    kept = sorted(frame.item[(place >= 0.25) & (place <= 0.75)])
    assert 0 < len(kept) < 10
    until(
        page, "(kept) => document.querySelectorAll('#tables tbody tr').length === kept", len(kept)
    )
    assert sorted(int(t) for t in cells(page, "item")) == kept
    for title in ("Training", "Evaluation against"):
        assert shown_items(page, title) == kept
    page.get_by_role("button", name="show all items").click()
    until(page, "document.querySelectorAll('#tables tbody tr').length === 10")
    assert shown_items(page, "Training") == list(range(10))


def test_curves_are_coloured_by_what_was_swept_and_smoothed(visit, pages):
    page = visit("train_rnn")
    figure = page.locator(".figure", has=page.get_by_role("heading", name="Training vanilla"))
    assert (
        figure.get_by_label("colour by").input_value() == "learning_rate"
    )  # 10 values: a layer each
    layers = page.evaluate(f"({FIGURE})('Training').layers.filter((l) => l.item).map((l) => [l.item[0], l.tone, l.text[0]])")  # fmt: skip
    frame = table(pages["train_rnn"][0], "items").set_index("item")
    order = [item for item, _, _ in sorted(layers, key=lambda layer: layer[1])]
    assert order == list(frame.learning_rate.sort_values().index)
    assert all("learning_rate: " in text for _, _, text in layers)
    groups = "(n) => grouped([...ITEMS.rows.keys()].slice(0, n), 'learning_rate', 5).map((g) => [g.label, g.tone])"
    few, every = page.evaluate(groups, 3), page.evaluate(groups, 10)
    assert len(few) == 3
    assert all(pair in every for pair in few), "a value has one colour on the page"
    of_kernels = [[["g = 1", 0], ["g = 3", 1]], [["g = 2", 0.5]]]
    assert page.evaluate(TONES) == of_kernels, "what does not vary in a kernel takes no colour"
    curve = np.asarray(pages["train_rnn"][0].array(0, "curve")[order[0]], float)
    figure.get_by_label("smooth").fill("0.5")
    smooth = page.evaluate(f"(item) => ({FIGURE})('Training').layers.find((l) => l.item && l.item[0] === item).y[0]", order[0])  # fmt: skip
    weights = [0.5 ** np.arange(k, -1, -1) for k in range(len(curve))]
    expected = [np.exp(np.average(np.log(curve[: len(w)]), weights=w)) for w in weights]
    assert smooth == pytest.approx(list(expected), rel=1e-3)


def test_map_over_two_parameters_has_the_medians(visit, pages):
    page = visit("esn")
    frame = table(pages["esn"][0], "items")
    value = page.evaluate("GIVEN.content.sweep.results[0]")
    assert value == "replay_nrmse"  # the kernel's own metric
    titles = page.evaluate("[...FIGURES].map((f) => f.plot.title)")
    assert {f"{value} against g", f"{value} against alpha"} <= set(titles)
    assert not {"g against alpha", "alpha against g"} & set(titles)  # the map shows a grid
    figure = page.locator(".figure", has=page.get_by_role("heading", name=f"{value} over"))
    figure.get_by_label("x", exact=True).select_option("g")
    figure.get_by_label("y", exact=True).select_option("alpha")
    plot = page.evaluate(f"(t) => ({FIGURE})(t).plot", f"{value} over g and alpha")
    medians = frame[np.isfinite(frame[value])].pivot_table(value, "alpha", "g", "median").to_numpy()
    if plot["scale"]["log"]:
        medians = np.log10(medians)
    assert np.array(plot["layers"][0]["z"], float) == pytest.approx(medians, rel=1e-4)
    assert plot["x"]["ticks"] == ["0.5", "1.5", "2.5"]
    # A logarithmic colour bar tells the values themselves.
    assert page.evaluate(LOG_BAR) == ["0.1", "", "10 alpha (log)"]
    assert page.evaluate(EQUAL_BAR) == ["6.25 rate", True, True]
    # Whole numbers have all of their digits.
    whole = [["512", "1,024"], ["0.123", "512", "1,024"], ["1,000–1,003", "1,003–1,006"]]
    assert page.evaluate(WHOLE) == whole


def test_a_search_has_slices_and_two_parameters_in_colours_of_the_metric(visit, tmp_path):
    """Draws, each with a value of its own; the grid of `esn` has a map alone."""
    draws = {"random": {"rate": RATE, "noise": {"uniform": [0.0, 0.2]}}, "samples": 9}
    params = {"dtype": "float64", "steps": 60}
    store, _ = run(tmp_path / "h.zarr", HALVING | {"sweep": draws, "params": params})
    path = tmp_path / "page.html"
    path.write_text(render(Content(store).all()), encoding="utf-8")
    page = visit(path)
    frame = table(store, "items")
    x, y = page.evaluate("GIVEN.content.sweep.parameters")
    assert {x, y} == {"rate", "noise"}
    for title, names in {
        f"loss against {x}": (x, "loss", "item"),
        f"loss against {y}": (y, "loss", "item"),
        f"{y} against {x}": (x, y, "loss"),
    }.items():
        plot = page.evaluate(f"(t) => ({FIGURE})(t).plot", title)
        assert plot["scale"]["label"].split()[-1] == names[2]
        values = {name: frame[name].to_numpy(float) for name in names}
        if plot["scale"].get("log"):
            values[names[2]] = np.log10(values[names[2]])
        for name, key in zip(names, ("x", "y", "colour"), strict=True):
            found = np.array(plot["layers"][0][key], float)
            np.testing.assert_allclose(found, values[name], rtol=1e-4, err_msg=f"{title}: {key}")
    last = page.evaluate(f"(t) => ({FIGURE})(t).plot.layers.at(-1)", "Best loss so far")
    assert (last["name"], last["strong"]) == ("best so far", True)
    # Lines and the points on them share the entries of the legend.
    figure = page.locator(".figure", has=page.get_by_role("heading", name="Items at their rungs"))
    figure.locator("select").first.select_option("rate")
    entries = figure.locator(".legend button").all_inner_texts()
    assert len(entries) == len(set(entries)) > 1
    # Beside other stores an item's number says nothing.
    assert page.evaluate(COLOURS_BESIDE_OTHERS) == [y, x, "loss"]


def test_an_item_opens_by_its_link_with_all_that_is_known_of_it(visit, pages):
    page = visit("toy")
    failed = int(pages["toy"][0].rows(0, "item", 8, 9)[0])
    page.get_by_role("tab", name="items").click()
    page.get_by_label("filter item").fill(str(failed))
    page.locator("#tables tbody").get_by_role("link", name=str(failed), exact=True).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role(
        "heading", name=f"Item {failed}"
    ).wait_for()  # the page hears of its address later
    said = dialog.inner_text()
    for part in (
        "rate",
        "push",
        f"--item {failed}",
        f"-{failed}.h5",
        HOSTILE,
        " committed, ",
    ):
        assert part in said
    assert page.evaluate("location.hash") == f"#item={failed}"
    page.keyboard.press("Escape")
    until(page, "location.hash === ''")
    dialog.wait_for(state="hidden")
    page.evaluate("location.hash = '#item=3'")  # as a shared link does
    until(page, "document.querySelector('dialog').open")
    page.evaluate(AXE)
    assert (
        page.evaluate("axe.run('dialog').then((found) => found.violations.map((v) => v.id))") == []
    )


def test_plot_saved_as_png_and_csv(visit, pages):
    page = visit("train_rnn")
    figure = page.locator(".figure", has=page.get_by_role("heading", name="Training vanilla"))
    found = {}
    for kind in ("PNG", "CSV"):
        with page.expect_download() as waiting:
            figure.get_by_role("button", name=kind).click()
        found[kind] = Path(waiting.value.path()).read_bytes()
        assert waiting.value.suggested_filename.endswith(f".{kind.lower()}")
    # No spreadsheet runs a text.
    cells = """csv([["=1+1", -1.5, "a,'b"]])"""
    assert page.evaluate(cells) == "'=1+1,-1.5,\"a,'b\"\n"
    assert found["PNG"].startswith(b"\x89PNG")
    names = ["leaky as well", "a cell with a very long name", "another cell"]
    *_, first, middle, last, label = [text for text, *_ in page.evaluate(AXIS_OF, names)]
    assert (first[:3], middle[:3], last[:3], label) == ("lea", "a c", "ano", "cell"), (
        "those at the ends have theirs, too; what has no room between them stands below"
    )
    names = ["a" * 80, "b" * 80, "c" * 80]
    places = {text[:1]: x for text, x, _ in page.evaluate(AXIS_OF, names)}
    assert places["a"] < 130 < places.get("c", 260), "a long text stays at its own end"
    frame = pd.read_csv(io.BytesIO(found["CSV"]))
    curve = np.asarray(pages["train_rnn"][0].array(0, "curve")[4], float)
    assert frame[frame.item == 4].iloc[:, 3].to_numpy() == pytest.approx(curve, rel=1e-4)
    rows = page.evaluate(f"(title) => plotCsv(({FIGURE})(title).plot)", "Outputs of item")
    assert "\noutput: trial 1,," in rows, "a line without an item has its own name"


def test_several_stores_stand_on_one_page_with_what_differs(visit, pages, tmp_path):
    store = pages["train_rnn"][0]
    # Of another size, and with the programs of other tests.
    job = {**JOBS["train_rnn"], "params": SMALL_RNN, "run": FOUR_SLOTS}
    other, _ = run(tmp_path / "another.zarr", job)
    path = tmp_path / "two.html"
    collection, contents = (
        StoreCollection([store, other]),
        [Content(one).all() for one in (store, other)],
    )
    path.write_text(render(several(contents, collection)), encoding="utf-8")
    page = visit(path)
    assert page.locator(".tile b").first.inner_text() == "20"
    rows = page.locator("#stores tr").all_inner_texts()
    columns = list(zip(*(row.split("\t") for row in rows), strict=True))
    assert columns[0] == ("store", "train_rnn", "another")
    assert ("n", "6", "4") in columns
    titles = page.evaluate(
        "[...FIGURES].map((f) => f.plot.title).filter((t) => t.includes('loss over'))"
    )
    assert titles == ["eval_loss over store and learning_rate"], "each store has a cell of its own"
    title = "mean squared error against training step"
    assert page.get_by_role("heading", name="Training vanilla").count() == 0, (
        "no curve is of one n alone"
    )
    figure = page.locator(".figure", has=page.get_by_role("heading", name=title))
    assert figure.get_by_label("colour by").input_value() in collection.differing, (
        "not what both sweep"
    )
    for field, shown in (("n", {"n = 4", "n = 6"}), ("store", {"store = another", "store = train_rnn"})):  # fmt: skip
        figure.get_by_label("colour by").select_option(field)
        assert shown <= set(page.evaluate(f"({FIGURE})('{title}').layers.map((l) => l.name)"))
    for name, text in (("store", "another"), ("n", "4"), ("item", "4")):
        page.get_by_label(f"filter {name}", exact=True).fill(text)
    page.locator("#tables tbody a").click()
    dialog = page.get_by_role("dialog")
    assert "Item 4 of another" in dialog.inner_text()
    assert "another.zarr --item 4" in dialog.inner_text()


@pytest.mark.endurance  # what the page is sent: test_answer.py: test_stores_of_two_kernels_on_one_page_are_told_apart
def test_the_sweep_of_several_kernels_is_that_of_one(visit, pages, tmp_path):
    stores = [pages[name][0] for name in ("fixed_points", "toy")]
    path = tmp_path / "kernels.html"
    content = several([Content(one).all() for one in stores], StoreCollection(stores))
    path.write_text(render(content), encoding="utf-8")
    page = visit(path)
    said = "Over the items of toy alone"
    assert said in page.locator("#sweep").inner_text()
    assert page.evaluate("[itemTable().ids.length, sweptItems().ids.length]") == [68, 44]
    offered = page.locator("#sweep").get_by_label("x", exact=True).first.inner_text()
    assert "rate" in offered.split()
    assert "candidate" not in offered.split()
    assert page.evaluate("sweptItems().columns.find((c) => c.name === 'store').labels") == ["toy"]
