"""A run of a tracker: one computed item's parameters, curves, metrics and arrays, by the kernel's description in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np

from jobs.inputs.items import WEIGHTS, row_params
from jobs.plan.layout import Shard
from jobs.query.query import rows
from jobs.spec.job import leaves
from jobs.store.store import Store

BESIDE = ("item", "group", "row", "status")
"""Columns of `items` that locate an item and are no metrics."""

ABOUT = ("group", "status", "outcome", "seed")
"""Columns of `items` that identify an item and say how it ended."""

SEARCH_METRIC = "search_metric"
"""The result that holds the metric at the end of each rung or generation of a search (jobs.plan.search)."""

type Plain = str | bool | int | float

type Arrays = Literal["model", "all", "none"]


@dataclass(frozen=True)
class Run:
    """One item."""

    item: int
    params: Mapping[str, Plain]
    """All parameters; fields of a mapping by their path, such as task.n_steps; a list as its text."""
    metrics: Mapping[str, float]
    """Scalar results that are not NaN, the kernel's metric first."""
    curves: Mapping[str, list[tuple[int, float]]]
    """Learning curve, or `search_metric` -> (step, value) where it is not NaN. The step is the axis' coordinate, or a
    count from 0, for `search_metric` that of rungs or generations."""
    about: Mapping[str, str]
    """The item's origin and outcome, and the seed of a replicate."""
    failed: bool
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The arrays of the run's file."""

    @property
    def last_step(self) -> int:
        """The last step of any curve; 0 without curves."""
        return max((points[-1][0] for points in self.curves.values() if points), default=0)


def read_runs(
    store: Store, where: str | None = None, arrays: Arrays = "model", **asked: Any
) -> tuple[int, Iterator[Run]]:
    """Read the computed items that satisfy `where`: (their number, an iterator over them in the order of the store).

    One shard of a group is in memory at a time. No kernel is imported.

    Args:
        arrays: which arrays a run holds: model: the trained model, or all if there is none; all: all results except
            the model.
        asked: sort and limit, as in `jobs.query.query.Asked`.

    >>> from jobs.store.store import Store
    >>> n, runs = read_runs(Store.open("points.zarr"), limit=2)
    >>> n, [run.about["kernel"] for run in runs]
    (2, ['fixed_points', 'fixed_points'])

    Raises:
        JobError: the condition does not fit the table `items`, or no item is computed yet.
    """
    _, found = rows(store, where, table="items", **asked)
    return len(found["item"]), _runs(store, found, arrays)


def _runs(store: Store, found: Mapping[str, np.ndarray], arrays: Arrays) -> Iterator[Run]:
    plan = store.job.plan
    without = {(m.shard.group, row) for m in store.committed.markers() for row in m.without}
    places = list(zip(found["group"].tolist(), found["row"].tolist(), strict=True))
    in_order = np.lexsort((found["row"], found["group"]))
    for number, members in groupby(in_order, lambda k: plan.shard_of(*places[k])):
        shard = plan.shard(number)
        assert shard is not None
        rows = _Rows(store, shard, arrays)
        for k in members:
            one = {name: column[k] for name, column in found.items()}
            yield rows.run(one, places[k] in without)


class _Rows:
    """The rows of one shard, which are read once."""

    def __init__(self, store: Store, shard: Shard, arrays: Arrays) -> None:
        self._store, self._shard = store, shard
        names = store.names(shard.group)
        self._params = row_params(store, shard.group, shard.start, shard.stop)
        read = lambda name: store.rows(shard.group, name, shard.start, shard.stop)
        curves = (*store.description.curves, SEARCH_METRIC)
        self._curves = {name: read(name) for name in curves if name in names}
        trained = [name for name in names if name.startswith(WEIGHTS)]
        others = [name for name in names if name not in trained]
        kept = {"model": trained or others, "all": others, "none": []}[arrays]
        self._arrays = {name.removeprefix(WEIGHTS): read(name) for name in kept}

    def run(self, row: Mapping[str, Any], lost: bool) -> Run:
        """The run of one row. row: its columns of `items`. lost: it failed with an error and has no results."""
        described, job = self._store.description, self._store.job
        place = int(row["row"]) - self._shard.start
        names = [n for n, var in described.dims.items() if var.axes == () and n in row]
        names.sort(key=lambda name: name != described.metric)
        about = {
            "store": self._store.address,
            "job": job.spec.digest(),
            "kernel": job.spec.kernel,
            "item": str(int(row["item"])),
            **{name: str(row[name]) for name in ABOUT if name in row},
        }
        return Run(
            int(row["item"]),
            flat(self._params[place]),
            {} if lost else metrics_of({n: row[n] for n in names if n not in (*BESIDE, "outcome")}),
            {} if lost else {n: self._points(n, v[place]) for n, v in self._curves.items()},
            about,
            str(row["status"]) == "failed",
            {} if lost else {name: values[place] for name, values in self._arrays.items()},
        )

    def _points(self, name: str, values: np.ndarray) -> list[tuple[int, float]]:
        steps = self._steps(self._store.description.dims[name].axes[0], len(values))
        points = zip(steps, values.astype(float).tolist(), strict=True)
        return [(step, value) for step, value in points if not np.isnan(value)]

    def _steps(self, axis: str, n: int) -> list[int]:
        """The coordinate of an axis if it consists of increasing whole numbers; else 0, 1, ..."""
        group = self._shard.group
        if axis in self._store.results(group):
            found = np.asarray(self._store.stored(group, axis)[:])
            if found.shape == (n,) and found.dtype.kind in "iu" and (np.diff(found) > 0).all():
                return [int(step) for step in found]
        return list(range(n))


def flat(params: Mapping[str, Any]) -> dict[str, Plain]:
    """Flatten nested parameters to values by path; None is left out.

    >>> flat({"n": 50, "task": {"name": "flipflop", "seed": None}, "push": [1, -1]})
    {'n': 50, 'task.name': 'flipflop', 'push': '[1, -1]'}
    """
    plain = lambda value: json.dumps(value) if isinstance(value, list | tuple) else value
    return {path: plain(value) for path, value in leaves(params).items() if value is not None}


def metrics_of(results: Mapping[str, object]) -> dict[str, float]:
    """The numbers among results, without NaN; complex ones as real and imaginary parts.

    >>> metrics_of({"loss": 0.5, "root": 1 + 2j, "name": "gru", "r2": float("nan")})
    {'loss': 0.5, 'root.real': 1.0, 'root.imag': 2.0}
    """
    found: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, complex | np.complexfloating):
            found |= {f"{name}.real": float(value.real), f"{name}.imag": float(value.imag)}
        elif isinstance(value, bool | int | float | np.bool_ | np.number):
            found[name] = float(value)
    return {name: value for name, value in found.items() if not np.isnan(value)}
