"""Layers of ctd.plots that are computed: ticks, histograms, stacked bars."""

import numpy as np
import pytest
from messages import refused

from ctd.plots import Axis, Band, Bars, Image, Lines, Points, Spans, histogram, stacked
from ctd.words import number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01, "0.01"),
        (3.1623, "3.16"),
        (1000.0, "1000"),
        (1e5, "1e5"),
        (2.5e-7, "2.5e-7"),
        (0, "0"),
    ],
)
def test_tick_is_short(value, text):
    assert number(value, 3) == text


def test_whole_numbers_are_told_apart():
    assert [number(v, 3) for v in (1e6, 1_000_400, 123_456, 123_456.5, -1_000_300, 1e12 + 1)] == [
        "1e6",
        "1000400",
        "123456",
        "1.23e5",
        "-1000300",
        "1e12",
    ]


@pytest.mark.parametrize("values", [[1.0, np.nextafter(1, 2)], [1e17, 1e17], [0.0, 5e-324]])
def test_a_histogram_of_values_that_differ_by_rounding(values):
    """NumPy finds no room for bins between them."""
    assert histogram(values).height.sum() == 2


def test_histogram_and_stacked():
    bars = histogram([1, 1, 2, np.nan], bins=2, ends=(0, 4))
    assert isinstance(bars, Bars)
    assert list(bars.height) == [2, 1]
    assert len(histogram([np.nan]).height) == 0
    np.testing.assert_array_equal(stacked([[0, 2], [0, 4]], 4), [[1, 1.5], [0, 1]])
    assert Axis().ticks == ()


X = np.arange(4.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lines(X, X[None, :3]),
        lambda: Lines(X, np.ones((2, 2, 4))),
        lambda: Lines(X, np.ones((2, 4)), colour=X[:3]),
        lambda: Lines(X, np.ones((2, 4)), item=[1]),
        lambda: Lines(X, X, text=["a", "b"]),
        lambda: Points(X, X[:3]),
        lambda: Points(X, X, size=[1.0]),
        lambda: Points(np.ones((2, 4)), np.ones((2, 4))),
        lambda: Band(X, X, X[:2]),
        lambda: Bars(X, X, [1]),
        lambda: Spans(X, X, X, text=["a"]),
        lambda: Image(X),
    ],
)  # fmt: skip
def test_a_layer_of_several_lengths_is_refused_where_it_is_made(make):
    """The page would draw a wrong picture of it, the PNG none."""
    with refused(ValueError):
        make()
