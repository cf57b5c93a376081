"""A clock that is set forwards and back while a driver runs: the same bytes, and nobody else takes the store."""

import itertools
import time

import pytest
from messages import refused
from stores import JOB, make, run, tree_bytes

from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.report.history import history, history_lines
from jobs.report.page.facts import facts
from jobs.report.summary import state
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import lease
from jobs.storage.lease import Lease, LeaseHeld
from jobs.store.look import Look
from jobs.store.store import Store

DAY = 86_400.0
JUMPS = [DAY, -3 * DAY, 400 * DAY, -401 * DAY, 3600.0, -3600.0, 0.0]


@pytest.fixture
def clock(monkeypatch):
    """Sets the wall clock of this process so many seconds off; durations go on."""
    real, real_ns, off = time.time, time.time_ns, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + off[0])
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(off[0] * 1e9))
    return lambda seconds: off.__setitem__(0, seconds)


def test_run_whose_clock_jumps(tmp_path, monkeypatch, clock, ctd):
    monkeypatch.setattr(lease, "POLL_S", 0.01)
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    whole, _ = run(tmp_path / "whole.zarr")
    gather(whole)
    store, jumps = make(tmp_path / "clock.zarr", JOB), itertools.cycle(JUMPS)

    class Jumping(SerialExecutor):
        """The clock jumps after each report, and all look at the store then."""

        def wait(self, timeout):
            found = super().wait(timeout)
            clock(next(jumps))
            with refused(LeaseHeld):
                Lease.acquire(store.objects, store.address)
            opened = Store.open(store.address)
            assert state(Look(opened))["items"] == 44
            history_lines(history(opened))
            facts(opened)
            return found

    for k in range(3):  # computed again under another clock, over what an earlier clock left
        clock(JUMPS[k])
        progress = run_shards(store, Jumping(1))
        assert (progress.failed, progress.shards_done) == ({}, 8)
        if k < 2:
            store.committed.forget([store.committed.markers()[n].shard for n in (1, 5)])
    gather(store)
    assert tree_bytes(store.address) == tree_bytes(whole.address)
    for command in ("status", "logs"):
        assert ctd(command, store.address)[0] == 0
    assert check(store.address) == []
