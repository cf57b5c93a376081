"""What fails, and what is done about it: jobs.run.retry, with the serial executor."""

import numpy as np
import pytest
from failing import RUN, Failing, Overheard, holds
from stores import JOB, make, run, tree_bytes

from ctd.batch import Layout
from jobs import keys
from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.retry import MAX_FOUND, Bisection, Failures
from jobs.run.shards import open_ledger, run_shards
from jobs.run.task import Report
from jobs.run.worker import fault_of
from jobs.storage import objects
from jobs.store.look import Look
from jobs.store.store import Store


def searched(n, failing, flaky=0, confirm=2):
    """(rows that the search finds, number of probes); the first `flaky` probes fail whatever they hold."""
    search, probes = Bisection(range(n), confirm), 0
    while search.probe is not None:
        probes += 1
        start, stop = search.probe
        search.note_probe(probes <= flaky or any(start <= row < stop for row in failing))
    return search.failing, probes


@pytest.mark.parametrize("n", [2, 3, 7, 64, 100])
def test_search_finds_exactly_the_failing_rows(n):
    rng = np.random.default_rng(n)
    for k in range(min(n, 6)):
        failing = set(rng.choice(n, k, replace=False).tolist())
        assert set(searched(n, failing)[0]) == failing
    for row in range(n):
        found, probes = searched(n, {row})
        assert found == [row]
        assert probes <= np.ceil(np.log2(n)) * 2 + 2


def test_search_skips_rows_that_are_known():
    search = Bisection([0, 3, 4, 9], 1)
    assert search.probe == (0, 4)
    search.note_probe(failed=True)
    assert search.probe == (0, 1)
    search.note_probe(failed=False)
    assert search.probe == (3, 4)
    search.note_probe(failed=True)
    assert search.probe == (4, 10)
    search.note_probe(failed=False)
    assert (search.probe, search.failing) == (None, [3])


def test_search_blames_nothing_where_only_the_whole_fails():
    assert searched(50, set())[0] == []


def test_search_does_not_blame_a_row_for_a_failure_by_chance():
    for flaky in range(1, 7):
        assert searched(64, set(), flaky)[0] == []


# --- a store --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The job's store where nothing fails."""
    return run(tmp_path_factory.mktemp("store") / "whole.zarr", {**JOB, "run": RUN})[0]


@pytest.mark.parametrize(
    ("fault", "rows"),
    [
        ("error", {6, 11}),
        ("error", {0, 1, 2, 3, 4, 5}),
        ("death", {21}),
        pytest.param("death", {8}, marks=pytest.mark.endurance),
    ],
)
def test_items_that_fail_are_found_and_the_others_are_as_without_them(tmp_path, whole, fault, rows):
    store = make(tmp_path / "f.zarr", {**JOB, "run": RUN})
    bad = lambda task: task.shard.group == 0 and holds(task, rows) and fault
    progress = run_shards(store, Failing(bad))
    items = store.rows(0, "item", 0, 22)
    assert progress.failed == {}
    assert set(progress.failed_items) == {int(items[row]) for row in rows}
    assert progress.shards_done == 8
    good = np.array([row for row in range(22) if row not in rows])
    for name in [*store.names(0), "status"]:
        values, expected = store.rows(0, name, 0, 22), whole.rows(0, name, 0, 22)
        assert values[good].tobytes() == expected[good].tobytes(), name
    assert (store.rows(0, "status", 0, 22)[list(rows)] == 2).all()
    assert np.isnan(store.rows(0, "x", 0, 22)[list(rows)]).all()
    assert sum(marker.n_failed for marker in store.committed.markers()) == len(rows)
    kept = Store.open(store.address).failed.items()
    assert {item.row for items in kept.values() for item in items} == rows
    first = kept[min(rows) // 6][0]
    assert (first.error.startswith(fault), first.trace) == (True, "trace")
    assert list(objects.list_all(store.objects, keys.FAILED)) == []
    # Shards without such an item are computed once, and nothing else of them is asked.
    others = {m.shard.number for m in store.committed.markers()} - {row // 6 for row in rows}
    attempts = {m.shard.number: m.attempt for m in store.committed.markers()}
    assert all(attempts[k] == 1 for k in others)
    gather(store)


@pytest.mark.parametrize("shard_items", [1, 3])
def test_an_item_that_fails_after_a_checkpoint_leaves_none(tmp_path, shard_items):
    class Late(Overheard):
        """The items with odd rows fail in their second advance."""

        def heard(self, task, note, progress):
            note(progress)
            if progress.advances == 2 and holds(task, {1, 3, 5}):
                raise RuntimeError("no more")

    job = {**JOB, "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 6]}}}}
    given = {
        "shard_items": shard_items,
        "slots": 4,
        "microbatch": 2,
        "retries": 0,
        "checkpoint_s": 0,
    }
    store = make(tmp_path / "l.zarr", {**job, "run": given})
    progress = run_shards(store, Late(1))
    assert (progress.failed, set(progress.failed_items)) == ({}, {1, 3, 5})
    assert list(objects.list_all(store.objects, keys.CHECKPOINTS)) == []
    assert check(store.address) == []


def test_items_that_failed_are_known_to_the_next_run(tmp_path):
    store = make(tmp_path / "n.zarr", {**JOB, "run": RUN})
    bad = lambda task: task.shard.group == 0 and holds(task, {8}) and "error"
    run_shards(store, Failing(bad))
    before = tree_bytes(store.address)
    store.committed.forget(list(store.job.plan.shards())[1:2])
    again = Failing(bad)
    progress = run_shards(Store.open(store.address), again)
    assert [task.without for task in again.seen] == [(8,)]
    assert len(progress.failed_items) == 1
    assert tree_bytes(store.address) == before


def test_shard_whose_parts_all_pass_is_given_up(tmp_path):
    store = make(tmp_path / "w.zarr", {**JOB, "run": RUN})
    whole = lambda task: task.shard.number == 1 and not task.probe and "error"
    progress = run_shards(store, Failing(whole))
    assert progress.failed == {1: "error of 1"}
    assert progress.failed_items == {}
    assert progress.shards_done == 7


def test_shard_in_which_everything_fails_is_given_up_as_a_whole(tmp_path):
    job = {**JOB, "sweep": {"grid": {"rate": {"linspace": [0, 1, 200]}}}}
    store = make(tmp_path / "e.zarr", {**job, "run": {**RUN, "shard_items": 100}})
    progress = run_shards(store, Failing(lambda task: task.shard.number == 0 and "error"))
    assert f"{MAX_FOUND} of its items fail" in progress.failed[0]
    assert progress.shards_done == 1


@pytest.mark.parametrize(("fault", "attempts"), [("input", 1), ("outside", 2)])
def test_fault_outside_of_the_items_is_not_searched_for_in_them(tmp_path, fault, attempts):
    store = make(tmp_path / "i.zarr", {**JOB, "run": RUN})
    executor = Failing(lambda task: task.shard.number == 1 and fault)
    assert run_shards(store, executor).failed == {1: f"{fault} of 1"}
    assert len([task for task in executor.seen if task.shard.number == 1]) == attempts


@pytest.mark.parametrize(
    ("shard_items", "n", "tried"),
    [(100, 400, 2), pytest.param(1, 80, 64, marks=pytest.mark.endurance)],
)
def test_group_of_which_nothing_can_be_computed_is_given_up(tmp_path, shard_items, n, tried):
    """A mistake in a kernel is not searched for in every shard; another group is none the worse."""
    rates = {"linspace": [0, 1, n]}, {"linspace": [0, 1, 2 * shard_items]}
    sweeps = [
        {"grid": {"n": [size], "rate": rate}} for size, rate in zip((3, 5), rates, strict=True)
    ]
    settings = {**RUN, "retries": 0, "shard_items": shard_items}
    store = make(tmp_path / "h.zarr", {**JOB, "sweep": sweeps, "run": settings})
    everything = set(range(n))
    executor = Failing(lambda task: task.shard.group == 0 and holds(task, everything) and "error")
    progress = run_shards(store, executor)
    of_group_0 = {task.shard.number for task in executor.seen if task.shard.group == 0}
    assert tried <= len(of_group_0) <= tried + 1
    assert "nothing of group 0 could be computed" in progress.failed[max(progress.failed)]
    first = n // shard_items
    done = {m.shard.number for m in store.committed.markers() if m.shard.group == 1}
    assert done == {first, first + 1}


def test_a_stop_says_nothing_of_a_group_that_was_given_up(tmp_path, monkeypatch):
    """A shard of it that was running waits for the next run, which may find the mistake mended."""
    monkeypatch.setattr("jobs.run.retry.HOPELESS_SHARDS", 1)
    ledger = open_ledger(make(tmp_path / "s.zarr", {**JOB, "run": RUN}))
    first, second = ledger.next_task(), ledger.next_task()
    ledger.decide(first, Report(*first.key, error="bad", fault="input"))
    ledger.decide(second, Report(*second.key, error="stopped", fault="stopped"))
    assert set(ledger.progress.failed) == {0, 2, 3}
    assert ledger.queue.drop(0) == [second._replace(attempt=2, begin="resume")]


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fits", "layout"), [(2, (2, 2)), (1, (1, 1))])
def test_memory_halves_the_slots_of_the_group_then_the_microbatch(tmp_path, whole, fits, layout):
    store = make(tmp_path / "m.zarr", {**JOB, "run": {**RUN, "retries": 0}})
    over = lambda task: task.shard.group == 0 and (task.slots or 4) > fits and "memory"
    progress = run_shards(store, Failing(over))
    assert progress.failed == {}
    layouts = {
        m.shard.group: (m.layout.slots, m.layout.microbatch) for m in store.committed.markers()
    }
    assert layouts == {0: layout, 1: (4, 2)}
    assert Failures(Look(store)).task(next(store.job.plan.shards()), 1, "fresh").slots == fits
    if fits == 2:  # the microbatch is what was planned: no bit has changed
        assert tree_bytes(store.address) == tree_bytes(whole.address)


def test_deaths_that_no_item_explains_narrow_the_group_but_change_no_bit(tmp_path):
    store = make(tmp_path / "d.zarr", {**JOB, "run": RUN})
    dies = lambda task: (
        task.shard.number == 1 and not task.probe and (task.slots or 4) > 2 and "death"
    )
    assert run_shards(store, Failing(dies)).failed == {}
    assert store.committed.markers()[1].layout == Layout(2, 2, 1)


def test_only_the_words_of_xla_and_python_mean_memory():
    from jax.errors import JaxRuntimeError
    from obstore.exceptions import GenericError

    assert (
        fault_of(JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))
        == "memory"
    )
    assert fault_of(MemoryError()) == "memory"
    assert fault_of(JaxRuntimeError("INTERNAL: out of memory of what I meant to say")) == "error"
    assert fault_of(ValueError("RESOURCE_EXHAUSTED")) == "error"
    assert fault_of(GenericError("No space left on device")) == "storage"
    assert fault_of(OSError(28, "No space left on device")) == "storage"
    assert fault_of(FileNotFoundError(2, "no such file")) == "error"


def test_an_input_out_of_reach_is_no_bad_input():
    assert fault_of(JobError("no such dataset")) == "input"
    assert fault_of(objects.StorageFailed("busy")) == "storage"
    assert fault_of(objects.StorageFailed("no server answers")) == "storage"
