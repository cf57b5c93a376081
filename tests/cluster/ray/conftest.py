"""A Ray that the executors under test find running, and the folder of their jobs."""

import sys
from pathlib import Path

import gated
import hill
import pytest
from processes import KERNEL, mentioning, until

from cluster.ray.local import LocalRay
from cluster.ray.private import set_environment
from jobs.spec import trust


@pytest.fixture(scope="module", autouse=True)
def import_path():
    """What jobs of a file put before it would hide modules of these names from later files of the process."""
    path, added = [*sys.path], {*trust._added_entries}
    yield
    sys.path[:] = path
    trust._added_entries.intersection_update(added)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the job files are, with the user's kernel beside them: one folder a process, which imports that kernel once."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "faulty_kernel.py").write_text(KERNEL)
    gated.prepare(folder)
    (folder / "hill.py").write_text(Path(hill.__file__).read_text())
    return folder


@pytest.fixture(scope="session")
def found_ray():
    """Started once for all files of a process that ask for it."""
    local = LocalRay(cpus=8)
    yield local
    local.stop()
    until(lambda: not mentioning(local._folder), "it has ended")


@pytest.fixture(scope="module")
def ray_address(found_ray):
    """Its address, with its token in the environment; at the end of a file it has lost its workers only."""
    before = set_environment(found_ray.environment)
    yield found_ray.address()
    until(lambda: not mentioning(found_ray._folder, "ray::ShardWorker"), "its workers have ended")
    assert mentioning(found_ray._folder, "raylet")
    set_environment(before)
