"""Jobs on a real Ray cluster of two nodes that somebody else started, through the Jobs API."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import lean_ray
import numpy as np
import pytest
import ray
import toy
import yaml
from messages import refused, warned
from processes import free_ports, mentioning, run_ctd, until

from cluster import versions
from cluster.cli.clusters import check
from cluster.profiles import RayProfile
from cluster.ray import jobs as rayjobs
from cluster.ray.executor import RayExecutor
from cluster.record import submissions
from cluster.submit import read_order, submit
from cluster.tracking import cancel, log_tail, look
from jobs.errors import JobError
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import read_job
from jobs.spec.run import RunSettings
from jobs.store.store import Store

has_jobs_api = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None, reason="the Jobs API needs ray[default]"
)


RAY = [str(Path(sys.executable).parent / "ray")]


class Cluster:
    """A Ray with two nodes and a token, started by `ray start`."""

    def __init__(self, folder):
        self.folder, self.nodes = Path(folder), []
        self.token = self.folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",
            # Workers started in advance have not the environment of ours: they would serve nobody.
            "RAY_prestart_worker_first_driver": "0",
            # These daemons may be children of `uv run`, a cluster's are not.
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            # The cluster's shell knows nothing of this project.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        # All at once: asked for one after another, two may be the same.
        port, dashboard, agent, client = free_ports(4)
        self.profile = {
            "kind": "ray",
            "address": f"127.0.0.1:{port}",
            "dashboard": f"http://127.0.0.1:{dashboard}",
            "token": str(self.token),
        }
        self.head = [
            "--head", "--no-monitor", "--num-cpus=2", "--num-gpus=1", f"--port={port}", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
        ]  # fmt: skip

    def start(self, *arguments, ray):
        """Start a node. Raises TimeoutError where Ray has not started it in its own 30 s, or in 100 s."""
        path = self.folder / f"node{len(self.nodes)}.log"
        common = [
            "--block", "--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--include-log-monitor=false",
            f"--temp-dir={self.folder}/r",
        ]  # fmt: skip
        with path.open("w") as log:
            node = subprocess.Popen(
                [*ray, "start", *arguments, *common], stdout=log, stderr=log, cwd="/",
                env=self.environment, start_new_session=True,
            )  # fmt: skip
        self.nodes.append(node)
        started = lambda: "Ray runtime started" in path.read_text()
        until(lambda: started() or node.poll() is not None, f"{arguments} has started", 100)
        if node.poll() is not None:
            said = path.read_text()
            assert "timed out during startup" in said, said
            raise TimeoutError(said)

    def join(self, *arguments):
        """Start a node beside the head."""
        address = self.profile["address"]
        self.start(f"--address={address}", "--num-cpus=2", *arguments, ray=lean_ray.COMMAND)

    def stop(self):
        """End all of it. A node ends before the last of its processes, which still write into the folder."""
        for node in reversed(self.nodes):
            node.terminate()
        for node in reversed(self.nodes):
            with suppress(subprocess.TimeoutExpired):
                node.wait(40)
        for pid in mentioning(self.folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in self.nodes:
            node.wait()
        until(lambda: not mentioning(self.folder), "the cluster's processes have ended")


def started(folder, tries=3):
    """A cluster of two nodes. On a busy machine a head does not answer now and then: the next one has other ports."""
    cluster = Cluster(tempfile.mkdtemp(dir=folder))
    try:
        cluster.start(*cluster.head, ray=RAY)
        cluster.join()
    except TimeoutError:
        cluster.stop()
        if tries == 1:
            raise
        return started(folder, tries - 1)
    except BaseException:
        cluster.stop()
        raise
    return cluster


@pytest.fixture(scope="module")
def ray_cluster():
    """A cluster of two nodes; nothing of it is left at the end."""
    with tempfile.TemporaryDirectory(prefix="ctdray-", dir="/tmp") as folder:
        cluster = started(folder)
        yield cluster
        cluster.stop()


@pytest.fixture
def ray_address(ray_cluster):
    """The fields of its profile."""
    return ray_cluster.profile


@pytest.fixture
def connected(ray_address):
    """This process has the cluster's token."""
    with rayjobs.reached(RayProfile.model_validate(ray_address)):
        yield ray_address["address"]


@pytest.fixture
def folder(tmp_path, ray_address):
    """A job's folder with the user's own kernel; the stores are elsewhere."""
    (tmp_path / "stores").mkdir()
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(toy.__file__, folder / "my_walk.py")
    job = {
        "kernel": "my_walk",
        "seed": 3,
        "params": {"n_steps": 7},
        "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 6]}}},
        # A worker takes a whole node: there is one on each.
        "run": {
            "shard_items": 2,
            "slots": 2,
            "microbatch": 1,
            "gpus_per_worker": 0,
            "cpus_per_worker": 2,
        },
        "cluster": {**ray_address, "stores": str(tmp_path / "stores")},
    }
    (folder / "walk.yaml").write_text(yaml.safe_dump(job))
    return folder


def wait(address, word, seconds=600):
    """Until the latest submission of a store is in that state."""

    def come():
        submission, states = look(address)[-1]
        text = states[submission.numbers[0]].text
        over = not text.startswith(word) and text.startswith(("failed", "stopped"))
        assert word == "running" or not over, log_tail(address)
        return text.startswith(word)

    try:
        until(come, f"the submission is {word}", seconds)
    except TimeoutError as error:
        error.add_note(log_tail(address))
        raise


@has_jobs_api
@pytest.mark.slow
@pytest.mark.ray
def test_submit_ships_project_and_kernel(folder, tmp_path):
    """Both travel with the job; the results are those of a run here, byte for byte."""
    submission = submit(read_order(folder / "walk.yaml", None))
    address = str(tmp_path / "stores" / "walk.zarr")
    assert submission == submissions(address)[0]
    wait(address, "succeeded")
    left = {path.name for path in folder.iterdir()} - {"__pycache__"}  # where Python may write it
    assert left == {"my_walk.py", "walk.yaml"}
    store = Store.open(address)
    here = SerialExecutor(1)
    local = open_or_create(
        read_job(folder / "walk.yaml"), str(folder), "walk", str(tmp_path / "here.zarr"), here
    )
    run_shards(local, here)
    assert store.committed.numbers() == local.committed.numbers() == {0, 1, 2}
    for name in local.names(0):
        a, b = np.asarray(local.array(0, name)[:]), np.asarray(store.array(0, name)[:])
        assert a.tobytes() == b.tobytes(), name


@has_jobs_api
@pytest.mark.ray
@pytest.mark.endurance  # the same command, compared here: test_submit_order.py
def test_version_mismatch_is_refused(folder, tmp_path, monkeypatch):
    names = ("python", "ray", "jax", "ctd")
    monkeypatch.setattr(
        rayjobs, "versions", lambda: {**versions.versions(), **dict.fromkeys(names, "0.0.1")}
    )
    "; ".join(rf"{name} is \S+ there and 0\.0\.1 here" for name in names)
    with refused(JobError):
        submit(read_order(folder / "walk.yaml", None))
    assert not Store.exists(str(tmp_path / "stores" / "walk.zarr"))
    assert not (tmp_path / "stores" / "walk.zarr").exists()


@has_jobs_api
@pytest.mark.slow
@pytest.mark.ray
def test_job_is_cancelled_once(folder, ray_address):
    """It sleeps in a driver's place, of which other tests see what it does when it is told to stop."""
    profile = RayProfile.model_validate(ray_address)
    command = f"echo {versions.AGREE} && exec sleep 1000"
    number = rayjobs.submit(str(folder), profile, command, "ctd-sleeps", "here", lambda: None)
    state = lambda: rayjobs.state(profile, number)[0]
    assert state().startswith("running")
    assert rayjobs.cancel(profile, number) == [f"job {number}: told to stop"]
    until(lambda: state().startswith("stopped"), "it has stopped")
    assert rayjobs.cancel(profile, number) == []


@has_jobs_api
@pytest.mark.ray
@pytest.mark.endurance
def test_cancel_leaves_it_resumable(folder, tmp_path):
    content = yaml.safe_load((folder / "walk.yaml").read_text())
    content["params"]["n_steps"] = 10**9
    content["run"] |= {"checkpoint_s": 1, "workers": 1}
    (folder / "walk.yaml").write_text(yaml.safe_dump(content))
    submit(read_order(folder / "walk.yaml", None))
    address = str(tmp_path / "stores" / "walk.zarr")
    wait(address, "running")
    until(
        lambda: list(Path(address).glob("run/checkpoints/*/*/*")), "a shard has a checkpoint", 600
    )
    ((submission, _),) = look(address)
    assert cancel(address) == [f"job {submission.numbers[0]}: told to stop"]
    wait(address, "stopped")
    assert cancel(address) == []
    assert Store.open(address).committed.numbers() == set()


def elsewhere(cluster, *words):
    """Call ctd where nothing of the cluster but its ports is, as on a machine that is no node of it."""
    hidden = f'mount -t tmpfs none {cluster.folder}/r && exec "$@"'
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        hidden,
        "-",
        sys.executable,
        "-m",
        "cluster.cli.main",
        *words,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=cluster.environment
    )


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="hiding a Ray needs root")


@needs_root
@has_jobs_api
@pytest.mark.slow
@pytest.mark.ray
def test_from_a_machine_that_is_no_node(folder, tmp_path, ray_cluster):
    """Ray would abort the process."""
    job, profile = folder / "walk.yaml", tmp_path / "dept.yaml"
    content = yaml.safe_load(job.read_text())["cluster"]
    profile.write_text(yaml.safe_dump(content))
    done = elsewhere(ray_cluster, "run", str(job), "--address", content["address"])
    assert done.returncode == 2, done.stderr
    assert "this machine is no node of that Ray; `ctd submit JOB" in done.stderr
    assert "StackTrace" not in done.stderr
    done = elsewhere(ray_cluster, "clusters", str(profile), "--json")
    assert done.returncode == 0, done.stderr
    lines = {line["check"]: line for line in json.loads(done.stdout)}
    assert lines["reachable"]["found"] == f"2 nodes at {content['address']}"
    assert lines["GPUs"]["found"] == "1"
    assert lines["stores writable"]["found"] == str(tmp_path / "stores")
    assert list((tmp_path / "stores").iterdir()) == []


@has_jobs_api
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.endurance  # as above, on a node
def test_clusters_checks_a_ray(folder, tmp_path):
    content = yaml.safe_load((folder / "walk.yaml").read_text())["cluster"]
    profile = RayProfile.model_validate(content)
    lines = {line["check"]: line for line in check(profile)}
    assert all(line["ok"] for line in lines.values()), lines
    assert lines["reachable"]["found"] == f"2 nodes at {profile.address}"
    assert lines["GPUs"]["found"] == "1"
    assert lines["stores writable"]["found"] == str(tmp_path / "stores")
    assert list((tmp_path / "stores").iterdir()) == []


@has_jobs_api
@pytest.mark.slow
@pytest.mark.ray
def test_interactive_driver(folder, connected, command_line):
    """ctd run --address, with the token; without it, words."""
    job = folder / "walk.yaml"
    code, out, err = command_line("run", job, "run.workers=1", "--address", connected, "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["complete"]
    shutil.rmtree(job.with_suffix(".zarr"))
    # Ray asks again and again, by itself for 20 s.
    wrong = {"RAY_AUTH_MODE": "disabled", "RAY_NUM_REDIS_GET_RETRIES": "2"}
    done = run_ctd("run", str(job), "--address", connected, **wrong)
    assert done.returncode == 2
    assert "token" in done.stderr
    assert "Traceback" not in done.stderr


@has_jobs_api
@pytest.mark.slow
@pytest.mark.ray
def test_interactive_driver_of_another_python(folder, connected, monkeypatch):
    """Ray itself compares it; other versions, every worker: see below."""
    monkeypatch.setattr(ray._private.utils, "compute_version_info", lambda: ("2.60.0", "3.9.1"))
    spec = read_job(folder / "walk.yaml", ["run.workers=1"])
    executor = RayExecutor(spec.run, connected)
    try:
        with refused(JobError):
            executor.machines()
    finally:
        executor.close()


def environments(executor):
    """Of the workers."""
    return ray.get(
        [s.actor.__ray_call__.remote(lambda _: dict(os.environ)) for s in executor._pool.slots]
    )


@has_jobs_api
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.endurance)])
def test_worker_of_half_a_gpu(folder, connected, monkeypatch, workers):
    """It has its share, and gets no work of a driver of other versions."""
    executor = RayExecutor(RunSettings(gpus_per_worker=0.5, workers=workers), connected)
    try:
        with warned():
            assert executor.machines().workers == workers
        shares = environments(executor)
        assert {e["XLA_PYTHON_CLIENT_MEM_FRACTION"] for e in shares} == {"0.450"}
        assert {e["CUDA_VISIBLE_DEVICES"] for e in shares} == {"0"}
        assert {e["NPROC"] for e in shares} == {"1"}
        spec = read_job(folder / "walk.yaml")
        store = open_or_create(spec, str(folder), "walk", str(folder / "x.zarr"), executor)
        other = {**versions.versions(), "jax": "0.0.1"}
        monkeypatch.setattr("cluster.ray.crew.versions", lambda: other)
        with refused(JobError):
            run_shards(store, executor)
    finally:
        executor.close()


@has_jobs_api
@pytest.mark.ray
@pytest.mark.endurance
def test_nodes_with_other_gpus_and_one_that_joins_late(folder, connected, ray_cluster):
    """One GPU on the head, none on the second node, two on the one that joins."""
    executor = RayExecutor(RunSettings(), connected)
    try:
        with warned():
            assert (
                executor.machines().workers == 1
            )  # the cluster has a GPU, and so a worker takes one
        spec = read_job(folder / "walk.yaml")
        store = open_or_create(spec, str(folder), "walk", str(folder / "late.zarr"), executor)
        executor.start(store.address)
        ray_cluster.join("--num-gpus=2")
        ready = lambda: (
            executor.wait(0.1) or executor.machines().workers == executor.capacity() == 3
        )
        until(ready, "the new node has a worker for each of its GPUs", 600)
        assert not run_shards(store, executor).failed
        nodes = [slot.place.node for slot in executor._pool.slots]
        found = [
            (n, e["CUDA_VISIBLE_DEVICES"])
            for n, e in zip(nodes, environments(executor), strict=True)
        ]
        per_node = sorted(sorted(gpu for at, gpu in found if at == node) for node in set(nodes))
        assert per_node == [["0"], ["0", "1"]]
    finally:
        executor.close()
