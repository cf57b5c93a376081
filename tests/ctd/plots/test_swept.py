"""ctd.plots.swept: lines of items, coloured by a swept parameter, with the medians of each value."""

import numpy as np
import pytest

from ctd.plots import Band, Lines, Plot
from ctd.plots.png import draw
from ctd.plots.swept import by_swept

Y = np.arange(24.0).reshape(6, 4)
LINES = Lines(np.arange(4), Y, "networks", item=np.arange(10, 16), text=[f"item {k}" for k in range(10, 16)])  # fmt: skip
PLOT = Plot("curves", [Band([0, 1], [0, 0], [1, 1]), LINES, Lines([0, 1], [1, 2], "median", strong=True)])  # fmt: skip
RATES = dict(zip(range(10, 16), [0.01, 1.0] * 3, strict=True))


def test_few_values_have_medians_over_their_lines():
    made = by_swept(PLOT, "rate", RATES)
    medians = [layer for layer in made.layers if layer.strong]
    assert [layer.name for layer in medians] == ["rate = 0.01", "rate = 1"]
    for start, layer in enumerate(medians):
        assert np.array_equal(layer.y, np.median(Y[start::2], axis=0))
    assert sorted(layer.colour[0] for layer in medians) == [-2.0, 0.0]
    assert not any(isinstance(layer, Band) for layer in made.layers)
    assert made.note == "Thick: median over items."
    (ax,) = draw([made]).axes  # no colour bar: the legend tells the colours
    keys = [handle.get_color() for handle in ax.get_legend().legend_handles]
    assert [tuple(key) for key in keys] == [tuple(line.get_color()) for line in ax.lines[-2:]]
    assert len({tuple(key[:3]) for key in keys}) == 2


def test_many_values_colour_each_line_by_its_own():
    values = {k: float(k) for k in range(10, 16)}
    made = by_swept(PLOT, "gain", values)
    own = [layer for layer in made.layers if isinstance(layer, Lines) and layer.item is not None]
    assert [list(layer.colour) for layer in own] == [[v] for v in values.values()]
    assert not any(layer.faint for layer in own)
    assert len({layer.name for layer in own}) == 6
    assert any(isinstance(layer, Band) for layer in made.layers)


def test_more_values_than_a_legend_holds_are_told_by_the_colour_bar():
    lines = Lines(np.arange(2), np.zeros((11, 2)), item=np.arange(11))
    made = by_swept(Plot("curves", [lines]), "gain", {k: 10.0**k for k in range(11)})
    assert {layer.name for layer in made.layers} == {""}
    assert made.scale.label == "log10 gain"
    assert len(draw([made]).axes) == 2


@pytest.mark.parametrize(
    ("plot", "values"),
    [(Plot("none", [Lines([0, 1], [0, 1])]), RATES), (PLOT, dict.fromkeys(range(10, 16), 3))],
    ids=["no items", "one value"],
)
def test_nothing_to_group_by_leaves_the_plot_as_it_is(plot, values):
    assert by_swept(plot, "rate", values) is plot


def test_truths_are_named_as_such():
    made = by_swept(PLOT, "dale", {k: k > 12 for k in range(10, 16)})
    assert {layer.name for layer in made.layers if layer.name} == {"dale = False", "dale = True"}


def test_texts_have_a_colour_each():
    made = by_swept(PLOT, "cell", dict(zip(range(10, 16), "aabbaa", strict=True)))
    assert [layer.name for layer in made.layers if getattr(layer, "name", "").startswith("cell")]
    draw([made])
