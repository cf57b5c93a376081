"""Host memory that really runs out: Ray's own monitor kills the worker, and the shard is narrowed."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
from processes import until

from cluster.ray.executor import RayExecutor
from cluster.ray.local import LocalRay
from cluster.ray.private import set_environment
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings
from jobs.store.events import read_events

GIB = 1 << 30
LIMIT = 1.5 * GIB
"""What a Ray and its worker may take before the monitor kills; alone they take half a GiB."""

# Eight items at once take memory where no compiler sees it, and stay until they are killed; fewer take none.
KERNEL = """
import time

import jax
import jax.numpy as jnp
import numpy as np

from ctd.kernel import Params, Traced, Var, one_shot


class Greedy(Params):
    number: Traced[int] = 0


def run(static, shared, traced, key):
    def take(number):
        held, patience = [], 6000 if number.size == 8 else 0
        while patience:
            if len(held) < 8:
                held.append(np.ones(1 << 25))  # 256 MiB, touched
            patience -= 1
            time.sleep(0.1)
        return 2 * number

    shape = jax.ShapeDtypeStruct((), jnp.int32)
    twice = jax.pure_callback(take, shape, traced.number, vmap_method="expand_dims")
    return {"twice": twice}


kernel = one_shot("greedy", Greedy, {"twice": Var((), "1", "twice the number")}, run)
"""


class Control:
    """A memory control group, which a Ray inside takes for the whole machine, as in a container.

    Whatever else runs on this machine takes and frees memory as it likes: the monitor counts what is inside.
    """

    def __init__(self) -> None:
        v1 = Path("/sys/fs/cgroup/memory")
        self.root, limit = (v1, "limit_in_bytes") if v1.is_dir() else (v1.parent, "max")
        own = Path("/proc/self/cgroup").read_text().splitlines()
        mine = ":memory:" if v1.is_dir() else "0::"
        (here,) = (line.partition(mine)[2] for line in own if mine in line)
        self._before, self._folder = self.root / here.strip("/"), self.root / f"ctd-{os.getpid()}"
        self._folder.mkdir()
        (self._folder / f"memory.{limit}").write_text(str(4 * int(LIMIT)))

    def start(self, call):
        """What `call` returns: what it starts is inside, and sees nothing else."""
        found = []

        def inside():
            os.unshare(os.CLONE_NEWNS)  # of this thread, and of what it starts
            for command in (
                ["--make-rprivate", "/"],
                ["--bind", str(self._folder), str(self.root)],
            ):
                subprocess.run(["mount", *command], check=True)
            found.append(call())

        self._move(self._folder)
        try:
            (thread := threading.Thread(target=inside)).start()
            thread.join()
        finally:
            self._move(self._before)
        return found[0]

    def _move(self, folder: Path) -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        until(lambda: not (self._folder / "cgroup.procs").read_text(), "nothing runs inside")
        self._folder.rmdir()


@pytest.fixture
def executor():
    """One worker on a Ray whose memory monitor is quick and strict."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a memory control group")
    before = set_environment(
        {
            # A quarter of the group's limit, which itself is never reached.
            "RAY_memory_usage_threshold": "0.25",
            "RAY_memory_monitor_refresh_ms": "100",
        }
    )
    control = Control()

    def up():
        local = LocalRay(cpus=2)
        local.address()
        return local

    local = control.start(up)
    inside = set_environment(local.environment)
    executor = RayExecutor(RunSettings(workers=1), local.address())
    yield executor
    executor.close()
    local.stop()
    control.remove()
    set_environment(before | inside)


@pytest.mark.ray
@pytest.mark.endurance  # always: what decides whether memory ended a worker (test_actor.py), and narrower shards (test_retry.py)
def test_a_worker_killed_for_memory_goes_on_narrower(executor, tmp_path):
    (tmp_path / "greedy_kernel.py").write_text(KERNEL)
    run = {"microbatch": 8, "slots": 8, "shard_items": 8, "backoff_s": 0, "retries": 0}
    content = {"kernel": "greedy_kernel", "sweep": {"grid": {"number": {"range": 8}}}, "run": run}
    spec = parse_job(content, "greedy")
    store = open_or_create(spec, str(tmp_path), "greedy", str(tmp_path / "greedy.zarr"), executor)
    progress = run_shards(store, executor)
    assert progress.failed == {}
    assert progress.failed_items == {}
    assert store.rows(0, "twice", 0, 8).tolist() == list(range(0, 16, 2))
    died = [event.about["died"] for event in read_events(store) if event.kind == "error"]
    assert died == ["oom"]
    (marker,) = store.committed.markers()
    assert marker.narrowed_to == 4
