"""The executor of `--executor auto`, and how long items took before."""

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from stores import BASE, JOB, make

from cluster.cli.choice import choose_executor, workers_here
from cluster.cli.options import RunOptions
from cluster.cli.running import Request
from cluster.pace import remember_pace, remembered_pace
from jobs.plan.layout import Shard
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.events import Events, Failure
from jobs.store.marker import Marker

MARKER = Marker(shard=Shard(0, 0, 0, 10), seconds=1.0, host=socket.gethostname())


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Two cores, and a cache that nothing is remembered in; machines with GPUs always take Ray."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has GPUs")
    monkeypatch.setenv("CTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def spec_of(**changes):
    return parse_job({**JOB, **changes}, "job")


WORKERS = "the job sets the number, the cores or the GPUs of its workers"
HERE = "in this process, as there is no GPU and the job sets no workers"


@pytest.mark.parametrize(
    ("run", "address", "expected"),
    [
        ({}, None, ("serial", HERE)),
        ({"workers": 1}, None, ("serial", HERE)),
        ({}, "127.0.0.1:1", ("ray", "--address was given")),
        ({"workers": 2}, None, ("ray", WORKERS)),
        ({"cpus_per_worker": 2}, None, ("ray", WORKERS)),
    ],
)
def test_choose_executor_of_a_new_job(tmp_path, run, address, expected):
    settings = spec_of(run=run).run
    choice = choose_executor(settings, str(tmp_path / "none.zarr"), address)
    assert choice == (*expected, settings)


def test_choose_executor_takes_a_ray_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    choice = choose_executor(spec_of().run, str(tmp_path / "none.zarr"), None)
    assert choice[:2] == ("ray", "this process is connected to a Ray")


def test_nothing_is_said_of_the_choice_where_an_address_is_given(monkeypatch, capsys):
    """An allocation gives that of its Ray, of which the user knows nothing."""
    monkeypatch.setattr("cluster.cli.running.make_executor", lambda *_: None)
    Request("none.zarr", spec_of(), RunOptions(address="n1:6379")).make()
    assert capsys.readouterr().err == "connecting to the Ray at n1:6379\n"


@pytest.mark.parametrize(
    ("run", "n"),
    [({}, 1), ({"workers": 3}, 3), ({"cpus_per_worker": 2}, 1), ({"cpus_per_worker": 0.5}, 1)],
)
def test_workers_of_a_run_here(tmp_path, run, n):
    settings = spec_of(run=run).run
    executor = choose_executor(settings, str(tmp_path / "none.zarr"), None).name
    assert workers_here(settings, executor) == n


@pytest.mark.parametrize(("cpus", "n"), [(1, 2), (2, 1), (0.5, 4)])
def test_workers_of_a_ray_here(cpus, n):
    assert workers_here(spec_of(run={"cpus_per_worker": cpus}).run, "ray") == n


def test_choose_executor_of_a_store(tmp_path):
    """Ray, whose workers may die, takes a job of which one died, unless all of it is computed since; some walks end badly."""
    sweep = {"grid": {"rate": [0.1, 7.0]}}
    store = make(tmp_path / "s.zarr", {**JOB, "params": {"n_steps": 100}, "sweep": sweep})
    choose = lambda: choose_executor(store.job.spec.run, store.address, None).name
    events = Events(store)
    events.note(Failure(shard=0, attempt=1, error="ValueError", fault="error"))
    events.flush()
    assert choose() == "serial"
    events.note(Failure(shard=0, attempt=1, error="died", fault="death"))
    events.close()
    assert choose() == "ray"
    taken = choose_executor(store.job.spec.run, store.address, None).run
    assert (taken.workers, taken.cpus_per_worker) == (1, 2), (
        "as before: asha and optuna decide by the order of reports"
    )
    run_shards(store, SerialExecutor(1))
    assert choose() == "serial"
    assert sum(marker.n_failed for marker in store.committed.markers()) == 1


def test_pace_is_the_least_of_this_machine():
    spec = spec_of()
    assert remembered_pace(spec) is None
    for seconds, known in ((3.0, 0.3), (5.0, 0.3), (2.0, 0.2)):
        elsewhere = MARKER.model_copy(update={"seconds": 0.1, "host": "elsewhere"})
        remember_pace(spec, [elsewhere, MARKER.model_copy(update={"seconds": seconds})])
        assert remembered_pace(spec) == pytest.approx(known)
    assert remembered_pace(spec_of(params={"n_steps": 8})) is None
    (file,) = (Path(os.environ["CTD_CACHE"]) / "pace").iterdir()
    file.write_text("[")
    assert remembered_pace(spec) is None


@pytest.mark.usefixtures("no_pictures")
def test_run_says_what_was_chosen(ctd, tmp_path):
    job = tmp_path / "job.json"
    job.write_text(spec_of().model_dump_json(exclude_defaults=True))
    code, _, err = ctd("run", job, "--base", f"file://{BASE}")
    assert code == 0, err
    assert err.startswith(f"serial: {HERE}\n")
