"""Layers of ctd.plots that are computed: ticks, histograms, stacked bars."""

import numpy as np
import pytest

from ctd.plots import Axis, Bars, histogram, stacked, tick


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
    assert tick(value) == text


def test_histogram_and_stacked():
    bars = histogram([1, 1, 2, np.nan], bins=2, ends=(0, 4))
    assert isinstance(bars, Bars)
    assert list(bars.height) == [2, 1]
    assert len(histogram([np.nan]).height) == 0
    np.testing.assert_array_equal(stacked([[0, 2], [0, 4]], 4), [[1, 1.5], [0, 1]])
    assert Axis().ticks == ()
