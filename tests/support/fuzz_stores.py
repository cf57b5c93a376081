"""Damaged stores, for tests/test_fuzz.py: a stranger's, whose objects may be resealed."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from failing import Failing, holds
from fuzzing import of_bytes, of_tree

from jobs import keys
from jobs.gather.gather import gather
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import checksummed, digest
from jobs.store.live import Growing

JOB = {
    "kernel": "esn",
    "params": {"n": 5, "m": 1, "target": "narma10", "train": 40, "test": 20},
    # Two groups, since their data differ, with the same programs.
    "sweep": {"grid": {"target_seed": [0, 1], "g": [0.5, 1.0, 1.5]}, "seeds": 2},
    "run": {"microbatch": 1, "slots": 2, "shard_items": 2, "retries": 0, "backoff_s": 0},
}

LOOKS = (
    ["status"], ["status", "--json"], ["logs"], ["check"], ["check", "--repair"], ["query"], ["query", "--table", "shards"],
    ["query", "--to", "answer.nc"], ["report"], ["gather"], ["ls"], ["best", "--by", "replay_nrmse"], ["note", "seen"], ["export", "0", "net.h5", "--results"], ["resume", "--executor", "serial", "--json"], ["cancel"],
)  # fmt: skip

CHANGES = ("gather", "resume", "note", "cancel")
"""Commands that write to a store, which an archive does not let them."""


@cache
def finished() -> Path:
    """A store with an object of each kind: a failing item, halved slots, a shard of which curves are there alone."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "store.zarr"
    store = open_or_create(parse_job(JOB, "job"), str(folder), "job", str(path), SerialExecutor(1))

    def fault(task):
        if task.shard.group == 1 and (task.slots or 2) > 1:
            return "memory"
        return task.shard.group == 0 and holds(task, {3}) and "error"

    run_shards(store, Failing(fault))
    gather(store)
    for last in store.committed.markers()[-2:]:
        store.committed.forget([last.shard])
    store.committed.compact()
    Growing(rows=[4], advances=3, places={}, curves={}).write(store.objects, keys.live(1, 5))
    sealed = last.to_bytes()
    objects.write(store.objects, keys.record(keys.DONE, 1, 5, digest(sealed)), sealed)
    return path


def damaged_store(rng, folder):
    """A store, one or some of whose objects have strange values, lines or bytes, and the command that looks at it."""
    path = shutil.copytree(finished(), folder / "store.zarr")
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    for _ in range(rng.choice([1, 1, 1, 3])):
        if rng.random() < 0.1:
            _under_another_name(rng, path / rng.choice(names))
        elif rng.random() < 0.3:
            _resealed(rng, [path / keys.JOB, path / keys.JOB_COPY])
        else:
            # Of kinds, not of objects: most are rows.
            kind = rng.choice(sorted({_kind(name) for name in names}))
            _damage(rng, path / rng.choice([name for name in names if _kind(name) == kind]))
    look = rng.choice(LOOKS)
    if look[0] not in CHANGES and rng.random() < 0.3:
        archive = Path(shutil.make_archive(folder / "store", "zip", path))
        if rng.random() < 0.7:
            archive.write_bytes(of_bytes(rng, archive.read_bytes()))
        return [look[0], archive.name, *look[1:]]
    return [look[0], "store.zarr", *look[1:]]


def _kind(name):
    return (
        "".join("#" if part.isdigit() else part for part in name.split("/")[:2])
        + name.rpartition(".")[2]
    )


def _under_another_name(rng, file):
    """A copy, or the file itself, called as another of its kind could be, or nearly."""
    stem, dot, rest = file.name.partition(".")
    name = (
        rng.choice(
            ["1", "00000001", "0000000001", f"{stem}0", f"{stem}-1", "9" * 30, f"{stem} (1)"]
        )
        + dot
        + rest
    )
    if file.exists() and name != file.name:
        (shutil.move if rng.random() < 0.5 else shutil.copy)(file, file.with_name(name))


def _damage(rng, file):
    if not file.exists() or file.is_dir() or rng.random() < 0.1:
        file.unlink(missing_ok=True) if not file.is_dir() else None
        if rng.random() < 0.5 and not file.exists():
            file.mkdir() if rng.random() < 0.5 else file.symlink_to(
                rng.choice(["nothing", file.name])
            )
    elif rng.random() < 0.5 or file.suffix not in (".json", ".jsonl"):
        file.write_bytes(of_bytes(rng, file.read_bytes()))
    else:
        _resealed(rng, [file])


def _resealed(rng, files):
    """Give all of these files, JSON or lines of it, the content of the first with something strange in it."""
    try:
        lines = (
            [json.loads(line) for line in files[0].read_bytes().splitlines()]
            if files[0].suffix == ".jsonl"
            else [json.loads(files[0].read_bytes())]
        )
    except (OSError, ValueError, RecursionError):  # damaged or moved before
        return
    at = rng.randrange(max(1, len(lines)))
    for k, line in enumerate(lines):
        if k == at or (line == lines[at] and rng.random() < 0.5):
            lines[k] = of_tree(rng, line)
    data = b"\n".join(_sealed(line) for line in lines)
    for file in filter(Path.is_file, files):
        file.write_bytes(data + (b"\n" if files[0].suffix == ".jsonl" else b""))


def _sealed(content):
    if isinstance(content, dict) and "seal" in content and len(content) > 1:
        try:
            return checksummed({name: value for name, value in content.items() if name != "seal"})
        except TypeError:
            pass
    return json.dumps(content).encode()
