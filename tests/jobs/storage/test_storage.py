"""A disk that is full or read-only, for real: a small tmpfs."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
from messages import refused
from processes import until
from stores import BASE, tree_bytes

from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.look import Look
from jobs.store.store import Store

JOB = {
    "kernel": "toy",
    "params": {"n_steps": 3, "n": 200},
    "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 240]}}},
    "run": {"shard_items": 20, "slots": 20, "microbatch": 2, "retries": 0, "checkpoint_s": 0},
}
"""Results of 200 kB that no compression makes much smaller."""


def make(path):
    return open_or_create(parse_job(JOB, "job"), BASE, "job", str(path), SerialExecutor(1))


def remount(path, options):
    """Whether it could be done: not while a file is written."""
    command = ["mount", "-o", f"remount,{options}", str(path)]
    return subprocess.run(command, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts file systems")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path, leave):
    """Take all room but some bytes."""
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    (path / "ballast").write_bytes(b"x" * max(0, free - leave))


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_run_waits_for_the_disk_and_goes_on(disk, tmp_path, monkeypatch, trouble):
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.5)
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    whole = make(tmp_path / "whole.zarr")
    run_shards(whole, SerialExecutor(1))
    gather(whole)
    store, heard, ended = make(disk / "s.zarr"), [], []
    if trouble == "full":
        fill(disk, leave=65_536)

    def listen(progress):
        if trouble == "read-only" and progress.shards_done == 1 and not any(heard):
            until(lambda: remount(disk, "ro"), "nobody writes")
        heard.append(progress.trouble)

    thread = threading.Thread(
        target=lambda: ended.append(run_shards(store, SerialExecutor(1), listen))
    )
    thread.start()
    until(lambda: any(heard), "the run says so")
    (said, *_) = filter(None, heard)
    assert thread.is_alive()
    assert 0 < len(store.committed.numbers()) < 12
    if trouble == "read-only":
        assert remount(disk, "rw")
    else:
        (disk / "ballast").unlink()
    thread.join()
    assert str(disk) in said
    assert "MB free" in said
    assert ("No space left" if trouble == "full" else "Read-only") in said
    assert ended[0].failed == {}
    assert ended[0].shards_done == 12
    gather(store)
    assert tree_bytes(store.address) == tree_bytes(whole.address)
    assert any(failure.fault == "storage" for failure in Look(store).failures)


def test_a_full_disk_at_the_start_is_told_and_may_pass(disk):
    fill(disk, leave=0)
    with refused(JobError) as raised:
        make(disk / "s.zarr")
    assert raised.value.exit_code == 74
    (disk / "ballast").unlink()
    assert Path(make(disk / "s.zarr").address).exists()


def test_a_store_that_is_read_only_can_be_read_and_is_not_run(disk):
    store = make(disk / "s.zarr")
    assert remount(disk, "ro")
    with refused(JobError):
        run_shards(Store.open(store.address), SerialExecutor(1))
    assert Store.open(store.address).committed.numbers() == set()
    remount(disk, "rw")
