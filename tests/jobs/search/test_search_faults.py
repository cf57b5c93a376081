"""Searches whose items fail, whose objects are damaged, whose storage or driver fails: the same bits all the same."""

import random
import re
from functools import cache
from itertools import cycle

import numpy as np
import pytest
from failing import Failing, Flaky, Meddling, Nodes, holds, in_lap
from messages import refused
from search_jobs import (
    DECISIONS,
    HALVING,
    JOBS,
    POPULATION,
    ROUNDS,
    SHORT,
    changed,
    cut,
    halve,
    in_rounds,
    left,
    members_of,
    results,
    same,
    train_population,
    whole_store,
)  # fmt: skip
from stores import make, run

from jobs.gather.check import check
from jobs.report.history import history, history_lines
from jobs.report.page.facts import facts
from jobs.report.summary import state
from jobs.report.warnings import warnings_of
from jobs.run.shards import reconsider, run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.storage.checksums import checksummed, read_verified
from jobs.storage.lease import LeaseHeld
from jobs.store.events import read_events
from jobs.store.look import Look
from jobs.store.store import Store


@pytest.fixture(
    scope="module", params=["halving", pytest.param("tournament", marks=pytest.mark.endurance)]
)
def disturbed(request):
    """A job in rounds, and its results where each lap is one round.

    What a store keeps of a search, and what is done where that is lost, knows nothing of the method: one is enough.
    """
    return in_rounds(request.param), whole_store(request.param)


BOTH = pytest.mark.parametrize("disturbed", ["halving", "tournament"], indirect=True)
"""Where it matters that a member goes on from another one's states."""


def stopped(path, job, nth):
    """A store whose driver has left it after the nth report."""
    store, stop = make(path, job), Stop()
    run_shards(store, Meddling(nth, lambda: stop.ask("test")), stop=stop)
    return store


def ends_as(store, whole):
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert progress.outcomes == outcomes(whole)
    same(store, whole)


@cache
def outcomes(whole):
    """What a run says of a store that is complete."""
    return run_shards(whole, SerialExecutor(1)).outcomes


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Pauses of a storage that fails are short; that they grow and end is a matter of tests/jobs/run/test_limits.py."""
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr("jobs.run.worker.IDLE_S", 0.01)


# --- items that fail ------------------------------------------------------------------------------

ONCE = {"retries": 0}


@pytest.mark.parametrize(
    ("method", "lap", "n"),
    [
        ("halving", 2, 27),
        ("tournament", 0, 2),
        pytest.param("halving", 0, 2, marks=pytest.mark.endurance),
        pytest.param("tournament", 2, 27, marks=pytest.mark.endurance),
    ],
)
def test_an_item_that_fails_is_left_out_from_there_on(tmp_path, method, lap, n):
    """The first is one that comes far; the others are compared without it. Once it is well again, with it."""
    job, row, whole = JOBS[method], 4, whole_store(method)
    if method == "halving":
        row = int(np.flatnonzero(results(whole)["search_rung"] >= 2)[0])
    store = make(tmp_path / "f.zarr", cut(changed(job, "run", job["run"] | ONCE), n))
    progress = run_shards(store, Failing(in_lap(lap, row)))
    assert (list(progress.failed_items), progress.failed) == ([row], {})
    found, others = results(store), np.delete(np.arange(len(results(store)["status"])), row)
    assert found["status"][row] == 2
    members, fails = members_of(store), {row: lap}
    if method == "halving":
        gone = halve(members, 2, 3, 3, fails)
        rungs = np.array([gone.get(m.item, 3) for m in members])
        np.testing.assert_array_equal(found["search_rung"][others], rungs[others])
    else:
        train_population(members, 3, 6, "tournament", 0.1, fails=fails)
        parents = [m.parents for m in members if m.item != row]
        np.testing.assert_array_equal(found["search_parent"][others], parents)
    reconsider(store, failed=True)
    ends_as(store, whole)


def test_all_items_of_a_round_fail(tmp_path):
    """Of one shard, which the others do not wait for."""
    job = changed(SHORT, "run", SHORT["run"] | ONCE)
    fails = lambda task: "error" if holds(task, {2, 3}) else None
    found = []
    for n in (8, 2):
        found.append(make(tmp_path / f"{n}.zarr", cut(job, n)))
        progress = run_shards(found[-1], Failing(fails))
        assert (sorted(progress.failed_items), progress.failed) == ([2, 3], {})
        told = {(one["what"], one["open"], one["in_part"]) for one in facts(found[-1])["failures"]}
        assert told == {("item", True, False), ("round of group", False, True)}
    same(*found)


@pytest.mark.parametrize(
    "name", ["halving", "tournament", pytest.param("truncation", marks=pytest.mark.endurance)]
)
def test_a_metric_that_is_nan_for_all(tmp_path, name):
    """Nobody is better: all keep their own states, and halving goes by the order of the items."""
    job = changed(in_rounds(name), "kernel", "hill_unknown")
    store, progress = run(tmp_path / "n.zarr", job)
    assert (progress.failed, progress.failed_items) == ({}, {})
    found = results(store)
    if name == "halving":
        assert (found["search_rung"][:9] > 0).all()
        assert (found["search_rung"][9:] == 0).all()
    else:
        assert (found["search_parent"] == np.arange(8)[:, None]).all()
    assert np.isnan(found["search_metric"]).all()


def test_a_search_that_drops_all_items_says_why(tmp_path):
    job = changed(changed(HALVING, "kernel", "hill_unknown"), "search.method", "asha")
    store, _ = run(tmp_path / "a.zarr", job)
    said = "no item is done: the search dropped all 27 items, because loss was NaN"
    assert said in warnings_of(Look(store))
    others_go_on = Look(store)
    others_go_on.markers = others_go_on.markers[:-1]
    assert said not in warnings_of(others_go_on)


def test_a_round_that_cannot_be_made_ends_the_search_of_its_group(tmp_path):
    """The other groups go on, and so does this one in the next run."""
    job = changed(SHORT, "params", {"dtype": "float64", "noise": 0.05})
    job = cut(changed(job, "sweep.grid", {"steps": [50, 60]}), 2)
    whole, _ = run(tmp_path / "w.zarr", cut(job, 8))
    store = make(tmp_path / "s.zarr", job)
    progress = run_shards(
        store, Failing(lambda task: "input" if task.shard.number == 8 + 2 * 9 else None)
    )
    assert store.committed.numbers() == {4, 5, 6, 7}
    assert progress.failed == dict.fromkeys(range(4), "input of 26")
    ends_as(store, whole)


# --- attempts that fail ---------------------------------------------------------------------------


@BOTH
def test_rounds_that_are_tried_again(tmp_path, disturbed):
    """Each third attempt fails, of each fault in turn; where memory runs out, the slots are halved on the way."""
    job, whole = disturbed
    store = make(tmp_path / "t.zarr", changed(job, "run.retries", 99))
    faults = ("death", "memory", "storage", "outside")
    turns = cycle(fault for each in faults for fault in (None, None, each))
    progress = run_shards(store, Failing(lambda task: next(turns)))
    assert progress.failed == {}
    said = [e.error for e in read_events(store) if e.kind == "error"]
    assert {text.split()[0] for text in said} == {*faults}
    assert state(Look(store))["errors"] == []
    ended = {(one["what"], one["open"]) for one in facts(store)["failures"]}
    assert ended == {("round of group", False), ("shard", False)}
    told = "\n".join(history_lines(history(store)))
    assert "a round of group 0 failed (memory): memory of " in told
    numbers = {int(n) for n in re.findall("  shard ([0-9]+)", told)}
    assert numbers == store.committed.numbers()
    same(store, whole)


def test_memory_that_forces_a_smaller_microbatch_midway(tmp_path):
    """The search goes on with it from there; what was told before stays as it is."""
    job = cut(changed(SHORT, "run.microbatch", 4), 4)
    store, calls = make(tmp_path / "m.zarr", job), iter(range(10**6))
    progress = run_shards(store, Failing(lambda task: "memory" if next(calls) == 5 else None))
    assert (progress.failed, progress.shards_done) == ({}, 2)
    assert {m.layout.microbatch for m in store.committed.markers()} == {2}
    assert check(store.address) == []
    assert (results(store)["status"] != 0).all()


# --- damage ---------------------------------------------------------------------------------------


def spoil(store, key, harm):
    """Flip a bit of an object's end or of its head, cut it, or remove it."""
    data = bytearray(objects.read(store.objects, key))
    at = min(200, len(data) // 2) if harm == "head" else len(data) - 3
    data[at] ^= 1
    if harm == "removed":
        objects.delete(store.objects, key)
    else:
        objects.write(store.objects, key, bytes(data[: at if harm == "cut" else None]))


HARMS = ("cut", "removed", "head", "end")


@pytest.mark.parametrize(
    ("which", "harm", "at"),
    [
        ("all", "removed", "once"),
        ("one", "cut", "next run"),
        pytest.param("all", "end", "next run", marks=pytest.mark.endurance),
        pytest.param("one", "head", "once", marks=pytest.mark.endurance),
    ],
)
@BOTH
def test_states_that_are_damaged_are_computed_again(tmp_path, disturbed, which, harm, at):
    """Under a driver that lives, or before the next one; all that there are, and with them whole lineages."""
    job, whole = disturbed
    nth = 5 if job["search"]["method"] == "halving" else 14
    store, stop = make(tmp_path / "d.zarr", job), Stop()

    def damage():
        for key in left(store)[: None if which == "all" else 1]:
            spoil(store, key, harm)
        if at == "next run":
            stop.ask("test")

    run_shards(store, Meddling(nth, damage), stop=stop)
    ends_as(store, whole)


def test_states_that_are_lost_again_and_again_end_the_search(tmp_path, disturbed):
    """It says so, and the next run goes on."""
    job, whole = disturbed
    store = make(tmp_path / "d.zarr", job)

    def damage():
        for key in left(store):
            objects.delete(store.objects, key)
        return damage

    progress = run_shards(store, Meddling(1, damage))
    assert "are damaged again and again; check the storage" in progress.failed[0]
    ends_as(store, whole)


def lineage(store):
    """The rounds that were asked for, one after another."""
    decisions = [read_verified(store.objects, key) for key in sorted(left(store, DECISIONS))]
    return [decision["asked"] for decision in decisions if decision["asked"]]


@pytest.mark.parametrize(
    ("nth", "harm"),
    [
        (0, "cut"),
        (7, "removed"),
        *(pytest.param(k, h, marks=pytest.mark.endurance) for k in (0, 3, 7) for h in HARMS),
    ],
)
def test_a_decision_that_is_damaged_is_made_again(tmp_path, disturbed, nth, harm):
    """And those after it, of which the new driver knows nothing."""
    job, whole = disturbed
    store = stopped(tmp_path / "d.zarr", job, 10)
    log = sorted(left(store, DECISIONS))
    before = lineage(store)
    spoil(store, log[nth], harm)
    found = [f for f in check(store.address) if f.cure]
    assert [(f.key, f.what) for f in found] == [(log[nth], "damaged")][: harm != "removed"]
    ends_as(store, whole)
    assert lineage(store)[: len(before)] == before


@pytest.mark.parametrize(
    ("nth", "harm", "what"), [(1, "cut", "damaged"), (-1, "removed", "missing")]
)
def test_a_decision_of_a_search_that_is_over_has_a_checksum(tmp_path, nth, harm, what):
    store, _ = run(tmp_path / "d.zarr", HALVING)
    assert check(store.address) == []
    key = sorted(left(store, DECISIONS))[nth]
    spoil(store, key, harm)
    assert [(f.key, f.what) for f in check(store.address, repair=True)] == [(key, what)]
    assert check(store.address) == []


def test_a_log_of_another_search_ends_it(tmp_path, disturbed):
    """As where another version of Optuna proposes otherwise; nothing is written over."""
    job, whole = disturbed
    store = stopped(tmp_path / "o.zarr", job, 6)
    key = sorted(left(store, DECISIONS))[4]
    kept = objects.read(store.objects, key)
    content = {k: v for k, v in read_verified(store.objects, key).items() if k != "sha256"}
    content["asked"]["length"] += 1
    objects.write(store.objects, key, checksummed(content))
    progress = run_shards(store, SerialExecutor(1))
    assert {"the search decided differently" in text for text in progress.failed.values()} == {True}
    objects.write(store.objects, key, kept)
    ends_as(store, whole)


@pytest.mark.parametrize("harm", ["removed", pytest.param("cut", marks=pytest.mark.endurance)])
@BOTH
def test_a_committed_shard_that_is_damaged_is_computed_again(tmp_path, disturbed, harm):
    """From the log, with all that its items descend from; the other shards stay as they are."""
    job, whole = disturbed
    store, _ = run(tmp_path / "c.zarr", job)
    before = {m.shard.number: m.version for m in store.committed.markers()}
    spoil(store, min(store.committed.markers()[1].sha256), harm)
    check(store.address, repair=True)
    assert 1 not in store.committed.numbers()
    ends_as(store, whole)
    after = {m.shard.number: m.version for m in store.committed.markers()}
    assert {k for k in before if before[k] != after[k]} == {1}
    assert check(store.address) == []


def test_check_knows_states_and_decisions(tmp_path, disturbed):
    job, whole = disturbed
    store = stopped(tmp_path / "c.zarr", job, 5)
    states = {key: objects.read(store.objects, key) for key in left(store)}
    assert states
    assert left(store, DECISIONS)
    assert not any(finding.cure for finding in check(store.address))
    bad = min(states)
    spoil(store, bad, "end")
    found = [finding for finding in check(store.address, repair=True) if finding.cure]
    assert [(f.key, f.what) for f in found] == [(bad, "damaged")]
    assert bad not in left(store)
    ends_as(store, whole)
    for key, data in states.items():
        objects.write(store.objects, key, data)
    objects.write(store.objects, "run/checkpoints/0/000017/0", b"of a round")
    assert {f.what for f in check(store.address, repair=True)} == {
        "left over: its shard is committed"
    }
    assert check(store.address) == []
    assert left(store) == []


# --- a storage that fails, drivers ----------------------------------------------------------------


@BOTH
def test_a_storage_that_fails_between_two_decisions(tmp_path, monkeypatch, disturbed):
    """At one request in five of each kind; the driver waits, and goes on where it was."""
    job, whole = disturbed
    store, draw = make(tmp_path / "e.zarr", job), random.Random(0)
    parts = {"create": DECISIONS, "write": ROUNDS, "read_range": ROUNDS, "delete": ROUNDS}
    flaky = {
        call: Flaky(
            getattr(objects, call),
            lambda where, key, *rest, part=part: key.startswith(part) and draw.random() < 0.4,
        )
        for call, part in parts.items()
    }
    with monkeypatch.context() as patch:
        for call, fails in flaky.items():
            patch.setattr(objects, call, fails)
        progress = run_shards(store, SerialExecutor(1))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert all(fails.n for fails in flaky.values())
    check(store.address, repair=True)  # what could not be deleted
    same(store, whole)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.endurance)])
def test_a_storage_that_fails_while_others_report(tmp_path, monkeypatch, seed):
    """A decision that could not be written is written later, and its round handed out, whoever has ended meanwhile."""
    job = changed(POPULATION, "search.size", 4)
    rates = np.linspace(0.05, 0.4, 4).tolist()
    job = changed(job, "sweep", {"grid": {"limit": [14, 20, 26, 60], "rate": rates}})
    job = cut(changed(job, "params.noise", 0.05), 2)
    draw = random.Random(seed)
    executor = Nodes(4, lambda task: draw.uniform(0.1, 3))
    store = make(tmp_path / "e.zarr", job)
    flaky = Flaky(objects.create, lambda where, key, *rest: key.startswith(DECISIONS))

    def in_time(_):
        assert executor.now < 1e4, "nothing goes on"

    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: executor.now)
        patch.setattr(objects, "create", flaky)
        progress = run_shards(store, executor, in_time)
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    whole, _ = run(tmp_path / "w.zarr", cut(job, 16))
    same(store, whole)


def second_driver(store, executor):
    """Another driver, which believes that the first one is dead, runs the store to its end."""
    objects.delete_all(store.objects, "run/lease")
    return run_shards(Store.open(store.address), executor)


def test_a_driver_that_was_thought_dead_does_no_harm(tmp_path, disturbed):
    """Once it is to decide, it finds that another one has."""
    job, whole = disturbed
    store, progress = make(tmp_path / "t.zarr", job), []
    first = Meddling(4, lambda: progress.append(second_driver(store, SerialExecutor(1))))
    with refused(LeaseHeld):
        run_shards(store, first)
    assert progress[0].shards_done == progress[0].n_shards
    assert [e.kind for e in read_events(store)][-1] == "end"
    check(store.address, repair=True)
    same(store, whole)
    assert check(store.address) == []
