"""Pictures of a search: lineages against a walk by hand, and the page of a searched store."""

import json

import numpy as np
import pytest
from search_jobs import HALVING, POPULATION, results
from stores import run

from jobs.report.page.content import Content
from jobs.report.search_plots import N_ITEMS, descent, rows_of_items, search_plots
from jobs.spec.search import Halving, Population

PARENTS = [[10, 10, 20, 10], [20, 10, 20, 20], [30, 30, 30, -1]]
"""Items 10, 20 and 30 in four generations; the last one's population ended before."""
ITEMS = np.array([10, 20, 30])


def population(**more):
    given = {"method": "population", "metric": "loss", "every": 1, "generations": 4}
    return Population(**given | {"params": {"rate": {"loguniform": [1e-3, 1]}}} | more)


def stored(metric):
    rates = np.geomspace(0.01, 0.5, 12).reshape(3, 4)
    metric = np.asarray(metric)
    last = np.where(np.isnan(metric[:, -1]), metric[:, -2], metric[:, -1])
    return {
        "search_metric": metric,
        "loss": last,
        "search_parent": np.array(PARENTS),
        "search_rate": rates,
    }


def test_rows_of_items_that_are_not_in_order():
    ids = np.array([[7, 3], [99, -1]])
    np.testing.assert_array_equal(rows_of_items(ids, np.array([3, 9, 7])), [[2, 0], [-1, -1]])


@pytest.mark.parametrize(
    ("row", "expected"), [(0, [0, 1, 0, 0]), (1, [0, 1, 1, 1]), (2, [2, 2, 2, -1])]
)
def test_descent_is_whom_each_generation_began_from(row, expected):
    """Item 10 began generation 2 from item 20, which had begun generation 1 from item 10."""
    parents = rows_of_items(np.array(PARENTS), ITEMS)
    np.testing.assert_array_equal(descent(parents, row), expected)


@pytest.mark.parametrize(
    ("mode", "best", "line"), [("min", 20, [4, 3.5, 1.9, 1.2]), ("max", 10, [4, 3.5, 2, 1.5])]
)
def test_population_joins_members_to_their_parents(mode, best, line):
    metric = [[4.0, 3, 2, 1.5], [4, 3.5, 1.9, 1.2], [5, 4, 1.3, np.nan]]
    loss, rate = search_plots(population(mode=mode), ITEMS, stored(metric))
    assert (loss.title, rate.title) == ("loss by generation", "rate by generation")
    assert (loss.y.log, rate.y.log) == (False, True)
    members, ancestors = loss.layers
    assert len(members.y) == 3 + 3 + 2  # the third has made three generations
    np.testing.assert_array_equal(members.x[:3], [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(members.y[:3], [[4, 3], [3.5, 2], [2, 1.5]])
    assert members.text[:2] == ["item 10", "item 10, from item 20"]
    np.testing.assert_array_equal(ancestors.y, line)
    assert ancestors.name == f"item {best}, the best, and its ancestors"


def test_population_of_which_all_are_broken():
    for plot in search_plots(population(), ITEMS, stored(np.full((3, 4), np.nan))):
        assert not any(np.isinf(layer.y).any() for layer in plot.layers)


def test_halving_draws_every_item_at_its_rungs_and_its_end():
    n = 3 * N_ITEMS
    rung = (np.arange(n) < n // 3).astype(int) + 2 * (np.arange(n) == 0)
    metric = np.where(rung[:, None] >= [0, 1, 2], 2.0, np.nan)
    found = {
        "search_metric": metric, "search_rung": rung, "loss": np.where(rung == 3, 1.0, 2.0),
        "search_advances": np.array([4, 12, 36, 50])[rung],
    }  # fmt: skip
    search = Halving(method="halving", metric="loss", min_advances=4, eta=3)
    (plot,) = search_plots(search, np.arange(n), found)
    lines, points = plot.layers
    np.testing.assert_array_equal(lines.x[0], [4, 12, 36, 50])
    np.testing.assert_array_equal(lines.y[0], [2, 2, 2, 1])
    assert set(zip(points.x, points.y, strict=True)) == {(4, 2), (12, 2), (36, 2), (50, 1)}
    assert (lines.colour == 3).sum() == 1, "the winner is among those that are drawn"
    assert plot.note == f"{N_ITEMS} of {n} items, evenly spaced in their last rung."


@pytest.mark.parametrize(
    ("job", "titles"),
    [
        (HALVING, ["Successive halving by least loss"]),
        (POPULATION, ["loss by generation", "rate by generation"]),
    ],
)
def test_page_of_a_searched_store(tmp_path, job, titles):
    store, _ = run(tmp_path / "p.zarr", job)
    (group,) = json.loads(json.dumps(Content(store).results()["groups"]))
    assert [plot["title"] for plot in group["plots"]][-len(titles) :] == titles
    assert "error" not in group
    assert not any(plot["title"].startswith("search_") for plot in group["plots"])
    assert len(results(store)["search_metric"]) > 0
