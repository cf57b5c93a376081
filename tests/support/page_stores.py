"""Small finished stores, one a kernel, whose pages the tests look at; and a browser that does."""

import fcntl
import os
import shutil
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax
import numpy as np
import stores
from small import FOUR, SMALL

from ctd.cells import Scales, get_cell
from ctd.weights import write_weights
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.task import Report
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.store import Store

CHROMIUM = shutil.which("chromium")

HOSTILE = "<img src=x onerror=hacked()></script><script>hacked()</script>"
SECRET = "s3cr3t-Value-of-a-key"

JOBS = {
    "toy": {
        "kernel": "toy",
        "name": f"toy {HOSTILE}",
        "params": {"n_steps": 7},
        "sweep": {
            "grid": {"n": [3, 5], "rate": {"linspace": [-0.5, 0.5, 11]}, "push": [[0, 0], [1, -1]]}
        },
        "run": {"shard_items": 6, "slots": 4, "microbatch": 2, "retries": 0, "backoff_s": 0},
    },
    "train_rnn": {
        "kernel": "train_rnn",
        "params": {
            "cell": "vanilla", "task": {"name": "integrator"}, "n": 6, "batch_size": 8,
            "n_batches": 40, "report_every": 10, "n_eval": 16, "n_saved": 4,
        },
        "sweep": {"random": {"learning_rate": {"loguniform": [1e-4, 0.1]}}, "samples": 10},
        "run": {"microbatch": 10, "slots": 10},
    },
    "swept": {
        "kernel": "train_rnn",
        "params": stores.SMALL_RNN,
        "sweep": {"grid": {"learning_rate": [1e-3, 2e-3, 4e-3]}, "seeds": 2},
        "run": stores.FOUR_SLOTS,
    },
    "esn": {
        "kernel": "esn",
        "params": SMALL["esn"],
        "sweep": {"grid": {"g": [0.5, 1.5, 2.5], "alpha": [0.1, 10]}, "seeds": 2},
        # As in the kernels' contract, which compiles this program, too.
        "run": {"microbatch": FOUR.microbatch, "slots": FOUR.slots},
    },
    "fixed_points": {
        "kernel": "fixed_points",
        "params": {"weights": "net.h5", "n_trials": 4, "q_tol": 1e-20},
        "sweep": {"grid": {"candidate": {"range": 24}}},
        "run": stores.FOUR_SLOTS,
    },
}  # fmt: skip


class Unlucky(SerialExecutor):
    """Reports an error with a hostile text in place of row 8 of group 0."""

    def __init__(self):
        super().__init__(1)

    def wait(self, timeout):
        reports = []
        for task in list(self._waiting):
            shard = task.shard
            if shard.group == 0 and shard.start <= 8 < shard.stop and 8 not in task.without:
                self._waiting.remove(task)
                trace = f"Traceback\n  {HOSTILE}\n  password={SECRET}"
                error = f"ValueError: {HOSTILE}"
                reports.append(Report(*task.key, error=error, trace=trace))
        return reports + super().wait(0 if reports else timeout)


def network(folder: Path) -> None:
    """A small random network in net.h5, of the sizes of `stores.SMALL_RNN`."""
    cell, n = stores.SMALL_RNN["cell"], stores.SMALL_RNN["n"]
    weights = get_cell(cell).init(jax.random.key(0), n, 1, 1, Scales(0.5))
    write_weights(folder / "net.h5", {name: np.asarray(v) for name, v in weights.items()}, cell)


def create(folder: Path, name: str):
    """The empty store of a job above."""
    if name == "fixed_points":
        network(folder)
    spec = parse_job({"name": name, **JOBS[name]}, "job")
    base = str(folder if name == "fixed_points" else Path(__file__).parent)
    return open_or_create(spec, base, "job", str(folder / f"{name}.zarr"), SerialExecutor(1))


def shared(name: str) -> Path:
    """In the folder of a run of the tests (tests/conftest.py): each store is made by the first of its processes that needs it."""
    return Path(os.environ["XDG_CONFIG_HOME"]) / "stores" / name


@cache
def finished(name: str):
    """The finished, gathered store of a job above, to be read only; an item of the toy job fails with an error."""
    folder = shared(name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            store = create(folder, name)
            run_shards(store, Unlucky() if name == "toy" else SerialExecutor(1))
            shutil.copytree(store.address, folder / "computed.zarr")
            gather(store)
            (folder / "done").touch()
    return Store.open(str(folder / f"{name}.zarr"))


def computed(name: str) -> str:
    """The address of that store as it was before it was gathered; to be read only."""
    finished(name)
    return str(shared(name) / "computed.zarr")


@contextmanager
def browser():
    """A real Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


def until(page, expression, given=None, timeout_s=200):
    """Wait until a JavaScript expression holds (the page's policy forbids Playwright's own way)."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(expression, given):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)
