"""jobs.inputs.versions: which input files are other ones than before."""

import os
import shutil

import numpy as np
import pytest
import zarr
from stores import JOB, make

from ctd.data import write_hdf5
from jobs.inputs.versions import changed_files, versions_of


def write(path, value):
    if path.suffix == ".zarr":
        zarr.create_array(str(path), data=np.full(9, value), chunks=(3,), overwrite=True)
    else:
        write_hdf5(path, {"x": np.full(9, value)})


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_content_decides_not_its_date(tmp_path, name):
    path, base = tmp_path / name, str(tmp_path)
    write(path, 1.0)
    before = versions_of([name, str(path), "absent.h5"], base)
    assert before.keys() == {name, str(path)}
    file = path if path.is_file() else next(p for p in path.rglob("c/*") if p.is_file())
    os.utime(file, (1, 1))
    assert changed_files(before, base) == {}
    write(path, 2.0)
    now = changed_files(before, base)
    assert now == versions_of(before, base)
    assert now.keys() == before.keys()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert changed_files(before, base) == {}


def test_a_store_is_another_one_by_its_job_not_by_its_run(tmp_path):
    make(tmp_path / "train.zarr", JOB)
    before = versions_of(["train.zarr::0", "train.zarr::7::results"], str(tmp_path))
    assert list(before) == ["train.zarr"]
    for job, same in ((JOB, True), (JOB | {"seed": 9}, False)):
        shutil.rmtree(tmp_path / "train.zarr")
        make(tmp_path / "train.zarr", job)
        assert (changed_files(before, str(tmp_path)) == {}) is same
