"""What becomes of references to the items of other stores."""

import os
from pathlib import Path

import pytest
from messages import refused
from stores import FOUR_SLOTS, run

from ctd.lfads import kernel
from ctd.similarity import kernel as similarity
from jobs.errors import JobError
from jobs.pipeline import resolve
from jobs.storage.addresses import join
from jobs.store.store import Store

TWO = {"stage": "old", "limit": 2}
THREE = {"stage": "old", "limit": 3}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    four = {"kernel": "toy", "params": {"n_steps": 1}, "sweep": {"seeds": 4}, "run": FOUR_SLOTS}
    run(folder / "old.zarr", four)
    return {"old": str(folder / "old.zarr")}


def resolved(content, stages):
    base = stages["old"].removesuffix("/old.zarr")
    return resolve(content, kernel, base, stages, "job")


@pytest.mark.parametrize(
    ("params", "block", "expected"),
    [
        ({"core": TWO}, "grid", {"core": "0 1"}),
        ({"core": TWO, "data": THREE}, "grid", {"core": "0 1", "data": "0 1 2"}),
        ({"core": TWO, "core_model": TWO}, "zip", {"core": "0 1", "core_model": "0 1"}),
        (
            {"core": TWO, "data": THREE, "core_model": TWO},
            "zip",
            {"core": "0 0 0 1 1 1", "data": "0 1 2 0 1 2", "core_model": "0 0 0 1 1 1"},
        ),
    ],
)
def test_references_of_one_selection_go_together(params, block, expected, stages):
    """Whatever other selections there are: a field never takes a file of another item than its partner."""
    job = resolved({"params": params, "sweep": {"seeds": 2}}, stages)
    assert job["sweep"]["seeds"] == 2
    assert {name: [f"old.zarr::{item}" for item in items.split()] for name, items in expected.items()} == job["sweep"][block]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "sweep"),
    [
        ({"core": TWO}, {"grid": {"core": ["a.h5"]}}),
        ({"core": TWO, "core_model": TWO}, {"zip": {"keep_prob": [0.5, 1]}}),
        ({"core": TWO}, [3]),
        ({"core": TWO}, {"grid": [1]}),
        ({"core": {"stage": "old", "item": 5}}, {}),
        ({"core": ["a.h5", {"store": "b.zarr"}]}, {}),
    ],
)  # fmt: skip
def test_references_that_are_refused(params, sweep, stages):
    with refused(JobError):
        resolved({"params": params, "sweep": sweep}, stages)


def test_files_of_a_store_from_another_folder_are_named_from_here(stages, tmp_path, monkeypatch):
    """As the other job named them, one or several, they would be looked for beside this one."""
    named = {"data": ["a.h5", "/lab/b.h5"], "core": "net.h5"}
    monkeypatch.setattr("jobs.pipeline.shared_fields", lambda store, group: named)
    content = {"params": {name: {"store": stages["old"], "part": "params"} for name in named}}
    there = Path(Store.open(stages["old"]).job.base)
    swept = resolve(content, kernel, str(tmp_path), {}, "job")["sweep"]["zip"]
    absolute = lambda name: os.path.normpath(join(str(tmp_path), name))
    assert [absolute(name) for name in swept["data"][0]] == [str(there / "a.h5"), "/lab/b.h5"]
    assert [absolute(name) for name in swept["core"]] == [str(there / "net.h5")]
    # A field of several files takes those of all groups.
    monkeypatch.setattr("jobs.pipeline.shared_fields", lambda *_: {"weights": ["a.h5", "b.h5"]})
    content = {"params": {"weights": {"store": stages["old"], "part": "params"}}}
    files = resolve(content, similarity, str(tmp_path), {}, "job")["params"]["weights"]
    assert [absolute(name) for name in files] == [str(there / "a.h5"), str(there / "b.h5")]


def test_store_on_this_machine_beside_a_base_elsewhere(stages):
    content = {"params": {"core": {"stage": "old", "limit": 1}}}
    relative = {"old": os.path.relpath(stages["old"])}
    job = resolve(content, kernel, "s3://lab/data", relative, "job")
    assert job["sweep"]["grid"]["core"] == [f"{stages['old']}::0"]
