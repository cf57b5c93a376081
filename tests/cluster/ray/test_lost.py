"""A Ray of a run's own that dies while shards run, by a real kill -9."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import KERNEL, mentioning
from waiting import until

from jobs import Store
from jobs.run.executor import SerialExecutor
from jobs.run.shards import run_shards

JOB = """
kernel: faulty_kernel
params: {tag: lost}
sweep: {grid: {fault: [0, 0, 8, 0]}}
run: {shard_items: 1, slots: 1, microbatch: 1, workers: 1, retries: 0}
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_run_whose_ray_dies_ends_in_order(tmp_path, part):
    """Exit 75 with one line of ours, nothing left behind; no shard is charged, and another run goes on."""
    (tmp_path / "faulty_kernel.py").write_text(KERNEL)
    (tmp_path / "job.yaml").write_text(JOB)
    run = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli.main", "run", "job.yaml", "--executor", "ray"], cwd=tmp_path,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until((tmp_path / "waits").exists, "the third item is computed", 400)
        folder = _folder(run.pid)
        (killed,) = [pid for pid in mentioning(folder) if _name(pid) == part]
        os.kill(killed, signal.SIGKILL)
        out, err = run.communicate(timeout=300)
    finally:
        run.kill()
        (tmp_path / "gate").touch()
    assert run.returncode == 75, err
    assert "stopped (the Ray of this run has died: its head or its node was killed)" in err
    assert "Traceback" not in out + err
    until(lambda: not mentioning(folder), "nothing of that Ray runs")
    assert not Path(folder).exists()
    store = Store.open(str(tmp_path / "job.zarr"))
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.failed, progress.failed_items) == ({}, {})
    assert store.rows(0, "value", 0, 4).tolist() == [10] * 4


def _name(pid: int) -> str:
    return Path(os.readlink(f"/proc/{pid}/exe")).name


def _folder(driver: int) -> str:
    """The folder of the Ray that a driver has started, from its helper's command line."""
    children = Path(f"/proc/{driver}/task/{driver}/children").read_text().split()
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in children]
    (folder,) = [line[-3] for line in lines if any("hold.py" in part for part in line)]
    return folder
