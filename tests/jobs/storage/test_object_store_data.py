"""Data in a bucket: what a stage of a pipeline made there, and files of HDF5 and Zarr."""

import json
import threading

import numpy as np
import pytest
import s3 as lab
import zarr

from ctd.data import write_hdf5
from jobs import open_store
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import connect, objects

MAKES = """
import jax.numpy as jnp
from ctd.kernel import Params, Traced, Var, one_shot


class Makes(Params):
    level: Traced[float]


def run(static, shared, traced, key):
    return {"weights.targets": jnp.full((50, 2), traced.level), "loss": 1 / traced.level}


dims = {"weights.targets": Var(("time", "column"), "1", "made"), "loss": Var((), "1", "loss")}
kernel = one_shot("makes", Makes, dims, run)
"""


MEANS = """
import h5py
import jax.numpy as jnp
from ctd.kernel import File, Params, Traced, Var, one_shot


class Means(Params):
    path: File[str]
    times: Traced[float] = 1.0


def load(inputs):
    with h5py.File(inputs.path) as file:
        return file["targets"][...]


def run(static, shared, traced, key):
    return {"mean": traced.times * jnp.mean(shared, axis=0)}


kernel = one_shot("means", Means, {"mean": Var(("column",), "1", "mean")}, run, load=load)
"""


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """Two kernels beside the job file: one makes arrays, the other takes their means."""
    (tmp_path / "s3_makes.py").write_text(MAKES)
    (tmp_path / "s3_means.py").write_text(MEANS)
    monkeypatch.setenv("CTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)


def test_pipeline_with_its_stores_in_the_bucket(kernels, s3, ctd, job_file):
    job = """
    stages:
      make: {kernel: s3_makes, sweep: {grid: {level: [1, 2, 4, 8]}}}
      means: {kernel: s3_means, params: {path: {stage: make, where: loss < 0.4}}}
    """
    path = job_file(job, "pipe.yaml")
    code, _, err = ctd("run", path, "--store", "s3://lab/pipe.zarr", "--executor", "serial")
    assert code == 0, err
    tree = open_store("s3://lab/pipe.means.zarr")
    path_of = lambda group: json.loads(group.attrs["swept"])["path"]
    found = {path_of(g): g["mean"].values.tolist() for g in tree["results"].values()}
    assert found == {f"s3://lab/pipe.make.zarr::{k}": [[2.0**k] * 2] for k in (2, 3)}


def test_data_from_the_bucket(kernels, s3, ctd, job_file, address, tmp_path):
    """HDF5 and Zarr, named whole or from an address `--base` on."""
    values = np.random.default_rng(0).normal(size=(1200, 2)).astype(np.float32)
    write_hdf5(tmp_path / "net.h5", {"targets": values})
    store = connect.open_objects("s3://lab/data")
    objects.write(store, "net.h5", (tmp_path / "net.h5").read_bytes())
    root = zarr.open_group(zarr.storage.ObjectStore(store), path="deep/d.zarr", mode="w")
    root.create_array("targets", data=values, chunks=(500, 2))
    (tmp_path / "net.h5").unlink()
    places = [net := "net.h5", "deep/d.zarr", "s3://lab/data/net.h5", "s3://lab/data/deep/d.zarr"]
    path = job_file(json.dumps({"kernel": "s3_means", "sweep": {"grid": {"path": places}}}))
    run_it = ["run", path, "--store", address, "--executor", "serial", "--base", "s3://lab/data"]
    code, _, err = ctd(*run_it)
    assert code == 0, err
    tree = open_store(address)
    for group in range(4):
        # float32 means of 1,200 numbers.
        found = tree[f"results/{group}"]["mean"].values
        np.testing.assert_allclose(found, values.mean(0, float)[None], atol=1e-6)
    code, _, err = ctd("plan", path)
    assert code == 2
    assert f"params: path: {tmp_path}/{net}: there is no such file" in " ".join(err.split())


@pytest.mark.parametrize("names", ["a file", "an item of a store"])
def test_data_whose_server_is_away_are_waited_for(
    kernels, s3, address, job_file, tmp_path, monkeypatch, names
):
    """Every shard of the groups that need them is put back, and none is charged; the store lies on a disk."""
    once = {"max_retries": 1, "retry_timeout": lab.timedelta(seconds=0.2)}
    for patience in (connect.IMPATIENT, connect.PATIENT):
        monkeypatch.setitem(patience, "retry_config", once)
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.5)
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    spec = lambda job: parse_job({**job, "run": {"retries": 0, "shard_items": 1}}, "job")
    executor = SerialExecutor(1)
    if names == "a file":
        write_hdf5(tmp_path / "net.h5", {"targets": np.ones((50, 2), np.float32)})
        data = (tmp_path / "net.h5").read_bytes()
        places = [f"{address}/{k}.h5" for k in range(2)]
        for place in places:
            objects.write(connect.open_objects(place), "", data)
    else:
        makes = spec({"kernel": "s3_makes", "sweep": {"grid": {"level": [1, 2]}}})
        made = open_or_create(makes, str(tmp_path), "makes", address, executor)
        run_shards(made, executor)
        places = [f"{address}::{k}" for k in range(2)]
    times = {"linspace": [1, 2, 4]}
    job = spec({"kernel": "s3_means", "sweep": {"grid": {"path": places, "times": times}}})
    heard, away = [], threading.Event()

    def listen(progress):
        if progress.trouble and progress.trouble not in heard:
            heard.append(progress.trouble)
            away.clear()
        elif progress.shards_done == 4 and not heard:  # the second group's data are next
            away.set()

    with lab.Proxy(s3.url, lambda method, path: "busy" if away.is_set() else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_or_create(job, str(tmp_path), "means", str(tmp_path / "m.zarr"), executor)
        progress = run_shards(store, executor, listen)
    assert (progress.failed, progress.items_done) == ({}, 8)
    (said,) = heard
    assert f"the storage fails: params: path: {address}" in said
