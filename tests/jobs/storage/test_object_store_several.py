"""Several stores in a bucket, on a real S3 server: listed, asked as one, archived."""

import json

import pytest
from s3 import clear_environment
from stores import JOB, run

import jobs
from jobs.gather.gather import gather
from jobs.query.collection import list_stores
from jobs.query.query import table
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
            gather(run(f"s3://lab/several/{name}.zarr", job)[0])
    return "s3://lab/several"


@pytest.fixture
def prefix(s3, stored):
    """The same, with the environment that reaches it."""
    del s3
    return stored


def test_stores_in_a_bucket(prefix, command_line, tmp_path):
    asked = jobs.open_stores([f"{prefix}/*.zarr"])
    found = asked.query(group_by="store,n_steps", agg="count", sort="store")
    assert found.to_numpy().tolist() == [["a", 7, 3], ["b", 5, 3]]
    code, out, err = command_line("query", prefix, "--where", "n_steps == 5", "--json")
    assert (code, len(json.loads(out))) == (0, 3), err
    write_note(Store.open(f"{prefix}/a.zarr"), Note(tags=("paper",)))
    assert list_stores([prefix], tags=["paper"])[0]["address"].tolist() == [f"{prefix}/a.zarr"]
    code, out, err = command_line("archive", f"{prefix}/a.zarr", tmp_path / "a.zip")
    assert code == 0, err
    a = asked.stores[0]
    assert table(Store.open(str(tmp_path / "a.zip")), "items").equals(table(a, "items"))
