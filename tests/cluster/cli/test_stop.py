"""A stop at every stage of a command, with both executors: exit code 75, and the next call ends the job."""

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import gated
import pytest
import toy
from messages import refused
from obstore.exceptions import GenericError
from places import ROOT
from processes import until
from stores import BASE, TOY

from cluster.api.job import Job, Stopped
from cluster.cli.running import _storage_explained, told_at_once
from cluster.ray import local
from cluster.ray.local import LocalRay
from cluster.ray.private import set_environment
from jobs.errors import EXIT_STOPPED, JobError
from jobs.run.driver import Attempts
from jobs.run.stop import Stop, signals

JOB = (
    TOY.replace("grid: {", "grid: {n: [3, 4], ")
    + "run: {shard_items: 3, slots: 1, microbatch: 1, workers: 1}\n"
)
"""Two groups of six items, in four shards."""

STAGES = {
    "before the plan": "cluster.cli.run._stages",
    "planning": "jobs.run.prepare.lay_out",
    "before the first shard": "jobs.run.shards.open_ledger",
    "at the first shard": "jobs.run.driver.Attempts.begin",
    "in gather": "jobs.gather.gather._make",
    "in the picture": "jobs.report.figures.save_figures",
}
"""What is called at a stage of a command, and asks for a stop here; the stages in their order."""

IN_PYTHON = {
    "before the plan": "cluster.api.job.Job._stage",
    "in the picture": "cluster.api.job.keep_pictures",
}

ON_RAY = {
    "connecting": "cluster.ray.pool.Pool._settle",
    "at the first shard": STAGES["at the first shard"],
    "in gather": STAGES["in gather"],
}
"""Stages in which something is asked of the Ray."""


@pytest.fixture
def stopped_at(monkeypatch):
    """Let a function, the first time it is called, send this process a signal, whatever its thread."""

    def patch(name, number):
        where, _, attribute = name.rpartition(".")
        target = resolve_name(where)
        original = getattr(target, attribute)

        def call(*given, **named):
            monkeypatch.setattr(target, attribute, original)
            os.kill(os.getpid(), number)
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.5)  # the main thread waits for this one, and is woken first
            return original(*given, **named)

        monkeypatch.setattr(target, attribute, call)

    return patch


@pytest.fixture
def job(tmp_path):
    shutil.copy(toy.__file__, tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)


@pytest.fixture
def stops_and_goes_on(ctd, job, stopped_at):
    """Run the job, which is stopped at one stage after the other: each time the same command goes on until the next."""

    def run(stages, number, *options):
        word = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        for stage in stages:
            stopped_at(stages[stage], number)
            code, out, err = ctd("run", "job.yaml", *options)
            assert code == EXIT_STOPPED, (stage, err)
            assert f"stopped ({word})" in err, stage
            assert "Traceback" not in out + err, stage
        code, out, err = ctd("run", "job.yaml", "--executor", "serial", "--json")
        assert code == 0, err
        assert json.loads(out)["complete"]

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serial(stops_and_goes_on, number):
    """(SIGUSR1 and SIGHUP have the handler of SIGTERM, and come below.)"""
    stops_and_goes_on(STAGES, number, "--executor", "serial")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_first_second(job, tmp_path, number):
    """The command still imports when the signal comes: it ends with the same word and code as later."""
    command = [sys.executable, "-m", "cluster.cli.main", "run", "job.yaml", "--executor", "serial"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        status = Path(f"/proc/{process.pid}/status")
        until(lambda: "cluster.cli.main" in status.with_name("cmdline").read_text(), "it has begun")
        blocked = lambda: int(re.search(r"SigBlk:\s*(\w+)", status.read_text())[1], 16)
        until(lambda: blocked() or process.poll() is not None, "it holds signals back")
        process.send_signal(number)
        err = process.stderr.read()
    assert (process.returncode, "Traceback" in err) == (EXIT_STOPPED, False), err
    assert f"stopped ({'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'})" in err


def test_while_the_storage_fails(ctd, job, monkeypatch, tmp_path):
    """From the stop on nothing answers; the progress that the next allocation compares stays as it was."""
    begin, told = Attempts.begin, tmp_path / "progress"
    told.write_text("before")

    def away(*given, **named):
        raise GenericError("no server answers")

    def call(attempts, task):
        begin(attempts, task)
        os.kill(os.getpid(), signal.SIGTERM)
        for name in ("get", "get_range", "put", "list", "head", "delete"):
            patch.setattr(f"obstore.{name}", away)

    with monkeypatch.context() as patch:
        patch.setattr(Attempts, "begin", call)
        patch.setenv("CTD_PROGRESS", str(told))
        code, out, err = ctd("run", "job.yaml", "--executor", "serial")
    assert code == EXIT_STOPPED, err
    assert "stopped (SIGTERM); the next allocation or the same `ctd submit` continues it" in err
    assert "Traceback" not in out + err
    assert told.read_text() == "before"


@pytest.fixture(scope="module")
def ray():
    """The address of a Ray for the tests of this file."""
    own = LocalRay(1)
    before = set_environment(own.environment)
    yield own.address()
    own.stop()
    set_environment(before)


@pytest.mark.ray
@pytest.mark.parametrize(
    "n", [1, pytest.param(len(ON_RAY), marks=pytest.mark.endurance)], ids=["one", "all"]
)
def test_on_a_ray(stops_and_goes_on, ray, n):
    """In the first of the stages, or in all."""
    stages = dict([*ON_RAY.items()][:n])
    stops_and_goes_on(stages, signal.SIGTERM, "--executor", "ray", "--address", ray)


def test_a_stop_is_told_at_once_and_a_second_one_too(capsys):
    """Before anything is tidied up, in which a second Ctrl-C may end the command."""

    def stops_twice():
        with signals(stop), told_at_once(stop, lambda: "the same command"), stop.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            assert capsys.readouterr().err == "stopping (Ctrl-C); the same command continues it\n"
            os.kill(os.getpid(), signal.SIGINT)

    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        stops_twice()
    assert capsys.readouterr().err == "stopped at once; the same command continues it\n"


SLEEPS = """
import sys
from pathlib import Path

Path(__file__).with_name("starts").touch()
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_while_ray_starts(ctd, job, tmp_path, monkeypatch, number):
    (tmp_path / "helper.py").write_text(SLEEPS)
    monkeypatch.setattr(local, "HELPER", tmp_path / "helper.py")

    def stop():
        until((tmp_path / "starts").exists, "Ray starts")
        time.sleep(0.5)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=stop)
    sender.start()
    code, out, err = ctd("run", "job.yaml", "--executor", "ray")
    sender.join()
    assert code == EXIT_STOPPED, err
    assert f"stopped ({number.name})" in err
    assert "Traceback" not in out + err


def test_terminal_that_closes(tmp_path, job):
    """The run leaves a checkpoint and exits with 75, although what it writes meanwhile goes nowhere."""
    gated.prepare(tmp_path)
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "job.yaml").write_text(
        f"kernel: gated_walk\nparams: {{n_steps: 12, gate: {gate}}}\nrun: {{checkpoint_s: 0.2}}\n"
    )
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        command = [
            sys.executable,
            "-m",
            "cluster.cli.main",
            "run",
            "job.yaml",
            "--executor",
            "serial",
        ]
        os.execve(sys.executable, command, os.environ | {"PYTHONPATH": str(ROOT)})
    reader = threading.Thread(target=drain, args=[terminal], daemon=True)
    reader.start()
    store = tmp_path / "job.zarr"
    until(lambda: list(store.glob("run/checkpoints/0/*/*")), "a checkpoint")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    gate.unlink()
    assert os.waitstatus_to_exitcode(status) == EXIT_STOPPED
    assert list(store.glob("run/checkpoints/0/*/*"))


def drain(terminal):
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_of_a_job_in_python(monkeypatch, tmp_path, stopped_at):
    """Ctrl-C is `Stopped` at whatever moment, and the same call goes on until the next."""
    monkeypatch.chdir(tmp_path)
    make = lambda: Job("toy", params={"n_steps": 5}, sweep={"grid": {"n": [3, 4]}}, base=BASE)
    for stage in STAGES:
        stopped_at(IN_PYTHON.get(stage, STAGES[stage]), signal.SIGINT)
        with refused(Stopped):
            make().run(tmp_path / "a.zarr", executor="serial")
    assert make().run(tmp_path / "a.zarr", executor="serial")["items"].item.size == 2


def test_a_full_disk_after_the_run_names_the_command_that_does_the_rest():
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        refused(JobError),
        _storage_explained(SimpleNamespace(address="a b.zarr")),
    ):
        raise full
