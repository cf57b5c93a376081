"""jobs.store.finding: stores by name, folder, prefix and pattern; on a disk and in a bucket."""

import pytest
from stores import JOB, make

from jobs.errors import JobError
from jobs.storage import connect, objects
from jobs.store.finding import find_stores

SMALL = {**JOB, "sweep": {"grid": {"rate": [0.1, 0.2]}}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """lab/{a1.zarr, a2.zarr, deep/b.zarr, deep/er/c.zarr, 1/2/3/4.zarr}, and folders without a store."""
    lab = tmp_path_factory.mktemp("lab")
    for name in (
        "a1.zarr",
        "a2.zarr",
        "deep/b.zarr",
        "deep/er/c.zarr",
        "1/2/3/4.zarr",
        ".hid/d.zarr",
    ):
        make(lab / name, SMALL)
    (lab / "empty").mkdir()
    return lab


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["a1.zarr"], ["a1.zarr"]),
        (["a1.zarr/", "./a1.zarr"], ["a1.zarr"]),
        (["a2.zarr", "a*.zarr"], ["a2.zarr", "a1.zarr"]),
        (["."], ["a1.zarr", "a2.zarr", "deep/b.zarr", "deep/er/c.zarr"]),
        (["deep"], ["deep/b.zarr", "deep/er/c.zarr"]),
        (["*/er/*"], ["deep/er/c.zarr"]),
        (["dee?/*"], ["deep/b.zarr", "deep/er/c.zarr"]),
        (["1"], ["1/2/3/4.zarr"]),
        (["none.zarr"], ["none.zarr"]),
    ],
)
def test_find_stores(lab, monkeypatch, given, found):
    monkeypatch.chdir(lab)
    assert find_stores(given) == found
    absolute = [str(lab / address) for address in given]
    assert find_stores(absolute) == [str(lab / address) for address in found]


@pytest.mark.parametrize("given", ["empty", "x*.zarr", "*/none/*"])
def test_find_stores_says_where_there_is_none(lab, monkeypatch, given):
    monkeypatch.chdir(lab)
    with pytest.raises(JobError, match="no store"):
        find_stores([given])


def test_find_stores_in_a_bucket(s3, lab):
    del s3
    for name in ("a1.zarr", "a2.zarr", "deep/b.zarr"):
        place = connect.open_objects(f"s3://lab/shelf/{name}")
        for key in ("run/job.json", "zarr.json"):
            objects.write(place, key, (lab / name / key).read_bytes())
    at = lambda *names: [f"s3://lab/shelf/{name}" for name in names]
    assert find_stores(at("")) == at("a1.zarr", "a2.zarr", "deep/b.zarr")
    assert find_stores(at("a*")) == at("a1.zarr", "a2.zarr")
    assert find_stores(["s3://lab/sh*/*/*.zarr"]) == at("deep/b.zarr")
    assert find_stores(at("a1.zarr")) == at("a1.zarr")
    assert set(at("a1.zarr", "deep/b.zarr")) <= set(find_stores(["s3://lab"]))
    assert find_stores(at("none.zarr")) == at("none.zarr"), (
        "whoever opens it says that it is not there"
    )
    with pytest.raises(JobError, match="the bucket does not exist"):
        find_stores(["s3://none/shelf/*"])
