"""The serial executor runs on all cores: one CPU device each, unless the user or JAX has decided before."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from processes import run_ctd
from stores import BASE, run

from jobs.store.store import Store

CORES = len(os.sched_getaffinity(0))
JOB = """
kernel: esn
params: {n: 20, washout: 10, train: 40}
sweep: {grid: {g: {linspace: [0.5, 1.5, 6]}}}
"""


def computed(folder, devices, **environment):
    """The results of the job by `ctd run` with this environment, which takes so many devices."""
    (folder / "job.yaml").write_text(JOB)
    done = run_ctd("run", str(folder / "job.yaml"), "--executor", "serial", **environment)
    assert done.returncode == 0, done.stderr
    return results(Store.open(str(folder / "job.zarr")), devices)


def results(store, devices):
    assert {marker.layout.devices for marker in store.committed.markers()} == {devices}
    return {key: array[:] for key, array in store.results(0).arrays()}


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    """The results on the one device of this process."""
    store, _ = run(tmp_path_factory.mktemp("one") / "job.zarr", yaml.safe_load(JOB))
    return results(store, 1)


@pytest.mark.parametrize(("asked", "devices"), [({}, CORES), ({"JAX_NUM_CPU_DEVICES": "3"}, 3)])
def test_run_serial_takes_cores_and_keeps_bits(tmp_path, on_one, asked, devices):
    found = computed(tmp_path, devices, **asked)
    for key, values in on_one.items():
        np.testing.assert_array_equal(found[key], values)


PYTHON = """
import json, sys
{before}
from cluster import Job
job = Job("toy", base={base!r}, sweep=dict(grid=dict(rate=[0.1, 0.2, 0.3])))
job.run({store!r}, executor="serial")
import jax
print(json.dumps(jax.local_device_count()))
"""


@pytest.mark.parametrize(
    ("before", "devices"),
    [("import jax", CORES), ("import jax; jax.numpy.zeros(3)", 1)],
    ids=["imported", "in use"],
)
def test_python_takes_cores_if_jax_made_no_devices(tmp_path, before, devices):
    code = PYTHON.format(before=before, base=BASE, store=str(tmp_path / "a.zarr"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == devices
