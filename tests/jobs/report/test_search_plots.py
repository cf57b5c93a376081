"""Pictures of a search: lineages against a walk by hand, the best so far against NumPy, and the page of a searched store."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from search_jobs import HALVING, POPULATION, RATE, changed, results
from stores import run

from jobs.query.collection import StoreCollection
from jobs.query.columns import rows_of_items
from jobs.query.query import query, table
from jobs.report.effects import LEAST_ITEMS
from jobs.report.page import Content
from jobs.report.page.several import OFFSET, several
from jobs.report.search_plots import (
    N_ITEMS,
    best_so_far,
    descent,
    ends,
    search_plots,
)
from jobs.search.halving import Halving
from jobs.search.population import Population
from jobs.store.rounds import read_decisions
from jobs.store.store import Store

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
        "final_rate": rates[:, -1],
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
    even = population(mode=mode, params={"rate": {"uniform": [1e-3, 1]}})
    assert not search_plots(even, ITEMS, stored(metric))[1].y.log, "as the range says"
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


def test_population_whose_members_failed_at_the_end():
    """A metric of theirs that is finite, and better than all others, makes none of them the best."""
    found = stored([[4.0, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]])
    for outcome, best in (([1, 0, 0], ["item 20"]), ([1, 1, 1], [])):
        for plot in search_plots(population(), ITEMS, found | {"outcome": np.array(outcome)}, [1]):
            assert [layer.name.partition(",")[0] for layer in plot.layers] == ["members", *best]


def test_halving_draws_every_item_at_its_rungs_and_its_end():
    n = 3 * N_ITEMS
    rung = (np.arange(n) < n // 3).astype(int) + 2 * (np.arange(n) == 0)
    metric = np.where(rung[:, None] >= [0, 1, 2], 2.0, np.nan)
    found = {
        "search_metric": metric, "loss": np.where(rung == 3, 1.0, 2.0),
        "search_advances": np.array([4, 12, 36, 50])[rung],
    }  # fmt: skip
    search = Halving(method="halving", metric="loss", min_advances=4, eta=3)
    (plot,) = search_plots(search, np.arange(n), found)
    lines, points = plot.layers
    np.testing.assert_array_equal(lines.x[0], [4, 12, 36, 50])
    np.testing.assert_array_equal(lines.y[0], [2, 2, 2, 1])
    assert set(zip(points.x, points.y, strict=True)) == {(4, 2), (12, 2), (36, 2), (50, 1)}
    assert (lines.colour == 3).sum() == 1, "the winner is among those that are drawn"
    left_out = f"{N_ITEMS} of {n} items, evenly spaced in their last rung."
    assert plot.note == f"The rungs are at 4, 12, 36 advances. {left_out}"


def test_plots_follow_what_is_stored_whatever_the_method():
    """Items that are pruned at rungs have the plot of halving; those that are not compared on the way have none."""
    advances = np.array([2, 6, 20])
    found = {
        "search_metric": np.array([[3, np.nan], [2, 1.5], [2, 1]]), "loss": np.array([3, 1.5, 0.5]),
        "search_advances": advances, "final_rate": np.array([0.1, 0.2, 0.3]),
    }  # fmt: skip
    prune = SimpleNamespace(min_advances=2, eta=3)
    search = SimpleNamespace(method="other", metric="loss", mode="min", best="least", rungs=prune)
    (plot,) = search_plots(search, ITEMS, found)
    # One that ended before a rung is drawn where it ended.
    np.testing.assert_array_equal(plot.layers[0].x, [[min(2, a), min(6, a), a] for a in advances])
    np.testing.assert_array_equal(plot.layers[0].colour, [0, 1, 2])
    del found["search_metric"]
    assert search_plots(search, ITEMS, found) == []


def stairs(plot):
    """The line of a plot of the best so far, at every whole number of items from its first on."""
    line = plot["layers"][1] if isinstance(plot, dict) else vars(plot.layers[1])
    x, y = (np.asarray(line[name]).ravel() for name in ("x", "y"))
    at = np.arange(x[0], x[-1] + 1)
    # Of the two corners at a step, the later is the new best.
    return y[np.searchsorted(x, at, side="right") - 1]


@pytest.mark.parametrize(("more", "accumulate"), [(False, np.minimum), (True, np.maximum)])
def test_best_so_far_passes_over_items_that_failed(more, accumulate):
    rng = np.random.default_rng(0)
    n = 60
    values, ended = rng.permutation(1.0 + np.arange(n)), rng.integers(0, 5, n).astype(float)
    items, status = rng.permutation(n), np.array(["done", "dropped", "failed"])[np.arange(n) % 3]
    values[::7] = np.nan
    values[[1, 4]] = [np.inf, -np.inf]
    plot = best_so_far("loss", more, {"item": items, "status": status, "loss": values}, ended)
    order = sorted(range(n), key=lambda k: (ended[k], items[k]))
    fine = [k for k in order if status[k] != "failed" and np.isfinite(values[k])]
    places = [order.index(k) for k in fine]
    points = plot.layers[0]
    np.testing.assert_array_equal(points.item, items[fine])
    np.testing.assert_array_equal(points.x, np.array(places) + 1)
    expected = accumulate.accumulate(values[fine])
    np.testing.assert_array_equal(stairs(plot)[np.array(places) - places[0]], expected)
    best = fine[int(np.argmax(values[fine]) if more else np.argmin(values[fine]))]
    said = f"The best, dropped items included, is item {items[best]}: {values[best]:.5g}."
    assert plot.note == said


def test_best_so_far_of_items_that_all_failed():
    columns = {"item": np.arange(2), "status": np.array(["done", "failed"]), "r2": [np.nan, 1.0]}
    assert best_so_far("r2", True, columns, np.zeros(2)) is None


def test_best_so_far_is_in_the_order_in_which_shards_ended(tmp_path):
    """Of two shards of four, the second ends first."""
    store, _ = run(
        tmp_path / "p.zarr", changed(changed(POPULATION, "search", None), "run.shard_items", 4)
    )
    store.description = store.description.model_copy(update={"metric": "loss"})
    first = store.committed.markers()[0]
    store.committed.add(first.model_copy(update={"end": first.end + 1000}))
    frame = table(store, "items")
    ended = ends(store, frame["group"].to_numpy(), frame["row"].to_numpy())
    assert (ended[:4] > ended[4:]).all()
    (plot,) = Content(store).results()["sweep"]["plots"]
    failed = set(frame["item"][frame["status"] == "failed"])
    order = [item for item in (4, 5, 6, 7, 0, 1, 2, 3) if item not in failed]
    assert plot["layers"][0]["item"] == order


def test_best_so_far_of_a_search_is_in_the_order_of_its_reports(tmp_path):
    """One shard holds all trials, and is committed once the last one has ended."""
    params = {"rate": RATE, "n": {"choice": [3, 4]}}
    search = {"method": "optuna", "metric": "loss", "trials": 8, "together": 4, "params": params}
    job = changed(HALVING | {"sweep": {}}, "search", search | {"prune": {"min_advances": 2}})
    store, _ = run(tmp_path / "o.zarr", job)
    told = [one for made in read_decisions(store, 0) for _, one, _ in made.told]
    last = {row: k for k, one in enumerate(told) for row in (*one.rows.tolist(), *one.failed)}
    frame = table(store, "items")
    assert set(frame["status"]) == {"done", "dropped"}
    ended = ends(store, frame["group"].to_numpy(), frame["row"].to_numpy())
    order = sorted(range(8), key=lambda item: (last[item], item))
    assert np.lexsort((frame["item"], ended)).tolist() == order != sorted(order)


@pytest.mark.parametrize(
    ("ended", "label"), [([9, 9, 9], "item"), ([9, 8, 9], "items that have ended")]
)
def test_best_so_far_says_where_its_order_is_that_of_the_items(ended, label):
    ids = np.arange(3, dtype=np.uint64)  # as tables have them
    columns = {"item": ids, "status": np.array(["done"] * 3), "loss": np.ones(3)}
    assert best_so_far("loss", False, columns, np.array(ended)).x.label == label


@pytest.mark.parametrize("job", [HALVING, POPULATION])
def test_page_shows_the_best_so_far_by_the_metric_of_the_search(tmp_path, job):
    job = changed(job, "run.shard_items", 32)  # one shard: its items end at the same time
    store, _ = run(tmp_path / "p.zarr", changed(job, "search.mode", "max"))
    content = Content(store).all()
    sweep, frame = content["sweep"], query(store)
    (plot,) = sweep["plots"]
    assert (plot["title"], sweep["metric"]) == ("Best loss so far", "loss")
    searched = ["final_rate"] if job["search"]["method"] == "population" else ["rate"]
    assert sweep["parameters"] == searched, "a population that sweeps its starts has both"
    assert sweep["log"][:1] == searched, "as its range is loguniform"
    if "dropped" in set(frame["status"]):
        n = int(np.isfinite(results(store)["search_metric"][:, 0]).sum())
        told = {(effect["result"], effect["n"]) for effect in sweep["effects"]}
        assert told - {("failed", len(frame))} == {("loss at the first rung", n)}
    fine = np.flatnonzero((frame["status"] != "failed") & np.isfinite(frame["loss"]))
    ended = ends(store, frame["group"].to_numpy(), frame["row"].to_numpy())
    order = np.lexsort((frame["item"], ended))
    places = np.flatnonzero(np.isin(order, fine))
    expected = np.maximum.accumulate(frame["loss"].to_numpy()[order[places]])
    # The page has five digits.
    np.testing.assert_allclose(stairs(plot)[places - places[0]], expected, rtol=1e-4)
    other = Store.open(str(shutil.copytree(store.address, tmp_path / "other.zarr")))
    joined = several([content, Content(other).all()], StoreCollection([store, other]))["sweep"]
    assert [one["title"] for one in joined["plots"]] == [f"{n}: {plot['title']}" for n in ("p", "other")]  # fmt: skip
    assert joined["metric"] == "loss"
    # The other store has the same items; those that a search left are no sample.
    n = 2 * int(((frame["status"] == "done") & np.isfinite(frame["loss"])).sum())
    n *= "dropped" not in set(frame["status"])
    assert ("is not measured for other, p, whose" in joined["unmeasured"]) == (n == 0)
    measured = {effect["n"] for effect in joined["effects"] if effect["result"] == "loss"}
    assert measured == ({n} if n >= LEAST_ITEMS else set())
    assert min(joined["plots"][1]["layers"][0]["item"]) == OFFSET + int(frame["item"][fine[0]])


@pytest.mark.parametrize(
    ("job", "titles"),
    [
        (HALVING, ["Items at their rungs, by least loss"]),
        (POPULATION, ["loss by generation", "rate by generation"]),
    ],
)
def test_page_of_a_searched_store(tmp_path, job, titles):
    store, _ = run(tmp_path / "p.zarr", job)
    (group,) = json.loads(json.dumps(Content(store).results()["groups"]))
    assert [plot["title"] for plot in group["plots"]][-len(titles) :] == titles
    assert "error" not in group
    assert not any(plot["title"].startswith("search_") for plot in group["plots"])
    found = results(store)
    assert len(found["search_metric"]) > 0
    if job is HALVING:
        lines = group["plots"][-1]["layers"][0]
        assert lines["colour"] == found["search_rung"][lines["item"]].tolist()
