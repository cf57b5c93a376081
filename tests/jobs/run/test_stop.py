"""jobs.run.stop: what a signal does, by real signals to this process."""

import gc
import os
import signal
import weakref

import pytest
from messages import refused
from stores import make

from jobs.run.shards import run_shards
from jobs.run.stop import Interrupted, Stop, signals
from jobs.run.worker import SerialExecutor

ALL = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP]


def sent(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ALL)
def test_signal_raises_where_nobody_looks(number):
    stop, before = Stop(), signal.getsignal(number)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    with refused(Interrupted), signals(stop):
        sent(number)
    assert stop.reason == name
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("first", ALL)
@pytest.mark.parametrize("second", ALL)
def test_second_signal_cuts_the_workers_time_short(first, second):
    """A second Ctrl-C or SIGTERM does. A terminal that closes may send SIGHUP twice, and Slurm USR1, then TERM."""
    stop, told = Stop(), []
    stop.add_callback(lambda: told.append(stop.reason))
    with signals(stop), stop.deferred():
        sent(first)
        if {first, second} <= {signal.SIGTERM, signal.SIGINT}:
            with pytest.raises(KeyboardInterrupt):
                sent(second)
        else:
            sent(second)
    assert told == [stop.reason]


def test_ignored_hangup_stays_ignored():
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals(stop := Stop()):
            sent(signal.SIGHUP)
        assert stop.reason is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("asked", "over"), [(None, False), (0.0, True), (1e9, False)])
def test_grace_is_the_shorter_of_the_jobs_and_the_requests(asked, over):
    """A driver that has lost its lease asks for none: another one runs the store."""
    stop = Stop()
    stop.ask("taken over", asked)
    stop.begin_grace(60.0)
    assert stop.is_over == over


def test_a_closed_executor_leaves_no_worker_in_memory(tmp_path):
    """With the data of its group, beside the stores that the same command still runs."""
    stop, executor = Stop(), SerialExecutor(1)
    start = executor.start
    workers = []

    def started(*arguments):
        start(*arguments)
        workers.append(weakref.ref(executor._worker))

    executor.start = started
    run_shards(make(tmp_path / "a.zarr"), executor, stop=stop)
    executor.close()
    gc.collect()
    assert [worker() for worker in workers] == [None]
