"""`resume --failed` of searches out of step: the items that failed are tried again, the others stay as they are."""

import shutil
from functools import cache

import numpy as np
import pytest
from failing import Failing, in_lap
from killing import middle, stopped_at_writes
from search_jobs import DECISIONS, HALVING, RATE, ROUNDS, changed, cut, left, results
from stores import make, run, tree_bytes

from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.shards import reconsider, run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.store.store import Store

FEW_STEPS = changed(HALVING, "params.steps", 20)
"""Two more than to the last rung."""
ASHA = changed(FEW_STEPS, "search.method", "asha")
OPTUNA = FEW_STEPS | {
    "sweep": {},
    "search": {
        "method": "optuna", "metric": "loss", "trials": 18, "together": 4, "params": {"rate": RATE},
    },
}  # fmt: skip
PRUNED = changed(OPTUNA, "search.prune", {"min_advances": 2, "eta": 3})
JOBS = {
    name: cut(changed(job, "run.retries", 0), 4)
    for name, job in {
        "asha": ASHA, "asha of 9": changed(ASHA, "sweep.samples", 9), "optuna": OPTUNA, "prune": PRUNED,
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """Name of JOBS -> the undisturbed store, and the row of its last item that made most laps."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def made(name):
        whole, _ = run(folder / f"{name}.zarr", JOBS[name])
        return whole, int(np.flatnonzero(results(whole)["status"] == 1)[-1])

    return made


@pytest.fixture(scope="module")
def with_a_failure(far, tmp_path_factory):
    """Of a name of JOBS and a lap, a copy of a store whose search is over, with an item that failed in this lap."""
    folder = tmp_path_factory.mktemp("failed")

    @cache
    def made(name, lap):
        _, row = far(name)
        store = make(folder / f"{name}-{lap}.zarr", JOBS[name])
        progress = run_shards(store, Failing(in_lap(lap, row)))
        assert (list(progress.failed_items), progress.failed) == ([row], {})
        return store.address

    def copied(path, name, lap):
        shutil.copytree(made(name, lap), path)
        return Store.open(str(path))

    return copied


@pytest.mark.parametrize(("name", "lap"), [("asha", 0), ("asha", 2), ("optuna", 0), ("prune", 1)])
def test_only_the_items_that_failed_are_tried_again(tmp_path, far, with_a_failure, name, lap):
    """From the lap in which they failed; what they come to is what they would have come to."""
    whole, row = far(name)
    store = with_a_failure(tmp_path / "f.zarr", name, lap)
    before = results(store)
    assert before["status"][row] == 2
    assert check(store.address) == []
    reconsider(store, failed=True)
    again = Failing(lambda task: None)
    progress = run_shards(store, again)
    assert (progress.failed_items, progress.failed) == ({}, {})
    made = [task.step for task in again.seen if task.step.search_results is None]
    assert {tuple(step.round.rows) for step in made} == {(row,)}
    assert (
        made[0].round.length
        == {"asha": [2, 4, 12], "prune": [2, 4], "optuna": [2**31 - 1]}[name][lap]
    )
    after, first = results(store), results(whole)
    others = np.arange(len(after["status"])) != row
    for column, values in before.items():
        assert values[others].tobytes() == after[column][others].tobytes(), column
    assert after["status"][row] == first["status"][row] == 1
    for column, values in first.items():
        assert after[column][row].tobytes() == values[row].tobytes(), column
    assert check(store.address) == []
    assert left(store) + left(store, "run/checkpoints") == []


@pytest.mark.parametrize("harm", ["states", "decision"])
def test_states_or_the_decision_that_are_lost_are_made_again(tmp_path, with_a_failure, harm):
    """States are computed again; without the decision the driver decides the same once more."""
    stores = []
    for name in ("a.zarr", "b.zarr"):
        store = with_a_failure(tmp_path / name, "asha", 2)
        reconsider(store, failed=True)
        stores.append(store)
    run_shards(stores[0], SerialExecutor(1))
    if harm == "states":
        objects.delete_all(stores[1].objects, ROUNDS)
    else:
        n = len(left(stores[1], DECISIONS))
        copy = tmp_path / "c.zarr"
        shutil.copytree(stores[1].address, copy)
        run_shards(Store.open(str(copy)), SerialExecutor(1))
        key = sorted(left(Store.open(str(copy)), DECISIONS))[n]
        objects.write(stores[1].objects, key, b"damaged")
    run_shards(stores[1], SerialExecutor(1))
    np.testing.assert_equal(results(stores[1]), results(stores[0]))


@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("asha of 9", 5),
        *(pytest.param(k, 1, marks=pytest.mark.endurance) for k in ("asha", "prune")),
    ],
)
def test_stopped_at_writes_while_items_are_tried_again(
    monkeypatch, tmp_path, with_a_failure, name, every
):
    """From each write on, or from one of each kind, it comes to the same bytes."""
    store = with_a_failure(tmp_path / "f.zarr", name, 1)
    reconsider(store, failed=True)
    states = stopped_at_writes(store, tmp_path, monkeypatch, every)
    kinds = middle(states, f"put {DECISIONS}", f"put {ROUNDS}", "put results", "put run/done")
    whole, tree = results(store), tree_bytes(store.address)
    for what, copy in states if every == 1 else kinds:
        try:
            again = Store.open(str(copy))
            searched = len(again.committed.numbers()) == again.job.plan.n_shards
            progress = run_shards(again, SerialExecutor(1))
            assert (progress.failed, progress.failed_items) == ({}, {})
            np.testing.assert_equal(results(again), whole)
            # Where the search went on, tables are made of these results, as tests of gathers show.
            if searched or every == 1:
                gather(again)
                assert tree_bytes(again.address) == tree
        except Exception as error:
            error.add_note(f"stopped before {what}")
            raise
