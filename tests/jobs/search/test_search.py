"""jobs.search: decisions against plain NumPy, bits against unsearched runs, resumption, bad input."""

import math
import zlib

import jax
import numpy as np
import pytest
from failing import Failing, Interrupted
from search_jobs import HALVING, POPULATION, RATE, changed, results
from stores import make, run, tree_bytes

from jobs import Store, open_store
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.query.query import query
from jobs.run.executor import SerialExecutor
from jobs.run.fork import fork
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.task import Task
from jobs.run.worker import Worker
from jobs.search.population import moved, position, value_at
from jobs.spec.job import parse_job
from jobs.spec.search import Halving, Population, bounds
from jobs.storage import objects
from jobs.store.events import read_events

# --- the reference: one item at a time, in NumPy --------------------------------------------------


class Member:
    """An item of tests/hill.py: everything but its random draws is NumPy in float64."""

    def __init__(self, item, rate, noise=0.05, end=60, seed=5):
        self.item, self.rate, self.noise, self.end = item, float(rate), noise, end
        self.key = jax.random.fold_in(jax.random.key(seed), item)
        with jax.enable_x64(True):
            self.x = 1 + np.asarray(jax.random.uniform(self.key, (3,), np.float64))
        self.step = self.advances = 0
        self.parents, self.rates, self.metrics = [item], [self.rate], []

    def advance(self, n):
        while n and not self.finished:
            with jax.enable_x64(True):
                key = jax.random.fold_in(self.key, self.step)
                noise = np.asarray(jax.random.normal(key, (3,), np.float64))
            self.x = self.x - self.rate * np.array([1, 2, 3]) * self.x + self.noise * noise
            self.step, self.advances, n = self.step + 1, self.advances + 1, n - 1

    @property
    def finished(self):
        return self.step >= self.end or self.diverged

    @property
    def diverged(self):
        return np.abs(self.x).max() > 100

    @property
    def loss(self):
        return float(np.sum(np.array([1, 2, 3]) * self.x**2))


def halve(members, first, eta, n_rungs):
    """Successive halving by sorted lists: who left, and at which rung (counted from 0)."""
    left, here, age = {}, list(members), 0
    for rung in range(n_rungs):
        for member in here:
            member.advance(first * eta**rung - age)
            member.metrics.append(member.loss)
        age = first * eta**rung
        here.sort(key=lambda m: (m.diverged, m.loss))
        quota = max(1, len(members) // eta ** (rung + 1))
        for member in here[quota:]:
            left[member.item] = rung
        here = here[:quota]
    for member in here:
        member.advance(10**6)
    return left


def train_population(
    members,
    every,
    generations,
    exploit,
    perturb,
    resample,
    fraction=0.2,
    burn_in=None,
    patience=None,
):
    """Population-based training as a loop over members, one generation after another.

    patience: (generations, least improvement) after which it ends early.
    """
    low, high = (math.log(end) for end in RATE["loguniform"])
    bests = []
    for g in range(generations):
        last = g == generations - 1
        for m in members:
            m.advance(10**6 if last else burn_in if burn_in and g == 0 else every)
            m.metrics.append(m.loss)
        if last:
            return
        bests.append(min(m.loss for m in members if not m.diverged))
        if patience and len(bests) >= patience[0]:
            recent = bests[-patience[0] :]
            if (recent[0] - min(recent)) / np.mean(recent) <= patience[1]:
                return
        before = [(m.x, m.step, m.rate, m.item, m.loss, m.diverged, m.finished) for m in members]
        ranked = sorted(range(len(members)), key=lambda k: (before[k][5], before[k][4]))
        n = max(1, int(fraction * len(members)))
        for k, m in enumerate(members):
            rng = np.random.default_rng([5, zlib.crc32(b"search"), g, m.item])
            u = rng.random()
            if exploit == "tournament":
                others = [j for j in range(len(members)) if j != k and not before[j][6]]
                j = others[int(u * len(others))]
                wins = before[k][5] or before[j][4] < before[k][4]
            else:
                best = [j for j in ranked[:n] if not before[j][6]]
                j = best[int(u * len(best))]
                wins = before[k][5] or k in ranked[-n:]
            if wins:
                m.x, m.step, m.rate = before[j][:3]
                again, v = rng.random(2)
                place = v
                if again >= resample:
                    place = (math.log(m.rate) - low) / (high - low) + perturb * (2 * v - 1)
                    place = -place if place < 0 else 2 - place if place > 1 else place
                m.rate = math.exp(low + place * (high - low))
            m.parents.append(before[j][3] if wins else m.item)
            m.rates.append(m.rate)


def members_of(store, **more):
    items = results(store)
    rates = store.rows(0, "rate", 0, 10**6)
    return [Member(k, rates[k], **more) for k in range(len(items["status"]))]


@pytest.mark.parametrize(("n", "eta", "first"), [(27, 3, 2), (16, 2, 1), (10, 3, 4)])
def test_halving_decides_as_numpy_does(tmp_path, n, eta, first):
    job = changed(HALVING, "sweep.samples", n)
    job["search"] |= {"eta": eta, "min_advances": first}
    store, progress = run(tmp_path / "h.zarr", job)
    found, members = results(store), members_of(store)
    n_rungs = Halving(**job["search"]).n_rungs(n)
    left = halve(members, first, eta, n_rungs)
    for k, member in enumerate(members):
        assert found["search_advances"][k] == member.advances == found["taken"][k]
        assert found["search_rung"][k] == left.get(k, n_rungs)
        assert found["status"][k] == (2 if member.diverged else 3 if k in left else 1)
        assert found["outcome"][k] == (1 if member.diverged else 2 if k in left else 0)
        # Up to 60 steps of a contraction in float64.
        np.testing.assert_allclose(found["x"][k], member.x, rtol=1e-12, atol=1e-12)
        metrics = np.pad(member.metrics, (0, n_rungs - len(member.metrics)), constant_values=np.nan)
        np.testing.assert_allclose(found["search_metric"][k], metrics, rtol=1e-12)
    assert progress.outcomes["dropped"] == (found["status"] == 3).sum() > 0
    assert len(left) == n - max(1, n // eta**n_rungs)


@pytest.mark.parametrize(
    ("exploit", "perturb", "resample"),
    [("tournament", 0.1, 0.0), ("tournament", 1.0, 0.0), ("truncation", 0.3, 0.5)],
)
def test_population_decides_as_numpy_does(tmp_path, exploit, perturb, resample):
    job = changed(POPULATION, "search.exploit", exploit)
    job["search"] |= {"perturb": perturb, "resample": resample, "fraction": 0.3}
    store, _ = run(tmp_path / "p.zarr", job)
    found, members = results(store), members_of(store)
    train_population(members, 3, 9, exploit, perturb, resample, 0.3)
    np.testing.assert_array_equal(found["search_parent"], [m.parents for m in members])
    assert (found["search_parent"] != np.arange(8)[:, None]).sum() > 10
    # The same few operations in float64, and math's functions beside NumPy's.
    np.testing.assert_allclose(found["search_rate"], [m.rates for m in members], rtol=1e-12)
    np.testing.assert_array_equal(found["final_rate"], found["search_rate"][:, -1])
    np.testing.assert_allclose(found["search_metric"], [m.metrics for m in members], rtol=1e-9)
    np.testing.assert_allclose(found["x"], [m.x for m in members], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found["search_advances"], [m.advances for m in members])


@pytest.mark.parametrize("shard_items", [None, 4])
def test_population_burns_in_and_ends_early_as_numpy_does(tmp_path, shard_items):
    """In one shard, and in two that meet: both see that the population got no better."""
    job = changed(POPULATION, "search.burn_in", 7)
    job["search"] |= {
        "patience": 2,
        "min_improvement": 0.5,
        "params": {"rate": {**RATE, "perturb": 0.3}},
    }
    if shard_items:
        job["search"]["spread"] = True
        job["run"] = job["run"] | {"shard_items": shard_items}
    store, progress = run(tmp_path / "p.zarr", job)
    found, members = results(store), members_of(store)
    train_population(members, 3, 9, "tournament", 0.3, 0.0, burn_in=7, patience=(2, 0.5))
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


def test_a_population_that_has_ended_stays_as_it_is(tmp_path):
    """Two side by side: where the noise is large nothing gets better, and the other goes on."""
    job = changed(POPULATION, "search.size", 8)
    job["search"] |= {"patience": 2, "min_improvement": 0.05}
    job = changed(changed(job, "params.noise", None), "sweep.grid", {"noise": [0.0, 2.0]})
    job["params"] = {"dtype": "float64", "steps": 60}
    store, _ = run(tmp_path / "p.zarr", job)
    found = results(store)
    ended = (found["search_parent"] >= 0).sum(axis=1)
    assert set(ended[8:]) == {ended[8]} != {ended[0]} == set(ended[:8])
    alone, _ = run(tmp_path / "a.zarr", changed(job, "sweep.grid", {"noise": [0.0]}))
    for name, values in results(alone).items():
        assert values.tobytes() == found[name][:8].tobytes(), name


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
    ("change", "told"),
    [
        ({"start": 2.0}, "rate: starts at 2.0, outside of its range"),
        ({"start": "middle"}, "start: a number, or `range`"),
        ({"start": True}, "start: a number, or `range`"),
        ({"start": 0.1}, "'rate' is given in sweep and as search.params.rate.start"),
    ],
)
def test_bad_starts_are_told(tmp_path, change, told):
    sweep = POPULATION["sweep"] if change == {"start": 0.1} else {"seeds": 8}
    job = POPULATION | {"sweep": sweep}
    job["search"] = job["search"] | {"params": {"rate": RATE | change}}
    with pytest.raises(JobError, match=told) as error:
        make(tmp_path / "p.zarr", job)
    assert len(str(error.value).splitlines()) == 1


# --- halving --------------------------------------------------------------------------------------


def test_halving_survivors_have_the_bits_of_an_unsearched_run(tmp_path):
    searched, _ = run(tmp_path / "h.zarr", HALVING)
    plain, _ = run(tmp_path / "p.zarr", changed(HALVING, "search", None))
    a, b = results(searched), results(plain)
    done = a["status"] == 1
    assert done.sum() == 1
    for name in b:
        assert a[name][done].tobytes() == b[name][done].tobytes(), name


def test_halving_makes_the_advances_of_the_closed_form(tmp_path):
    """eta^K items: n r (1 + (K-1)(1 - 1/eta)), and for the last one what it lacks to its end."""
    job = changed(HALVING, "params", {"steps": 60})
    job["sweep"]["random"]["rate"] = {"loguniform": [1e-3, 0.5]}  # below 2/3 nothing diverges
    store, _ = run(tmp_path / "h.zarr", job)
    r, eta, rungs = 2, 3, 3
    rest = 60 - r * eta ** (rungs - 1)
    expected = 27 * r * (1 + (rungs - 1) * (1 - 1 / eta)) + rest
    (marker,) = store.committed.markers()
    assert marker.advances == results(store)["search_advances"].sum() == expected


def test_halving_compares_in_brackets_inside_one_shard(tmp_path):
    job = changed(HALVING, "search.size", 9)
    store, _ = run(tmp_path / "h.zarr", job | {"run": job["run"] | {"shard_items": 18}})
    assert [(s.start, s.stop) for s in store.job.plan.shards()] == [(0, 18), (18, 27)]
    found = results(store)
    for bracket in (slice(0, 9), slice(9, 18), slice(18, 27)):
        members = members_of(store)[bracket]
        left = halve(members, 2, 3, 2)
        rungs = [left.get(m.item, 2) for m in members]
        np.testing.assert_array_equal(found["search_rung"][bracket], rungs)


def test_halving_by_largest_is_halving_by_smallest_of_the_negative(tmp_path):
    a, _ = run(tmp_path / "a.zarr", HALVING)
    job = changed(HALVING, "search", HALVING["search"] | {"metric": "gain", "mode": "max"})
    b, _ = run(tmp_path / "b.zarr", job)
    np.testing.assert_array_equal(results(a)["search_rung"], results(b)["search_rung"])


def test_halving_an_item_that_finishes_keeps_its_result(tmp_path):
    """It is not dropped, whether it is among the best or not, and takes a place where it is."""
    job = changed(HALVING, "sweep", {
        "zip": {"rate": [0.05, 0.3, 0.01, 0.4, 0.02, 0.4, 0.001, 0.002, 0.003],
                "limit": [1, 99, 2, 99, 99, 2, 99, 99, 99]}})  # fmt: skip
    job = changed(job, "params.noise", 0.0)
    store, _ = run(tmp_path / "h.zarr", job)
    found = results(store)
    np.testing.assert_array_equal(found["status"], [1, 3, 1, 1, 3, 1, 3, 3, 3])
    np.testing.assert_array_equal(found["search_rung"], [0, 1, 0, 2, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(found["taken"], [1, 6, 2, 60, 2, 2, 2, 2, 2])


# --- populations ----------------------------------------------------------------------------------

SLOW_START = POPULATION | {
    "params": {"steps": 60, "rate": 2e-3, "noise": 0.01},
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
    job = changed(job, "params", {"steps": 60, "limit": 60})
    job["search"] |= {"exploit": exploit, "fraction": 0.5}
    whole, _ = run(tmp_path / "w.zarr", job)
    assert (results(whole)["search_parent"][2:] < 2).any()
    job["sweep"]["zip"]["limit"] = [2, 2, 99, 99, 99, 99]  # the best two finish in no time
    job["params"].pop("limit")
    job["search"]["params"] |= {"noise": {"uniform": [0, 1]}}  # limit must not differ otherwise
    with pytest.raises(JobError, match="limit differs inside the population of items 0-5"):
        make(tmp_path / "x.zarr", job)


def test_populations_side_by_side_do_not_meet(tmp_path):
    """One population for each value of an outer axis; another one's values change no bit of it."""
    found = []
    for other in (0.2, 0.4):
        job = changed(POPULATION, "sweep.grid", {"noise": [0.05, other]})
        job = changed(job, "params", {"dtype": "float64", "steps": 60})
        job["search"]["size"] = 8
        store, _ = run(tmp_path / f"{other}.zarr", job | {"run": job["run"] | {"shard_items": 16}})
        found.append(results(store))
        parents = found[-1]["search_parent"]
        np.testing.assert_array_equal(parents // 8, np.repeat([0, 1], 8)[:, None] + 0 * parents)
    for name in found[0]:
        assert found[0][name][:8].tobytes() == found[1][name][:8].tobytes(), name
    assert (found[0]["loss"][8:] != found[1]["loss"][8:]).all()


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
    found = np.full(n, 0.5)
    for k in range(n):
        rng = np.random.default_rng(k)
        value = value_at(law, 0.5)
        for _ in range(moves):
            value = moved(search, rng, {"a": value})["a"]
        found[k] = position(law, value)
        low, high = bounds(law)
        assert low <= value <= high
    return found


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


# --- the same bits, whatever happens --------------------------------------------------------------


@pytest.fixture(scope="module", params=["halving", "population"])
def whole(request, tmp_path_factory):
    job = HALVING if request.param == "halving" else POPULATION
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", job)
    gather(store)
    return store, job


def test_stop_and_resume_at_many_places_ends_in_the_same_bytes(tmp_path, whole):
    undisturbed, job = whole
    store, stops = make(tmp_path / "s.zarr", job), 0
    for after in [1, 2, 3, 5, 8, 13, 21]:
        stop = Stop()
        progress = run_shards(Store.open(store.address), Interrupted(stop, after), stop=stop)
        stops += progress.stopped == "test"
    assert stops == 7
    assert run_shards(store, SerialExecutor(1)).shards_done == 1
    gather(store)
    assert store.committed.markers()[0].resumed_at == sum([1, 2, 3, 5, 8, 13, 21])
    assert tree_bytes(store.address) == tree_bytes(undisturbed.address)
    assert list(objects.list_keys(store.objects, "run/checkpoints")) == []


@pytest.mark.parametrize("slots", [2, 8, 32])
def test_decisions_do_not_depend_on_the_slots(tmp_path, whole, slots):
    """Also where the slots are halved because memory ran out: all items are compared all the same."""
    undisturbed, job = whole
    store = make(tmp_path / "s.zarr", job)
    (shard,) = store.job.plan.shards()
    report = Worker(store.address).do(Task(shard, slots=slots))
    assert report.error is None
    gather(store)
    assert tree_bytes(store.address) == tree_bytes(undisturbed.address)


@pytest.mark.parametrize("job", [HALVING, POPULATION], ids=["halving", "population"])
def test_an_item_that_fails_is_found_and_the_others_are_searched_without_it(tmp_path, job):
    job = job | {"run": job["run"] | {"retries": 0, "backoff_s": 0.0}}
    store = make(tmp_path / "f.zarr", job)
    fails = lambda task: (
        "error" if task.shard.start <= 4 < task.shard.stop and 4 not in task.without else None
    )
    progress = run_shards(store, Failing(fails))
    assert list(progress.failed_items) == [4]
    assert progress.shards_done == 1
    found, others = results(store), np.delete(np.arange(len(results(store)["status"])), 4)
    assert found["status"][4] == 2
    members = [m for m in members_of(store) if m.item != 4]
    if job["search"]["method"] == "halving":
        left = halve(members, 2, 3, 3)  # 8, 2 and 1 of 26 items are left after the rungs
        rungs = [left.get(m.item, 3) for m in members]
        np.testing.assert_array_equal(found["search_rung"][others], rungs)
    else:
        train_population(members, 3, 9, "tournament", 0.1, 0.0)
        np.testing.assert_array_equal(found["search_parent"][others], [m.parents for m in members])


# --- what a user sees -----------------------------------------------------------------------------


def test_lineage_opens_as_xarray_and_the_end_can_be_asked_for(whole):
    store, job = whole
    group = open_store(store.address)["results/0"]
    population = job["search"]["method"] == "population"
    axis = "generation" if population else "rung"
    assert group.search_metric.dims == ("item", axis)
    assert group.sizes[axis] == (9 if population else 3)
    if population:
        assert group.search_parent.dims == group.search_rate.dims == ("item", "generation")
        frame = query(store, where="final_rate > 0.1", sort="loss")
        assert len(frame) == (group.final_rate.values > 0.1).sum() > 0
    else:
        assert "dropped" in group.status.attrs["flag_meanings"]
        assert len(query(store, where="status == 'dropped' and search_rung >= 1")) == 8
    items = open_store(store.address)["items"]
    np.testing.assert_array_equal(items.search_advances, group.search_advances)


def test_an_old_store_without_a_search_keeps_its_digest():
    job = changed(HALVING, "search", None)
    assert "search" not in parse_job(job, "job").science()
    assert parse_job(job, "job").digest() != parse_job(HALVING, "job").digest()


def test_fork_goes_on_with_a_search_of_fixed_size_only(tmp_path):
    bare = changed(POPULATION, "search.size", 8) | {"sweep": [POPULATION["sweep"]]}
    grown = bare | {"sweep": [*bare["sweep"], {"grid": {"rate": [0.01] * 8}}]}
    old, _ = run(tmp_path / "old.zarr", bare)
    made = lambda job, old, to: fork(
        parse_job(job, "job"), old.job.base, "job", str(tmp_path / to), old, SerialExecutor(1)
    )
    new = made(grown, old, "new.zarr")
    progress = run_shards(new, SerialExecutor(1))
    assert (progress.items_before, progress.items_done) == (8, 16)
    once, _ = run(tmp_path / "once.zarr", grown)
    a, b = results(new), results(once)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
    loose = lambda job: changed(
        job, "search", {k: v for k, v in job["search"].items() if k != "size"}
    )
    with pytest.raises(JobError, match=r"search\.size"):
        made(loose(grown), run(tmp_path / "l.zarr", loose(bare))[0], "x.zarr")


def test_events_and_markers_tell_of_the_search(whole):
    store, _ = whole
    (marker,) = store.committed.markers()
    assert marker.advances == results(store)["search_advances"].sum()
    assert [e.kind for e in read_events(store)] == ["run", "done", "end"]
