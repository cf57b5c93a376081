"""Ten thousand shards, one in a hundred of which fails: nothing grows, nothing is left."""

import gc
import os
import time

import pytest
from processes import KERNEL, mentioning, until

from cluster.ray.executor import RayExecutor
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.store.events import read_events


def resident():
    """Bytes of memory of this process."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.endurance
def test_soak(tmp_path):
    n = 10_000
    (tmp_path / "soaked_kernel.py").write_text(KERNEL)
    # All but two are exceptions, two are deaths, each at the first attempt only; no two of a shard.
    faults = [2 if k % 100 == 50 else 0 for k in range(n)]
    faults[150] = faults[n - 50] = 4
    content = {
        "kernel": "soaked_kernel",
        "params": {"tag": "soak"},
        "sweep": {"zip": {"fault": faults}},
        "run": {"microbatch": 1, "shard_items": 1, "slots": 1, "backoff_s": 0, "workers": 2},
    }
    spec = parse_job(content, "soak")
    executor = RayExecutor(spec.run)
    folder, sizes, files = executor._local._folder, [], []
    try:
        store = open_or_create(spec, str(tmp_path), "soak", str(tmp_path / "soak.zarr"), executor)

        def listener(progress):
            if progress.shards_done >= n // 10 * (len(sizes) + 1):
                sizes.append(resident())
                files.append(len(os.listdir("/proc/self/fd")))

        began = time.monotonic()
        progress = run_shards(store, executor, listener)
        seconds = time.monotonic() - began
    finally:
        executor.close()
    assert progress.shards_done == n
    assert progress.failed == {}
    assert progress.failed_items == {}
    errors = [event for event in read_events(store) if event.kind == "error"]
    assert len(errors) == n // 100
    growth = (max(sizes[1:]) - sizes[0]) / 1e6
    print(f"{1e3 * seconds / n:.1f} ms a shard, memory grew by {growth:.1f} MB, files {files}")
    assert growth < 50
    assert files[-1] <= files[0] + 5
    until(lambda: not mentioning(folder), "all processes have ended")
    assert not list(objects.list_keys(store.objects, "run/checkpoints"))
    assert not [name for _, _, names in os.walk(store.address) for name in names if "#" in name]
    assert len(list(objects.list_keys(store.objects, "run/events"))) < 100
    assert (store.rows(0, "value", 0, n) == 10).all()
