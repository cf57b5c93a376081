"""jobs.run.driver: what a turn of its loop does, and when."""

from collections import Counter

import pytest
from stores import make

from ctd.batch.slots import DeviceSlots
from jobs.run import worker
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor, Worker


class Counting(SerialExecutor):
    """Counts how often it is asked about all that runs."""

    def __init__(self):
        super().__init__(1)
        self.asked = Counter()

    def heartbeats(self):
        self.asked["heartbeats"] += 1
        return super().heartbeats()


def test_all_that_runs_is_looked_at_now_and_then_and_not_with_every_report(tmp_path, monkeypatch):
    """While no time passes, shards end and are handed out, and that is all."""
    store, executor, heard = make(tmp_path / "t.zarr"), Counting(), []
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: 0.0)
        run_shards(store, executor, lambda p: heard.append(p.shards_done))
    # What the first advance waits for is told at once.
    assert executor.asked == {"heartbeats": 3}
    assert heard == [0, 0, 0, 0, 8]


@pytest.mark.parametrize(
    ("grid", "forgotten"),
    [
        ({"n": [3, 5]}, [1]),
        ({"offset": [0, 1], "n": [3, 5]}, []),
        ({"n": [3, 5], "offset": [0, 1]}, [2]),
    ],
)
def test_programs_after_last_use(grid, forgotten, tmp_path, monkeypatch):
    """A worker lets JAX forget them once no later group has the static fields of an earlier one."""
    monkeypatch.setattr(DeviceSlots, "temporaries", lambda self: 0)  # nothing is compiled
    store = make(tmp_path / "t.zarr", {"kernel": "toy", "sweep": {"grid": grid}})
    computing, calls = Worker(store.address), []
    for group in range(len(store.job.plan.group_sizes)):
        monkeypatch.setattr(worker, "make_room", lambda most, group=group: calls.append(group))
        computing._group(group)
    assert calls == forgotten
