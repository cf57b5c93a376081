"""Processes that are killed at a chosen moment."""

import os
import random
import signal
import subprocess
import sys
import time

from places import ROOT
from stores import BASE

KILLED = """
import os, signal, sys
import obstore, zarr
sys.path.insert(0, {base!r})
from stores import make
from jobs.storage import objects
from jobs.gather.gather import gather
from jobs.run.executor import SerialExecutor
from jobs.run.shards import run_shards

path, when, what, left = {path!r}, {when!r}, {what!r}, [{nth}]

def die(key, now):
    if what in key and when == now:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

real_set = zarr.storage.ObjectStore.set

def dying(really):
    def write(store, key, data):
        die(key, "before")
        done = really(store, key, data)
        die(key, "after")
        return done
    return write

async def set(self, key, value):
    die(key, "before")
    await real_set(self, key, value)
    die(key, "after")

objects.write, objects.create = dying(objects.write), dying(objects.create)
zarr.storage.ObjectStore.set = set
store = make(path, {job!r})
run_shards(store, SerialExecutor(1))
gather(store)
"""


def killed(script, *arguments):
    """Run a script of Python that ends in SIGKILL; what it printed."""
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True,
        text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert found.returncode == -signal.SIGKILL, found.stderr
    return found


def killed_at_a_write(path, job, when, what, nth, before=""):
    """Make and run a store, killed before or after the nth write of a key with `what` in it."""
    script = KILLED.format(base=BASE, path=str(path), when=when, what=what, nth=nth, job=job)
    return killed(before + script)


OFTEN = "from jobs.store import checkpoint; checkpoint.COST = 1e9\n"
"""A checkpoint after every advance, whatever it costs."""


ENV = {**os.environ, "JAX_PLATFORMS": "cpu"}


def killed_at_random(store, seen):
    """Run a store in three processes, one after another, each killed soon after the first change in what
    `seen` tells of it; how many were still at work."""
    kills = 0
    script = (
        f"{OFTEN}import sys; sys.path.insert(0, {BASE!r})\n"
        "from jobs.run.executor import SerialExecutor\nfrom jobs.run.shards import run_shards\n"
        "from jobs.store.store import Store\n"
        f"run_shards(Store.open({store.address!r}), SerialExecutor(1))"
    )
    for _ in range(3):
        before = seen(store)
        process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=ENV)
        while seen(store) == before and process.poll() is None:
            time.sleep(0.02)  # to look takes the core that the process starts on
        time.sleep(random.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    return kills
