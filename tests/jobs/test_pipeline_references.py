"""What becomes of references to the items of other stores."""

import pytest
from stores import FOUR_SLOTS, run

from ctd.lfads import kernel
from jobs.errors import JobError
from jobs.pipeline import resolve

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
    ("params", "sweep", "said"),
    [
        ({"core": TWO}, {"grid": {"core": ["a.h5"]}}, "sweep.grid.core: params.core names items"),
        ({"core": TWO, "core_model": TWO}, {"zip": {"keep_prob": [0.5, 1]}}, "sweep.zip: core"),
        ({"core": TWO}, [3], "sweep: .* given; expected a mapping such as"),
        ({"core": TWO}, {"grid": [1]}, "sweep.grid: .* given; expected a mapping"),
    ],
)  # fmt: skip
def test_reference_and_sweep_of_one_place_are_refused(params, sweep, said, stages):
    with pytest.raises(JobError, match=said):
        resolved({"params": params, "sweep": sweep}, stages)
