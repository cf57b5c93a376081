"""A run of a tracker: one computed item's parameters, curves, metrics and arrays, by the kernel's description in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np

from jobs.inputs.items import WEIGHTS, row_params
from jobs.query.query import answer
from jobs.spec.job import leaves
from jobs.store.store import Store

LOCATORS = ("item", "group", "row", "status")
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
    store: Store, conditions: str | None = None, arrays: Arrays = "model", **selection: Any
) -> tuple[int, Iterator[Run]]:
    """Read the computed items that satisfy `conditions`: (their number, an iterator over them in the order of the store).

    One shard of a group is in memory at a time. No kernel is imported.

    Args:
        arrays: which arrays a run holds: model: the trained model, or all if there is none; all: all results except
            the model.
        selection: sort and limit, as in `jobs.query.query.QueryOptions`.

    >>> from jobs.store.store import Store
    >>> n, runs = read_runs(Store.open("points.zarr"), limit=2)
    >>> n, [run.about["kernel"] for run in runs]
    (2, ['fixed_points', 'fixed_points'])

    Raises:
        JobError: the condition does not fit the table `items`, or no item is computed yet.
    """
    columns = answer(store, conditions, table="items", **selection).columns
    return len(columns["item"]), _runs(store, columns, arrays)


def _runs(store: Store, columns: Mapping[str, np.ndarray], arrays: Arrays) -> Iterator[Run]:
    plan, dims, spec = store.job.plan, store.description.dims, store.job.spec
    # Items that failed with an error and have no results.
    without = {(m.shard.group, row) for m in store.committed.markers() for row in m.without}
    single = [name for name, var in dims.items() if var.axes == () and name in columns]
    single.sort(key=lambda name: name != store.description.metric)
    metrics = [name for name in single if name not in (*LOCATORS, "outcome")]
    of_store = {"store": store.address, "job": spec.digest(), "kernel": spec.kernel}
    places = list(zip(columns["group"].tolist(), columns["row"].tolist(), strict=True))
    in_order = np.lexsort((columns["row"], columns["group"]))
    for number, members in groupby(in_order, lambda k: plan.shard_of(*places[k])):
        shard = plan.shard(number)
        assert shard is not None
        group, names = shard.group, store.names(shard.group)
        trained = [name for name in names if name.startswith(WEIGHTS)]
        others = [name for name in names if name not in trained]
        array_names = {"model": trained or others, "all": others, "none": []}[arrays]
        curve_names = [n for n in (*store.description.curves, SEARCH_METRIC) if n in names]
        # The rows of one shard are read once.
        read = {
            n: store.rows(group, n, shard.start, shard.stop) for n in {*array_names, *curve_names}
        }
        steps = {n: _steps(store, group, dims[n].axes[0], read[n].shape[1]) for n in curve_names}
        params = row_params(store, group, shard.start, shard.stop)
        for k in members:
            row = {name: column[k] for name, column in columns.items()}
            item, at = int(row["item"]), places[k][1] - shard.start
            about = {"item": str(item), **{name: str(row[name]) for name in ABOUT if name in row}}
            has_no_results = places[k] in without
            yield Run(
                item,
                flat(params[at]),
                {} if has_no_results else metrics_of({name: row[name] for name in metrics}),
                {} if has_no_results else {n: _points(steps[n], read[n][at]) for n in curve_names},
                of_store | about,
                str(row["status"]) == "failed",
                {}
                if has_no_results
                else {n.removeprefix(WEIGHTS): read[n][at] for n in array_names},
            )


def _points(steps: Sequence[int], values: np.ndarray) -> list[tuple[int, float]]:
    points = zip(steps, values.astype(float).tolist(), strict=True)
    return [(step, value) for step, value in points if not np.isnan(value)]


def _steps(store: Store, group: int, axis: str, n: int) -> Sequence[int]:
    """The coordinate of an axis if it consists of increasing whole numbers; else 0, 1, ..."""
    if axis in store.results(group):
        coordinates = np.asarray(store.node(f"results/{group}/{axis}")[:])
        if (
            coordinates.shape == (n,)
            and coordinates.dtype.kind in "iu"
            and (np.diff(coordinates) > 0).all()
        ):
            return [int(step) for step in coordinates]
    return range(n)


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
    metrics: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, complex | np.complexfloating):
            metrics |= {f"{name}.real": float(value.real), f"{name}.imag": float(value.imag)}
        elif isinstance(value, bool | int | float | np.bool_ | np.number):
            metrics[name] = float(value)
    return {name: value for name, value in metrics.items() if not np.isnan(value)}
