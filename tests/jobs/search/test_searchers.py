"""What holds for every searcher: a driver that starts anew decides the same; every item ends, whatever fails."""

import hill
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_jobs import Items, play, play_again, same_round, searcher_of

from jobs.search.asha import Asha
from jobs.search.halving import Halving
from jobs.search.method import shapes
from jobs.search.optuna import Optuna
from jobs.search.population import Population

RATE = {"loguniform": [1e-3, 0.9]}
RUNGS = {"metric": "loss", "min_advances": 2, "eta": 2}
BASE = {"method": "population", "metric": "loss", "every": 3, "params": {"rate": RATE}}
TRIALS = {"method": "optuna", "metric": "loss", "trials": 12, "params": {"rate": RATE}}
PRUNE = {"min_advances": 2, "eta": 2}
SEARCHES = {
    "halving": Halving(method="halving", **RUNGS),
    "halving of 6": Halving(method="halving", size=6, **RUNGS),
    "asha": Asha(method="asha", **RUNGS),
    "tournament": Population(**BASE, generations=5),
    "truncation of 4": Population(**BASE, generations=5, exploit="truncation", size=4),
    "patience": Population(**BASE, generations=8, patience=2),
    "optuna": Optuna(**TRIALS, sampler="tpe", together=4),
    "optuna, pruned": Optuna(**TRIALS, sampler="random", together=3, prune=PRUNE),
    "optuna, two studies": Optuna(**TRIALS | {"trials": 6}, sampler="qmc", prune=PRUNE),
}
N = 12


def made(name):
    return searcher_of(SEARCHES[name], 5, 100 + np.arange(N), {"rate": np.full(N, 0.1)})


def test_stage_counts_the_laps_that_items_come_to():
    searcher = made("halving")
    assert searcher.stage == "rung 1 of 3"
    searcher.most_laps = 3  # their advances end before the third rung
    assert searcher.stage == "rung 1 of 2"
    searcher.lap[0] = 2
    assert searcher.stage == "first past the last of 2 rungs"
    assert made("tournament").stage == "generation 1 of 5"


@st.composite
def fates(draw):
    """What becomes of the items, how long each round takes, and what there is to compute them."""
    rows = st.integers(0, N - 1)
    few = lambda values: draw(st.dictionaries(rows, values, max_size=4))
    return {
        "metric": draw(
            st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan, np.inf]), min_size=N, max_size=N)
        ),
        # Behind the first comparison: if a whole block ended before, its search would be refused.
        "ends": {**dict.fromkeys(range(N), 40), **few(st.integers(4, 12))},
        "broken": few(st.integers(1, 10)),
        "failing": few(st.integers(0, 3)),
        "seconds": draw(st.lists(st.floats(0.1, 9), min_size=1, max_size=7)),
        "workers": draw(st.integers(1, 4)),
        "most": draw(st.integers(1, N)),
    }


@pytest.mark.parametrize("name", SEARCHES)
@settings(max_examples=25, deadline=None)
@given(fate=fates())
def test_every_item_ends_and_a_new_driver_decides_the_same(name, fate):
    items = Items(
        lambda row, age: fate["metric"][row] + 0.01 * age,
        fate["ends"].__getitem__,
        fate["broken"],
        fate["failing"],
    )
    seconds, over = fate["seconds"], np.zeros(N, bool)

    def work(k, asked):
        over[:] |= searcher.over
        assert not over[asked.rows].any(), "what is over makes no further round"
        return seconds[k % len(seconds)], items.report(k, asked)

    searcher = made(name)
    played = play(searcher, work, fate["workers"], fate["most"])
    assert searcher.ended.all()
    assert not len(searcher.choose(1))
    assert not (searcher.running | searcher.ready).any()
    # Each item failed, finished, was dropped, or is a member of a population that settled.
    one = 1 * searcher.failed + searcher.done + searcher.dropped
    assert (one[~searcher.failed] <= 1).all()
    if name != "patience":
        assert (one >= 1).all()
    _has_no_holes(name, searcher)
    again = made(name)
    for a, b in zip(play_again(again, played, fate["most"]), played.rounds, strict=True):
        assert same_round(a, b)
    for key, values in again.records().items():
        assert values.tobytes() == searcher.records()[key].tobytes()


def _has_no_holes(name, searcher):
    """Records have the shapes and dtypes of the plan; what an item came to has a value."""
    records, search = searcher.records(), SEARCHES[name]
    planned = shapes(search, hill.kernel, N)
    assert records.keys() | {"search_advances"} == planned.keys()
    for key, values in records.items():
        assert (values.shape, values.dtype) == ((N, *planned[key].shape), planned[key].dtype), key
    if isinstance(search, Population):
        begun = records["search_parent"] >= 0
        assert (np.diff(begun.astype(int), axis=1) <= 0).all()
        assert (np.isfinite(records["search_rate"]) == begun).all()
        assert np.isfinite(records["final_rate"]).all()
    else:
        rung = records.get("search_rung", np.zeros(N, int))
        assert (rung >= 0).all()
    if isinstance(search, Optuna):
        assert ((records["final_rate"] >= 1e-3) & (records["final_rate"] <= 0.9)).all()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", ["halving", "halving of 6", "tournament", "truncation of 4"])
def test_searches_in_step_depend_on_no_order(name, workers):
    """Halving and populations decide the same however many workers there are, and however long rounds take."""
    loss = np.random.default_rng(0).normal(size=(N, 50))
    found = []
    for most in (N, 5):
        rng = np.random.default_rng(most)
        items = Items(lambda row, age: loss[row, age], lambda row: 40)
        searcher = made(name)
        play(searcher, lambda k, asked: (rng.random(), items.report(k, asked)), workers, most)  # noqa: B023
        found.append(searcher.records())
    for key, values in found[0].items():
        assert values.tobytes() == found[1][key].tobytes()
