"""cluster.ray.dispatch: what a worker's death costs, and who is told of it."""

import math
import time
from concurrent.futures import Future

import pytest
from faulty_jobs import errors, make
from processes import KERNEL
from waiting import until

from cluster.ray import dispatch
from cluster.ray.executor import RayExecutor
from jobs.errors import JobError
from jobs.run.limits import TimeLimits
from jobs.run.shards import run_shards
from jobs.run.task import Report, Task
from jobs.spec.job import RunSettings
from jobs.store.events import read_events


@pytest.fixture(scope="module")
def pool(ray_address):
    """A single worker: what is queued is queued behind what runs."""
    executor = RayExecutor(RunSettings(workers=1), ray_address)
    yield executor
    executor.close()


def collect(executor, n):
    reports = {}
    deadline = time.monotonic() + 300
    while len(reports) < n and time.monotonic() < deadline:
        reports |= {report.shard: report for report in executor.wait(0.5)}
    return reports


@pytest.mark.ray
def test_a_dead_worker_charges_only_the_shard_that_ran(pool, folder, monkeypatch):
    monkeypatch.setattr(dispatch, "QUEUE_BELOW_S", 600)  # all shards count as short
    store = make(folder, pool, "dead", {"fault": [0, 4, 0, 0]})
    shards = list(store.job.plan.shards())
    pool.start(store.address)
    until(lambda: pool.wait(0.1) or pool.capacity() == 1, "one worker is left")
    pool.submit(Task(shards[0]))
    first = collect(pool, 1)[0]
    assert pool.capacity() == 2  # one more is queued behind the running one
    pool.submit(Task(shards[1]))
    pool.submit(Task(shards[2]))
    reports = collect(pool, 2)
    assert reports[1].about["died"] == "killed"
    assert reports[1].error.startswith("the worker died (killed)")
    assert len(reports[1].error) < 120, reports[1].error
    assert reports[1].attempt == 1
    assert reports[2].error is None
    assert reports[2].attempt == 1
    assert reports[2].marker.pid != first.marker.pid
    pool.submit(Task(shards[1], 2))
    assert collect(pool, 1)[1].error is None


@pytest.mark.ray
def test_an_attempt_is_ended_with_a_reason_or_forgotten(pool, folder, monkeypatch):
    """What runs is reported with the reason that is given; what is queued behind it is not reported."""
    monkeypatch.setattr(dispatch, "QUEUE_BELOW_S", 600)
    store = make(folder, pool, "ended", {"fault": [0, 6, 0, 0]})
    shards = list(store.job.plan.shards())
    pool.start(store.address)
    until(lambda: pool.wait(0.1) or pool.capacity() == 1, "a worker is ready")
    pool.submit(Task(shards[0]))
    collect(pool, 1)
    for shard in shards[1:3]:
        pool.submit(Task(shard))
    pool.end((2, 1))
    pool.submit(Task(shards[3]))
    pool.end((1, 1), "it hangs")
    reports = collect(pool, 2)
    assert reports.keys() == {1, 3}
    assert (reports[1].error, reports[1].fault) == ("it hangs", "death")
    assert reports[3].error is None
    pool.submit(Task(shards[2]))
    until(lambda: any(slot.held[0][0].done() for slot in pool._pool.slots), "its answer is in")
    pool.end((2, 1), "late")
    assert collect(pool, 1)[2].error is None


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


@pytest.mark.ray
def test_running_out_of_memory_is_a_death_too(pool, folder, monkeypatch):
    from ray.exceptions import OutOfMemoryError

    store = make(folder, pool, "memory", {"fault": [0]}, retries=1)
    result = Future.result

    def starved(self, timeout=None):
        answer = result(self, timeout)
        if isinstance(answer, Report) and answer.attempt == 1:
            raise OutOfMemoryError("low on memory")
        return answer

    monkeypatch.setattr(Future, "result", starved)
    progress = run_shards(store, pool)
    assert progress.failed == {}
    assert progress.retried == 1
    assert [error.about["died"] for error in errors(store)] == ["oom"]
    assert [event.attempt for event in read_events(store) if event.kind == "done"] == [2]


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
