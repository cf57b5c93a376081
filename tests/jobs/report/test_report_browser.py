"""The page in a real Chromium: no error, no request, no overflow; tables sort and filter, plots zoom."""

import json
import sys

import pytest
from hostile import Hostile
from page_stores import CHROMIUM, HOSTILE, JOBS, browser, finished, until

from ctd.plots import Axis, Plot, Points, Scale
from jobs import keys
from jobs.query.query import query, table
from jobs.report.page import Content, render
from jobs.report.page.encode import plot_json
from jobs.report.page.pictures import write_pictures
from jobs.storage import objects
from jobs.storage.checksums import seal
from jobs.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]

# The figures of the page, by the beginning of their titles.
FIGURE = "(title) => [...FIGURES].find((f) => f.plot.title.startsWith(title))"


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """name -> (store, the address of its page)."""
    found = {}
    for name in JOBS:
        store = finished(name)
        path = tmp_path_factory.mktemp(name) / "page.html"
        path.write_text(render(Content(store).all()), encoding="utf-8")
        found[name] = store, path.as_uri()
    return found


@pytest.fixture
def visit(chromium, pages):
    """Open the page of a store; whatever it complains of or asks for must be nothing at the end."""
    opened = []

    def open_page(name, width=1280, **options):
        page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
        trouble = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        address = pages[name][1]
        page.on("request", lambda r: None if r.url == address else trouble.append(r.url))
        page.goto(address)
        until(page, "FIGURES.size > 0 && [...FIGURES].every((f) => f.box)")
        opened.append((page, trouble))
        return page

    yield open_page
    for page, trouble in opened:
        page.close()
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


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", list(JOBS))
def test_page_shows_everything_without_overflow(visit, name, width):
    page = visit(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for section in ("Overview", "Pictures", "Sweep", "Tables", "Run", "Job"):
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


def test_a_strangers_store_is_only_text_and_pictures(chromium, tmp_path, monkeypatch):
    """Whatever a store says of its kernel, and the pictures that it keeps, is the stranger's."""
    monkeypatch.delitem(sys.modules, "payload", raising=False)
    evil = Hostile(tmp_path / "evil.zarr")
    store = Store.open(str(evil.path))
    said = store.description.to_json()
    said["dims"]["norm"]["long_name"] = said["fields"]["rate"] = HOSTILE
    said["outcomes"] = [{"name": HOSTILE, "reason": HOSTILE, "failed": True}] * 2
    objects.write(store.objects, keys.KERNEL, seal(said))
    points = Points([0, 1], [0, 1], HOSTILE, text=[HOSTILE] * 2)
    axis = Axis(HOSTILE, ticks=[HOSTILE, HOSTILE])
    plot = Plot(f"Kept {HOSTILE}", [points], axis, axis, Scale(HOSTILE), note=HOSTILE)
    write_pictures(store, 0, [plot_json(plot)])
    path = tmp_path / "page.html"
    path.write_text(render(Content(Store.open(store.address)).all()), encoding="utf-8")
    page = chromium.new_page()
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(path.as_uri())
    until(page, "FIGURES.size > 0 && [...FIGURES].every((f) => f.box)")
    assert page.get_by_role("heading", name=f"Kept {HOSTILE}", exact=True).is_visible()
    canvas(page, f"Kept {HOSTILE}").hover()
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    page.close()
    assert (trouble, evil.ran) == ([], False)


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


def test_table_filters_like_query(visit, pages):
    page = visit("toy")
    page.get_by_role("tab", name="items").click()
    box, status = page.get_by_role("searchbox"), page.locator("#tables .pager [role=status]")
    expected = query(pages["toy"][0], where="norm > 1 and n == 3 and status == 'done'")
    box.fill("norm > 1 and n == 3 and status == done")
    assert f"of {len(expected)} that match, of 44" in status.inner_text()
    page.locator("#tables th", has_text="item").get_by_role("button").click()
    assert [int(t) for t in cells(page, "item")] == list(expected.item)[:25]
    box.fill("FAILED")
    assert "1 that match" in status.inner_text()
    box.fill("nrm > 1")
    assert status.inner_text() == "there is no column nrm"
    box.fill("norm > x")
    assert status.inner_text() == "norm is a number; x is not"
    box.fill("norm > 1e9")
    assert status.inner_text() == "no row matches"
    box.fill("")
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
    page.mouse.wheel(0, -300)
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
    assert shown() == 3
    page.get_by_role("button", name="next group").click()
    assert shown() == 5
    page.locator("#sweep .figure").get_by_label("x", exact=True).select_option("rate")
    assert page.get_by_role("heading", name="norm against rate").is_visible()
    page.locator("#sweep .figure").get_by_label("colour", exact=True).select_option("push")
    layers = page.evaluate(f"({FIGURE})('norm against').layers.map((l) => l.name)")
    assert layers == ["[0, 0]", "[1, -1]"]
    rows = page.locator("#sweep table tbody tr")
    effects = json.loads(page.locator("#content").text_content())["content"]["sweep"]["effects"]
    assert rows.count() == len([e for e in effects if e["result"] == "norm"]) > 0


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
    page = visit("esn", color_scheme="dark")
    dark = page.evaluate("[getComputedStyle(document.body).backgroundColor, THEME.ink]")
    image = page.evaluate("[...FIGURES][0].base.toDataURL()")
    page.emulate_media(color_scheme="light")
    until(page, "(old) => [...FIGURES][0].base.toDataURL() !== old", image)
    light = page.evaluate("[getComputedStyle(document.body).backgroundColor, THEME.ink]")
    assert dark[0] != light[0]
    assert dark[1] != light[1]
