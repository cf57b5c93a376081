"""Curves of shards under way, for `ctd watch`: run/live/G/SSSSSS.json, deleted once the shard is committed.

No result depends on them, and no run reads them.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from ctd.batch import Run
from ctd.batch.round import RoundRun
from ctd.plots import spread
from jobs import keys
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import Sealed
from jobs.store.store import Store

EVERY_S, SHARE, COST = 5.0, 0.01, 0.01
"""The wait between two writes is the longest of: EVERY_S seconds; SHARE of the time that the shard has taken; the cost of
the last write divided by COST, so that curves take at most that share of a worker's time. The first write compiles; its
cost does not count, or the second would come after most of a minute."""
MAX_ITEMS, MAX_POINTS = 48, 200
"""Most items of a shard, and most points of a curve, that are written; both evenly spaced."""
MAX_SHARDS = 32
"""Most shards that a reader reads."""

Number = Annotated[float, Field(allow_inf_nan=False)] | None


class Value(NamedTuple):
    """A result that grows as items advance, as it was last looked at."""

    name: str
    now: float
    """The median over the items."""
    best: float
    """The best that any item has had; NaN if nothing says which way is better."""
    more_is_better: bool = False
    advances: int = 0
    """Advances of the devices by then."""

    def better(self, *others: float) -> float:
        """Return the best of `best` and other values."""
        return (max if self.more_is_better else min)(self.best, *others)


class Growing(Sealed, extra="forbid"):
    """Curves of some items of one shard, as they were at one time."""

    rows: list[int]
    """Rows of the group."""
    advances: int
    """Advances that the devices have made."""
    places: dict[str, list[int]]
    """Curve -> indices of the points that are written."""
    curves: dict[str, list[list[Number]]]
    """Curve -> for each row, the values at `places`; None at points that the item has not reached."""


class LiveCurves:
    """Writes the curves of one attempt at a shard from time to time.

    rows: (n,) the rows of the group, item by item. curves: names of the kernel's `curves`.
    """

    def __init__(
        self, store: Store, shard: Shard, rows: np.ndarray, curves: tuple[str, ...]
    ) -> None:
        self._curves = curves
        self._store, self._shard, self._rows = store, shard, rows
        self._began = self._called = time.monotonic()
        self._due = self._began + EVERY_S
        self._is_first = True
        self.value: Value | None = None
        """The last points of the first curve, as of the last write."""
        self.failed = Counter[str]()
        """Failing outcome -> items that had ended with it by then."""
        self._n_ended = 0

    def show(self, run: Run | RoundRun) -> None:
        """Write the curves if that is due before the next advance ends; call it between two advances. A storage failure is ignored."""
        began = time.monotonic()
        advance_s, self._called = began - self._called, began
        # Otherwise a long advance would delay the first curves until it ends.
        if not self._curves or began + advance_s * self._is_first < self._due:
            return
        # A group need not store every curve that the kernel names.
        stored = self._store.names(self._shard.group)
        names = tuple(name for name in self._curves if name in stored)
        rows, values = run.peek(names)
        self._look(values, run.rounds, np.isin(rows, run.going))
        counting = time.monotonic()
        self._count(run, rows)
        counting = time.monotonic() - counting  # its first time compiles
        with objects.may_fail():
            if len(rows):
                key = keys.live(self._shard.group, self._shard.number)
                _some(self._rows[rows], values, run.rounds).write(self._store.objects, key)
        ended = time.monotonic()
        cost = 0.0 if self._is_first else ended - began - counting
        self._due = ended + max(EVERY_S, SHARE * (ended - self._began), cost / COST)
        self._called, self._is_first = ended, self._is_first and not len(rows)

    def _look(self, values: dict[str, np.ndarray], advances: int, going: np.ndarray) -> None:
        """Note the last finite point of each item's first curve. going: which items have not finished."""
        name = next(iter(values), None)
        if name is None or not (finite := np.isfinite(values[name])).any():
            return
        if going.any() and finite[going].all():  # full before the end: its last point is an old one
            self.value = None
            return
        var, begun = self._store.description.dims[name], finite.any(axis=1)
        last = finite.shape[1] - 1 - np.argmax(finite[begun, ::-1], axis=1)
        points, numbers = values[name][begun, last].astype(float), values[name][finite]
        best = float(numbers.max() if var.more_is_better else numbers.min())
        # Nothing but the metric says which way is better: of a curve on its way to it, not of a rate or a state.
        described, way = self._store.description, lambda var: (var.units, var.more_is_better)
        metric = described.dims.get(described.metric)
        if metric is None or way(metric) != way(var):
            best = math.nan
        # curve.eval.loss is the evaluation's loss on its way: its name as a metric is eval_loss.
        called = name.removeprefix("curve").strip(".").replace(".", "_")
        called = called or var.long_name.partition(",")[0] or name
        now = Value(called, float(np.median(points)), best, var.more_is_better, advances)
        self.value = now if self.value is None else now._replace(best=now.better(self.value.best))

    def _count(self, run: Run | RoundRun, rows: np.ndarray) -> None:
        """Count the items that have ended with each failing outcome, if more have ended. rows: those that `peek` gives."""
        failing = {
            k: end.name for k, end in enumerate(self._store.description.outcomes) if end.failed
        }
        ended = ~np.isin(rows, run.going) if failing else np.zeros(0, bool)
        # Not at each look: an outcome may take long, as that of a free run.
        if ended.sum() > self._n_ended:
            self._n_ended = int(ended.sum())
            ends = run.peek(("outcome",))[1]["outcome"][ended].tolist()
            self.failed = Counter(failing[end] for end in ends if end in failing)


def clear_live(store: Store, shard: Shard) -> None:
    """Remove the curves of a committed shard."""
    with objects.may_fail():
        objects.delete(store.objects, keys.live(shard.group, shard.number))


def _some(rows: np.ndarray, values: dict[str, np.ndarray], advances: int) -> Growing:
    """Return the curves of evenly spaced items, at evenly spaced points."""
    # Slots refill in any order: sorted by row, each write shows the same items as long as the same have begun.
    order = np.argsort(rows, kind="stable")
    some = order[spread(len(order), MAX_ITEMS)]
    growing = Growing(rows=rows[some].tolist(), advances=advances, places={}, curves={})
    # Five digits are enough for a curve on a screen, and keep the object small. JSON has no NaN.
    number = lambda value: float(f"{value:.5g}") if np.isfinite(value) else None
    for name, curves in values.items():
        at = growing.places[name] = spread(curves.shape[1], MAX_POINTS).tolist()
        growing.curves[name] = [[number(v) for v in row] for row in curves[some][:, at].tolist()]
    return growing


def read_live(store: Store) -> Iterator[tuple[int, int, Growing]]:
    """Yield (group, shard, curves) of shards that are not committed; at most MAX_SHARDS, damaged ones left out."""
    committed = store.committed.numbers()
    place = lambda key: (int(key.split("/")[-2]), keys.number_of(key))
    # A worker that was killed between its commit and `clear_live` leaves its curves behind.
    listed = objects.list_keys(store.objects, keys.LIVE)
    under_way = sorted((key for key in listed if keys.number_of(key) not in committed), key=place)
    for key, data in objects.read_all(store.objects, under_way[:MAX_SHARDS]):
        group, shard = place(key)
        # None: damaged, or deleted since the listing because its shard was committed.
        growing = Growing.from_bytes(data)
        if growing and _fits(growing, store, group):
            yield group, shard, growing


def _fits(growing: Growing, store: Store, group: int) -> bool:
    """Return whether the numbers agree with each other and with the store: it may be a stranger's."""
    rows, places, groups = growing.rows, growing.places, store.job.plan.group_sizes
    if not rows or group >= len(groups) or not all(0 <= row < groups[group] for row in rows):
        return False
    sizes = {name: [len(curve) for curve in curves] for name, curves in growing.curves.items()}
    return all(n in places and sizes[n] == len(rows) * [len(places[n])] for n in sizes)
