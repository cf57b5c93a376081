"""A shelf in a bucket, on a real S3 server: listed, asked as one, merged, archived."""

import json

import pytest
from s3 import clear_environment
from stores import JOB, run

import jobs
from jobs.errors import JobError
from jobs.gather import merge as merging
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.gather.merge import merge
from jobs.query.query import table
from jobs.query.shelf import list_stores
from jobs.storage import connect, objects
from jobs.store.card import Note, write_note
from jobs.store.store import Store

SMALL = {**JOB, "sweep": {"grid": {"rate": [0.1, 0.2, 0.3]}}}
OTHER = {**SMALL, "params": {"n_steps": 5}}


@pytest.fixture(scope="module")
def stored(s3_server, tmp_path_factory):
    """The prefix of a bucket with a.zarr and b.zarr, and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        clear_environment(patch, tmp_path_factory.mktemp("aws"))
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        for name, job in (("a", SMALL), ("b", OTHER)):
            gather(run(f"s3://lab/shelf/{name}.zarr", job)[0])
    return "s3://lab/shelf"


@pytest.fixture
def shelf(s3, stored):
    """The same, with the environment that reaches it."""
    del s3
    return stored


def test_a_shelf_in_a_bucket(shelf, address, command_line, tmp_path):
    asked = jobs.open_stores([f"{shelf}/*.zarr"])
    found = asked.query(group_by="store,n_steps", agg="count", sort="store")
    assert found.to_numpy().tolist() == [["a", 7, 3], ["b", 5, 3]]
    code, out, err = command_line("query", shelf, "--where", "n_steps == 5", "--json")
    assert (code, len(json.loads(out))) == (0, 3), err
    write_note(Store.open(f"{shelf}/a.zarr"), Note(tags=("paper",)))
    assert list_stores([shelf], tags=["paper"])[0]["address"].tolist() == [f"{shelf}/a.zarr"]
    merged = merge(asked.stores, address)
    gather(merged)
    assert check(merged.address) == []
    assert table(merged, "items").norm.tolist() == asked.table().norm.tolist()
    code, out, err = command_line("archive", merged.address, tmp_path / "m.zip")
    assert code == 0, err
    assert table(Store.open(str(tmp_path / "m.zip")), "items").equals(table(merged, "items"))


def test_a_merge_that_fails_leaves_no_store_in_a_bucket(shelf, address, monkeypatch):
    def fails(*given):
        raise OSError(5, "Input/output error")

    stores = jobs.open_stores([shelf]).stores
    with monkeypatch.context() as broken:
        broken.setattr(merging, "write_shard", fails)
        with pytest.raises(JobError, match="cannot be written"):
            merge(stores, address)
    assert not Store.exists(address)
    assert list_stores([shelf])[0]["store"].tolist() == ["b", "a"]
    assert merge(stores, address).job.plan.group_sizes
    assert objects.read(connect.open_objects(address), "run/creating.json") is None
