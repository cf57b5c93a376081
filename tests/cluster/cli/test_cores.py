"""The serial executor runs on all cores: one CPU device each, unless the user or JAX has decided before."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import yaml
from places import EXAMPLES
from processes import NO_PICTURES
from stores import run

from cluster.cli.choice import take_cores
from jobs.store.store import Store

CORES = len(os.sched_getaffinity(0))
JOB = """
kernel: kuramoto
params: {n: 20, n_steps: 50}
sweep: {grid: {coupling: {linspace: [0.5, 1.5, 6]}}}
"""
"""Of a kernel that compiles soon. Several devices in one process: tests/ctd/batch/test_devices.py."""
RUN = f"{NO_PICTURES}\nfrom cluster.cli.main import main\nmain()"


def computed(folder, devices, **environment):
    """The results of the job by `ctd run` with this environment, which takes so many devices."""
    (folder / "job.yaml").write_text(JOB)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "run", str(folder / "job.yaml"), "--base", str(EXAMPLES), "--executor", "serial"],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
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


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        ({}, CORES),
        pytest.param({"JAX_NUM_CPU_DEVICES": "3"}, 3, marks=pytest.mark.endurance),
    ],
)
def test_run_serial_takes_cores_and_keeps_bits(tmp_path, on_one, asked, devices):
    found = computed(tmp_path, devices, **asked)
    for key, values in on_one.items():
        np.testing.assert_array_equal(found[key], values)


def test_python_takes_cores_if_jax_was_imported():
    code = "import jax\nfrom cluster.cli.choice import take_cores\ntake_cores()\nprint(jax.local_device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"{CORES}\n", done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_NUM_CPU_DEVICES", "3"),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=3"),
        (None, None),
    ],
)
def test_devices_that_were_asked_for_or_made_stay_as_they_are(monkeypatch, name, value):
    """JAX has made one in this process."""
    told = []
    if name:
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(jax.config, "update", lambda *given: told.append(given))
    take_cores()
    assert (told, jax.local_device_count()) == ([], 1)
