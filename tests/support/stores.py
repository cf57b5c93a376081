"""Small stores of the toy kernel, how they are run and compared; one as a stranger may send it."""

import atexit
import json
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from places import SUPPORT

from jobs import keys
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store.manifest import write_job
from jobs.store.store import Store

BASE = str(SUPPORT)

FOUR_SLOTS = {"slots": 4, "shard_items": 48}
"""`run:` of a job that has the programs of other such jobs, however many items each has."""

SMALL_RNN = {"cell": "gru_torch", "task": "decision", "n": 4, "n_batches": 2, "report_every": 1}
"""`params:` of a network, for tests that need any: they share its programs."""


JOB = {
    "kernel": "toy",
    "seed": 5,
    "params": {"n_steps": 7},
    "sweep": {
        "grid": {"n": [3, 5], "rate": {"linspace": [-0.5, 0.5, 11]}, "push": [[0, 0], [1, -1]]}
    },
    "run": {"shard_items": 6, "slots": 4, "microbatch": 2},
}


TOY = """
kernel: toy
params: {n_steps: 5}
sweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}
"""
"""A job file, for tests of the command line."""


def make(path, job=JOB):
    return open_or_create(parse_job(job, "job"), BASE, "job", str(path), SerialExecutor(1))


def run(path, job=JOB):
    store = make(path, job)
    progress = run_shards(store, SerialExecutor(1))
    return store, progress


@cache
def _run_once(job):
    folder = tempfile.mkdtemp(prefix="stores-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return run(f"{folder}/s.zarr", json.loads(job))[0].address


def copied_run(path, job=JOB):
    """A store of a job that was run: in this process once, and copied for whoever asks."""
    return Store.open(str(shutil.copytree(_run_once(json.dumps(job)), path)))


def files(path):
    """Every file below a folder, by name."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            with open(full, "rb") as file:
                found[os.path.relpath(full, path)] = file.read()
    return found


def tree_bytes(path):
    """Every file of the Zarr hierarchy by name, without the runner's own notes.

    An object is written as NAME#1 and renamed: a process killed in between leaves that, which no store lists.
    """
    return {
        name: data
        for name, data in files(path).items()
        if name.partition("/")[0] not in ("run", "shards", "zarr.json")
        and not re.search(r"#\d+$", name)
    }


def item_of(tree, item=0):
    """Name -> array of the results of one item."""
    return {name: np.asarray(value[item]) for name, value in tree["results/0"].data_vars.items()}


# --- a store as a stranger may send it ----------------------------------------------------------

PAYLOAD = "from pathlib import Path\nPath({mark!r}).write_text('run')\nfrom toy import *\n"


@cache
def half_gathered() -> Path:
    """A finished toy store, one shard of which is not gathered."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = copied_run(folder / "toy.zarr")
    last = store.committed.markers()[-1]
    store.committed.forget([last.shard])
    gather(store)
    sealed = last.to_bytes()
    objects.write(store.objects, keys.record(keys.DONE, 1, 7, digest(sealed)), sealed)
    return folder / "toy.zarr"


class Hostile:
    """A copy of that store, resealed to name `payload` in its own folder run/code.

    path: of the store. `ran` says whether the payload has been imported since.
    """

    def __init__(self, path: Path, kernel: str = "payload", base: str | None = None, **params):
        shutil.copytree(half_gathered(), path)
        store = Store.open(str(path))
        self.path, self.mark = path, path.parent / "hacked"
        self.code = path / "run" / "code" if base is None else Path(base)
        self.code.mkdir(parents=True, exist_ok=True)
        (self.code / "payload.py").write_text(PAYLOAD.format(mark=str(self.mark)))
        reseal(store, str(self.code), kernel, **params)

    @property
    def ran(self) -> bool:
        return self.mark.exists()


def reseal(store, base, kernel, **params):
    """Have the store's job name another kernel, and further params."""
    spec = store.job.spec
    spec = spec.model_copy(update={"kernel": kernel, "params": {**spec.params, **params}})
    store.job = store.job.model_copy(update={"spec": spec, "base": base})
    write_job(store.objects, store.job)


def of_train_rnn(path: Path) -> Store:
    """A finished store of `train_rnn`, ctd's own kernel."""
    job = {
        "kernel": "train_rnn",
        "params": SMALL_RNN,
        "sweep": {"grid": {"learning_rate": [0.01, 0.02]}},
        "run": FOUR_SLOTS,
    }
    store = copied_run(path, job)
    gather(store)
    return store
