"""Checkpoints of a running shard: the state from which a `ctd.batch.Run` continues, in two generations.

    run/checkpoints/G/SSSSSS/0     one generation: sha256, a line of JSON, the bytes of the arrays
    run/checkpoints/G/SSSSSS/1     the other; each write replaces the older of the two

A generation is written whole or not at all. One that is damaged, or of another device kind, microbatch, set of items or version
of JAX, is ignored: continuing from it could give other bits. The number of slots changes no bit. If items are computed one by
one, the number of devices changes none either: a shard that was stopped on two cores may continue on one. A wider microbatch
may differ in its last digits between one device and several (docs/running.md).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ctd.batch import Run, Snapshot
from ctd.batch.round import RoundRun
from ctd.late import jax
from jobs import keys
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store.manifest import host
from jobs.store.store import Store

COST = 0.02
"""Largest share of a shard's time that checkpoints take: on slow storage they become rarer."""

HEAD = re.compile(rb'\{"done": \[(\d+), ([\d.e+-]+)\], "seconds": ([\d.e+-]+), ')
"""The beginning of a checkpoint's line of JSON, which is longer than `HEAD_BYTES` with the checksum before it."""
HEAD_BYTES = 200


class CheckpointProgress(NamedTuple):
    """The progress of shards without results, as their checkpoints hold it."""

    ended: int = 0
    """Items that have ended."""
    work: float = 0.0
    """In items: half of an item's advances are half an item."""
    seconds: float = 0.0
    """Seconds that it took."""

    def s_left(self, n_items: int) -> float:
        """Return the seconds that a worker needs for the rest of so many items, at this pace; `work` is not 0."""
        return self.seconds / self.work * (n_items - self.work)


def progress_in_checkpoints(store: Store, done: Container[int]) -> CheckpointProgress:
    """Return the progress that the checkpoints in a store hold. done: the committed shards.

    A checkpoint of an older ctd does not say how far it is, and is left out.
    """
    by_shard = dict[str, CheckpointProgress]()
    read = lambda key: (key, objects.read_range(store.objects, key, 0, HEAD_BYTES))
    for key, data in objects.each(
        store.objects, read, list(objects.list_keys(store.objects, keys.CHECKPOINTS))
    ):
        shard, head = key.rpartition("/")[0], HEAD.search(data or b"")
        if head and int(shard.rpartition("/")[2]) not in done:
            now = CheckpointProgress(int(head[1]), float(head[2]), float(head[3]))
            by_shard[shard] = max(by_shard.get(shard, now), now, key=lambda progress: progress.work)
    return CheckpointProgress(*map(sum, zip(*by_shard.values(), strict=True)))


class Checkpoints:
    """Reads and writes the checkpoints of one attempt at a shard.

    Args:
        ids: (n,) the items that the attempt computes.
        microbatch: items that are vmapped together.
        round_sha256: digest of the round, if the attempt is one of a search.
    """

    def __init__(
        self, store: Store, shard: Shard, ids: np.ndarray, microbatch: int, round_sha256: str = ""
    ) -> None:
        self._objects = store.objects
        self._folder = keys.place(keys.CHECKPOINTS, shard.group, shard.number)
        self._every_s = store.job.spec.run.checkpoint_s
        machine = host()
        # Everything that may change the bits: a checkpoint with another identity is not continued.
        self._identity = {
            "job": store.job.spec.digest(),
            "shard": list(shard),
            "items": digest(np.asarray(ids, np.uint32).tobytes()),
            "microbatch": microbatch,
            "device": [machine["platform"], machine["device_kind"]],
            "jax": jax.__version__,
            **({"round": round_sha256} if round_sha256 else {}),
        }
        # The generation to replace, until `latest` has found the newer one.
        self._next = 0
        self._began = time.monotonic()
        self._due = self._began + self._every_s
        self.before_s = 0.0
        """Seconds that earlier attempts took up to the checkpoint that `latest` has found."""

    @property
    def is_due(self) -> bool:
        """True if the next checkpoint is due."""
        return time.monotonic() >= self._due

    def keep(self, run: Run | RoundRun, done: tuple[int, float] = (0, 0.0)) -> None:
        """Write a checkpoint of the run over the older generation; call it between two advances. done: see `CheckpointProgress`.

        A storage failure is ignored: the shard goes on without this checkpoint.
        """
        began = time.monotonic()
        # A full disk must not end a shard that does not need the room yet; if the results do not fit either, writing
        # them will raise. A failed write leaves `_next`: the older generation is tried again, the newer one is safe.
        with objects.may_fail():
            snapshot = replace(run.snapshot(), seconds=self.before_s + began - self._began)
            data = encode(snapshot, self._identity, done)
            objects.write(self._objects, f"{self._folder}/{self._next}", data)
            self._next = 1 - self._next
        ended = time.monotonic()
        self._due = ended + max(self._every_s, (ended - began) / COST)

    def latest(self) -> Snapshot | None:
        """Return the newest undamaged snapshot of an identical run, or None; the next `keep` replaces the other generation."""
        best = None
        # With two generations, damage to the newer one costs the advances since the older, and not all of them.
        for generation in (0, 1):
            data = objects.read(self._objects, f"{self._folder}/{generation}")
            decoded = data and decode(data)
            if not decoded or decoded[0] != self._identity:
                continue
            # By advances, not by time: the clocks of two workers may differ.
            if best is None or decoded[1].rounds > best.rounds:
                best, self._next = decoded[1], 1 - generation
                self.before_s = best.seconds
        return best


def clear(store: Store, shard: Shard) -> None:
    """Delete the checkpoints of a committed shard; those that a failing storage keeps harm nothing."""
    folder = keys.place(keys.CHECKPOINTS, shard.group, shard.number)
    with objects.may_fail():
        for generation in (0, 1):
            objects.delete(store.objects, f"{folder}/{generation}")


def encode(
    snapshot: Snapshot, identity: Mapping[str, object], done: tuple[int, float] = (0, 0.0)
) -> bytes:
    """Return a snapshot as bytes, headed by a checksum. No pickle: reading a checkpoint executes no code."""
    ended, work = done
    head = {
        "done": [int(ended), round(float(work), 6)],
        "seconds": snapshot.seconds,
        "identity": identity,
        "rounds": snapshot.rounds,
        "named": [[name, str(a.dtype), list(a.shape)] for name, a in snapshot.arrays.items()],
    }
    parts = (array.tobytes() for array in snapshot.arrays.values())
    body = b"".join([json.dumps(head).encode(), b"\n", *parts])
    return digest(body).encode() + b"\n" + body


def decode(data: bytes) -> tuple[dict[str, Any], Snapshot] | None:
    """Return (identity, snapshot) from the bytes of `encode`; None if they are damaged, or of another form."""
    checksum, newline, body = data.partition(b"\n")
    if not newline or digest(body).encode() != checksum:
        return None
    line, _, payload = body.partition(b"\n")
    arrays, at = {}, 0
    try:
        head = json.loads(line)
        for name, kind, shape in head["named"]:
            dtype, n = np.dtype(kind), math.prod(shape)
            arrays[name] = np.frombuffer(payload, dtype, n, at).reshape(shape)  # no copy
            at += n * dtype.itemsize
        seconds = float(head.get("seconds", 0))  # of an older ctd: unknown
        return dict(head["identity"]), Snapshot(int(head["rounds"]), arrays, seconds)
    # Of a stranger: a checksum does not say who wrote it. What NumPy raises at a strange dtype differs between versions.
    except Exception:
        return None
