"""What a store survives: its run stopped at every write, and each of its objects damaged in every way.

    python benchmarks/attack.py [--jobs esn lfads] [--processes 2] [--every 1]

For one job after another, with a checkpoint after every advance; a write is a write, or a deletion:

    stops    What lies on the disk in the midst of the n-th write, half of its bytes beside their place as a kill leaves
             them, is kept for every n. From each the job is begun again, and must end with the bytes of the run that
             was not disturbed, nothing left over, nothing wrong.
    kills    The same after a process that ends itself by SIGKILL in the midst of every tenth write.
    damage   Every object of the finished store has a bit flipped, is cut, and is deleted. `check` must see it, its
             repair and a resume must bring back the same bytes.
    notes    So are who ran and gathered the store, of which nothing is made: they must not be missed.

Bytes are compared of results, items, gathered and reduced; the table `shards` and the root's attributes tell times, and
the check compares them with their checksums. Exits with 1 if anything was lost.
"""

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import jax
import numpy as np
import obstore
import optax  # noqa: F401  it, SciPy, Zarr and pandas come with the first fork, not with each
import pandas as pd  # noqa: F401
import scipy.spatial  # noqa: F401
import xarray as xr  # noqa: F401
import zarr  # noqa: F401
from options import parse

from cluster.cache import use_compilation_cache
from cluster.cli.outcome import keep_pictures
from ctd.catalogue import kernel_names
from ctd.cells import get_cell
from ctd.data import write_hdf5
from ctd.weights import write_weights
from jobs.exports.posterior import choose_models, model_params, posterior_job
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import JobSpec, parse_job
from jobs.storage import objects
from jobs.store import checkpoint
from jobs.store.store import Store

EXAMPLES = Path(__file__).parent.parent / "examples"
FAULTS = '''
"""In group 0 the item x = 3 fails; group 1 has room for two items at a time."""
import jax
import numpy as np

from ctd.kernel import Params, Static, Traced, Var, one_shot


class Item(Params):
    small: Static[int] = 0
    x: Traced[float] = 0.0


def run(static, shared, traced, key):
    def answer(x):
        if static.small and x.size > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: no room")
        if not static.small and (x == 3).any():
            raise ValueError("x is 3")
        return np.asarray(2 * x, np.float32)

    like = jax.ShapeDtypeStruct((), np.float32)
    return {"y": jax.pure_callback(answer, like, traced.x, vmap_method="expand_dims")}


kernel = one_shot("faults", Item, {"y": Var()}, run)
'''
TWO = {"shard_items": 2, "slots": 2, "microbatch": 1, "checkpoint_s": 0}
RNN = {"n": 4, "batch_size": 4, "n_batches": 4, "report_every": 2, "n_eval": 4, "n_saved": 1}
NET = {"cell": "vanilla", "weights": "net.h5"}
LEARNING_RATE = {"loguniform": [1e-3, 1e-1]}

JOBS: dict[str, dict[str, Any]] = {
    "kuramoto": {"params": {"n": 5, "n_steps": 20}, "sweep": {"grid": {"coupling": [0, 1, 2, 3]}}},
    "faults": {
        "sweep": {"grid": {"small": [0, 1], "x": [0, 1, 2, 3]}},
        "run": {"shard_items": 4, "slots": 4, "microbatch": 4, "retries": 0, "backoff_s": 0},
    },
    "esn": {"params": {"n": 12}, "sweep": {"seeds": 4}},
    "esn.nvar": {"params": {"segments": 4}, "sweep": {"grid": {"segment": {"range": 4}}}},
    "fixed_points": {
        "params": {"weights": "decision_gru.h5", "n_trials": 2, "q_tol": 1e-6},
        "sweep": {"grid": {"candidate": {"range": 4}}},
    },
    "fixed_points.continuation": {
        "params": NET | {"points": "net.h5", "dataset": "h0", "n_steps": 4, "n_bifurcations": 1},
        "sweep": {"grid": {"start": {"linspace": [-0.4, 0.9, 4]}}},
    },
    "fixed_points.connections": {
        "params": NET | {"points": "points.h5", "n_steps": 200}, "sweep": {"grid": {"departure": {"range": 4}}},
    },
    "fixed_points.exponents": {
        "params": NET | {"transient": 0, "n_steps": 500, "n_exponents": 2},
        "sweep": {"grid": {"noise": {"linspace": [0, 0.5, 4]}}},
    },
    "fixed_points.limit_cycles": {
        "params": NET | {"transient": 50, "n_points": 8},
        "sweep": {"grid": {"noise": {"linspace": [0, 0.5, 4]}}},
    },
    "fixed_points.ablation": {
        "params": NET | {"task": "decision", "n_trials": 4}, "sweep": {"grid": {"unit": {"range": 4}}},
    },
    "fixed_points.trials": {
        "params": NET | {"n_trials": 4, "every": 10, "n_modes": 2}, "sweep": {"grid": {"trial": {"range": 4}}},
    },
    "similarity": {
        "params": {"weights": ["net.h5"] * 4, "n_trials": 4, "n_samples": 50},
        "sweep": {"grid": {"matrix_row": {"range": 4}}},
    },
    "reconstruct": {
        "params": {"data": "lorenz_recording.npy", "hidden": 4, "length": 6, "batch_size": 2, "n_batches": 10, "report_every": 5,
                   "bins": 4, "n_saved": 3},
        "sweep": {"grid": {"learning_rate": [0.001, 0.002, 0.003, 0.004]}},
    },
    "curbd": {
        "params": {"data": "regions_recording.h5", "regions": {"A": "0-29", "B": "30-59"}, "n_runs": 2, "report_every": 1,
                   "steps": 1, "n_saved": 3},
        "sweep": {"grid": {"g": [0.5, 1, 1.5, 2]}},
    },
    "full_force": {
        "params": {"trials": "oscillation_trials.h5", "n": 5, "settle": 1, "n_train": 2, "n_test": 1},
        "sweep": {"grid": {"g": [0.5, 1, 1.5, 2]}},
    },
    "latent_circuit": {
        "params": {"trials": "circuit_rates.h5", "n": 4, "batch_size": 2, "n_batches": 2, "report_every": 1, "n_saved": 1},
        "sweep": {"grid": {"learning_rate": [0.01, 0.02, 0.03, 0.04]}},
    },
    "mechanisms": {
        "params": {"n_neurons": 6, "n_trials": 4, "n_bins": 20}, "sweep": {"grid": {"mechanism": {"range": 4}}},
    },
    "train_rnn": {"params": RNN, "sweep": {"grid": {"learning_rate": [0.01, 0.02, 0.03, 0.04]}}},
    "population": {
        "kernel": "train_rnn", "params": RNN | {"n_batches": 8}, "sweep": {"seeds": 4},
        "search": {"method": "population", "metric": "eval_loss", "every": 1, "generations": 3,
                   "params": {"learning_rate": LEARNING_RATE}},
    },
    "halving": {
        "kernel": "train_rnn", "params": RNN | {"n_batches": 8},
        "sweep": {"grid": {"learning_rate": [0.01, 0.02, 0.03, 0.04]}},
        "search": {"method": "halving", "metric": "eval_loss", "min_advances": 1, "eta": 2},
    },
    "spikes": {
        "params": {"weights": "decision_gru.h5", "n_train": 3, "n_eval": 2},
        "sweep": {"grid": {"max_rate": [10, 20, 30, 40]}},
    },
    "lfads": {
        "params": {"data": "lfads_spikes.h5", "encoder": 4, "controller": 4, "generator": 5, "n_factors": 3,
                   "batch_size": 4, "n_batches": 4, "report_every": 2, "warm_up": 1, "kl_ramp": 2, "n_samples": 2,
                   "n_metric": 4, "n_saved": 2},
        "sweep": {"grid": {"learning_rate": [0.01, 0.02, 0.03, 0.04]}},
    },
    "lfads.posterior": {},  # of the store of `lfads`
}  # fmt: skip
"""Each kernel once, and two searches. `kernel` is the name unless given."""

KILLED = 10
"""Every so many writes a process is killed for real."""
HOW = ("flipped", "cut", "deleted")
NOTES = ("run/lease/", "run/cancel/", "run/gathering/", "run/submit/")
"""Who ran and gathered the store: nothing is made from it."""


def specified(name: str, folder: Path) -> JobSpec:
    """The job called `name`, whose files lie in `folder`."""
    if name == "lfads.posterior":
        trained = Store.open(str(folder / "lfads.zarr"))
        (best,) = choose_models(trained, None, None, 1, lambda line: None)
        models = model_params(trained, best, None)
        overrides = ["params.chunk_batches=16", "run.shard_items=1"]
        return posterior_job(trained, models, overrides).spec
    return parse_job({"kernel": name, "run": TWO, **JOBS[name]}, name)


def write_network(folder: Path) -> None:
    """Write a network of four units with random weights, and a table of two points of it, one unstable."""
    write_weights(
        folder / "net.h5", get_cell("vanilla").init(jax.random.key(0), 4, 1, 1), "vanilla"
    )
    axes = np.tile(np.eye(4, dtype=complex), (2, 1, 1))
    table = {
        "eigenvalue": np.full((2, 4), 0.5 + 0j),
        "right": axes,
        "n_unstable": np.array([1, 0]),
        "n_marginal": np.array([0, 0]),
    }
    points = {"point": np.eye(4)[:2] - 0.5, "constant_input": np.zeros((2, 1))}
    write_hdf5(folder / "points.h5", table | points)


def computed(name: str, folder: Path, address: Path) -> Store:
    """Run a job to its end, or go on with it."""
    checkpoint.COST = 1e9
    executor = SerialExecutor(1)
    store = open_or_create(specified(name, folder), str(folder), name, str(address), executor)
    progress = run_shards(store, executor)
    assert not progress.failed, progress.failed
    gather(store)
    keep_pictures(store)
    return store


def tree(address: Path) -> dict[str, str]:
    """Key -> digest of every object that two runs have in common; NAME#1 is what a kill leaves half-written."""
    files = (p for p in address.rglob("*") if p.is_file() and not re.search(r"#\d+$", p.name))
    found = {str(p.relative_to(address)): p for p in files}
    return {
        key: hashlib.sha256(path.read_bytes()).hexdigest()
        for key, path in found.items()
        if not key.startswith(("run/", "shards/")) and key != "zarr.json"
    }


def difference(address: Path, whole: dict[str, str]) -> str:
    """What a store is not as it should be; empty if nothing."""
    found = tree(address)
    other = sorted(key for key in found.keys() | whole.keys() if found.get(key) != whole.get(key))
    if other:
        return f"other bytes in {', '.join(other[:5])}"
    wrong = [f"{finding.key} {finding.what}" for finding in check(str(address))]
    return f"check finds {', '.join(wrong[:5])}" if wrong else ""


# --- stops and kills --------------------------------------------------------------------------------


def watched(act: Callable[[int, Path, Any], None]) -> None:
    """Call act(number, path, bytes or None) before every write and deletion of this process, from 1 on."""
    numbers = itertools.count(1)

    def watching(name: str) -> None:
        call = getattr(obstore, name)

        @wraps(call)
        def wrapped(store: Any, key: Any, *data: Any, **options: Any) -> Any:
            act(next(numbers), store.prefix / key, memoryview(data[0]) if data else None)
            return call(store, key, *data, **options)

        setattr(obstore, name, wrapped)

    for name in ("put", "put_async", "delete", "delete_async"):
        watching(name)


def half_written(path: Path, data: Any) -> None:
    """Leave what a kill in the midst of a write leaves: half of the bytes beside their place."""
    if data is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}#1").write_bytes(bytes(data)[: len(data) // 2])


def apart(call: Callable[[], Any], log: Path) -> tuple[int, Any]:
    """(exit code, what it returned) of a call in a forked process; what it says goes into `log`."""
    answer, told = multiprocessing.Pipe(duplex=False)

    def body() -> None:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        told.send(call())

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    told.close()
    try:
        found = answer.recv()
    except EOFError:
        found = None
    process.join()
    return process.exitcode or 0, found


def undisturbed(name: str, folder: Path) -> tuple[dict[str, str], int]:
    """(tree of a whole run, number of its writes); what lay there at write n is kept in the folder `states`."""
    address, n = folder / f"{name}.zarr", 0

    def keep(number: int, path: Path, data: Any) -> None:
        nonlocal n
        n = number
        state = folder / "states" / f"{number}.zarr"
        shutil.copytree(address, state, ignore=shutil.ignore_patterns("*#*"))  # they come and go
        half_written(state / path.relative_to(address), data)

    watched(keep)
    computed(name, folder, address)
    found = n
    assert check(str(address)) == [], check(str(address))
    return tree(address), found


def stop(name: str, folder: Path, whole: dict[str, str], address: Path) -> dict[str, Any]:
    """One try: begun again from what a stop left; what is left over is removed."""
    try:
        computed(name, folder, address)
        check(str(address), repair=True)
        lost = difference(address, whole)
    except Exception as error:
        lost = f"{type(error).__name__}: {error}"
    what = "kills" if address.parent.name == "killed" else "stops"
    return {"what": what, "lost": f"{what} at write {address.stem}: {lost}" if lost else ""}


def kill(name: str, folder: Path, at: int) -> dict[str, Any]:
    """Kill a run in the midst of a write."""
    address = folder / "killed" / f"{at}.zarr"

    def die(number: int, path: Path, data: Any) -> None:
        if number == at:
            half_written(path, data)
            os.kill(os.getpid(), signal.SIGKILL)

    log = address.with_suffix(".log")
    code, _ = apart(lambda: (watched(die), computed(name, folder, address))[0], log)
    # Arrays are written side by side: one run has a write more than another.
    lost = "" if code in (0, -signal.SIGKILL) else f"exit {code}: {log.read_text()[-2000:]}"
    return {"what": "killed" if code else "ended", "lost": lost}


# --- damage ---------------------------------------------------------------------------------------


def spoil(path: Path, how: str, draw: random.Random) -> None:
    """Damage a file."""
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: draw.randrange(len(data))])
    else:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)


def damage(name: str, folder: Path, whole: dict[str, str], key: str, how: str) -> dict[str, Any]:
    """One try: an object damaged, found, repaired."""
    address = folder / f"{name}-{os.getpid()}.zarr"
    shutil.rmtree(address, ignore_errors=True)
    shutil.copytree(folder / f"{name}.zarr", address)
    spoil(address / key, how, random.Random(f"{key} {how}"))
    what = "notes" if key.startswith(NOTES) else "damage"
    try:
        if what == "damage" and not check(str(address)):
            return {"what": what, "lost": f"{key} {how}: not found"}
        check(str(address), repair=True)
        computed(name, folder, address)
        lost = difference(address, whole)
    except Exception as error:
        lost = f"{type(error).__name__}: {error}"
    return {"what": what, "lost": f"{key} {how}: {lost}" if lost else ""}


# --- all ------------------------------------------------------------------------------------------


def lane(tries: Iterable[Callable[[], dict[str, Any]]], told: Path) -> None:
    """Make some tries one after another, and write a line about each."""
    with told.open("w") as file, open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
        for once in tries:
            file.write(json.dumps(once()) + "\n")
            file.flush()


def side_by_side(
    tries: list[Callable[[], dict[str, Any]]], n: int, folder: Path
) -> list[dict[str, Any]]:
    """Make all tries, in `n` processes at a time; this one starts no thread, so that it may be forked."""
    context = multiprocessing.get_context("fork")
    files = [folder / f"lane-{k}.jsonl" for k in range(n)]
    lanes = [context.Process(target=lane, args=(tries[k::n], file)) for k, file in enumerate(files)]
    for process in lanes:
        process.start()
    for process in lanes:
        process.join()
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    short = len(tries) - len(found)
    return [*found, *({"what": "tries", "lost": "the process that made it ended"} for _ in range(short))]  # fmt: skip


def attack(name: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """Attack one job; print its row, and return what was lost."""
    began = time.monotonic()
    if name == "lfads.posterior" and not (folder / "lfads.zarr").exists():
        train = lambda: str(
            computed("lfads", folder, folder / "lfads.zarr")
        )  # no store: it would start threads here
        apart(train, folder / "lfads.log")
    (folder / "states").mkdir()
    (folder / "killed").mkdir()
    code, found = apart(partial(undisturbed, name, folder), folder / "whole.log")
    assert code == 0, (folder / "whole.log").read_text()[-3000:]
    whole, n = found
    address = folder / f"{name}.zarr"
    stored = sorted(str(p.relative_to(address)) for p in address.rglob("*") if p.is_file())
    points = range(1, n + 1, options.every)
    came = side_by_side(
        [partial(kill, name, folder, at) for at in points[::KILLED]], options.processes, folder
    )
    left = [folder / "states" / f"{at}.zarr" for at in points] + sorted((folder / "killed").glob("*.zarr"))  # fmt: skip
    ways = itertools.product(stored[:: options.every], HOW)
    again = [partial(stop, name, folder, whole, state) for state in left]
    again += [partial(damage, name, folder, whole, key, how) for key, how in ways]
    came += side_by_side(again, options.processes, folder)
    for used in ("states", "killed"):
        shutil.rmtree(folder / used)
    lost = [f"{name}: {one['lost']}" for one in came if one["lost"]]
    made = Counter(one["what"] for one in came)
    kept = Counter(one["what"] for one in came if not one["lost"])
    cells = [f"{kept[what]} of {made[what]}" for what in ("stops", "kills", "damage", "notes")]
    print(
        f"| {name} | {n} | {len(stored)} | {' | '.join(cells)} | {time.monotonic() - began:.0f} |",
        flush=True,
    )
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=JOBS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="this write and object of so many")
    options = parse(parser, jobs=["kuramoto"], every=400)
    if left := sorted({*kernel_names()} - JOBS.keys()):
        print(f"not attacked: {', '.join(left)}\n")
    use_compilation_cache()
    objects.fsync = lambda *args: None  # no test of the disk
    lost = []
    print("| job | writes | objects | stops | kills | damage | notes | s |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="ctd-attack-") as name:
        folder = Path(name)
        for file in (
            "decision_gru.h5", "lfads_spikes.h5", "lorenz_recording.npy", "regions_recording.h5", "oscillation_trials.h5", "circuit_rates.h5",
            "kuramoto.py",
        ):  # fmt: skip
            shutil.copy(EXAMPLES / file, folder)
        (folder / "faults.py").write_text(FAULTS)
        apart(partial(write_network, folder), folder / "network.log")
        for job in options.jobs:
            lost += attack(job, folder, options)
    print("\n" + ("\n".join(lost) if lost else "nothing was lost"))
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
