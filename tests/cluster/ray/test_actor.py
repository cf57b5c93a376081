"""cluster.ray.actor: a worker that the kernel kills for memory, really; its shard is narrowed."""

import os
import time
from pathlib import Path

import pytest
import ray

from cluster.ray.actor import kernel_kills
from cluster.ray.executor import RayExecutor
from cluster.ray.local import LocalRay
from cluster.ray.private import set_environment
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings
from jobs.store.events import read_events

ITEM = 256 << 20
"""Bytes that an item takes where no compiler sees it, while it is computed."""

ROOM = 1600 << 20
"""What the cgroup leaves to the items and to the worker, beside what that takes at its start: eight items are more."""

KERNEL = f"""
import jax
import jax.numpy as jnp
import numpy as np

from ctd.kernel import Params, Traced, Var, one_shot


class Hungry(Params):
    number: Traced[int] = 0


def run(static, shared, traced, key):
    def take(number):
        held = [np.ones({ITEM // 8}) for _ in range(number.size)]
        return 2 * number + 0 * int(held[0][0])

    shape = jax.ShapeDtypeStruct((), jnp.int32)
    twice = jax.pure_callback(take, shape, traced.number, vmap_method="expand_dims")
    return {{"twice": twice}}


kernel = one_shot("hungry", Hungry, {{"twice": Var((), "1", "twice the number")}}, run)
"""


class Cgroup:
    """A memory cgroup, of whichever version this machine has."""

    def __init__(self) -> None:
        v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        self.is_v1 = (v1 / "memory.limit_in_bytes").exists()
        self.folder = (v1 if self.is_v1 else v2) / f"ctd-test-{os.getpid()}"
        try:
            self.folder.mkdir()
            self.limit(1 << 40)
        except OSError as error:
            pytest.skip(f"no memory cgroup can be made here: {error}")

    def limit(self, bytes_: int) -> None:
        name = "memory.limit_in_bytes" if self.is_v1 else "memory.max"
        (self.folder / name).write_text(str(bytes_))

    def add(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def taken(self) -> int:
        """Bytes that its processes hold and the kernel could not take back."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        held = dict(line.split() for line in lines)
        return sum(
            int(held[name]) for name in (["rss", "shmem"] if self.is_v1 else ["anon", "shmem"])
        )


@pytest.fixture
def cgroup():
    cgroup = Cgroup()
    yield cgroup
    for _ in range(100):  # its last processes may be ending
        try:
            cgroup.folder.rmdir()
            return
        except OSError:
            time.sleep(0.1)


@pytest.fixture
def executor(cgroup):
    """One worker on a Ray that lives in the cgroup."""
    before = set_environment({"RAY_memory_monitor_refresh_ms": "0"})  # which would be quicker
    local = LocalRay(cpus=1)
    cgroup.add(local._helper.pid)  # it has not started Ray yet
    inside = set_environment(local.environment)
    executor = RayExecutor(RunSettings(workers=1), local.address())
    yield executor
    executor.close()
    local.stop()
    set_environment(before | inside)


@pytest.mark.ray
@pytest.mark.endurance
def test_a_worker_killed_by_the_kernel_goes_on_narrower(executor, cgroup, tmp_path):
    (tmp_path / "hungry_kernel.py").write_text(KERNEL)
    run = {"microbatch": 8, "slots": 8, "shard_items": 8, "backoff_s": 0, "retries": 0}
    content = {"kernel": "hungry_kernel", "sweep": {"grid": {"number": {"range": 8}}}, "run": run}
    spec = parse_job(content, "hungry")
    store = open_or_create(spec, str(tmp_path), "hungry", str(tmp_path / "hungry.zarr"), executor)
    ray.get(executor._pool.slots[0].actor.device_memory.remote())
    cgroup.limit(cgroup.taken() + ROOM)
    progress = run_shards(store, executor)
    assert (progress.failed, progress.failed_items) == ({}, {})
    assert store.rows(0, "twice", 0, 8).tolist() == list(range(0, 16, 2))
    (error,) = [event for event in read_events(store) if event.kind == "error"]
    assert (error.fault, error.about["died"]) == ("memory", "oom")
    assert error.error == "the worker died (oom): the kernel killed it, memory ran out"
    (marker,) = store.committed.markers()
    assert marker.narrowed_to == 4


@pytest.mark.parametrize(
    ("cgroups", "files", "count"),
    [
        ("4:memory:/a/b\n0::/\n", {"memory/a/b/memory.oom_control": "under_oom 0\noom_kill 3"}, 3),
        ("4:cpu,memory:/a\n", {"memory/memory.oom_control": "oom_kill 4"}, 4),
        ("0::/a/b\n", {"a/b/memory.events": "oom 9\noom_kill 5", "memory.events": "oom_kill 8"}, 5),
        ("0::/../a\n", {"memory.events": "oom 0\noom_kill 6"}, 6),
        ("4:memory:/a\n", {"memory/a/memory.oom_control": "under_oom 0"}, 7),  # an old kernel
        ("", {}, 7),
    ],
)
def test_the_kernel_s_count_is_of_the_cgroup_or_else_of_the_machine(
    tmp_path, cgroups, files, count
):
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroups)
    (proc / "vmstat").write_text("pgfault 12\noom_kill 7\n")
    for name, text in files.items():
        file = mount / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert kernel_kills(proc, mount) == count
    assert kernel_kills(proc / "none", mount / "none") == 0
