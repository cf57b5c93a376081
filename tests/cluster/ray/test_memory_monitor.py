"""Host memory that really runs out: Ray's own monitor kills the worker, and the shard is narrowed."""

import textwrap
import time
from pathlib import Path

import pytest

from cluster.ray.connection import set_environment
from cluster.ray.executor import RayExecutor
from cluster.ray.local import LocalRay
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.spec.job import RunSettings, parse_job
from jobs.store.events import read_events

GIB = 1 << 30
ITEM = 0.75 * GIB
"""What an item takes where no compiler sees it, while it is computed."""

# Eight items take 6 GiB, four take 3: the monitor, set 4.5 GiB above what is in use, kills the first only.
# The margin of 1.5 GiB either way is for what else goes on on this machine.
KERNEL = f"""
import time

import jax
import jax.numpy as jnp
import numpy as np

from ctd.kernel import Params, Traced, Var, one_shot


class Greedy(Params):
    number: Traced[int] = 0


def run(static, shared, traced, key):
    def take(number):
        held = [np.ones({int(ITEM) // 8}) for _ in range(number.size)]
        time.sleep(4)
        return 2 * number + 0 * int(held[0][0])

    shape = jax.ShapeDtypeStruct((), jnp.int32)
    twice = jax.pure_callback(take, shape, traced.number, vmap_method="expand_dims")
    return {{"twice": twice}}


kernel = one_shot("greedy", Greedy, {{"twice": Var((), "1", "twice the number")}}, run)
"""


def memory(name: str) -> int:
    """Bytes, as the kernel counts them."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


@pytest.fixture
def executor(tmp_path):
    """One worker on a Ray whose memory monitor is quick and strict."""
    total = memory("MemTotal")
    # Ray itself takes about 1 GiB once it is up.
    limit = (total - memory("MemAvailable") + 1 * GIB + 4.5 * GIB) / total
    if limit > 0.95:
        pytest.skip("less than 6 GiB of memory free")
    before = set_environment(
        {
            "RAY_memory_usage_threshold": f"{limit:.4f}",
            "RAY_memory_monitor_refresh_ms": "100",
        }
    )
    local = LocalRay(cpus=2)
    inside = set_environment(local.environment)
    executor = RayExecutor(RunSettings(workers=1), local.address())
    yield executor
    executor.close()
    local.stop()
    set_environment(before | inside)


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_killed_for_memory_goes_on_narrower(executor, tmp_path):
    (tmp_path / "greedy_kernel.py").write_text(textwrap.dedent(KERNEL))
    run = {"microbatch": 8, "slots": 8, "shard_items": 8, "backoff_s": 0, "retries": 0}
    content = {"kernel": "greedy_kernel", "sweep": {"grid": {"number": {"range": 8}}}, "run": run}
    spec = parse_job(content, "greedy")
    store = open_or_create(spec, str(tmp_path), "greedy", str(tmp_path / "greedy.zarr"), executor)
    began = time.monotonic()
    progress = run_shards(store, executor)
    assert progress.failed == {}, (progress.failed, time.monotonic() - began)
    assert progress.failed_items == {}
    assert store.rows(0, "twice", 0, 8).tolist() == list(range(0, 16, 2))
    died = [event.about["died"] for event in read_events(store) if event.kind == "error"]
    assert set(died) == {"oom"}
    (marker,) = store.committed.markers()
    assert marker.narrowed_to in (4, 2)  # 2 where something else took memory meanwhile
