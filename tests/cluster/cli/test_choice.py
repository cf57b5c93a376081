"""The executor of `--executor auto`, and how long items took before, which it rests on."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from stores import BASE, JOB, make

from cluster.cli.choice import (
    RAY_S,
    choose_executor,
    workers_here,
)
from cluster.cli.running import Request
from cluster.pace import remember_pace, remembered_pace
from jobs.plan.layout import Shard
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.events import Events
from jobs.store.marker import Marker

MARKER = Marker(shard=Shard(0, 0, 0, 10), seconds=1.0, host=socket.gethostname())
N = 44
"""Items of JOB."""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Two cores, and a cache that nothing is remembered in; machines with GPUs always take Ray."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has GPUs")
    monkeypatch.setenv("CTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def spec_of(**changes):
    return parse_job({**JOB, **changes}, "job")


def remember(spec, seconds_per_item):
    remember_pace(spec, [replace(MARKER, seconds=10 * seconds_per_item)])


@pytest.mark.parametrize(
    ("changes", "pace", "address", "name", "why"),
    [
        ({}, None, None, "ray", "44 items; how long one takes is not known yet"),
        (
            {},
            0.1,
            None,
            "serial",
            "44 items, about 4.4 s of one worker, less than the start of Ray takes",
        ),
        ({}, 2 * RAY_S / N, None, "ray", "44 items, about 20 s of one worker"),
        ({}, 0.1, "127.0.0.1:1", "ray", "--address was given"),
        (
            {"run": {"workers": 2}},
            0.1,
            None,
            "ray",
            "the job sets its workers' number, cores or GPUs",
        ),
        (
            {"run": {"cpus_per_worker": 2}},
            0.1,
            None,
            "ray",
            "the job sets its workers' number, cores or GPUs",
        ),
        ({"run": {"workers": 1}}, 0.1, None, "serial", "44 items, about 4.4 s of one worker"),
        ({"sweep": {}}, None, None, "serial", "1 item, less than the start of Ray takes"),
    ],
)
def test_choose_executor_of_a_new_job(tmp_path, changes, pace, address, name, why):
    spec = spec_of(**changes)
    if pace is not None:
        remember(spec, pace)
    choice = choose_executor(spec, str(tmp_path / "none.zarr"), address)
    assert choice.name == name
    assert choice.why.startswith(why)


def test_nothing_is_said_of_the_choice_where_an_address_is_given(monkeypatch, capsys):
    """An allocation gives that of its Ray, of which the user knows nothing."""
    monkeypatch.setattr("cluster.cli.running.make_executor", lambda *_: None)
    Request("none.zarr", spec_of(), "auto", "n1:6379").make()
    assert capsys.readouterr().err == "connecting to the Ray at n1:6379\n"


def test_choose_executor_on_one_core(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert choose_executor(spec_of(), str(tmp_path / "none.zarr"), None).name == "serial"
    store = make(tmp_path / "s.zarr")
    assert choose_executor(store.job.spec, store.address, None).why == "44 items, one CPU core"
    note_error(store)
    assert choose_executor(store.job.spec, store.address, None).name == "ray"


@pytest.mark.parametrize(
    ("run", "pace", "n"),
    [
        ({}, None, 2),
        ({}, 0.1, 1),  # in this process
        ({"workers": 3}, 0.1, 3),
        ({"cpus_per_worker": 2}, None, 1),
        ({"cpus_per_worker": 0.5}, None, 4),
    ],
)
def test_workers_of_a_run_here(tmp_path, run, pace, n):
    spec = spec_of(run=run)
    if pace is not None:
        remember(spec, pace)
    executor = choose_executor(spec, str(tmp_path / "none.zarr"), None).name
    assert workers_here(spec, executor) == n


def note_error(store):
    events = Events(store)
    events.note("error", shard=0, attempt=1, error="died")
    events.close()


def test_choose_executor_of_a_store(tmp_path):
    """What is left counts; Ray, whose workers may die, takes a job in which something failed."""
    store = make(tmp_path / "s.zarr")
    remember(store.job.spec, 0.01)
    choose = lambda: choose_executor(store.job.spec, store.address, None)
    assert choose().name == "serial"
    note_error(store)
    assert choose().name == "ray"
    run_shards(store, SerialExecutor(1))
    assert choose() == ("serial", "all items are computed")
    # `run` refuses another job there; until then nothing is said of it.
    assert choose_executor(spec_of(seed=6), store.address, None).why != "all items are computed"


def test_choose_executor_of_a_fork_counts_what_is_new(tmp_path):
    """The items of the old store are copied."""
    old = make(tmp_path / "old.zarr")
    run_shards(old, SerialExecutor(1))
    grown = spec_of(sweep=[JOB["sweep"], {"grid": {"candidate": [50]}}])
    choice = choose_executor(grown, str(tmp_path / "new.zarr"), None, fork=old.address)
    assert choice.name == "serial"
    assert choice.why.startswith("1 item, about ")


def test_pace_is_the_least_of_this_machine():
    spec = spec_of()
    assert remembered_pace(spec) is None
    for seconds, known in ((3.0, 0.3), (5.0, 0.3), (2.0, 0.2)):
        elsewhere = replace(MARKER, seconds=0.1, host="elsewhere")
        remember_pace(spec, [elsewhere, replace(MARKER, seconds=seconds)])
        assert remembered_pace(spec) == pytest.approx(known)
    assert remembered_pace(spec_of(params={"n_steps": 8})) is None
    (file,) = (Path(os.environ["CTD_CACHE"]) / "pace").iterdir()
    file.write_text("[")
    assert remembered_pace(spec) is None


@pytest.mark.usefixtures("no_pictures")
def test_run_says_what_was_chosen(ctd, tmp_path):
    spec = spec_of()
    remember(spec, 0.001)
    job = tmp_path / "job.json"
    job.write_text(spec.model_dump_json(exclude_defaults=True))
    code, _, err = ctd("run", job, "--base", f"file://{BASE}")
    assert code == 0, err
    assert err.startswith(
        "serial: 44 items, about 0.1 s of one worker, less than the start of Ray takes\n"
    )
    code, _, err = ctd("resume", tmp_path / "job.zarr")
    assert (code, "serial: all items are computed" in err) == (0, True), err
