"""ctd resume, cancel, check, logs, status and run --fork: what they print and how they end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from messages import usage_error
from places import ROOT
from processes import until
from stores import BASE, TOY, make

from cluster.cli.options import RunOptions
from cluster.cli.outcome import say_not_repeated
from cluster.cli.running import Request, _is_complete, to_resume
from cluster.record import Submission
from ctd.kernel import Outcome
from jobs import keys
from jobs.errors import EXIT_STOPPED
from jobs.plan.layout import Shard
from jobs.report.history import history
from jobs.run.prepare import open_or_create
from jobs.run.progress import Progress
from jobs.run.shards import run_shards
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor, Worker
from jobs.spec.job import parse_job, read_job
from jobs.storage import connect, objects
from jobs.storage.lease import Lease
from jobs.store.events import Begin, Events
from jobs.store.marker import FailedItem, FailedItems, Marker
from jobs.store.store import Store

FAULTY = """
import jax, jax.numpy as jnp, numpy as np
from ctd.kernel import Params, Traced, Var, one_shot


class Faulty(Params):
    fault: Traced[int] = 0


def run(static, shared, traced, key):
    def answer(fault):
        if fault:
            raise ValueError("this item says no")
        return np.float32(7)

    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return {"value": jax.pure_callback(answer, shape, traced.fault, vmap_method="sequential")}


kernel = one_shot("faulty", Faulty, {"value": Var((), "1", "seven")}, run)
"""

FAULTY_JOB = """
kernel: cli_faulty
sweep: {grid: {fault: [0, 0, 1, 0]}}
run: {microbatch: 1, slots: 1, shard_items: 4, retries: 0}
"""


LONG = """
kernel: toy
params: {n_steps: 2000000000, n: 200}
sweep: {grid: {rate: {linspace: [0, 0.5, 8]}}}
run: {microbatch: 2, slots: 4, shard_items: 4, checkpoint_s: 0.5}
"""
"""Its shards never end: whatever is seen of it was seen while one ran."""


@pytest.fixture
def made(job_file):
    """A store of six items that nothing has been computed of."""
    path = job_file(TOY.replace("0.5, 6]}}}", "0.5, 6]}}}\nrun: {shard_items: 2}"))
    address = str(path.with_suffix(".zarr"))
    return open_or_create(read_job(path), str(path.parent), "job", address, SerialExecutor(1))


def test_resume_needs_the_store_alone(ctd, made, job_file, monkeypatch):
    Path(made.address).with_suffix(".yaml").unlink()
    code, out, err = ctd("resume", made.address, "--executor", "serial")
    assert code == 0, err
    assert "best_norm" in out
    assert made.committed.numbers() == {0, 1, 2}
    monkeypatch.chdir(made.address)
    code, out, _ = ctd("resume", ".", "--executor", "serial", "--json")
    assert (code, json.loads(out)["complete"]) == (0, True)
    assert json.loads(out)["figures"] == [made.address.removesuffix(".zarr") + ".png"]


def test_resume_refuses(ctd, made):
    usage_error(ctd("resume", "none.zarr"), "no such store")
    usage_error(
        ctd("resume", made.address, "--executor", "serial", "--address", "a:1"), "--address "
    )
    lease = Lease.acquire(made.objects, made.address)
    said = f"is being run by process {os.getpid()}", f"ctd cancel {made.address}"
    usage_error(ctd("resume", made.address, "--executor", "serial"), *said)
    found = ctd("resume", made.address, "--executor", "ray")
    usage_error(found, *said)
    assert "starting Ray" not in found[2]
    lease.release()


@pytest.mark.usefixtures("no_pictures")
def test_check_finds_repairs_and_resume_ends_it(ctd, made):
    assert ctd("resume", made.address, "--executor", "serial")[0] == 0
    assert ctd("check", made.address)[:2] == (0, "the store is complete and undamaged\n")
    chunk = Path(made.address) / "results/0/norm/c/1"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1])
    code, out, _ = ctd("check", made.address)
    assert code == 1
    assert "results/0/norm/c/1: not as committed" in out
    assert json.loads(ctd("check", made.address, "--json")[1])[0]["key"] == "results/0/norm/c/1"
    code, out, _ = ctd("check", made.address, "--repair")
    assert code == 0
    assert f"`ctd resume {made.address}` continues" in out
    assert ctd("resume", made.address, "--executor", "serial")[0] == 0
    assert chunk.read_bytes() == whole


def test_check_of_an_unfinished_store_finds_nothing_wrong(ctd, made):
    """The command that it advises takes the store as one word."""
    Path(made.address).rename("a b.zarr")
    code, out, _ = ctd("check", "a b.zarr")
    assert code == 0
    assert out == "3 shards not computed; `ctd resume 'a b.zarr'` continues\n"


@pytest.mark.parametrize(
    ("parts", "done", "failed", "complete"),
    [
        (None, 1, {}, True),
        ((0, 2), 3, {}, True),
        ((0, 2), 2, {1: "x"}, True),
        ((0, 2), 1, {1: "x"}, False),
    ],
)
def test_a_driver_of_parts_waits_for_no_shard_that_it_has_given_up(parts, done, failed, complete):
    request = Request("x.zarr", parse_job({"kernel": "toy"}, "job"), RunOptions(), parts=parts)
    assert _is_complete(Progress(6, 3, shards_done=done, failed=failed), request) is complete


def test_items_that_diverged_are_not_repeated_and_that_is_said(capsys):
    outcomes = (Outcome("trained", ""), Outcome("diverged", "", failed=True))
    markers = [
        Marker(shard=Shard(0, 0, 0, 4), outcomes={"trained": 3, "diverged": k}) for k in (1, 3)
    ]
    store = SimpleNamespace(
        committed=SimpleNamespace(markers=lambda: markers),
        description=SimpleNamespace(outcomes=outcomes),
        job=SimpleNamespace(
            plan=SimpleNamespace(n_items=8, n_shards=2), spec=SimpleNamespace(search=None)
        ),
    )
    say_not_repeated(store)
    said = "4 diverged: that is an outcome; --failed repeats only items that raised an error\n"
    assert capsys.readouterr().err == said
    del markers[:]
    say_not_repeated(store)
    assert capsys.readouterr().err == ""


def test_a_killed_driver_is_told_of(ctd, job_file, tmp_path):
    (tmp_path / "toy.py").write_text((Path(BASE) / "toy.py").read_text())
    path = job_file(LONG)
    store = str(path.with_suffix(".zarr"))
    command = [sys.executable, "-m", "cluster.cli.main", "run", str(path), "--executor", "serial"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        until(lambda: list(Path(store).glob("run/checkpoints/0/000000/*")), "a checkpoint")
        assert re.search("\nrunning +process", ctd("status", store)[1])
        assert "killed" not in ctd("logs", store)[1]
        process.kill()
    out = ctd("status", store)[1]
    assert f", process {process.pid} on " in out
    assert "was killed" in out
    assert re.search("\nunfinished +1 checkpoint; a run goes on from there\n", out)
    assert re.search("\nnext +`ctd resume .*job.zarr` continues it\n", out)
    shutil.rmtree(Path(store) / "run" / "checkpoints")
    assert re.search("\nunfinished +no checkpoint yet: ", ctd("status", store)[1])
    lines = ctd("logs", store)[1].splitlines()
    assert [line.split()[2] for line in lines] == ["run:", "killed:"]
    assert f", process {process.pid})" in lines[1]


def test_logs_have_what_a_killed_driver_committed_without_a_word(tmp_path):
    """Its events of the last half minute are lost; the markers are not, and `killed` stands after them, before
    the next run."""
    store = make(tmp_path / "k.zarr")
    events = Events(store)
    events.note(Begin(host="elsewhere", pid=7))
    events.flush()
    worker = Worker(store.address)
    for shard in list(store.job.plan.shards())[:2]:
        assert worker.do(Task(shard)).error is None
    before = history(store)
    assert [event.kind for event in before] == ["run", "committed", "committed", "killed"]
    run_shards(store, SerialExecutor(1))
    after = history(store)
    assert after[:4] == before
    kinds = [event.kind for event in after[4:]]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("run", "end", {"done"})
    assert len(after) == 4 + 2 + store.job.plan.n_shards - 2


def test_status_names_the_first_failed_items_and_counts_the_others(ctd, job_file):
    path = job_file(TOY.replace("0.5, 6]}}}", "0.5, 24]}}}\nrun: {shard_items: 12}"))
    address = str(path.with_suffix(".zarr"))
    store = open_or_create(read_job(path), str(path.parent), "job", address, SerialExecutor(1))
    for shard in reversed([*store.job.plan.shards()]):
        rows = range(shard.start, shard.start + 12, 2)
        failing = [FailedItem(row=row, item=row, error="no") for row in rows]
        store.failed.add(FailedItems(shard=shard, rows=failing))
    lines = ctd("status", address)[1].splitlines()
    assert lines[-11:] == [f"item {k}, attempt 1: no" for k in range(0, 20, 2)] + ["and 2 more"]


@pytest.mark.usefixtures("no_pictures")
def test_items_with_errors_end_in_exit_1_and_are_told_of(ctd, job_file, tmp_path, caplog):
    (tmp_path / "cli_faulty.py").write_text(FAULTY)
    path = job_file(FAULTY_JOB)
    code, _, err = ctd("run", path, "--executor", "serial")
    store = path.with_suffix(".zarr")
    assert code == 1
    assert "item 2 failed" in err
    assert "pure_callback failed" not in caplog.text, "JAX logs it beside the error"
    assert f"`ctd logs {store} --item 2` shows more" in err
    out = ctd("status", store)[1]
    assert "done 3, failed 1" in out
    # With the exit code 1 above, and the same on the page: tests/jobs/report/test_report.py.
    state = "complete, 1 of 4 failed"
    assert f"state        {state}\n" in out
    assert state in ctd("ls", store)[1]
    assert json.loads(ctd("ls", store, "--json")[1])[0]["state"] == state
    assert ("item 2, attempt" in out, "going on without 1 item" in out) == (True, True)
    why = f"`ctd logs {store} --item 2` says why an item failed"
    assert f"next         {why}, `ctd resume {store} --failed` tries again\n" in out
    record = store / keys.submission("1")
    record.parent.mkdir(parents=True)
    sent = Submission("1", "slurm", ["7"], "/home", {}, "ctd run", 0.0, ["a b.yaml"])
    record.write_text(json.dumps(vars(sent)))
    assert f"{why}, `ctd submit 'a b.yaml' --failed` tries again\n" in ctd("status", store)[1]
    shutil.rmtree(record.parent)
    assert "end: 1 shard done, 0 failed; 1 item failed (" in ctd("logs", store)[1]
    own = f"{tmp_path}/cli_faulty.py:13 in answer\n"
    assert own in err
    code, text, hint = ctd("logs", store, "--item", "2")
    assert text.splitlines()[:2] == ["item   2", "fault  1"]
    assert own in text
    assert "jax" not in "".join(line for line in text.splitlines() if ".py:" in line)
    # In a test's process, each error has up to four frames of the tests' own.
    assert (len(text.splitlines()) < 40, hint) == (True, "--full shows the whole tracebacks\n")
    full = ctd("logs", store, "--item", "2", "--full")[1]
    assert "Traceback" in full
    assert len(full.splitlines()) > 2 * len(text.splitlines())
    events = json.loads(ctd("logs", store, "--shard", "0", "--json")[1])
    assert {"error", "decision", "item failed", "committed"} <= {e["event"] for e in events}
    of_item = json.loads(ctd("logs", store, "--item", "0", "--json")[1])
    without_others = [
        e for e in events if e["event"] != "item failed" and e.get("rows", [0])[0] == 0
    ]
    assert (of_item, len(of_item) < len(events) - 1) == (without_others, True)
    assert json.loads(ctd("logs", store, "--json")[1])[0]["event"] == "run"
    assert f"`ctd resume {store} --failed` tries again" in err
    source = tmp_path / "cli_faulty.py"
    source.write_text(FAULTY.replace("if fault:", "if fault > 1:"))
    usage_error(
        ctd("resume", store, "--executor", "serial", "--failed"), "cli_faulty.py: was edited after"
    )
    del sys.modules["cli_faulty"]  # as in a process that starts now
    again = ctd("resume", store, "--executor", "serial", "--failed", "--accept-changes")
    assert again[0] == 0, again[2]
    opened = Store.open(str(store))
    assert opened.rows(0, "value", 0, 4).tolist() == [7, 7, 7, 7]
    assert opened.committed.markers()[0].without == ()
    assert ctd("check", store)[1] == "the store is complete and undamaged\n"
    said = ctd("status", store)[1]
    assert ("items        done 4\n" in said, "going on without" in said) == (True, False)
    assert "4" in ctd("query", store, "--group-by", "status", "--agg", "count(item)")[1]
    usage_error(
        ctd("logs", store, "--item", "4"),
        "has no item 4; it has the items 0 to 3",
    )
    usage_error(
        ctd("logs", store, "--shard", "1"),
        "--shard 1: there is no such shard; the store has the shards 0 to 0",
    )


@pytest.mark.usefixtures("no_pictures")
def test_fork_from_the_command_line(ctd, made, job_file):
    assert ctd("resume", made.address, "--executor", "serial")[0] == 0
    grown = TOY.replace(
        "sweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}",
        "sweep: [{grid: {rate: {linspace: [0, 0.5, 6]}}}, {grid: {rate: [0.7, 0.8]}}]\n"
        "run: {shard_items: 2}",
    )
    path = job_file(grown, "grown.yaml")
    serial = ["--executor", "serial"]
    usage_error(  # before it starts a Ray
        ctd("run", path, "--store", made.address, "--executor", "ray"),
        f"--store NEW --fork {made.address}",
    )
    code, _, err = ctd("run", path, "--fork", made.address, *serial)
    assert code == 0, err
    new = Store.open(str(path.with_suffix(".zarr")))
    assert [marker.copied_from is not None for marker in new.committed.markers()] == [
        True,
        True,
        True,
        False,
    ]
    assert f"forked from  {made.address} (6 items)\n" in ctd("status", new.address)[1]
    usage_error(
        ctd("run", path, "--fork", made.address, "--set", "seed=1", "--store", "x.zarr", *serial),
        "seed", "if you add sweeps at the end",
    )  # fmt: skip


def test_the_command_that_goes_on_is_told_of_a_store_that_cannot_be_read(tmp_path):
    (tmp_path / "a b.zarr/run").mkdir(parents=True)
    (tmp_path / "a b.zarr/run/job.json").write_text("{")
    assert to_resume(str(tmp_path / "a b.zarr")) == f"`ctd resume '{tmp_path}/a b.zarr'`"


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    # A second Ctrl-C, always: test_a_stop_is_told_at_once_and_a_second_one_too (test_stop.py).
    ["cancel", pytest.param("twice", marks=pytest.mark.endurance)],
)
def test_cancel_from_another_process_and_ctrl_c_twice(ctd, tmp_path, how):
    path = tmp_path / "job.yaml"
    path.write_text(LONG)
    (tmp_path / "toy.py").write_text((Path(BASE) / "toy.py").read_text())
    store = tmp_path / "job.zarr"
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli.main", "run", str(path), "--executor", "serial"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: list(store.glob("run/checkpoints/0/000000/*")), "a checkpoint")
    assert re.search(f"\nrunning +process {process.pid} ", ctd("status", store)[1])
    (event,) = json.loads(ctd("logs", store, "--json")[1])
    assert (event["event"], event["pid"]) == ("run", process.pid)
    if how == "cancel":
        code, said, problem = ctd("cancel", store)
        assert (code, "stopped process" in said) == (0, True), problem
    else:
        process.send_signal(signal.SIGINT)
        threading.Event().wait(0.05)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    # The second Ctrl-C may come when the first has already led to an end, and Python itself is leaving.
    ends = (EXIT_STOPPED,) if how == "cancel" else (130, EXIT_STOPPED, -signal.SIGINT)
    assert process.returncode in ends, err
    if how == "cancel":
        assert "stopped (cancelled by" in err
        kept = list(objects.list_keys(connect.open_objects(str(store)), "run/checkpoints"))
        assert kept
    assert Store.open(str(store)).committed.numbers() == set()
