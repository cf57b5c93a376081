"""Curves of running shards for the page; they grow from one request to the next."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ctd.kernel import Var
from ctd.plots import Axis, Lines, Plot, is_wide
from jobs.reduce import column_names
from jobs.report.page.encode import plot_json, table_json
from jobs.store.arrays import attributes
from jobs.store.live import Growing, read_live
from jobs.store.store import Store

MAX_PLOTS = 6
"""Most plots; there is one for each curve of a group."""


def live(store: Store) -> dict[str, Any] | None:
    """The plots of growing curves, their items' swept parameters, and their advances; None if no shard runs."""
    by_group: dict[int, list[Growing]] = {}
    for group, _, growing in read_live(store):
        by_group.setdefault(group, []).append(growing)
    if not by_group:
        return None
    plots: list[Plot] = []
    frames = []
    for group, found in sorted(by_group.items()):
        frame = _swept(store, group, [row for growing in found for row in growing.rows])
        frames.append(frame)
        for name in dict.fromkeys(name for growing in found for name in growing.curves):
            if len(plots) < MAX_PLOTS:
                plots.append(_plot(store, group, name, found, frame))
    advances = [growing.advances for some in by_group.values() for growing in some]
    few, many = min(advances), max(advances)
    return {
        "plots": [plot_json(plot) for plot in plots],
        "table": table_json("live", pd.concat(frames, ignore_index=True), {}),
        "advances": str(few) if few == many else f"{few}-{many}",
    }


def _swept(store: Store, group: int, rows: Sequence[int]) -> pd.DataFrame:
    """The swept parameters of some rows of a group: `item`, traced columns, and the group's own values."""
    at = np.asarray(rows)
    columns: dict[str, Any] = {}
    for name in column_names(store, group):
        values = store.rows(group, name, int(at.min()), int(at.max()) + 1)[at - at.min()]
        columns[name] = values if values.ndim == 1 else [str(value.tolist()) for value in values]
    own = attributes(store.results(group))["swept"]
    return pd.DataFrame(columns | {name: str(value) for name, value in own.items()})


def _plot(store: Store, group: int, name: str, found: list[Growing], frame: pd.DataFrame) -> Plot:
    """Plot one curve of the items of a group, one line per item."""
    var = store.description.dims.get(name, Var(("point",)))
    places = np.unique(np.concatenate([growing.places[name] for growing in found]))
    y = np.full((sum(len(growing.rows) for growing in found), len(places)), np.nan)
    start = 0
    for growing in found:
        at = np.searchsorted(places, growing.places[name])
        values = np.array(growing.curves[name], float)
        y[start : start + len(values), at] = values
        start += len(values)
    x = _coordinate(store, group, var.axes[0], places)
    items = frame["item"].to_numpy()
    units = "" if var.units == "1" else f" ({var.units})"
    which = f", group {group}" if len(store.job.plan.group_sizes) > 1 else ""
    return Plot(
        f"{name} so far{which}",
        [Lines(x, y, text=[f"item {item}" for item in items], item=items)],
        Axis(var.axes[0]),
        Axis(f"{var.long_name or name}{units}", log=is_wide(y)),
        note="Running items, updated every few seconds.",
    )


def _coordinate(store: Store, group: int, axis: str, places: np.ndarray) -> np.ndarray:
    """The coordinate of an axis at these places if the store has a numeric one; else the places."""
    results = store.results(group)
    if axis not in results:
        return places
    values = np.asarray(store.stored(group, axis)[:])
    fits = values.dtype.kind in "iuf" and values.ndim == 1 and len(values) > places.max()
    return values[places] if fits else places
