"""cluster.cli.restart: a command whose Ray is lost restarts, here on an executor that is lost without a Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import toy
from messages import refused
from stores import TOY

from cluster.cli.outcome import say_what_failed
from cluster.cli.restart import RestartState
from jobs.run.stop import Interrupted, Stop

LOST = """
import faulthandler, sys, time
faulthandler.dump_traceback_later(300, exit=True)  # where it hangs, if it does
from pathlib import Path
from cluster.cli import main, restart, run, running
from cluster.ray.reach import NoRay
from jobs.run.task import ExecutorLost
from jobs.run.worker import SerialExecutor

restart.WAITS_S = {waits}

class Lost(SerialExecutor):
    n = 0

    def wait(self, timeout):
        with open("starts", "a") as file:
            print(sys.argv[-1], file=file)
        if Path("job.yaml").exists():
            Path("job.yaml").write_text("kernel: [")  # edited meanwhile: this run is of the job as it was
        if Lost.n < {commits}:
            Lost.n += 1
            return super().wait(timeout)
        raise ExecutorLost("its GCS does not answer")

running.make_executor = run.make_executor = lambda *given: Lost(1)
main.main()
"""
"""A command on an executor that is lost once it has committed so many shards."""


def command(folder, *arguments, waits=(0.1,), commits=0):
    shutil.copy(toy.__file__, folder)
    (folder / "job.yaml").write_text(TOY + "run: {shard_items: 2, slots: 1, microbatch: 1}\n")
    return subprocess.Popen(
        [sys.executable, "-c", LOST.format(waits=waits, commits=commits), *arguments], cwd=folder,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"CTD_PROGRESS": str(folder / "progress")},
    )  # fmt: skip


def test_a_ray_that_is_lost_each_time_is_given_up(tmp_path):
    run = command(tmp_path, "run", "job.yaml", "--json")
    out, err = run.communicate(timeout=400)
    assert run.returncode == 75, err
    assert [line for line in err.splitlines() if line.startswith(("Ray", "stopped"))] == [
        "Ray is gone (its GCS does not answer); starting it again in 0.1 s (1 of 1)",
        "stopped (Ray is gone (its GCS does not answer); it was started again 1 time); "
        "the next allocation or the same `ctd submit` continues it",
    ]
    assert out == ""
    assert (tmp_path / "starts").read_text().splitlines() == ["--json"] * 2
    assert (tmp_path / "progress").exists()


@pytest.mark.endurance  # that a run which got on ends is seen with a real Ray, and how starts are counted below
def test_a_run_that_gets_on_is_started_again_as_often_as_it_takes(tmp_path):
    """One further start is allowed in a row, and two are needed: each commits a shard."""
    run = command(tmp_path, "run", "job.yaml", "--json", commits=1)
    out, err = run.communicate(timeout=400)
    assert run.returncode == 0, err
    assert err.count("starting it again in 0.1 s (1 of 1)") == 2
    assert json.loads(out)["shards_done"] == 3


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.endurance)]
)
def test_a_signal_ends_the_wait(tmp_path, number):
    run = command(tmp_path, "run", "job.yaml", waits=(1000,))
    said = []
    while "starting it again" not in "".join(said[-1:]):
        said.append(run.stderr.readline())
        assert said[-1], said
    run.send_signal(number)  # wherever the command is between its two lives
    try:
        _, err = run.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        run.send_signal(number)  # the first was lost, see `block_signals`
        _, err = run.communicate(timeout=120)
    assert run.returncode == 75, err
    assert "Traceback" not in err


def test_a_stop_whose_exception_got_lost_ends_the_wait():
    """Python ignores what a handler raises while it collects garbage; the request to stop remains."""
    stop = Stop()
    stop.ask("SIGTERM")
    with refused(Interrupted):
        RestartState(begin_at=time.monotonic() + 1000).wait(stop)


def test_losses_are_counted_while_nothing_comes_of_the_starts():
    first = RestartState().after_loss("a.zarr", "why", "0", 10.0)
    assert (first.tries, first.lost_at, first.begin_at) == (1, 10, 15)
    second = first.after_loss("a.zarr", "why", "0", 40.0)
    assert (second.tries, second.lost_at, second.begin_at) == (2, 10, 60)
    fourth = second.after_loss("a.zarr", "why", "0", 90.0).after_loss("a.zarr", "why", "0", 100.0)
    assert (fourth.tries, fourth.begin_at) == (4, 160)
    for before in (first, second, fourth):
        for further in (
            before.after_loss("a.zarr", "", "1", 200.0),
            before.after_loss("b.zarr", "", "0", 200.0),
        ):
            assert (further.tries, further.lost_at, further.begin_at) == (1, 200, 205)
    assert [bool(one.over(100.0)) for one in (first, second, fourth)] == [False, False, True]
    there = replace(fourth, address="127.0.0.1:1", wait_s=100)
    assert [bool(there.over(now)) for now in (100.0, 111.0)] == [False, True]


def test_a_cluster_is_waited_for_as_long_as_the_job_says():
    lost = RestartState().after_loss("a.zarr", "it does not answer", "0", time.monotonic(), "127.0.0.1:1", 0.3)  # fmt: skip
    assert lost.wait(Stop()) == (
        "the Ray at 127.0.0.1:1 is gone (it does not answer); "
        "it did not come back within 0.3 s (run.cluster_wait_s)"
    )


def test_what_failed_in_an_allocation_is_tried_again_by_submit(monkeypatch, capsys):
    monkeypatch.setenv("CTD_PROGRESS", "/x")
    progress = SimpleNamespace(failed={3: "no data"}, failed_items={})
    say_what_failed(SimpleNamespace(address="a.zarr"), progress)
    assert (
        "1 shard failed; `ctd logs a.zarr --shard 3` shows more, the same `ctd submit` tries"
        in (capsys.readouterr().err)
    )
