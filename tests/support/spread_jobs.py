"""Searches whose shards meet, and the same in one shard each, made once a process."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from search_jobs import HALVING, POPULATION, changed, results, spread
from stores import run

from jobs.storage import objects
from jobs.store.events import read_events

JOBS = {
    "halving": HALVING,
    "tournament": POPULATION,
    "truncation": changed(POPULATION, "search.exploit", "truncation"),
}
FOLDER = "run/meetings"
"""Where shards that meet leave what the others wait for."""


def in_shards(name):
    """The job in three shards, or in four."""
    return spread(JOBS[name], 9 if name == "halving" else 2)


@cache
def whole_store(name):
    """The finished store of a job in one shard."""
    folder = Path(tempfile.mkdtemp(prefix="spread-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return run(folder / f"{name}.zarr", JOBS[name])[0]


def same(store, whole):
    """Every number of every item, and nothing left behind."""
    a, b = results(store), results(whole)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
    left = [
        *objects.list_keys(store.objects, FOLDER),
        *objects.list_keys(store.objects, "run/checkpoints"),
    ]
    assert left == []


def started_over(store):
    texts = [event.text for event in read_events(store) if event.kind == "decision"]
    return sum("start over" in text for text in texts)
