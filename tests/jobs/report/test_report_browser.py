"""The page in a real Chromium: no error, no request, no overflow; tables sort and filter, plots zoom."""

import io
import json
import sys
from pathlib import Path

import axe_playwright_python
import numpy as np
import pandas as pd
import pytest
from page_stores import CHROMIUM, HOSTILE, JOBS, until
from search_jobs import HALVING, RATE
from stores import FOUR_SLOTS, SMALL_RNN, Hostile, run

from ctd.plots import Axis, Plot, Points, Scale
from jobs import keys
from jobs.query.collection import StoreCollection
from jobs.query.query import query, table
from jobs.report.page import Content, several
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


COLOURS_BESIDE_OTHERS = """() => {
    const node = el("div");
    STATE.parts.clear();
    STATE.content.stores = [];
    showScatters(node, STATE.content.sweep, sweptItems());
    return [...node.querySelectorAll("select[aria-label=colour]")].map((box) => box.value);
}"""
# By what the points are coloured where there are several stores.


def violations(page, part=""):
    """What axe-core knows of accessibility: names, contrast, reach by keyboard."""
    page.evaluate(AXE)
    each = "(v) => [v.id, v.nodes.map((n) => n.html)]"
    return page.evaluate(f"axe.run({part}).then((answer) => answer.violations.map({each}))")


def view(page, title):
    return page.evaluate(f"(title) => ({FIGURE})(title).seen", title)


def figure_of(page, title):
    return page.locator(".figure", has=page.get_by_role("heading", name=title))


def canvas(page, title):
    figure = page.locator(".figure", has=page.get_by_role("heading", name=title, exact=True))
    figure.scroll_into_view_if_needed()
    return figure.locator("canvas.over")


def centre(canvas):
    box = canvas.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


LATER = [("esn", 390, "dark"), ("fixed_points", 390, "dark"), ("toy", 1280, "light")]


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("toy", 390, "dark"), ("train_rnn", 390, "dark"), ("fixed_points", 1280, "light"), ("esn", 1920, "light"),
        *(pytest.param(*case, marks=pytest.mark.endurance) for case in LATER),
    ],
)  # fmt: skip
def test_page_shows_everything_without_overflow(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert violations(page) == []
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
    assert (page.evaluate("typeof hacked"), page.locator("img").count()) == ("undefined", 0)
    assert page.locator("h1").inner_text() == JOBS["toy"]["name"]
    page.locator("#failures summary").first.click()
    assert "<script>hacked()</script>" in page.locator("#failures pre").first.inner_text()


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
    page = visit(Content(Store.open(store.address)).all())
    assert page.get_by_role("heading", name=f"Kept {HOSTILE}", exact=True).is_visible()
    canvas(page, f"Kept {HOSTILE}").hover()
    assert (page.evaluate("typeof hacked"), page.locator("img").count()) == ("undefined", 0)
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
    order = lambda: page.locator("#tables th", has_text="rate").get_attribute("aria-sort")
    assert order() == "ascending"
    assert shown() == pytest.approx(list(frame.rate.sort_values()[:25]), abs=1e-5)
    page.keyboard.press("Enter")  # the header keeps the focus
    assert order() == "descending"
    assert shown() == pytest.approx(list(frame.rate.sort_values(ascending=False)[:25]), abs=1e-5)
    page.get_by_role("button", name="next", exact=True).click()
    assert len(cells(page, "rate")) == 44 - 25
    # The item that failed has no norm: it comes last, whichever way.
    for _ in range(2):
        page.locator("#tables th", has_text="norm").get_by_role("button").click()
        page.get_by_role("button", name="next", exact=True).click()
        assert cells(page, "norm")[-1] == "–"


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
    under = f"([t, x]) => {{ const f = ({FIGURE})(t); return f.unX(x - f.over.getBoundingClientRect().left); }}"
    at = page.evaluate(under, [title, x])
    page.mouse.wheel(0, -300)
    until(page, f"(t) => ({FIGURE})(t).moved", title)
    assert width() == pytest.approx(full / 1.0016**300, rel=1e-6)
    # What is under the pointer stays there.
    assert page.evaluate(under, [title, x]) == pytest.approx(at, abs=1e-9 * full)
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
    figure_of(page, title).get_by_title("show everything").click()  # fmt: skip
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
    figure = figure_of(page, "Spectra")
    button = figure.get_by_role("button", name="unit circle")
    image = lambda: figure.locator(".draw canvas").first.evaluate("(c) => c.toDataURL()")
    before = image()
    button.click()
    assert (button.get_attribute("aria-pressed"), image() == before) == ("false", False)
    button.click()
    assert image() == before


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
    rows = page.locator("#sweep table tbody tr")
    effects = json.loads(page.locator("#content").text_content())["content"]["sweep"]["effects"]
    assert rows.count() == len([e for e in effects if e["result"] == "norm" and e["share"]]) > 0
    assert "No share above chance: n." in page.locator("#sweep").inner_text()
    assert "over 43 items with a finite result" in page.locator("#sweep").inner_text()
    page.locator("#sweep canvas[aria-label^=parallel]").focus()
    page.keyboard.press("-")
    note = page.locator("#sweep .note", has_text="Drag along an axis").inner_text()
    assert note.endswith("of 43 items kept. 1 failed item left out.")


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
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 46, box["y"] + box["height"] - 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 46, box["y"] + box["height"] - 80)
    page.mouse.up()
    assert "4 of 12 items kept" in page.locator("#sweep").inner_text()  # g = 0.5 alone


def test_page_follows_the_colour_scheme(visit):
    page = visit("esn", scheme="dark")
    colours = "[getComputedStyle(document.body).backgroundColor, THEME.ink]"
    dark = page.evaluate(colours)
    image = page.evaluate("[...FIGURES][0].base.toDataURL()")
    page.emulate_media(color_scheme="light")
    until(page, "(old) => [...FIGURES][0].base.toDataURL() !== old", image)
    assert all(a != b for a, b in zip(dark, page.evaluate(colours), strict=True))


def shown_items(page, title):
    items = f"(t) => [...new Set(({FIGURE})(t).layers.flatMap((l) => l.item || []))]"
    return sorted(page.evaluate(items, title))


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
    until(page, "(n) => document.querySelectorAll('#tables tbody tr').length === n", len(kept))
    assert sorted(int(t) for t in cells(page, "item")) == kept
    for title in ("Training", "Evaluation against"):
        assert shown_items(page, title) == kept
    page.get_by_role("button", name="show all items").click()
    until(page, "document.querySelectorAll('#tables tbody tr').length === 10")
    assert shown_items(page, "Training") == list(range(10))


def test_curves_are_coloured_by_what_was_swept_and_smoothed(visit, pages):
    page = visit("train_rnn")
    figure = figure_of(page, "Training vanilla")
    # 10 values: a layer each.
    assert figure.get_by_label("colour by").input_value() == "learning_rate"
    layers = page.evaluate(f"({FIGURE})('Training').layers.filter((l) => l.item).map((l) => [l.item[0], l.tone, l.text[0]])")  # fmt: skip
    frame = table(pages["train_rnn"][0], "items").set_index("item")
    order = [item for item, _, _ in sorted(layers, key=lambda layer: layer[1])]
    assert order == list(frame.learning_rate.sort_values().index)
    assert all("learning_rate: " in text for _, _, text in layers)
    groups = "(n) => grouped([...ITEMS.rows.keys()].slice(0, n), 'learning_rate', 5).map((g) => [g.label, g.tone])"
    few, every = page.evaluate(groups, 3), page.evaluate(groups, 10)
    assert len(few) == 3
    assert all(pair in every for pair in few), "a value has one colour on the page"
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
    figure = figure_of(page, f"{value} over")
    figure.get_by_label("x", exact=True).select_option("g")
    figure.get_by_label("y", exact=True).select_option("alpha")
    plot = page.evaluate(f"(t) => ({FIGURE})(t).plot", f"{value} over g and alpha")
    medians = frame[np.isfinite(frame[value])].pivot_table(value, "alpha", "g", "median").to_numpy()
    if plot["scale"]["log"]:
        medians = np.log10(medians)
    assert np.array(plot["layers"][0]["z"], float) == pytest.approx(medians, rel=1e-4)
    assert plot["x"]["ticks"] == ["0.5", "1.5", "2.5"]


def test_a_search_has_slices_and_two_parameters_in_colours_of_the_metric(visit, tmp_path):
    """Draws, each with a value of its own; the grid of `esn` has a map alone."""
    draws = {"random": {"rate": RATE, "noise": {"uniform": [0.0, 0.2]}}, "samples": 9}
    params = {"dtype": "float64", "steps": 60}
    store, _ = run(tmp_path / "h.zarr", HALVING | {"sweep": draws, "params": params})
    page = visit(Content(store).all())
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
    figure = figure_of(page, "Items at their rungs")
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
    # The page hears of its address later.
    dialog.get_by_role("heading", name=f"Item {failed}").wait_for()
    for part in ("rate", "push", f"--item {failed}", f"-{failed}.h5", HOSTILE, " committed, "):
        assert part in dialog.inner_text()
    assert page.evaluate("location.hash") == f"#item={failed}"
    page.keyboard.press("Escape")
    until(page, "location.hash === ''")
    dialog.wait_for(state="hidden")
    page.evaluate("location.hash = '#item=3'")  # as a shared link does
    until(page, "document.querySelector('dialog').open")
    assert violations(page, "'dialog'") == []


def test_plot_saved_as_png_and_csv(visit, pages):
    page = visit("train_rnn")
    figure = figure_of(page, "Training vanilla")
    found = {}
    for kind in ("PNG", "CSV"):
        with page.expect_download() as waiting:
            figure.get_by_role("button", name=kind).click()
        found[kind] = Path(waiting.value.path()).read_bytes()
        assert waiting.value.suggested_filename.endswith(f".{kind.lower()}")
    assert found["PNG"].startswith(b"\x89PNG")
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
    collection = StoreCollection([store, other])
    page = visit(several([Content(store).all(), Content(other).all()], collection))
    assert page.locator(".tile b").first.inner_text() == "20"
    rows = [row.split("\t") for row in page.locator("#stores tr").all_inner_texts()]
    columns = list(zip(*rows, strict=True))
    assert columns[0] == ("store", "train_rnn", "another")
    assert ("n", "6", "4") in columns
    # Each store has a cell of its own; no curve is of one n alone; its colours are not what both sweep.
    titles = page.evaluate("[...FIGURES].map((f) => f.plot.title)")
    maps = [title for title in titles if "loss over" in title]
    assert maps == ["eval_loss over store and learning_rate"]
    title = "mean squared error against training step"
    assert page.get_by_role("heading", name="Training vanilla").count() == 0
    figure = figure_of(page, title)
    assert figure.get_by_label("colour by").input_value() in collection.differing
    for field, shown in (("n", {"n = 4", "n = 6"}), ("store", {"store = another", "store = train_rnn"})):  # fmt: skip
        figure.get_by_label("colour by").select_option(field)
        assert shown <= set(page.evaluate(f"({FIGURE})('{title}').layers.map((l) => l.name)"))
    for name, text in (("store", "another"), ("n", "4"), ("item", "4")):
        page.get_by_label(f"filter {name}", exact=True).fill(text)
    page.locator("#tables tbody a").click()
    for part in ("Item 4 of another", "another.zarr --item 4"):
        assert part in page.get_by_role("dialog").inner_text()


@pytest.mark.endurance  # what the page is sent: test_answer.py: test_stores_of_two_kernels_on_one_page_are_told_apart
def test_the_sweep_of_several_kernels_is_that_of_one(visit, pages):
    stores = [pages[name][0] for name in ("fixed_points", "toy")]
    page = visit(several([Content(one).all() for one in stores], StoreCollection(stores)))
    assert "Over the items of toy alone" in page.locator("#sweep").inner_text()
    assert page.evaluate("[itemTable().ids.length, sweptItems().ids.length]") == [68, 44]
    offered = page.locator("#sweep").get_by_label("x", exact=True).first.inner_text().split()
    assert ("rate" in offered, "candidate" in offered) == (True, False)
    assert page.evaluate("sweptItems().columns.find((c) => c.name === 'store').labels") == ["toy"]
