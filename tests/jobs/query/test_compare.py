"""jobs.query.compare: two stores whose differences are known beforehand."""

import shutil

import numpy as np
import pytest
from messages import refused
from stores import JOB, copied_run, make, run

from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.query.columns import labelled
from jobs.query.compare import _distance, _match, _specs, compare
from jobs.store.store import Store


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return copied_run(tmp_path_factory.mktemp("compare") / "a.zarr")


def test_compare_of_equal_jobs_finds_nothing(first, tmp_path):
    again, _ = run(
        tmp_path / "b.zarr", {**JOB, "run": {"shard_items": 11, "slots": 4, "microbatch": 2}}
    )
    found = compare(first, again)
    assert found.spec.empty, "how a job is run is no difference"
    assert found.items == {"both": 44, "a": 0, "b": 0}
    assert found.matched_by == ["n", "rate", "push"]
    assert found.changed.empty
    assert found.notes == []
    results = found.results.set_index("result")
    assert set(results.index) == {"norm", "outcome", "steps", "x"}
    # Vectors have another length in the other group, and are compared in each.
    assert results["items"].tolist() == [44] * 4
    assert results["differ"].tolist() == [0] * 4
    assert results["max |a-b|"].tolist() == [0] * 4


def test_a_parameter_that_one_job_leaves_out_has_its_default(first, tmp_path):
    b, _ = run(tmp_path / "d.zarr", {**JOB, "params": {"n_steps": 7, "offset": 1.5}})
    assert compare(first, b).spec.to_numpy().tolist() == [["params.offset", 0.0, 1.5]]


def test_a_default_that_follows_from_another_field_is_told(tmp_path):
    job = {
        "kernel": "esn",
        "params": {"target": "sines", "n": 5, "train": 20, "test": 5, "washout": 2},
    }
    stores = [
        make(tmp_path / f"{kind}.zarr", {**job, "params": {**job["params"], "readout": kind}})
        for kind in ("ridge", "force")
    ]
    told = _specs(*stores).set_index("field")
    assert told.loc["params.dtype"].tolist() == ["float64", "float32"]
    assert "params.n" not in told.index


def test_compare_of_different_sizes_and_settings(first, tmp_path, monkeypatch):
    """Another store, in another order, with known changes to its results."""
    other = {
        **JOB,
        "params": {"offset": 0.0},
        "run": {"slots": 4, "microbatch": 1},
        "sweep": {
            "grid": {"rate": [0.5, 0.4, 7.0, 0.3], "push": [[1, -1]], "n": [3], "n_steps": [7]},
        },
    }
    b, _ = run(tmp_path / "c.zarr", other)
    a = compare(first, b)
    assert a.items == {"both": 3, "a": 41, "b": 1}
    assert a.notes == ["computed in microbatches of 2 and of 1: rounding may differ"]
    fields = dict(zip(a.spec.field, zip(a.spec.a, a.spec.b, strict=True), strict=True))
    assert "params.offset" not in fields, "0 is the default of the other"
    assert fields["params.n_steps"] == (7, "(swept)")
    assert "sweep.grid.n" in fields
    assert not any(field.startswith("run") for field in fields)
    # Items of equal columns, found by hand; 0.3 of the linspace is 0.30000000000000004.
    rates, pushes = first.rows(0, "rate", 0, 22), first.rows(0, "push", 0, 22)
    assert 0.3 not in rates
    ours, theirs = first.rows(0, "x", 0, 22).astype(float), b.rows(0, "x", 0, 4)
    apart = []
    for k, rate in ((0, 0.5), (1, 0.4), (3, 0.3)):
        at = np.flatnonzero((np.abs(rates - rate) < 1e-12) & (pushes[:, 0] == 1))
        apart.append(np.abs(ours[at[0]] - theirs[k]).max())
    results = a.results.set_index("result").loc["x"]
    # Other ids are other draws: these are other walks.
    assert results["differ"] == results["items"] == 3
    said = "3 pairs of other item numbers: their random draws differ, also with one seed"
    assert said not in a.notes, "the kernel does not say that it draws"
    monkeypatch.setitem(
        vars(first), "description", first.description.model_copy(update={"draws": True})
    )
    assert said in compare(first, b).notes
    assert said not in compare(first, first).notes
    assert results["max |a-b|"] == pytest.approx(max(apart))
    assert results["median |a-b|"] == pytest.approx(np.median(apart))


def test_compare_a_swept_field_with_a_fixed_one(first, tmp_path):
    """n is swept in one store and set in the other: its items are those with that n."""
    sweep = {"grid": {k: v for k, v in JOB["sweep"]["grid"].items() if k != "n"}}
    b, _ = run(tmp_path / "f.zarr", {**JOB, "params": {"n_steps": 7, "n": 5}, "sweep": sweep})
    found = compare(first, b)
    assert found.items == {"both": 22, "a": 22, "b": 0}
    assert found.matched_by == ["n", "rate", "push"]


def test_compare_names_the_items_that_ended_otherwise(first, tmp_path):
    path = tmp_path / "d.zarr"
    shutil.copytree(first.address, path)
    b = Store.open(str(path))
    for name, row, value in (("outcome", 2, 1), ("status", 5, 2), ("norm", 7, np.nan)):
        b.array(1, name)[row] = value
    b.array(0, "x")[3] += np.float32(0.25)
    (path / "run" / "sums" / "gathered.json").unlink()
    gather(b)
    found = compare(first, b)
    assert found.changed["item a"].tolist() == found.changed["item b"].tolist()
    assert found.changed["status b"].tolist() == ["done", "failed"]
    assert found.changed["outcome b"].tolist() == ["diverged", "stopped"]
    assert found.changed["n"].tolist() == [5, 5]
    results = found.results.set_index("result")
    assert results.loc["x", ["items", "differ"]].tolist() == [43, 1]
    assert found.notes == ["1 failed item left out."]
    assert results.loc["x", "max |a-b|"] == 0.25
    assert results.loc["outcome", "differ"] == 1
    assert np.isinf(results.loc["norm", "max |a-b|"])
    assert results.loc["norm", "median |a-b|"] == 0


def test_compare_with_an_empty_store(first, tmp_path):
    with refused(JobError):
        compare(first, make(tmp_path / "e.zarr"))


def test_match_pairs_repeated_keys_in_order():
    a = [np.array([1, 2, 2, 3]), labelled(np.array([0, 0, 0, 1]), ["x", "y"])]
    b = [np.array([2.0, 3.0, 2.0, 2.0]), labelled(np.array([1, 0, 1, 1]), ["y", "x"])]
    keys = {str(k): list(pair) for k, pair in enumerate(zip(a, b, strict=True))}
    rows = _match(keys, [4, 4])
    assert [part.tolist() for part in rows] == [[1, 2, 3], [0, 2, 1]]
    assert [part.tolist() for part in _match({}, [2, 3])] == [[0, 1], [0, 1]]


def test_distance_of_values_that_are_no_numbers():
    x = np.array([[1, np.nan], [np.inf, 1], [np.nan, 0], [-np.inf, 0], [1, 2]])
    y = np.array([[1, np.nan], [np.inf, 4], [1, 0], [np.inf, 0], [1, 2]])
    assert _distance(x, y, False).tolist() == [0, 3, np.inf, np.inf, 0]
    z = np.array([3 + 4j, 1])
    assert _distance(z, np.zeros(2), False).tolist() == [5, 1]
    assert _distance(np.zeros((2, 0)), np.zeros((2, 0)), False).tolist() == [0, 0]
    assert _distance(np.array([0, 2]), np.array([0, 5]), True).tolist() == [0, 1]
