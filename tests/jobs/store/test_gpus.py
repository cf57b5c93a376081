"""jobs.store.manifest: GPUs that JAX has no plugin for, as on every machine of these tests, are told of."""

import jax
import pytest
from stores import JOB, run

from jobs.report.summary import state
from jobs.store.look import Look
from jobs.store.manifest import GPUS, idle_gpus


@pytest.fixture
def given(monkeypatch):
    """Set the variables by which Slurm and Ray give GPUs; JAX may use what it sees."""
    before = jax.config.jax_platforms
    for name in GPUS:
        monkeypatch.delenv(name, raising=False)
    jax.config.update("jax_platforms", "")
    yield lambda **values: [monkeypatch.setenv(name, text) for name, text in values.items()]
    jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
    ("variables", "n"),
    [
        ({}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0,1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "3"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
    ],
)
def test_gpus_that_jax_does_not_see(given, variables, n):
    given(**variables)
    assert idle_gpus() == n
    jax.config.update("jax_platforms", "cpu")  # who says so means it
    assert idle_gpus() == 0


def test_the_status_tells_of_them(given, tmp_path, monkeypatch):
    given(CUDA_VISIBLE_DEVICES="0")
    monkeypatch.setattr("socket.gethostname", lambda: "n1")
    store, _ = run(tmp_path / "a.zarr", {**JOB, "sweep": {"seeds": 2}})
    (told,) = state(Look(store))["warnings"]
    assert told.startswith("1 shard ran on the CPU of n1, although the workers had GPUs: JAX sees")
    assert "jax[cuda13]" in told
