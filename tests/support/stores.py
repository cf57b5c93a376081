"""Small stores of the toy kernel, and how they are run and compared."""

import atexit
import json
import os
import re
import shutil
import tempfile
from functools import cache

import numpy as np
from places import SUPPORT

from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
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
