"""A sweep that has grown: old items are copied, new ones computed, and the whole is as if run at once."""

import numpy as np
import pytest
from failing import Failing, holds
from messages import refused
from search_jobs import HALVING, changed
from stores import BASE, JOB, make, run

from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.fork import fork
from jobs.run.prepare import difference, has_grown, open_or_create, reopen
from jobs.run.shards import claim, run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage.lease import LeaseHeld
from jobs.store.finding import find_stores
from jobs.store.store import Store
from jobs.store.writer import write_shard

FIRST = JOB["sweep"]
LINE = {"grid": {"rate": {"linspace": [-0.5, 0.5, 22]}}}
"""One group: a further sweep over the same field makes it longer."""
MORE = {"grid": {"n": [3, 7], "rate": [0.1, 0.2, 0.3, 0.4], "push": [[0, 0]]}}
GROWN = {**JOB, "sweep": [FIRST, MORE]}


def forked(path, old, job=GROWN):
    spec = parse_job(job, "job")
    return fork(spec, BASE, "job", str(path), Store.open(old.address), SerialExecutor(1))


def test_search_that_compares_all_items_is_not_told_to_fork(tmp_path):
    store = make(tmp_path / "h.zarr", HALVING)
    more = [HALVING["sweep"] | {"samples": 54}, [HALVING["sweep"], HALVING["sweep"]]]
    for sweep in more:
        with refused(JobError) as told:
            reopen(parse_job({**HALVING, "sweep": sweep}, "job"), store.address)
        assert "--fork" not in str(told.value)
    with refused(JobError):
        reopen(parse_job(changed(HALVING, "search.eta", 2), "job"), store.address)


@pytest.mark.parametrize(
    ("first", "more", "gone", "kept", "total"),
    [
        # The new items are groups of their own, and an old shard is not there.
        (FIRST, MORE, [2], set(range(8)) - {2}, 10),
        pytest.param(FIRST, MORE, [], set(range(8)), 10, marks=pytest.mark.endurance),
        (LINE, {"grid": {"rate": [0.7, 0.8, 0.9, 1.0]}}, [], {0, 1, 2}, 5),  # the last was not full
    ],
)
def test_fork_keeps_old_shards_and_equals_one_run(tmp_path, first, more, gone, kept, total):
    grown = {**JOB, "sweep": [first, more]}
    old, _ = run(tmp_path / "old.zarr", {**JOB, "sweep": first})
    before = {m.shard.number: m for m in old.committed.markers()}
    old.committed.forget([before[number].shard for number in gone])
    new = forked(tmp_path / "new.zarr", old, grown)
    assert new.committed.numbers() == kept
    executor = Failing(lambda task: False)
    run_shards(new, executor)
    assert {task.shard.number for task in executor.seen} == set(range(total)) - kept
    whole, _ = run(tmp_path / "whole.zarr", grown)
    assert new.job.plan.layouts[: len(old.job.plan.layouts)] == old.job.plan.layouts
    for group, n in enumerate(whole.job.plan.group_sizes):
        for name in [*whole.names(group), "status", "item", "rate"]:
            values = new.rows(group, name, 0, n)
            assert values.tobytes() == whole.rows(group, name, 0, n).tobytes(), (group, name)
    gather(new)
    assert check(new.address) == []
    copied = [m for m in new.committed.markers() if m.copied_from is not None]
    assert len(copied) == len(kept)
    assert copied[0].seconds == before[0].seconds
    # A folder with both has each item once.
    told = []
    assert find_stores([str(tmp_path)], told.append) == [new.address, whole.address]
    assert f"{old.address} (part of {new.address})" in told[0]


def test_a_random_sweep_grows_by_samples_or_by_a_further_one(tmp_path, monkeypatch):
    drawn = {"random": {"rate": {"uniform": [-0.5, 0.5]}}, "samples": 12}
    more, further = drawn | {"samples": 18}, [drawn, drawn | {"samples": 6}]
    old, _ = run(tmp_path / "old.zarr", {**JOB, "sweep": drawn})
    for k, sweep in enumerate([more, further]):
        new = forked(tmp_path / f"{k}.zarr", old, {**JOB, "sweep": sweep})
        assert new.committed.numbers() == {0, 1}
        rates = new.rows(0, "rate", 0, 18)
        assert len(set(rates.tolist())) == 18
        assert rates[:12].tolist() == old.rows(0, "rate", 0, 12).tolist()
    assert rates.tolist() == Store.open(str(tmp_path / "0.zarr")).rows(0, "rate", 0, 18).tolist()
    before = lambda parts, seed: [part.columns(seed) for part in parts]
    with monkeypatch.context() as patch:
        patch.setattr("jobs.plan.items.columns_of", before)
        twice, _ = run(tmp_path / "twice.zarr", {**JOB, "sweep": further})
    with refused(JobError):
        forked(tmp_path / "thrice.zarr", twice, {**JOB, "sweep": [*further, drawn]})


def test_fork_takes_items_with_errors_along(tmp_path):
    old = make(tmp_path / "old.zarr", {**JOB, "run": {**JOB["run"], "retries": 0}})
    run_shards(old, Failing(lambda t: t.shard.group == 1 and holds(t, {8}) and "error"))
    new = forked(tmp_path / "new.zarr", old)
    progress = run_shards(new, SerialExecutor(1))
    assert list(progress.failed_items.values()) == ["error of 5"]
    assert np.flatnonzero(new.rows(1, "status", 0, 22) == 2).tolist() == [8]


def test_fork_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    old, _ = run(tmp_path / "old.zarr")
    left = [3]

    def dies(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write_shard(*args)

    monkeypatch.setattr("jobs.run.fork.write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        forked(tmp_path / "new.zarr", old)
    left[0] = 100
    assert len(forked(tmp_path / "new.zarr", old).committed.numbers()) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"params": {"n_steps": 8}},
        {"sweep": [MORE, FIRST]},
        # Axes in another order: other items have these ids.
        {"sweep": [FIRST | {"grid": dict(reversed(FIRST["grid"].items()))}, MORE]},
        {"sweep": {"grid": {**FIRST["grid"], "n": [3, 5, 7]}}},
    ],
)
def test_fork_refuses_any_other_change_and_shows_it(tmp_path, change):
    old = make(tmp_path / "old.zarr")
    with refused(JobError):
        forked(tmp_path / "new.zarr", old, {**GROWN, **change})
    assert not (tmp_path / "new.zarr").exists()


def test_run_over_a_store_whose_sweep_has_grown_names_the_fork(tmp_path):
    old = make(tmp_path / "old.zarr")
    spec = parse_job(GROWN, "job")
    assert has_grown(old.job.spec, spec, old.kernel)
    told = [line.strip() for line in difference(old.job.spec, spec).splitlines()]
    assert told, "of what is new alone: the first sweep of the list is the old one"
    assert all(line.startswith("sweep.1.") and "(not given) in the store" in line for line in told)
    written = parse_job(GROWN | {"params": {"n_steps": 7.0, "offset": 0}}, "job")  # a default
    assert has_grown(old.job.spec, written, old.kernel)
    longer = JOB | {"sweep": JOB["sweep"] | {"seeds": 2}}
    with refused(JobError):
        reopen(parse_job(longer, "job"), old.address)
    with refused(JobError):
        open_or_create(spec, BASE, "job", old.address, SerialExecutor(1))


def test_axes_that_are_reordered_in_two_sweeps_at_once_are_another_job(tmp_path):
    """Their digests are equal: it names the orders that are not the alphabet's, and both jobs have the same ones."""
    one, two = ({"n": [3, 5], "rate": [0.1, 0.2]}, {"n": [4, 6], "rate": [0.3, 0.4]})
    turned = lambda grid: dict(reversed(grid.items()))
    jobs = [
        parse_job(JOB | {"sweep": [{"grid": a}, {"grid": b}]}, "job")
        for a, b in ((one, turned(two)), (turned(one), two))
    ]
    assert jobs[0].digest() == jobs[1].digest()
    store = open_or_create(jobs[0], BASE, "job", str(tmp_path / "s.zarr"), SerialExecutor(1))
    reopen(jobs[0], store.address)
    with refused(JobError):
        reopen(jobs[1], store.address)


def test_a_store_that_is_being_run_takes_no_shards(tmp_path):
    old, _ = run(tmp_path / "old.zarr")
    new = forked(tmp_path / "new.zarr", old)
    new.committed.forget([marker.shard for marker in new.committed.markers()[:2]])
    before = new.committed.numbers()
    with claim(new).renewing(), pytest.raises(LeaseHeld):
        forked(tmp_path / "new.zarr", old)
    assert Store.open(new.address).committed.numbers() == before
