"""ctd.plots.curves: the room that curves get."""

import numpy as np
import pytest

from ctd.plots import Axis
from ctd.plots.curves import Curves, loss_curves
from ctd.plots.swept import by_swept


@pytest.mark.parametrize(("n_trained", "said"), [(12, True), (9, False)])
def test_quantiles_are_of_so_many_trained_networks(n_trained, said):
    """The others were dropped, by a search."""
    losses, rest = np.ones((20, 3)), (np.zeros(20, bool), np.ones((3, 3)), n_trained)
    plot = loss_curves(Curves(np.arange(3), losses, np.arange(20), losses[:, 2], *rest), "loss", Axis("loss"), "networks")  # fmt: skip
    assert ("median" in [layer.name for layer in plot.layers]) == said
    assert (plot.note == "Median and 10-90 %: of the 12 networks trained to their end.") == said


def test_losses_of_diverged_networks_leave_the_others_their_room():
    losses = np.array([[2.0, 1, 0.5], [2, 1e30, np.nan], [1, 5, np.nan]])
    failed = np.array([False, True, True])
    curves = Curves(np.arange(3), losses, np.arange(3), losses[:, 2], failed)
    plot = loss_curves(curves, "loss", Axis("loss"), "networks")
    np.testing.assert_array_equal(plot.layers[1].y, [[2, np.nan, np.nan], [1, 5, np.nan]])
    assert plot.note == (
        "Losses above 6 of those that diverged are not drawn. Without a line: 1 of 3 networks."
    )
    swept = by_swept(plot, "rate", {0: 0.1, 1: 3.0, 2: 0.1})
    assert swept.note == f"{plot.note} No line of rate = 3."
    alone = Curves(np.arange(3), losses[1:], np.arange(2), losses[1:, 2], failed[1:])
    assert loss_curves(alone, "loss", Axis("loss"), "networks").note == ""
