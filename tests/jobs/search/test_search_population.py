"""Population-based training: decisions against plain NumPy, where members start and how they move, bad input."""

import math

import numpy as np
import pytest
from messages import refused
from search_jobs import (
    POPULATION,
    RATE,
    Member,
    changed,
    cut,
    members_of,
    play,
    results,
    searcher_of,
    train_population,
)
from stores import make
from stores import run as run_in_shards

from jobs.errors import JobError
from jobs.forms import extremes, position
from jobs.search import population
from jobs.search.population import Population, moved, tournament, truncation, value_at
from jobs.search.searcher import RoundReport

# --- decisions ------------------------------------------------------------------------------------


def run(path, job):
    """The store of a job, and how it ended; in one shard, since shards change no bit: see test_search.py."""
    return run_in_shards(path, cut(job, 16))


@pytest.mark.parametrize(
    ("exploit", "perturb"), [("tournament", 0.1), ("tournament", 1.0), ("truncation", 0.3)]
)
def test_population_decides_as_numpy_does(tmp_path, exploit, perturb):
    job = changed(POPULATION, "search.exploit", exploit)
    job["search"] |= {"perturb": perturb}
    store, _ = run(tmp_path / "p.zarr", job)
    found, members = results(store), members_of(store)
    train_population(members, 3, 9, exploit, perturb)
    np.testing.assert_array_equal(found["search_parent"], [m.parents for m in members])
    assert (found["search_parent"] != np.arange(8)[:, None]).sum() >= 8
    # The same few operations in float64, and math's functions beside NumPy's.
    np.testing.assert_allclose(found["search_rate"], [m.rates for m in members], rtol=1e-12)
    np.testing.assert_array_equal(found["final_rate"], found["search_rate"][:, -1])
    np.testing.assert_allclose(found["search_metric"], [m.metrics for m in members], rtol=1e-9)
    np.testing.assert_allclose(found["x"], [m.x for m in members], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found["search_advances"], [m.advances for m in members])


def test_population_burns_in_and_ends_early_as_numpy_does(tmp_path, monkeypatch):
    monkeypatch.setattr(population, "MIN_IMPROVEMENT", 0.5)
    job = changed(POPULATION, "search.burn_in", 7)
    job["search"] |= {
        "patience": 2,
        "params": {"rate": {**RATE, "perturb": 0.3}},
    }
    store, progress = run(tmp_path / "p.zarr", job)
    found, members = results(store), members_of(store)
    train_population(members, 3, 9, "tournament", 0.3, burn_in=7, patience=(2, 0.5))
    n = len(members[0].metrics)
    assert 2 < n < 9
    np.testing.assert_array_equal(found["search_advances"], [m.advances for m in members])
    np.testing.assert_array_equal(found["search_advances"], 7 + 3 * (n - 1))
    np.testing.assert_array_equal(found["search_parent"][:, :n], [m.parents for m in members])
    assert (found["search_parent"][:, n:] == -1).all()
    np.testing.assert_allclose(
        found["search_metric"][:, :n], [m.metrics for m in members], rtol=1e-9
    )
    np.testing.assert_allclose(found["x"], [m.x for m in members], rtol=1e-9, atol=1e-12)
    assert progress.outcomes["settled"] == 8
    assert (found["status"] == 1).all()


def test_a_population_that_has_ended_stays_as_it_is(tmp_path, monkeypatch):
    """Two side by side: where the noise is large nothing gets better, and the other goes on."""
    job = changed(POPULATION, "search.size", 8)
    monkeypatch.setattr(population, "MIN_IMPROVEMENT", 0.05)
    job["search"] |= {"patience": 2}
    job = changed(changed(job, "params.noise", None), "sweep.grid", {"noise": [0.0, 2.0]})
    job["params"] = {"dtype": "float64", "steps": 60}
    store, _ = run(tmp_path / "p.zarr", job)
    found = results(store)
    ended = (found["search_parent"] >= 0).sum(axis=1)
    assert set(ended[8:]) == {ended[8]} != {ended[0]} == set(ended[:8])
    alone, _ = run(tmp_path / "a.zarr", changed(job, "sweep.grid", {"noise": [0.0]}))
    for name, values in results(alone).items():
        assert values.tobytes() == found[name][:8].tobytes(), name


SLOW_START = POPULATION | {
    "params": {"dtype": "float64", "steps": 60, "rate": 2e-3, "noise": 0.01},
    "sweep": {"seeds": 8},
    "search": POPULATION["search"] | {"perturb": 0.3},
}


def test_population_improves_over_no_search(tmp_path):
    """All start at a rate of 0.002, where 60 steps do next to nothing; moves find the good ones."""
    searched, _ = run(tmp_path / "p.zarr", SLOW_START)
    plain, _ = run(tmp_path / "n.zarr", changed(SLOW_START, "search", None))
    a, b = results(searched), results(plain)
    assert np.median(a["loss"]) < 0.1 * b["loss"].min()
    assert np.median(a["final_rate"]) > 5 * 0.002


def test_population_replaces_diverged_members(tmp_path):
    """Above 2/3 the third component blows up: those members copy, and none is left in the end."""
    rates = [0.1, 0.85, 0.2, 0.9, 0.88, 0.05, 0.89, 0.9]
    job = changed(POPULATION, "sweep", {"grid": {"rate": rates}})
    job["search"] |= {"every": 20, "generations": 3, "perturb": 0.02}
    store, progress = run(tmp_path / "d.zarr", job)
    found = results(store)
    diverged = np.array(rates) > 0.8
    assert (found["search_parent"][diverged, 1] != np.flatnonzero(diverged)).all()
    assert np.isin(found["search_parent"][:, 1], np.flatnonzero(~diverged)).all()
    assert progress.outcomes == {"descended": 8, "diverged": 0}
    plain, _ = run(tmp_path / "n.zarr", changed(job, "search", None))
    np.testing.assert_array_equal(results(plain)["status"], np.where(diverged, 2, 1))


@pytest.mark.parametrize("exploit", ["tournament", "truncation"])
def test_population_does_not_copy_finished_members(tmp_path, exploit):
    job = changed(POPULATION, "sweep", {"zip": {
        "rate": [0.3, 0.3, 0.01, 0.02, 0.01, 0.02], "seed": [0, 1, 2, 3, 4, 5]}})  # fmt: skip
    job = changed(job, "params", {"dtype": "float64", "steps": 60, "limit": 60})
    job["search"] |= {"exploit": exploit}
    whole, _ = run(tmp_path / "w.zarr", job)
    assert (results(whole)["search_parent"][2:] < 2).any()
    job["sweep"]["zip"]["limit"] = [2, 2, 99, 99, 99, 99]  # the best two finish in no time
    job["params"].pop("limit")
    job["search"]["params"] |= {"noise": {"uniform": [0, 1]}}  # limit must not differ otherwise
    with refused(JobError):
        make(tmp_path / "x.zarr", job)


def test_populations_side_by_side_do_not_meet(tmp_path):
    """One population for each value of an outer axis; another one's values change no bit of it."""
    found = []
    for other in (0.2, 0.4):
        job = changed(POPULATION, "sweep.grid", {"noise": [0.05, other]})
        job = changed(job, "params", {"dtype": "float64", "steps": 60})
        job["search"]["size"] = 8
        store, _ = run(tmp_path / f"{other}.zarr", job)
        found.append(results(store))
        parents = found[-1]["search_parent"]
        np.testing.assert_array_equal(parents // 8, np.repeat([0, 1], 8)[:, None] + 0 * parents)
    for name in found[0]:
        assert found[0][name][:8].tobytes() == found[1][name][:8].tobytes(), name
    assert (found[0]["loss"][8:] != found[1]["loss"][8:]).all()


# --- without a store ------------------------------------------------------------------------------


def steps_of(n):
    """Items of `hill.py` in NumPy, from the states of rounds: (number, Round) -> (seconds, RoundReport)."""
    rates = np.random.default_rng(1).uniform(1e-3, 0.9, n)
    states, rng = {}, np.random.default_rng(2)

    def work(number, asked):
        reports = []
        for k, row in enumerate(asked.rows.tolist()):
            member = Member(row, asked.values["rate"][k])
            if asked.rounds[k] >= 0:
                member.x, member.step = states[int(asked.rounds[k]), int(asked.parents[k])]
            member.advance(asked.length)
            states[number, row] = member.x, member.step
            reports.append((member.loss, member.advances, member.finished, member.diverged))
        return rng.random(), RoundReport(asked.rows, *map(np.array, zip(*reports, strict=True)))

    return rates, work


@pytest.mark.parametrize(("workers", "most"), [(1, 8), (3, 3)])
@pytest.mark.parametrize(
    ("exploit", "more"),
    [("tournament", {}), ("truncation", {}), ("tournament", {"patience": 2, "burn_in": 7})],
)
def test_population_in_rounds_decides_as_numpy_does(workers, most, exploit, more, monkeypatch):
    """In rounds of any size, told in any order."""
    monkeypatch.setattr(population, "MIN_IMPROVEMENT", 0.5)
    n = 8
    search = Population(
        method="population", metric="loss", every=3, generations=9, params={"rate": RATE}, exploit=exploit,
        perturb=0.3, **more,
    )  # fmt: skip
    rates, work = steps_of(n)
    searcher = searcher_of(search, 5, np.arange(n), {"rate": rates})
    play(searcher, work, workers, most)
    members = [Member(k, rate) for k, rate in enumerate(rates)]
    end = (2, 0.5) if more else None
    train_population(members, 3, 9, exploit, 0.3, more.get("burn_in"), end)
    found, g = searcher.records(), len(members[0].metrics)
    assert g < 9 if more else g == 9
    np.testing.assert_array_equal(found["search_parent"][:, :g], [m.parents for m in members])
    assert (found["search_parent"][:, :g] != np.arange(n)[:, None]).any()
    # The same few operations in float64, and math's functions beside NumPy's.
    np.testing.assert_allclose(found["final_rate"], [m.rate for m in members], rtol=1e-12)
    np.testing.assert_allclose(
        found["search_metric"][:, :g], [m.metrics for m in members], rtol=1e-9
    )
    np.testing.assert_array_equal(searcher.ages, [m.advances for m in members])


@pytest.mark.parametrize("choose", [tournament, truncation])
def test_who_copies_whom_is_as_in_a_loop_over_members(choose):
    """Broken and finished members, ties, nobody left to copy; one member after the other, in plain Python."""
    rng = np.random.default_rng(0)
    for n in [1, 2, 3, 9] * 30:
        u, loss, done = rng.random(n), rng.integers(0, 4, n).astype(float), rng.random(n) < 0.3
        loss[rng.random(n) < 0.3] = np.nan
        expected = []
        for i in range(n):
            broken, other = math.isnan(loss[i]), i
            if choose is tournament:
                others = [j for j in range(n) if j != i and not math.isnan(loss[j]) and not done[j]]
                if others:
                    j = others[int(u[i] * len(others))]
                    other = j if broken or loss[j] < loss[i] else i
            else:
                ranked = sorted(range(n), key=lambda k: (math.isnan(loss[k]), loss[k], k))
                k = max(1, int(0.2 * n))
                best = [j for j in ranked[:k] if not math.isnan(loss[j]) and not done[j]]
                if best and (broken or i in ranked[max(k, n - k) :]):
                    other = best[int(u[i] * len(best))]
            expected.append(other)
        np.testing.assert_array_equal(choose(u, loss, done), expected)


# --- where members start --------------------------------------------------------------------------


def test_starts_lie_apart_from_ranges(tmp_path):
    """At a number, or drawn in the range; the first members' draws do not depend on how many follow."""
    law = {"loguniform": [1e-3, 0.9], "start": "range"}
    job = changed(POPULATION, "sweep", {"seeds": 8})
    job["search"] = job["search"] | {
        "params": {"rate": law, "noise": {"uniform": [0, 1], "start": 0.25}}
    }
    job["params"] = {"dtype": "float64", "steps": 20}
    store = make(tmp_path / "p.zarr", job)
    rates = store.rows(0, "rate", 0, 8)
    assert len(set(rates)) == 8
    assert ((rates >= 1e-3) & (rates <= 0.9)).all()
    more = make(tmp_path / "m.zarr", changed(job, "sweep.seeds", 16))
    np.testing.assert_array_equal(more.rows(0, "rate", 0, 8), rates)
    stored, _ = run(tmp_path / "r.zarr", job)
    found = results(stored)
    np.testing.assert_array_equal(found["search_rate"][:, 0], rates)
    assert (found["search_noise"][:, 0] == 0.25).all()


@pytest.mark.parametrize(
    "change",
    [
        {"start": 2.0},
        {"start": "middle"},
        {"start": True},
        {"start": 0.1},
    ],
)
def test_bad_starts_are_told(tmp_path, change):
    sweep = POPULATION["sweep"] if change == {"start": 0.1} else {"seeds": 8}
    job = POPULATION | {"sweep": sweep}
    job["search"] = job["search"] | {"params": {"rate": RATE | change}}
    with refused(JobError) as error:
        make(tmp_path / "p.zarr", job)
    assert len(str(error.value).splitlines()) == 1


# --- how they move --------------------------------------------------------------------------------


def walkers(law, weight, moves, n=4000):
    search = Population(
        method="population",
        metric="loss",
        every=1,
        generations=2,
        params={"a": law},
        perturb=weight,
    )
    law = search.params["a"]
    rng, low, high = np.random.default_rng(0), *extremes(law)
    values = value_at(law, np.full(n, 0.5))
    for _ in range(moves):
        values = moved(search, "a", values, rng.random(n))
        assert ((values >= low) & (values <= high)).all()
    return position(law, values)


@pytest.mark.parametrize("law", [{"loguniform": [1e-5, 5e-3]}, {"uniform": [0, 0.6]}])
@pytest.mark.parametrize("weight", [0.1, 0.8])
def test_moves_drift_nowhere(law, weight):
    """After 20 moves the mean position is the start: a factor 1 + U(-0.8, 0.8) had made it x 0.064."""
    x = walkers(law, weight, 20)
    assert abs(x.mean() - 0.5) < 4 * x.std() / math.sqrt(len(x))
    # Reflected at the ends, the moves fill the range: the standard deviation of U(0, 1).
    if weight == 0.8:
        assert x.std() == pytest.approx(math.sqrt(1 / 12), rel=0.05)


@pytest.mark.parametrize(
    ("law", "middle"), [({"loguniform": [0.01, 1]}, 0.1), ({"uniform": [1, 3]}, 2)]
)
def test_positions_are_linear_or_logarithmic(law, middle):
    (law,) = Population(
        method="population", metric="m", every=1, generations=2, params={"a": law}
    ).params.values()
    assert value_at(law, 0.5) == pytest.approx(middle, rel=1e-14)
    for x in (0, 0.25, 1):
        assert position(law, value_at(law, x)) == pytest.approx(x, abs=1e-14)
