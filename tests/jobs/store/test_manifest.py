"""jobs.store.manifest: what a store keeps of its kernel, and what its arrays say where that is missing."""

import json

import pytest
from stores import BASE, JOB, copied_run, make

from jobs import keys
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.worker import SerialExecutor
from jobs.spec.description import Description
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import checksummed
from jobs.store import manifest
from jobs.store.store import Store

SEARCHED = {
    "kernel": "hill",
    "sweep": {"grid": {"rate": {"linspace": [0.01, 0.3, 4]}}},
    "search": {"method": "halving", "metric": "loss", "eta": 2, "min_advances": 2},
}


@pytest.mark.parametrize("job", [JOB, SEARCHED], ids=["toy", "searched"])
def test_a_store_keeps_what_readers_need_of_its_kernel(tmp_path, job):
    store = open_or_create(
        parse_job(job, "job"), BASE, "job", str(tmp_path / "s.zarr"), SerialExecutor(1)
    )
    kept, kernel = Store.open(store.address).description, store.kernel
    assert kept == Description.of_kernel(kernel)
    assert (kept.dims, kept.outcomes, kept.reduces) == (
        kernel.dims, kernel.outcomes, kernel.tables.reduce is not None,
    )  # fmt: skip
    assert ("search_rung" in kept.dims, "dropped" in [o.name for o in kept.outcomes]) == (
        ("search" in job,) * 2
    )
    assert all(kept.fields[name] for name in ("n", "rate"))


def test_the_arrays_say_most_of_it(tmp_path):
    store = copied_run(tmp_path / "s.zarr")
    gather(store)
    objects.delete(store.objects, keys.KERNEL)
    said, kernel = Store.open(store.address).description, store.kernel
    assert said.dims == kernel.dims
    assert said.reduced == kernel.tables.dims
    assert [o.name for o in said.outcomes] == [o.name for o in kernel.outcomes]
    assert said.reduces
    assert [finding.key for finding in check(store.address)] == [keys.KERNEL]
    check(store.address, repair=True)
    assert Store.open(store.address).description == Description.of_kernel(kernel)


@pytest.mark.parametrize(("validation", "metric"), [(0, "replay_nrmse"), (20, "validation_nrmse")])
def test_a_store_of_ctds_own_kernel_needs_no_copy(tmp_path, validation, metric):
    """Items that have an error in validation are judged by that."""
    params = {"n": 20, "m": 2, "passes": 2, "train": 40, "test": 20, "validation": validation}
    store = make(tmp_path / "e.zarr", {"kernel": "esn", "params": params})
    kept = Store.open(store.address).description
    assert kept.metric == metric
    objects.delete(store.objects, keys.KERNEL)
    assert Store.open(store.address).description == kept
    assert kept == Description.of_kernel(store.kernel, store.names(0))


@pytest.mark.parametrize(
    "content",
    [
        {"dims": 3},
        {"dims": {"x": {"axes": "x"}}},
        {"dims": {}, "outcomes": [{"name": 3}]},
        {"x": 1},
    ],
)
def test_what_is_no_description_counts_as_missing(tmp_path, content):
    store = make(tmp_path / "s.zarr")
    objects.write(store.objects, keys.KERNEL, checksummed(json.loads(json.dumps(content))))
    assert "norm" in Store.open(store.address).description.dims
    assert keys.KERNEL in [finding.key for finding in check(store.address)]


def test_a_source_tree_without_git_has_no_commit(tmp_path, monkeypatch):
    """As in a container into which it was mounted."""
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "jobs" / "store" / "manifest.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert manifest.provenance()["git_commit"] is None
