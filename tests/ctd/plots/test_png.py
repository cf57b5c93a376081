"""ctd.plots.png: what is drawn is what the plot says, read back from matplotlib's artists."""

import io
import itertools

import numpy as np
import pytest

from ctd.late import Late
from ctd.plots import Axis, Band, Bars, Image, Lines, Plot, Points, Scale, Spans
from ctd.plots.labels import MAX_TICKS
from ctd.plots.png import draw

colors, image = Late("matplotlib.colors"), Late("matplotlib.image")
X = np.arange(4.0)


def axes_of(*layers, **more):
    figure = draw([Plot("title", layers, **more)])
    figure.canvas.draw()
    return figure.axes


def test_axes_say_what_the_plot_says():
    made = draw(
        [
            Plot("left", [Lines(X, X + 1)], Axis("time (s)"), Axis("loss", log=True)),
            Plot("right", [Points(X, X)], note="what to look for"),
        ],
        "both",
    )
    made.canvas.draw()
    left, right = made.axes
    assert (left.get_title(), left.get_xlabel(), left.get_ylabel()) == ("left", "time (s)", "loss")
    assert (left.get_xscale(), left.get_yscale()) == ("linear", "log")
    assert made.get_suptitle() == "both"
    assert [text.get_text() for text in right.texts] == ["what to look for"]


def test_figure_in_a_notebook():
    """Notebooks show what `_repr_png_` returns."""
    figure = draw([Plot("title", [Lines(X, X)])])
    height, width, _ = image.imread(io.BytesIO(figure._repr_png_())).shape
    assert (width, height) == figure.canvas.get_width_height()


def test_equal_colours_are_told_as_one_value_and_others_are_grey():
    ax, bar = axes_of(Points(X, X, colour=[np.nan, 6.25, 6.25, np.nan]), scale=Scale("rate"))
    grey, value, _, last = ax.collections[0].get_facecolors()[:, :3].tolist()
    assert grey == last == [0.6] * 3 != value
    assert [label.get_text() for label in bar.get_yticklabels()] == ["6.25"]


def test_a_long_label_has_three_lines_and_an_ellipsis():
    """It was cut at both ends of the picture."""
    (ax,) = axes_of(Lines(X, X), x=Axis("word " * 20), y=Axis("share of time in each bin, " * 9))
    for axis, end in ((ax.xaxis, ax.figure.bbox.width), (ax.yaxis, ax.figure.bbox.height)):
        box = axis.label.get_window_extent()
        low, high = (box.x0, box.x1) if axis is ax.xaxis else (box.y0, box.y1)
        assert 0 <= low < high <= end
    assert ax.get_ylabel().startswith("share of time")
    assert ax.get_ylabel().endswith(" ...")


def test_layers_take_their_colours_in_turn_and_named_ones_stand_in_the_legend():
    (ax,) = axes_of(
        Lines(X, X, "first"),
        Lines(X, 2 * X, "strong", strong=True),
        Lines(X, 3 * X, "behind", faint=True),
        Lines(X, 4 * X, "dashed", dashed=True),
        Lines(X, np.stack([X, X + 1]), hue=0),
        Points(X, X, faint=True),
    )
    colours = [colors.to_hex(line.get_color()) for line in ax.lines]
    first, strong, faint, second, *again = colours
    assert strong == "#000000"
    assert again == [first, first]
    assert len({first, strong, faint, second}) == 4
    assert colors.to_hex(ax.collections[0].get_facecolor()[0, :3]) == faint
    assert ax.lines[3].get_linestyle() == "--"
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said == ["first", "strong", "behind", "dashed"]


def test_numbers_become_colours_of_the_scale():
    z = np.array([[0.0, np.nan], [0.5, 1.0]])
    ax, bar = axes_of(Image(z), scale=Scale("rate", low=0, high=2))
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array().filled(np.nan), z)
    assert image.get_clim() == (0, 2)
    assert bar.get_ylabel() == "rate"
    (ax,) = axes_of(Lines(X, np.stack([X, X]), colour=[0, 1]), Points(X, X, colour=X))
    ends = [colors.to_hex(line.get_color()) for line in ax.lines]
    assert ends[0] == colors.to_hex(
        ax.collections[0].get_facecolors()[0]
    )  # both are 0 on one scale
    assert ends[0] != ends[1]


def test_a_line_may_change_its_colour_and_has_gaps():
    y = np.array([[0, 1, np.nan, 3, 4.0]])
    (ax,) = axes_of(Lines(np.arange(5), y, "path", colour=y))
    (pieces,) = ax.collections
    drawn = np.array([segment[:, 0] for segment in pieces.get_segments()])
    np.testing.assert_array_equal(drawn, [[0, 1], [3, 4]])


def test_points_have_areas_and_markers():
    (ax,) = axes_of(
        Points(X, X, "sized", size=[0, 0.25, 0.5, 1]),
        Points(X, X, "hollow", marker="diamond", hollow=True),
    )
    sized, hollow = ax.collections
    radius = np.sqrt(sized.get_sizes())
    # The root of a quarter is a half: the second lies in the middle of the first and the last.
    np.testing.assert_allclose(radius[1], (radius[0] + radius[3]) / 2)
    np.testing.assert_array_equal(hollow.get_facecolors()[0, :3], 1)
    (ax,) = axes_of(Points([0, np.nan, 2, 3], [0, 1, np.nan, 3], colour=X, size=X / 3))
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[0, 0], [3, 3]])


def test_keys_of_marks_in_the_colours_of_a_scale_are_grey():
    """A key in the colour of one of the marks would say that all of its class have it."""
    z = np.linspace(-1, 1, len(X))
    layers = [
        Points(X, X, "full", colour=z),
        Points(X, X, "hollow", colour=z, hollow=True),
        Lines(X, X, "one"),
    ]
    ax, _ = axes_of(*layers, scale=Scale("readout"))
    full, hollow, one = ax.get_legend().legend_handles
    grey = lambda rgba: len({*np.ravel(rgba)[:3]}) == 1
    assert grey(full.get_facecolor())
    assert grey(full.get_edgecolor())
    assert colors.to_hex(hollow.get_facecolor()[0]) == "#ffffff"
    # A pale ring has dark edges; a disc has a rim of its own.
    assert [bool(marks.get_path_effects()) for marks in ax.collections] == [False, True]
    assert not grey(colors.to_rgba(one.get_color()))


def test_a_legend_tells_what_areas_stand_for():
    """Its marks are as large as points of these sizes, and none covers its neighbour."""
    points = Points(X, X, "sized", size=[0.1, 0.05, 0.2, 0])
    (ax,) = axes_of(points, areas="share")
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["sized", "share 0.2", "share 0.04"]
    large = legend.legend_handles[1].get_markersize()
    assert large**2 == pytest.approx(ax.collections[0].get_sizes().max(), rel=1e-12)
    (ax,) = axes_of(Points(X, X, "sized", size=[1, 0.05, 0.2, 0]), areas="share")
    assert ax.get_legend().legend_handles[1].get_markersize() == large
    (ax,) = axes_of(points)
    assert len(ax.get_legend().get_texts()) == 1


def test_bars_spans_and_bands_cover_what_they_say():
    (ax,) = axes_of(Bars(X, X + 0.5, X**2), Spans(X, X + 2, [0, 1, 2, 3]), Band(X, X, X + 1))
    bars, spans = ax.containers
    assert [(b.get_x(), b.get_width(), b.get_height()) for b in bars] == [(x, 0.5, x**2) for x in X]
    assert [(s.get_x(), s.get_width()) for s in spans] == [(x, 2) for x in X]
    low, high = ax.collections[0].get_datalim(ax.transData).get_points()[:, 1]
    assert (low, high) == (0, 4)


def test_a_narrow_logarithmic_axis_has_labels_on_either_side():
    (ax,) = axes_of(Lines(X, [0.95, 1.1, 1.3, 1.4]), y=Axis("loss", log=True))
    low, high = ax.get_ylim()
    shown = [at for at, text in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True) if text.get_text() and low <= at <= high]  # fmt: skip
    assert min(shown) <= 1 < 1.2 <= max(shown)


def test_a_logarithmic_axis_of_a_decade_or_two_has_plain_labels():
    (ax,) = axes_of(Lines(X, [0.2, 0.5, 0.7, 1.1]), y=Axis("loss", log=True))
    assert {"0.2", "0.5", "1"} <= {text.get_text() for text in ax.get_yticklabels()}


@pytest.mark.parametrize(
    ("at", "told"),
    [([8, 16, 32], ["8", "16", "32"]), ([1, 2, 3, 1000], ["1", "10", "100", "1000"])],
)
def test_numbers_that_an_axis_names_have_a_tick_each_where_there_is_room(at, told):
    (ax,) = axes_of(Points(at, at), x=Axis("n", log=True, at=at), y=Axis("loss"))
    low, high = ax.get_xlim()
    marks = [*zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)]
    marks += zip(ax.get_xticks(minor=True), ax.get_xticklabels(minor=True), strict=True)
    shown = [text.get_text() for place, text in marks if low <= place <= high]
    plain = {f"$\\mathdefault{{10^{{{k}}}}}$": str(10**k) for k in range(4)}
    assert [plain.get(text, text) for text in shown if text] == told


def test_counts_have_whole_ticks():
    whole = lambda ticks: ticks.tolist() == np.round(ticks).tolist()
    (ax,) = axes_of(Bars(X, X + 0.5, np.array([0, 1, 2, 1])))
    assert whole(ax.get_yticks())
    (ax,) = axes_of(Lines(np.arange(1, 3), [0.1, 0.2]))
    assert (whole(ax.get_xticks()), whole(ax.get_yticks())) == (True, False)
    ax, bar = axes_of(Image(np.eye(2, dtype=int)), scale=Scale("departures"))
    assert all(map(whole, (ax.get_xticks(), ax.get_yticks(), bar.get_yticks())))


@pytest.mark.parametrize(
    ("texts", "told", "label"),
    [
        ([f"unit {k}" for k in range(3)], "unit {}", "data"),
        ([f"unit {k}" for k in range(100)], "{}", "data: unit ..."),
        ([f"a.zarr::{k}::recording" for k in range(24)], "{}", "data: a.zarr::...::recording"),
        ([f"{'word' * k}mechanism_{k}" for k in range(8)], None, "data"),
    ],
    ids=["few", "many", "long", "turned"],
)
def test_names_of_categories_do_not_overlap(texts, told, label):
    """Of many some are named; what long ones share stands in the axis' label, and those that differ are turned."""
    n = len(texts)
    (ax,) = axes_of(Bars(np.arange(n) - 0.4, np.arange(n) + 0.4, np.ones(n)), x=Axis("data", ticks=texts))  # fmt: skip
    shown, places = ax.get_xticklabels(), ax.get_xticks().astype(int)
    assert [text.get_text() for text in shown] == [
        told.format(k) if told else texts[k] for k in places
    ]
    assert (len(shown), ax.get_xlabel()) == (min(n, MAX_TICKS), label)
    assert ax.get_xticklabels()[0].get_rotation() == (0 if told else 35)
    if told:
        boxes = [text.get_window_extent() for text in shown]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_plots_of_one_scale_share_a_colour_bar():
    plots = [Plot("a", [Points(X, X, colour=X)], scale=Scale("q", low=0, high=1))] * 2
    assert len(draw(plots).axes) == 3


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3)])
def test_rows_of_plots(n, rows, columns):
    axes = draw([Plot(f"{k}", [Points(X, X)]) for k in range(n)]).axes
    assert [ax.get_title() for ax in axes] == [f"{k}" for k in range(n)]
    grid = axes[-1].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)


def test_nothing_to_draw_is_drawn():
    axes_of(
        Lines(X, np.full(4, np.nan), "nan", colour=[np.nan]), Points([], [], "none"), equal=True
    )
    axes_of(Bars([], [], []), Image(np.full((2, 2), np.nan)))
    assert not draw([]).axes


@pytest.mark.parametrize(
    "places",
    [
        [[0.9, 0.9, -0.9, 0, 0.1, -0.1, 0.2], [0.9, -0.9, 0.9, 0, 0.1, 0, -0.2]],
        np.random.default_rng(0).uniform(-1, 1, (2, 300)),
    ],
    ids=["a free corner", "points everywhere"],
)
def test_a_legend_covers_no_marks(places):
    """As on the unit circle, whose many vertices are in the way less than a mark is; nor are marks cut off."""
    turn = np.linspace(0, 2 * np.pi, 300)
    x, y = np.array(places)
    layers = [Lines(np.cos(turn), np.sin(turn), "circle"), Points(x, y, "marks")]
    canvas = draw([Plot("spectrum", layers, equal=True)])
    canvas.canvas.draw()
    (axes,) = canvas.axes
    marks = axes.transData.transform(np.stack([x, y], axis=1))
    legend, whole = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert not [p for p in marks if legend.contains(*p) or not whole.contains(*p)]


def test_a_long_legend_stands_beside_the_axes():
    for n in (6, 7):
        (ax,) = axes_of(*(Points(X, X + k, f"kind {k}") for k in range(n)))
        inside = ax.get_legend().get_window_extent().x0 < ax.get_window_extent().x1
        assert inside == (n == 6)
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.width


def test_a_legend_names_as_many_as_fit_and_counts_the_others():
    (ax,) = axes_of(*(Lines(X, X + k, f"kind {k}") for k in range(40)))
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()][-2:] == ["kind 15", "and 24 more"]
    assert legend.get_window_extent().y0 >= 0
    assert ax.get_window_extent().height > 0.7 * ax.figure.bbox.height


@pytest.mark.parametrize("log", [False, True])
def test_a_legend_covers_no_shaded_lines(log):
    """Their vertices, which matplotlib's "best" does not see, lie in all corners."""
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, 1, 2000))
    lines = Lines(10**x if log else x, 10 ** (5 * y) if log else y, "trials", colour=x)
    canvas = draw([Plot("space", [lines], Axis(log=log), Axis(log=log))])
    canvas.canvas.draw()
    axes = canvas.axes[0]
    legend = axes.get_legend().get_window_extent()
    places = axes.transData.transform(np.stack([lines.x[0], lines.y[0]], axis=1))
    assert not [p for p in places if legend.contains(*p)]
