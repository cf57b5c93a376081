"""A figure of a whole sweep: the metric of every item against the swept parameter that explains most of it.

A kernel's figure shows one group, so that a sweep over a static field needs this one to compare its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ctd.plots import Axis, Layer, Lines, Plot, Points, is_geometric, is_wide, tick
from jobs.query.tables import ask
from jobs.report.importance import effects
from jobs.store.store import Store

MAX_ITEMS = 100_000
"""Most items: reading the table of more would delay the end of a run."""
MAX_KINDS = 10
"""Most values of the second parameter that are drawn as series of their own."""
MAX_MEDIANS = 40
"""Most values of the first parameter with medians; random draws have more."""


def overview(store: Store, metric: str) -> Plot | None:
    """Plot the done items by the two swept parameters that explain most of the metric.

    None without a swept parameter, or with more than MAX_ITEMS items.
    """
    if store.job.plan.n_items > MAX_ITEMS:
        return None
    columns = ask(store, lambda tables: tables["items"].columns())
    values = columns.get(metric, np.zeros(0, object))
    if values.dtype.kind not in "iuf":
        return None
    drawn = (columns["status"] == "done") & np.isfinite(values.astype(float))
    fine = {name: column[drawn] for name, column in columns.items()}
    names = _by_importance(store, fine, metric)
    if not names:
        return None
    first, *others = names
    x, ticks = _places(fine[first])
    y, ids = fine[metric].astype(float), fine["item"]
    layers: list[Layer] = []
    for hue, (name, here) in enumerate(_series(fine, others)):
        text = [f"item {item}" for item in ids[here]]
        layers.append(Points(x[here], y[here], hue=hue, text=text, key=ids[here]))
        at = np.unique(x[here])
        if 1 < len(at) <= MAX_MEDIANS:
            middle = [np.median(y[here][x[here] == place]) for place in at]
            layers.append(Lines(at, middle, name or "median", hue=hue))
    var = store.description.dims[metric]
    unit = f" ({var.units})" if var.units not in ("", "1") else ""
    note = "Each mark is an item; lines are medians over items with equal values."
    return Plot(
        f"{metric} against {first}",
        layers,
        Axis(first, log=not len(ticks) and (is_wide(x) or is_geometric(x)), ticks=ticks),
        Axis(f"{var.long_name or metric}{unit}", log=is_wide(y)),
        note=note + (f" Over all values of {', '.join(others[1:])}." if len(others) > 1 else ""),
    )


def _by_importance(store: Store, fine: Mapping[str, np.ndarray], metric: str) -> list[str]:
    """The swept parameters, replicates left out, in the order of how much of the metric they explain."""
    names = [
        name
        for name in store.swept
        if name in fine and name != "seed" and not is_replicate(fine[name])
    ]
    share = {e.parameter: np.nan_to_num(e.share) for e in effects(fine, names, [metric])}
    return sorted(names, key=lambda name: -share.get(name, 0.0))


def _places(column: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Place the values of a column on an axis: (positions, the ticks' texts if the values are no numbers)."""
    if column.dtype.kind in "iuf":
        return column.astype(float), []
    kinds, codes = np.unique(column.astype(str), return_inverse=True)
    return codes.astype(float), kinds.tolist()


def _series(fine: Mapping[str, np.ndarray], others: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """One series (legend, rows) for each value of the second parameter, or one of all rows if the values are too many."""
    if others:
        column = fine[others[0]]
        values = column if column.dtype.kind in "iufb" else column.astype(str)
        kinds = np.unique(values)
        if len(kinds) <= MAX_KINDS:
            for kind in kinds:
                told = tick(float(kind)) if kinds.dtype.kind in "iuf" else str(kind)
                yield f"{others[0]} = {told}", values == kind
            return
    yield "", np.ones(len(fine["item"]), bool)


def is_replicate(values: np.ndarray) -> bool:
    """Whether a swept field has a single value or only numbers the items, so that no result can depend on it."""
    if values.dtype.kind not in "iufb":
        values = values.astype(str)
    kinds = np.unique(values)
    return len(kinds) < 2 or (values.dtype.kind in "iu" and len(kinds) == len(values) > 12)
