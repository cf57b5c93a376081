"""cluster.ray.private: with Ray's private names hidden a job runs on a Ray that is started the public way."""

import importlib
import os
import pkgutil
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import gated
import grpc
import pytest
import ray.core.generated
import toy
from messages import refused
from places import PROJECT, ROOT
from processes import listening, mentioning, until

from cluster.ray import local, private
from cluster.ray.reach import NoRay
from jobs import Store

HIDE = """
from cluster.ray import private

def find(where, name):
    raise AttributeError(f"{where} has no {name}")

private.find = find
"""
"""As if a release of Ray had renamed them all."""

SHUT = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE}
"""What a port answers: the token is missing; it is another service's; it does not speak this protocol."""


def methods():
    """All calls that Ray's processes take, by the definitions that come with it."""
    for module in pkgutil.iter_modules(ray.core.generated.__path__):
        if module.name.endswith("_pb2"):
            defined = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in defined.services_by_name.values():
                yield from (f"/{service.full_name}/{method.name}" for method in service.methods)


def place(address):
    """Where one connects to a socket that listens; address: as the kernel writes it."""
    last = bytes.fromhex(address)[-4:][
        ::-1
    ]  # of an address of IPv6, too, which here stands for one of IPv4
    return socket.inet_ntoa(last) if any(last) else "127.0.0.1"


def answered(pids):
    """What somebody without the token gets out of any port of these processes: (host, port, call)."""
    found, calls = set(), sorted(methods())
    assert len(calls) > 100
    for address, port in set(listening(pids)):
        here = place(address), port
        with socket.create_connection(here, 5) as asked:
            asked.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            if b" 200 " in asked.recv(20):
                found.add((*here, "/metrics"))
        with grpc.insecure_channel(f"{here[0]}:{here[1]}") as channel:
            for name in calls:
                try:
                    channel.unary_unary(name)(b"", timeout=5)
                    found.add((*here, name))
                except grpc.RpcError as error:
                    if error.code() not in SHUT:
                        found.add((*here, f"{name}: {error.code().name}"))
    return found


@pytest.fixture
def helper(tmp_path):
    """A helper that finds no private names."""
    begin = f"{HIDE}\nimport runpy\nrunpy.run_path({str(local.HELPER)!r}, run_name='__main__')"
    (tmp_path / "helper.py").write_text(begin)
    return tmp_path / "helper.py"


@pytest.mark.ray
def test_ray_that_is_started_without_private_names_answers_nobody(helper, monkeypatch, caplog):
    monkeypatch.setattr(local, "HELPER", helper)
    own = local.LocalRay(1)
    try:
        own.address()
        assert "this Ray is started by ray.init: its ports are open to the network" in caplog.text
        assert len(listening(mentioning(own._folder))) >= 3  # of head, node, its object manager
        assert answered(mentioning(own._folder)) == set()
    finally:
        own.stop()


@pytest.mark.ray
@pytest.mark.endurance
def test_job_runs_without_private_names_and_ports_answer_nobody(helper, tmp_path):
    gated.prepare(tmp_path)
    (gate := tmp_path / "gate").touch()
    (tmp_path / "job.yaml").write_text(
        f"kernel: gated_walk\nparams: {{n_steps: 12, gate: {gate}}}\nrun: {{checkpoint_s: 0.2, workers: 1}}\n"
    )
    begin = f"""{HIDE}
from pathlib import Path
from cluster.ray import local
local.HELPER = Path({str(helper)!r})
from cluster.cli.main import main
main()
"""
    run = subprocess.Popen(
        [sys.executable, "-c", begin, "run", str(tmp_path / "job.yaml"), "--executor", "ray"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        at = lambda: list((tmp_path / "job.zarr").glob("run/checkpoints/0/*/*"))
        until(lambda: at() or run.poll() is not None, "it is at its gate")
        assert run.poll() is None, run.communicate()
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in children]
        (folder,) = {
            found
            for line in lines
            for found in re.findall(rf"{tempfile.gettempdir()}/ctd-\w+", line)
        }
        assert len(listening(mentioning(folder))) >= 4  # of head, node, its object manager, worker
        assert answered(mentioning(folder)) == set()
        gate.unlink()
        _, err = run.communicate(timeout=400)
        assert run.returncode == 0, err
        assert "this Ray is started by ray.init: its ports are open to the network" in err
    finally:
        gate.unlink(missing_ok=True)
        run.kill()
        run.wait()


@pytest.mark.ray
@pytest.mark.endurance  # much the same
def test_ports_of_ray_start_answer_nobody(tmp_path):
    """With the variables and options of an allocation's script, as it starts a node: again if that takes Ray too long."""
    text = (ROOT / "cluster" / "slurm" / "allocation.sh").read_text()
    assert "ray start --block --head" in text
    (on_node,) = re.findall(r"^on_node='(.+?)'$", text, re.MULTILINE | re.DOTALL)
    given = dict(re.findall(r"\b((?:RAY|DASHBOARD|AUTOSCALER)_\w+)=([\w.]+)", text))
    with tempfile.TemporaryDirectory(prefix="ctd-", dir="/tmp") as folder:  # Ray takes no long path
        (token := Path(folder) / "token").write_text(secrets.token_hex(32))
        given |= {"RAY_AUTH_TOKEN_PATH": str(token), "own_tmp": f"{folder}/own"}
        assert given["RAY_AUTH_MODE"] == "token"
        options = re.findall(r"--[\w-]+-port(?==\$)", text)
        ports = [f"{name}={36000 + k}" for k, name in enumerate(options) if "worker" not in name]
        log = Path(folder) / "log"
        with log.open("w") as said:
            head = subprocess.Popen(
                ["bash", "-c", on_node, "-", str(Path(sys.executable).parent / "ray"), "start", "--block", "--head",
                 "--include-dashboard=false", "--num-cpus=1", f"--temp-dir={folder}/own/ray", *ports],
                env=os.environ | given, stdout=said, stderr=said,
            )  # fmt: skip
        try:
            up = lambda: "Ray runtime started" in log.read_text()
            agents = lambda: mentioning(folder, "ray::DashboardAgent")
            listen = lambda: up() and agents() and listening(agents())
            until(lambda: listen() or head.poll() is not None, "its agents listen", 500)
            assert head.poll() is None, log.read_text()
            assert answered(mentioning(folder)) == set()
        finally:
            head.terminate()
            head.wait()
            until(lambda: not mentioning(folder), "it has ended")


def test_lean_changes_nothing_where_a_name_is_missing(monkeypatch):
    """What is left out is left out by names that are Ray's own, and may be others in the next release."""
    from ray import _raylet
    from ray._private import services, utils

    before = services.start_ray_process, utils.get_dashboard_dependency_error
    monkeypatch.delattr(_raylet, "persist_port")
    with refused(AttributeError):
        private.lean()
    assert (services.start_ray_process, utils.get_dashboard_dependency_error) == before


def test_second_token_needs_a_name(monkeypatch):
    """Ray reads its token's variables as it is imported, by its public ways."""
    monkeypatch.setattr(private, "find", _nothing)
    with refused(NoRay):
        private.set_environment({"CTD_TEST": "1"})
    monkeypatch.delenv("CTD_TEST")


def _nothing(where, name):
    raise AttributeError(name)


def test_private_names_stand_in_one_file():
    named = [
        str(path.relative_to(ROOT))
        for package in ("ctd", "jobs", "cluster")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".sh")
        and re.search(r"ray\._private|\b_raylet\b", path.read_text())
    ]
    assert named == ["cluster/ray/private.py"]


@pytest.mark.ray
@pytest.mark.endurance  # 80 MB from PyPI
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv installs the Ray")
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_job_runs_on_the_oldest_and_the_newest_ray(tmp_path, resolution):
    """Of those that pyproject.toml promises, without what is said of a Ray that lacks a private name."""
    (promised,) = [one for one in PROJECT["dependencies"] if one.startswith("ray[")]
    target = tmp_path / "site"
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--no-deps", f"--resolution={resolution}", f"--target={target}",
         f"--python={sys.executable}", promised],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    (tmp_path / "toy.py").write_text(Path(toy.__file__).read_text())
    sweep = "{grid: {rate: [0.1, 0.2, 0.3]}}"
    (tmp_path / "job.yaml").write_text(f"kernel: toy\nsweep: {sweep}\nrun: {{workers: 2}}\n")
    says = "import ray; print(ray.__file__)"
    stores = []
    for executor in ("ray", "serial"):
        begin = f"{says}\nfrom cluster.cli.main import main\nmain()"
        store = tmp_path / f"{executor}.zarr"
        done = subprocess.run(
            [sys.executable, "-c", begin, "run", "job.yaml", "--executor", executor, "--store", str(store)],
            cwd=tmp_path, text=True, capture_output=True, check=False, env=os.environ | {"PYTHONPATH": str(target)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(target))
        assert "this Ray is started by ray.init" not in done.stderr
        stores.append(Store.open(str(store)))
    for name in [*stores[0].names(0), "status"]:
        a, b = (store.rows(0, name, 0, 3).tobytes() for store in stores)
        assert a == b, name
