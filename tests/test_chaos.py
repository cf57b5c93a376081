"""Kill whatever runs, again and again, under sweeps on a Ray of several nodes.

With a fixed seed, workers, raylets, nodes, the driver and the whole cluster get SIGKILL while the stores
are computed. At the end every result array has the bytes of an undisturbed run. A kernel and a search of another see
four kinds of kill, all kernels see twenty. In every run of the tests there is one kind of death at a time:
tests/cluster/ray/test_crew.py and test_executors.py (workers), test_lost.py (a Ray, a cluster),
tests/jobs/run/test_kill.py and tests/jobs/search/test_search_kill.py (a driver at its writes).
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import toy
from places import ROOT
from stores import tree_bytes

from cluster.ray.executor import RayExecutor
from cluster.ray.private import lean, set_environment
from ctd.catalogue import kernel_names
from ctd.cells import Scales, get_cell
from ctd.data import write_hdf5
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.store.events import read_events

MARK = "CTD_CHAOS"
"""In the environment of every process of the cluster and of the drivers, and of no other."""

RUN = {"microbatch": 2, "slots": 4, "shard_items": 4, "workers": 2, "backoff_s": 0.1,
       "cpus_per_worker": 1, "checkpoint_s": 1, "memory_gb": 1}  # fmt: skip

JOBS = {
    "toy": ({"n_steps": 3000, "n": 100}, {"rate": {"linspace": [-0.5, 0.5, 320]}}),
    "kuramoto": ({"n_steps": 10_000, "n": 40}, {"coupling": {"linspace": [0, 3, 800]}}),
    "esn": ({"n": 12}, {"tau": {"linspace": [1.5, 3, 80]}}),
    # Factors of more than some hundred rows and columns round otherwise on another number of cores.
    "esn.nvar": ({"segments": 4, "delays": 3}, {"ridge": {"geomspace": [1e-6, 1e-2, 160]}}),
    "reconstruct": (
        {"data": str(ROOT / "examples" / "lorenz_recording.npy"), "hidden": 6, "length": 20, "batch_size": 4,
         "n_batches": 600, "report_every": 100, "bins": 5, "n_saved": 20},
        {"learning_rate": {"geomspace": [1e-4, 1e-2, 40]}},
    ),
    "curbd": (
        {"data": str(ROOT / "examples" / "regions_recording.h5"), "regions": {"A": "0-29", "B": "30-59"}, "n_runs": 20, "n_saved": 20},
        {"g": {"linspace": [0.5, 2, 40]}},
    ),
    "full_force": (
        {"trials": str(ROOT / "examples" / "oscillation_trials.h5"), "n": 20, "n_train": 10, "n_test": 1},
        {"g": {"linspace": [0.5, 2, 40]}},
    ),
    "latent_circuit": (
        {"trials": str(ROOT / "examples" / "circuit_rates.h5"), "n": 4, "n_batches": 300, "report_every": 100},
        {"learning_rate": {"geomspace": [1e-3, 1e-2, 40]}},
    ),
    "train_rnn": (
        {"n": 6, "batch_size": 4, "n_batches": 600, "report_every": 300, "n_eval": 8},
        {"learning_rate": {"geomspace": [1e-3, 1e-2, 40]}},
    ),
    "fixed_points": (
        {"weights": "net.h5", "n_trials": 4, "q_tol": 1e-20}, {"candidate": {"range": 240}},
    ),
    "fixed_points.continuation": (
        {"weights": "net.h5", "points": "net.h5", "dataset": "h0", "low": -0.5, "n_steps": 40, "max_step": 0.01},
        {"start": {"linspace": [-0.4, 0.9, 40]}},
    ),
    "fixed_points.connections": (
        {"weights": "net.h5", "points": "points.h5", "n_steps": 20_000, "near": 1e-9},
        {"distance": {"linspace": [0.1, 0.5, 40]}},
    ),
    "fixed_points.exponents": (
        {"weights": "net.h5", "n_steps": 5000}, {"noise": {"linspace": [0, 0.5, 40]}},
    ),
    "fixed_points.limit_cycles": (
        {"weights": "net.h5", "transient": 40_000}, {"noise": {"linspace": [0, 0.5, 40]}},
    ),
    "fixed_points.ablation": (
        {"weights": "net.h5", "task": {"name": "decision", "n_steps": 400}}, {"unit": {"range": 160}},
    ),
    "fixed_points.trials": ({"weights": "net.h5", "n_trials": 40}, {"trial": {"range": 160}}),
    "similarity": (
        {"weights": ["net.h5"] * 80, "method": "rbf_cka", "n_samples": 500}, {"matrix_row": {"range": 80}},
    ),
    "mechanisms": ({"n_neurons": 20, "n_trials": 40}, {"mechanism": {"range": 8}, "gain": [0.5, 1.0]}),
    "spikes": (
        {"weights": "net.h5", "n_train": 40, "n_eval": 10}, {"max_rate": {"linspace": [10, 40, 80]}},
    ),
    "lfads": (
        {"data": str(ROOT / "examples" / "lfads_spikes.h5"), "encoder": 4, "controller": 4, "generator": 5,
         "n_factors": 3, "batch_size": 4, "n_batches": 60, "report_every": 20, "warm_up": 1, "kl_ramp": 10,
         "n_samples": 2, "n_metric": 4, "n_saved": 2},
        {"learning_rate": {"geomspace": [1e-3, 1e-2, 24]}},
    ),
}  # fmt: skip

SEARCH = "population"
"""A search of train_rnn: eight members in rounds of two."""

FEW = {
    "toy": (JOBS["toy"][0] | {"n_steps": 600}, {"rate": {"linspace": [-0.5, 0.5, 28]}}),
    SEARCH: (
        JOBS["train_rnn"][0] | {"n_batches": 60, "report_every": 5},
        {"learning_rate": {"geomspace": [1e-3, 1e-2, 8]}},
    ),
}  # fmt: skip
"""Jobs of a kernel and a search of another, in which the kills are few and the work is little."""

BRIEF = RUN | {"shard_items": 2, "slots": 2, "checkpoint_s": 0.1}

STALLED_S = 300
"""Longest time in which nothing new is committed: how long all takes depends on what else the machine does."""

LONG = ["worker"] * 12 + ["raylet"] * 3 + ["node"] * 2 + ["driver"] * 2 + ["cluster"]
SHORT = ["worker", "raylet", "driver", "cluster"]
"""What gets killed, in an order drawn from the seed."""


def processes(folder, pattern=""):
    """Processes of this test's cluster and drivers whose command line matches."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"{MARK}={folder}\0".encode() in environment and re.search(pattern, line):
            found[int(pid)] = line
    found.pop(os.getpid(), None)
    return found


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def patiently(start, **settings):
    """Ray gives its own processes a fixed time to start, which a busy machine exceeds now and then."""
    for _ in range(2):
        with contextlib.suppress(RuntimeError, SystemExit):
            return start(**settings)
    return start(**settings)


QUIET = {"object_store_memory": 80 << 20, "include_log_monitor": False}
"""Of a node: little memory, and no process that sends on what workers print."""


class Machines:
    """A Ray of a head without CPUs and two nodes, each with room for one worker and one to spare."""

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        from ray.cluster_utils import Cluster

        lean()
        head = QUIET | {"num_cpus": 0, "no_monitor": True}
        self.cluster = patiently(Cluster, initialize_head=True, head_node_args=head)
        self.nodes = [self.join(), self.join()]
        self.address = self.cluster.address

    def join(self):
        return patiently(self.cluster.add_node, num_cpus=2, **QUIET)

    def lose_node(self, gracefully):
        node = self.nodes.pop(0)
        self.cluster.remove_node(node, allow_graceful=gracefully)
        self.nodes.append(self.join())

    def lose_raylet(self, rng):
        raylets = [
            p
            for p, line in processes(self.folder, "raylet/raylet ").items()
            if "--head" not in line
        ]
        node = self.nodes.pop(0)
        pid = node.all_processes["raylet"][0].process.pid
        assert pid in raylets
        kill([pid])
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.join())

    def lose_all(self):
        kill(processes(self.folder))
        self.start()


class Drivers:
    """One `ctd resume` after another until every store is complete."""

    def __init__(self, folder, addresses, log):
        self.folder, self.left, self.log = folder, list(addresses), log
        self.process, self.started = None, 0

    def step(self, ray_address):
        """Start the next driver if none runs."""
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None and self.process.returncode == 0:
            self.left.pop(0)
        self.process = None
        if self.left:
            command = [
                sys.executable,
                "-m",
                "cluster.cli.main",
                "resume",
                self.left[0],
                "--address",
                ray_address,
            ]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stderr=self.log, stdout=self.log, env=dict(os.environ)
            )
            self.started += 1

    def lose(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    before = set_environment(
        {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", MARK: str(tmp_path),
         "JAX_PLATFORMS": "cpu", "RAY_prestart_worker_first_driver": "0"}
    )  # fmt: skip
    for module in (toy.__file__, str(ROOT / "examples" / "kuramoto.py")):
        (tmp_path / Path(module).name).write_text(Path(module).read_text())
    weights = get_cell("gru").init(jax.random.key(0), 5, 1, 1, Scales(0.5))
    write_hdf5(tmp_path / "net.h5", {name: np.asarray(value) for name, value in weights.items()})
    axes = {"eigenvalue": np.full((1, 5), 2 + 0j), "right": np.eye(5, dtype=complex)[None]}
    point = {
        "point": np.zeros((1, 5)),
        "constant_input": np.zeros((1, 1)),
        "n_unstable": np.ones(1),
    }
    write_hdf5(tmp_path / "points.h5", axes | point)
    yield tmp_path
    kill(processes(tmp_path))
    set_environment(before)


def make(folder, jobs, name, address):
    params, grid = jobs[name]
    run = BRIEF if jobs is FEW else RUN
    content = {"kernel": name, "params": params, "sweep": {"grid": grid}, "run": run}
    if name == SEARCH:
        search = {"method": "population", "metric": "eval_loss", "every": 1, "generations": 5}
        search["params"] = {"learning_rate": {"loguniform": [1e-3, 1e-2]}}
        content |= {"kernel": "train_rnn", "search": search}
    return open_or_create(parse_job(content, name), str(folder), name, address, SerialExecutor(1))


def pieces(store):
    """Committed shards, and decisions of a search, each of which has begun a round."""
    decisions = objects.list_keys(store.objects, "run/decisions")
    return len(store.committed.numbers()) + sum(1 for _ in decisions)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.endurance
@pytest.mark.parametrize(
    ("jobs", "plan"),
    [
        pytest.param(FEW, SHORT, id="a kernel and a search"),
        pytest.param(JOBS, LONG, id="all kernels"),
    ],
)
def test_chaos_ends_in_the_bytes_of_an_undisturbed_run(folder, jobs, plan):
    # lfads.posterior and mechanisms.evidence need trained models; they compute an item at once, as kuramoto does.
    assert set(JOBS) | {"lfads.posterior", "mechanisms.evidence"} == {
        *kernel_names(),
        "toy",
        "kuramoto",
    }
    whole = {name: make(folder, jobs, name, str(folder / f"whole-{name}.zarr")) for name in jobs}
    for store in whole.values():
        run_shards(store, SerialExecutor(1))
        gather(store)
    stores = {name: make(folder, jobs, name, str(folder / f"{name}.zarr")) for name in jobs}
    rng, n_kills = random.Random(5), len(plan)
    plan = rng.sample(plan, n_kills)
    done = lambda: sum(map(pieces, stores.values()))
    total = sum(map(pieces, whole.values()))
    killed, lost_drivers = [], 0
    began = time.monotonic()
    with (folder / "drivers.log").open("w") as log:
        machines = Machines(folder)
        drivers = Drivers(folder, [store.address for store in stores.values()], log)
        due = 1
        moved, before = began, 0
        while drivers.left and time.monotonic() - moved < STALLED_S:
            drivers.step(machines.address)
            now = done()
            if now != before:
                moved, before = time.monotonic(), now
            # Kills are spread over the work, each in the midst of it: something new has been computed.
            if plan and now >= due and now < total:
                what = plan.pop()
                if what == "worker":
                    workers = list(processes(folder, "^ray::ShardWorker"))
                    kill(rng.sample(workers, min(1, len(workers))))
                elif what == "driver":
                    drivers.lose()
                    lost_drivers += 1
                elif what == "cluster":
                    drivers.lose()
                    machines.lose_all()
                    lost_drivers += 1
                elif what == "raylet":
                    machines.lose_raylet(rng)
                else:
                    machines.lose_node(gracefully=False)
                killed.append(what)
                due = max(now + 1, round(total * len(killed) / n_kills))
            time.sleep(0.1)
        seconds = time.monotonic() - began
        kill(processes(folder))
    said = (folder / "drivers.log").read_text()[-3000:]
    assert not drivers.left, f"{done()}/{total} shards after {seconds:.0f} s, {killed}:\n{said}"
    assert len(killed) == n_kills, killed
    repeated = 2 * lost_drivers  # what ran when the driver died
    for name, store in stores.items():
        assert tree_bytes(store.address) == tree_bytes(whole[name].address), name
        items = np.concatenate(
            [store.rows(g, "item", 0, n) for g, n in enumerate(store.job.plan.group_sizes)]
        )
        assert sorted(items) == list(range(len(items)))
        assert all(
            (store.rows(g, "status", 0, n) != 0).all()
            for g, n in enumerate(store.job.plan.group_sizes)
        )
        left = [finding for finding in check(store.address) if "left over" not in finding.what]
        assert left == []
        repeated += sum(e.kind == "error" for e in read_events(store))
    print(
        f"{len(killed)} kills in {seconds:.0f} s, {drivers.started} drivers, {repeated}/{total} shards repeated"
    )
    # A kill ends the two shards that its workers run; what starts again costs more of little work.
    assert repeated <= (2 * (n_kills + lost_drivers) if jobs is FEW else 0.1 * total)


BAD_NODE = """
import os
import time
from pathlib import Path

import jax, jax.numpy as jnp, numpy as np, ray
from ctd.kernel import Params, Traced, Var, one_shot


class Item(Params):
    x: Traced[float] = 0.0


def run(static, shared, traced, key):
    def answer(x):
        here = Path(__file__).parent
        if ray.get_runtime_context().get_node_id() == (here / "bad").read_text():
            (here / f"died-{float(x):.4f}").touch()
            os._exit(3)
        for _ in range(600):  # the other node does not do it all while this one's workers come back
            if len(list(here.glob("died-*"))) >= 3:
                break
            time.sleep(0.2)
        return np.float32(2 * x)

    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return {"value": jax.pure_callback(answer, shape, traced.x, vmap_method="sequential")}


kernel = one_shot("bad_node", Item, {"value": Var((), "1", "2 x")}, run)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.endurance  # without a Ray: tests/cluster/ray/test_crew.py
def test_node_on_which_workers_keep_dying_is_set_aside(folder):
    (folder / "bad_node_kernel.py").write_text(BAD_NODE)
    machines = Machines(folder)
    (folder / "bad").write_text(machines.nodes[0].node_id)
    content = {
        "kernel": "bad_node_kernel",
        "sweep": {"grid": {"x": {"linspace": [0, 1, 30]}}},
        "run": {**RUN, "microbatch": 1, "slots": 1, "shard_items": 1, "retries": 5, "workers": 4},
    }
    spec = parse_job(content, "job")
    store = open_or_create(
        spec, str(folder), "job", str(folder / "job.zarr"), SerialExecutor(1)
    )  # fmt: skip
    executor = RayExecutor(spec.run, machines.address)
    try:
        progress = run_shards(store, executor)
    finally:
        executor.close()
    assert progress.shards_done == 30
    assert progress.failed_items == {}
    errors = [event for event in read_events(store) if event.kind == "error"]
    said = [event.about["set_aside"] for event in errors if "set_aside" in event.about]
    assert said == [
        f"node {machines.nodes[0].node_id}: no longer used: workers died there in the midst of 3 shards"
    ]
    # Two actors were on it: a death or two more may come before both are replaced.
    assert 3 <= len(errors) <= 6
