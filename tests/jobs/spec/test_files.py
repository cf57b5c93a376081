"""jobs.spec.files: every file that a job names is found from another folder."""

import pytest

from ctd.kernel import File, Params, Traced, Var, one_shot
from jobs.spec.files import with_files_from


class Read(Params):
    weights: File[str] = "net.h5"
    rate: Traced[float] = 1.0
    more: File[tuple[str, ...]] = ()


kernel = one_shot("read", Read, {"y": Var()}, lambda *given: {"y": 1.0})


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({}, {"params": {"more": [], "weights": "/a/net.h5"}}),
        (
            {"params": {"weights": "/b/net.h5", "more": ["c.h5", "s3://d/e.h5"], "rate": 2}},
            {"params": {"weights": "/b/net.h5", "more": ["/a/c.h5", "s3://d/e.h5"], "rate": 2}},
        ),
        (
            {"params": {"more": [], "weights": {"store": "t.zarr", "where": "q < 1"}}, "seed": 3},
            {"params": {"more": [], "weights": {"store": "/a/t.zarr", "where": "q < 1"}}, "seed": 3},
        ),
        (
            {"params": {"more": []}, "sweep": {"grid": {"weights": ["x.h5", "y.h5"], "rate": [1]}, "seeds": 2}},
            {"params": {"more": []}, "sweep": {"grid": {"weights": ["/a/x.h5", "/a/y.h5"], "rate": [1]}, "seeds": 2}},
        ),
        (
            {"params": {"more": []}, "sweep": [{"random": {"weights": {"choice": ["x.h5"]}}, "samples": 4}]},
            {"params": {"more": []}, "sweep": [{"random": {"weights": {"choice": ["/a/x.h5"]}}, "samples": 4}]},
        ),
    ],
)  # fmt: skip
def test_files_of_a_job_start_at_its_folder(given, there):
    assert with_files_from(given, kernel, "/a") == there
