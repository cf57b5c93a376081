"""A Ray that dies while a command computes on it, by real kills: the command goes on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import lean_ray
import pytest
from messages import refused
from processes import NO_PICTURES, free_ports, listening, mentioning, until
from ray.exceptions import ActorDiedError

from cluster.ray.crew import Crew
from cluster.ray.pool import Pool, Slot
from cluster.ray.reach import Reach, accepts
from jobs import Store
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.task import ExecutorLost
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings
from jobs.store.events import read_events

KERNEL = """
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ctd.kernel import Params, Traced, Var, one_shot

HERE = Path(__file__).parent


class Gated(Params):
    gate: Traced[int] = 0


def run(static, shared, traced, key):
    def wait(gate):
        (HERE / f"at-{gate}").touch()
        while not (HERE / f"open-{gate}").exists():
            time.sleep(0.05)
        return np.float32(gate)

    shape = jax.ShapeDtypeStruct((), jnp.float32)
    noise = jax.random.normal(key)
    return {"value": noise + jax.pure_callback(wait, shape, traced.gate, vmap_method="sequential")}


kernel = one_shot("gated", Gated, {"value": Var((), "1", "noise at a gate")}, run)
"""
RUN = {
    "shard_items": 1, "slots": 1, "microbatch": 1, "workers": 1, "retries": 0, "cluster_wait_s": 300,
}  # fmt: skip
JOB = {"kernel": "gated_kernel", "sweep": {"grid": {"gate": [0, 1, 2, 3]}}, "run": RUN}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "gated_kernel.py").write_text(KERNEL)
    for gate in range(4):
        (folder / f"open-{gate}").touch()
    executor = SerialExecutor(1)
    store = open_or_create(
        parse_job(JOB, "job"), str(folder), "job", str(folder / "job.zarr"), executor
    )
    run_shards(store, executor)
    return store


@contextmanager
def command(folder, *options, before="", workers=1, passed=(0, 1)):
    """A running `ctd run` of the job, some of whose items may pass; `before`: code that it begins with."""
    (folder / "gated_kernel.py").write_text(KERNEL)
    (folder / "job.yaml").write_text(json.dumps(JOB | {"run": {**RUN, "workers": workers}}))
    for gate in passed:
        (folder / f"open-{gate}").touch()
    begin = f"{NO_PICTURES}\n{before}\nfrom cluster.cli.main import main\nmain()"
    run = subprocess.Popen(
        [sys.executable, "-c", begin, "run", "job.yaml", "--executor", "ray", *options], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield run
    finally:
        run.kill()
        run.wait()
        for gate in range(4):
            (folder / f"open-{gate}").touch()


def arrives(folder, gate, run):
    """Wait until an item is computed that waits at its gate."""
    at = folder / f"at-{gate}"
    until(lambda: at.exists() or run.poll() is not None, f"the item is at gate {gate}", 400)
    assert run.poll() is None, run.communicate()
    at.unlink()


def kill(folder, *names):
    """Kill those processes of the Ray whose folder this is."""
    found = {pid: Path(os.readlink(f"/proc/{pid}/exe")).name for pid in mentioning(folder)}
    for name in names:
        (pid,) = [pid for pid, program in found.items() if program == name]
        os.kill(pid, signal.SIGKILL)


def folder_of(driver):
    """The folder of the Ray that a driver has started, from its helper's command line."""
    children = Path(f"/proc/{driver}/task/{driver}/children").read_text().split()
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in children]
    (folder,) = [line[-3] for line in lines if any("local.py" in part for part in line)]
    return folder


def same(folder, undisturbed, died=()):
    """Whether a command has come to the same bytes; no shard was charged for a Ray that was lost, but those of nodes died."""
    store = Store.open(str(folder / "job.zarr"))
    errors = [event for event in read_events(store) if event.kind == "error"]
    assert [event.about["died"] for event in errors] == list(died), errors
    names = [*undisturbed.names(0), "status"]
    return all(
        store.rows(0, name, 0, 4).tobytes() == undisturbed.rows(0, name, 0, 4).tobytes()
        for name in names
    )


def assert_closed(folder):
    """A Ray with a worker has no dashboard, listens on loopback alone and tells its metrics to nobody."""
    mode = Path(folder).stat().st_mode
    assert mode & 0o077 == 0, "its sockets and token are for this user alone"
    assert not mentioning(folder, "ray::Dashboard")
    assert not mentioning(folder, "/dashboard.py")
    found = listening(mentioning(folder))
    assert len(found) >= 4  # its head, both ports of its node, its worker
    assert {address for address, _ in found} <= {"0100007F", "0000000000000000FFFF00000100007F"}
    for _, port in found:
        with socket.create_connection(("127.0.0.1", port), 5) as asked:
            asked.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b" 200 " not in asked.recv(20)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.endurance)])
def test_a_ray_of_its_own_is_started_again(tmp_path, undisturbed, monkeypatch, n):
    """After the loss of its head, and, once more was computed, of head and node at once; nothing is left behind."""
    (home := tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # not looked at
    folders = []
    before = "from cluster.cli import restart\nrestart.WAITS_S = (0.5,)"
    with command(tmp_path, before=before) as run:
        for gate, names in [(2, ["gcs_server"]), (3, ["raylet", "gcs_server"])][:n]:
            arrives(tmp_path, gate, run)
            folders.append(folder_of(run.pid))
            kill(folders[-1], *names)
            arrives(tmp_path, gate, run)
            folders.append(folder_of(run.pid))
            assert_closed(folders[-1])
            (tmp_path / f"open-{gate}").touch()
        (tmp_path / "open-3").touch()
        out, err = run.communicate(timeout=400)
    assert run.returncode == 0, err
    again = "starting it again in 0.5 s (1 of 1)"
    assert f"Ray is gone (its GCS does not answer); {again}" in err
    assert err.count(again) == n
    assert "Traceback" not in out + err
    assert same(tmp_path, undisturbed)
    for folder in folders:
        until(lambda here=folder: not mentioning(here), "nothing of that Ray runs")
        assert not Path(folder).exists()
    assert not (home / ".ray").exists()


@pytest.fixture
def port():
    """A port of 127.0.0.1 that nobody listens on."""
    return free_ports(1)[0]


@contextmanager
def node(*options):
    """A node of a Ray, the folder of its files; it is killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lost-", dir="/tmp"))  # Ray takes no long path
    log = folder / "start.log"
    with log.open("w") as file:
        ray = subprocess.Popen(
            [*lean_ray.COMMAND, "start", "--block", "--num-cpus=1",
             "--include-log-monitor=false", "--disable-usage-stats", f"--temp-dir={folder}", *options],
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        started = lambda: "Ray runtime started" in log.read_text() or ray.poll() is not None
        until(started, "Ray is up")
        assert ray.poll() is None, log.read_text()
        yield folder
    finally:
        for pid in mentioning(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ray.wait()
        until(lambda: not mentioning(folder), "it has ended")
        shutil.rmtree(folder)


def cluster(port):
    """The head of a Ray at this port."""
    return node("--head", f"--port={port}", "--no-monitor")


@pytest.mark.ray
@pytest.mark.endurance
def test_a_cluster_that_comes_back_is_waited_for(port, tmp_path, undisturbed):
    address = f"{socket.gethostbyname(socket.gethostname())}:{port}"
    before = "from cluster.ray import pool\npool.PATIENCE_S = 2.0"
    with ExitStack() as ends:
        with cluster(port):
            run = ends.enter_context(command(tmp_path, "--address", address, before=before))
            arrives(tmp_path, 2, run)
        said = [run.stderr.readline()]
        while "waiting for it" not in said[-1]:
            assert said[-1], said
            said.append(run.stderr.readline())
        with cluster(port):
            arrives(tmp_path, 2, run)
            (tmp_path / "open-2").touch()
            (tmp_path / "open-3").touch()
            out, err = run.communicate(timeout=400)
    assert run.returncode == 0, err
    assert said[-1].startswith(
        f"the Ray at {address} is gone (its GCS and its raylet do not answer)"
    )
    assert "300 s at most (run.cluster_wait_s)" in said[-1]
    assert "Traceback" not in out + err
    assert same(tmp_path, undisturbed)


@pytest.mark.ray
@pytest.mark.endurance  # that a node is lost is seen in Slurm's stories, too
def test_node_of_three_is_lost_and_another_joins(port, tmp_path, undisturbed):
    """Its shard goes on on the node that joins, and is not charged."""
    address = f"{socket.gethostbyname(socket.gethostname())}:{port}"
    with ExitStack() as ends:
        ends.enter_context(cluster(port))
        _, lost = (ends.enter_context(node(f"--address={address}")) for _ in range(2))
        options = ("--address", address)
        run = ends.enter_context(command(tmp_path, *options, workers=3, passed=()))
        until(lambda: len(list(tmp_path.glob("at-*"))) == 3, "three shards run", 400)
        kill(lost, "raylet")
        ends.enter_context(node(f"--address={address}"))
        for gate in range(4):
            (tmp_path / f"open-{gate}").touch()
        out, err = run.communicate(timeout=400)
    assert run.returncode == 0, err
    assert "Traceback" not in out + err
    assert "is gone" not in err
    assert same(tmp_path, undisturbed, died=["node"])


def test_reach_is_patient(port, monkeypatch):
    monkeypatch.setattr("cluster.ray.reach.LOOK_S", 0.05)
    address = f"127.0.0.1:{port}"
    assert not accepts(address)
    reach = Reach(patience_s=0.5)
    server = socket.create_server(("127.0.0.1", port))
    reach.watch(GCS=address)
    assert reach.look()
    server.close()
    until(lambda: not reach.holds, "it is seen that nobody answers")
    server = socket.create_server(("127.0.0.1", port))
    until(lambda: reach.holds, "it is back")
    reach.refuse_lost()
    server.close()
    with refused(ExecutorLost):
        until(reach.refuse_lost, "it is lost")
    reach.close()


def test_call_that_never_returns_is_given_up_with_its_ray(port, monkeypatch):
    """As `ray.kill` and the making of an actor do not, if the GCS ends after it was last seen to answer."""
    monkeypatch.setattr("cluster.ray.reach.LOOK_S", 0.05)
    reach, forever = Reach(patience_s=0.3), threading.Event()
    with socket.create_server(("127.0.0.1", port)):
        reach.watch(GCS=f"127.0.0.1:{port}")
        assert reach.ask(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            reach.ask(lambda: 1 / 0)
    with refused(ExecutorLost):
        reach.ask(forever.wait)
    forever.set()
    reach.close()


def test_ray_lost_while_the_driver_connects_is_given_up(port, monkeypatch):
    """Its head ends as the driver asks for the nodes, and the question is never answered."""
    monkeypatch.setattr("cluster.ray.reach.LOOK_S", 0.05)
    monkeypatch.setattr("cluster.ray.pool.PATIENCE_S", 0.3)
    forever, address = threading.Event(), f"127.0.0.1:{port}"
    context = SimpleNamespace(gcs_address=address, get_node_id=lambda: "node")
    fake = SimpleNamespace(
        is_initialized=lambda: True, get_runtime_context=lambda: context, nodes=forever.wait
    )
    monkeypatch.setattr("cluster.ray.pool.ray", fake)
    found = Future()

    def connect():
        try:
            Pool(RunSettings(), address, None)
        except BaseException as error:
            found.set_result(error)

    threading.Thread(target=connect, daemon=True).start()
    assert isinstance(found.result(timeout=60), ExecutorLost)
    forever.set()


def test_death_that_cannot_be_looked_into_is_left_until_the_ray_counts_as_lost(port):
    """Looked into without end, it would keep the driver from noticing that the Ray is lost, and Ray would end the driver."""
    died, reach = Future(), Reach(patience_s=0.0)
    died.set_exception(ActorDiedError())
    actor = SimpleNamespace(
        open=SimpleNamespace(remote=lambda *_: SimpleNamespace(future=lambda: died))
    )
    reach.watch(GCS=f"127.0.0.1:{port}")
    crew = Crew(
        SimpleNamespace(slots=[Slot(actor)], n=1, reach=reach, joined=list, aside=()), "store"
    )
    waited = Future()
    threading.Thread(target=lambda: waited.set_result(crew.wait(0.1)), daemon=True).start()
    assert waited.result(timeout=60) == []
    with refused(ExecutorLost):
        reach.refuse_lost()
    reach.close()
