"""jobs.gather.gather with the workers of a Ray."""

import pytest
from stores import run, tree_bytes

from cluster.ray.executor import RayExecutor
from jobs.gather.check import check
from jobs.gather.gather import GATHERED, gather
from jobs.spec.run import RunSettings
from jobs.storage import objects


@pytest.mark.ray
def test_gather_on_ray_is_that_of_one_process(ray_address, tmp_path):
    store, _ = run(tmp_path / "toy.zarr")
    gather(store)
    whole = tree_bytes(store.address)
    for folder in (*GATHERED, "run/sums/gathered"):
        objects.delete_all(store.objects, folder)
    executor = RayExecutor(RunSettings(workers=2, cpus_per_worker=0.5), ray_address)
    try:
        assert gather(store, executor) == 44
    finally:
        executor.close()
    assert tree_bytes(store.address) == whole
    assert check(store.address) == []
