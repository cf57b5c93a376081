"""Checkpoints of a running shard: what `ctd.batch.Run` needs to go on, in two generations.

    run/checkpoints/G/SSSSSS/0     one generation: sha256, a line of JSON, the bytes of the arrays
    run/checkpoints/G/SSSSSS/1     the other; the older of the two is always the one overwritten

A generation is written whole or not at all. One that is damaged, or was made by another device kind,
layout, set of items or version of JAX, is not looked at: going on from it could give other bits.
"""

import hashlib
import json
import math
import time
from typing import Any, Protocol

import jax
import numpy as np

from ctd.batch import Layout, Snapshot
from jobs import keys
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.store.provenance import host
from jobs.store.store import Store

COST = 0.02
"""Share of a shard's time that its checkpoints may take: a slow storage gets fewer of them."""


class Resumable(Protocol):
    """A run that can go on from what it was between two advances."""

    def snapshot(self) -> Snapshot:
        """All that it needs to go on."""


class Checkpoints:
    """The checkpoints of one attempt at a shard.

    ids: the items that it computes. layout: how they lie on the devices. meets: the folder of the
    meetings that it takes part in, if any (jobs.run.rendezvous).
    """

    def __init__(
        self, store: Store, shard: Shard, ids: np.ndarray, layout: Layout, meets: str | None = None
    ) -> None:
        self._objects, self._folder = store.objects, folder(shard)
        self._every_s = store.job.spec.run.checkpoint_s
        here = host()
        self._identity = {
            "job": store.job.spec.digest(),
            "shard": list(shard),
            "items": hashlib.sha256(np.asarray(ids, np.uint32).tobytes()).hexdigest(),
            "layout": list(layout),
            "device": [here["platform"], here["device_kind"]],
            "jax": jax.__version__,
            **({"meets": meets} if meets else {}),
        }
        self._next = 0
        self._due = time.monotonic() + self._every_s

    @property
    def is_due(self) -> bool:
        """Whether it is time to keep another one."""
        return time.monotonic() >= self._due

    def keep(self, run: Resumable) -> None:
        """Write the run, as it is between two advances, over the older generation."""
        began = time.monotonic()
        try:
            data = encode(run.snapshot(), self._identity)
            objects.write(self._objects, f"{self._folder}/{self._next}", data)
            self._next = 1 - self._next
        except Exception as error:
            # A full disk must not end a shard that needs no room yet: the results say so if they do.
            if not objects.is_storage_error(error):
                raise
        ended = time.monotonic()
        self._due = ended + max(self._every_s, (ended - began) / COST)

    def latest(self) -> Snapshot | None:
        """The newest generation that is whole and was made by a run like this one."""
        best = None
        for generation in (0, 1):
            data = objects.read(self._objects, f"{self._folder}/{generation}")
            found = data and decode(data)
            if not found or found[0] != self._identity:
                continue
            if best is None or found[1].rounds > best.rounds:
                best, self._next = found[1], 1 - generation
        return best


def folder(shard: Shard) -> str:
    """Where the checkpoints of a shard are."""
    return keys.checkpoints(shard.group, shard.number)


def clear(store: Store, shard: Shard) -> None:
    """Remove the checkpoints of a committed shard."""
    for generation in (0, 1):
        objects.delete(store.objects, f"{folder(shard)}/{generation}")


def encode(snapshot: Snapshot, identity: dict[str, Any]) -> bytes:
    """A snapshot as bytes: no pickle, so that reading one runs nothing."""
    head = {
        "identity": identity,
        "rounds": snapshot.rounds,
        "named": [[name, str(a.dtype), list(a.shape)] for name, a in snapshot.arrays.items()],
    }
    parts = (array.tobytes() for array in snapshot.arrays.values())
    body = b"".join([json.dumps(head).encode(), b"\n", *parts])
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(data: bytes) -> tuple[dict[str, Any], Snapshot] | None:
    """(identity, snapshot) of `encode`'s bytes; None where a bit of them is not as it was written."""
    checksum, newline, body = data.partition(b"\n")
    if not newline or hashlib.sha256(body).hexdigest().encode() != checksum:
        return None
    line, _, rest = body.partition(b"\n")
    head = json.loads(line)
    if "named" not in head:  # of an older ctd
        return None
    arrays, at = {}, 0
    for name, kind, shape in head["named"]:
        dtype, n = np.dtype(kind), math.prod(shape)
        arrays[name] = np.frombuffer(rest, dtype, n, at).reshape(shape)
        at += n * dtype.itemsize
    return head["identity"], Snapshot(head["rounds"], arrays)
