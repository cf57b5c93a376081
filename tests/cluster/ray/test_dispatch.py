"""cluster.ray.dispatch: what a worker's death costs, and who is told of it. What is queued behind it: test_executors.py."""

import math
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from faulty_jobs import make
from processes import KERNEL
from ray.exceptions import OutOfMemoryError

from cluster.ray import dispatch
from cluster.ray.crew import Crew
from cluster.ray.executor import RayExecutor
from cluster.ray.pool import Slot
from jobs.errors import JobError
from jobs.plan.layout import Shard
from jobs.run.limits import TimeLimits
from jobs.run.shards import run_shards
from jobs.run.task import Task
from jobs.spec.job import RunSettings


@pytest.fixture(scope="module")
def pool(ray_address):
    """A single worker."""
    executor = RayExecutor(RunSettings(workers=1), ray_address)
    yield executor
    executor.close()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("fault", "said"),
    [(3, "worker died (killed)"), (6, "no advance has ended for")],
    ids=["exits", "hangs"],
)
@pytest.mark.endurance  # how a worker ends is seen here, what the driver then does in jobs/run/test_retry.py
def test_an_item_that_takes_its_worker_with_it_is_found(pool, folder, monkeypatch, fault, said):
    """Among the four of a shard; one that hangs, which takes the time limit at each try, in a shard of its own."""
    hangs = fault == 6
    faults = [0, fault] if hangs else [0, 0, fault, 0]
    # The limit is short, and therefore none before both items have begun: a busy machine may compile for as long.
    begun = lambda: len(list(folder.glob(f"tried-kills{fault}-*"))) == 2
    limit = TimeLimits.of
    monkeypatch.setattr(TimeLimits, "of", lambda *given: limit(*given) if begun() else math.inf)
    store = make(
        folder, pool, f"kills{fault}", {"fault": faults}, retries=0, shard_items=1 if hangs else 4,
        slots=4, time_limit_s=2 if hangs else None,
    )  # fmt: skip
    progress = run_shards(store, pool)
    assert progress.failed == {}
    at = faults.index(fault)
    assert list(progress.failed_items) == [at]
    assert said in progress.failed_items[at]
    assert store.rows(0, "status", 0, len(faults)).tolist() == [2 if f else 1 for f in faults]


def test_running_out_of_memory_is_a_death_too(monkeypatch):
    """Ray's own error, of which it is known at once that memory ran out: another worker comes, the shard may be narrowed."""
    replaced, died = [], Future()
    slot = Slot(None, ready=True, node="n1")
    crew = Crew(
        SimpleNamespace(slots=[slot], reach=SimpleNamespace(look=lambda: True), joined=list),
        "store",
    )
    monkeypatch.setattr(crew, "replace", replaced.append)
    answer = crew.expect(slot, SimpleNamespace(future=lambda: died))
    slot.held.append((answer, Task(Shard(3, 0, 0, 1), 2)))
    died.set_exception(OutOfMemoryError("low on memory"))
    (report,) = dispatch.Dispatch(crew).wait(0.1)
    assert (report.shard, report.attempt, report.fault) == (3, 2, "memory")
    assert report.about == {"died": "oom", "node": "n1"}
    assert report.error == "the worker died (oom): low on memory"
    assert replaced == [slot]


@pytest.mark.ray
@pytest.mark.endurance  # the driver's part of it is in test_crew.py
def test_workers_that_die_at_once_end_the_run(pool, folder):
    module = folder / "stillborn_kernel.py"
    sign = folder / "stillborn"
    module.write_text(f"import os\nif os.path.exists({str(sign)!r}):\n    os._exit(3)\n{KERNEL}")
    store = make(folder, pool, "stillborn", {"fault": [0]}, kernel="stillborn_kernel")
    sign.touch()
    with pytest.raises(JobError, match="no worker could start"):
        run_shards(store, pool)
