"""The page's scripts, function by function, in a real Chromium: numbers, files that are saved, what stays when newer content comes."""

import pytest
from page_stores import CHROMIUM, browser, finished

from jobs.report.page import Content, render

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]

MADE = """
const axis = (label, more = {}) => ({ label, log: false, ticks: [], ...more });
const plot = (layers, x = axis("x"), more = {}) => ({ title: "t", note: "", layers, x, y: axis("y"), scale: { label: "" }, ...more });
const line = (name, more = {}) => ({ kind: "lines", name, x: [0, 1], y: [[0, 1]], ...more });
const column = (name, values, more = {}) => ({ name, title: "", kind: "number", values, ...more });
const content = STATE.content, node = (selector) => document.querySelector(selector);
"""
"""What the expressions below are written with."""


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """Evaluate JavaScript on the page of the toy store, which is loaded anew each time."""
    path = tmp_path_factory.mktemp("toy") / "page.html"
    path.write_text(render(Content(finished("toy")).all()), encoding="utf-8")
    with browser() as chromium:
        page = chromium.new_page()

        def evaluated(script):
            page.goto(path.as_uri())
            return page.evaluate(f"() => {{ {MADE} {script} }}")

        yield evaluated


LEGEND = """
const figure = new Figure(plot([line("a"), line("b")])), pressed = () => [...figure.legend.children].map((b) => [b.textContent, b.ariaPressed]);
document.body.append(figure.node);
figure.legend.children[1].click();
figure.update(plot([line("a"), line("c"), line("b")]));
return pressed();
"""
VIEW = """
const figure = new Figure(plot([line("a")], axis("time (s)"))), seen = [];
for (const x of [axis("time (s)", { at: [1] }), axis("time (min)"), axis("time (min)", { log: true }), axis("host", { ticks: ["a", "b"] }), axis("host", { ticks: ["a", "b", "c"] }), axis("host", { ticks: ["c", "a"] })]) {
  figure.update(plot([line("a")], x));
  seen.push(figure.view[0] === 0.2);
  figure.view = [0.2, 0.4, 0, 1];
  figure.moved = true;
}
return seen;
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        # What the reader has hidden stays hidden, wherever newer content puts it.
        (LEGEND, [["a", "true"], ["c", "true"], ["b", "false"]]),
        # The reader's view stays while the axis is the same, also with further categories.
        (VIEW, [False, False, False, False, True, False]),
        # A line without a point.
        (
            "return new Figure(plot([line('', { x: [], y: [[]] })])).home",
            [-0.03, 1.03, -0.06, 1.06],
        ),
    ],
    ids=["legend", "view", "empty line"],
)
def test_figure(evaluate, script, expected):
    assert evaluate(script) == expected
