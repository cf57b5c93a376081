"""Plots of results of which only names, axes and units are known: those of a kernel that draws none itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.kernel import Var
from ctd.plots import Axis, Lines, Plot, Points, is_wide, spread
from jobs.query.tables import ask
from jobs.reduce import Columns, GroupResults, columns_of, committed_rows
from jobs.report.overview import overview
from jobs.store.store import Store

MAX_GENERIC = 6
"""Most results drawn as lines if the kernel has no plots."""
AT_FIRST = 20
"""Lines shown initially."""
MAX_PLOTS = 4
"""Most plots of a default figure."""


def default_plots(store: Store, group: int | None = None) -> list[Plot]:
    """At least one plot for any kernel: results of one number against what was swept, and results with one axis as lines.

    group: leave out what compares groups; by default, the lines are those of the first one.
    """
    dims, some = store.description.dims, group or 0
    names = [n for n, var in dims.items() if var.axes == () and not n.startswith("search_")]
    names = [name for name in names if name != "outcome"]
    swept = [overview(store, name) for name in names] if group is None else []
    made = [plot for plot in swept if plot is not None]
    rows = committed_rows(store)[some]
    results = GroupResults(store, some, rows, store.names(some))
    made += generic_plots(dims, results, columns_of(store, some, rows)) if rows.any() else []
    return made[:MAX_PLOTS] or _by_item(store, names)


def _by_item(store: Store, names: list[str]) -> list[Plot]:
    """Results of one number, item by item."""
    columns = ask(store, lambda tables: tables["items"].columns())
    drawn = [name for name in names if columns.get(name, np.zeros(0, object)).dtype.kind in "iuf"]
    fine = spread(len(columns["item"]), 5000)
    return [
        Plot(
            name,
            [Points(columns["item"][fine], columns[name][fine].astype(float))],
            Axis("item"),
            Axis(store.description.dims[name].long_name or name, log=is_wide(columns[name])),
        )
        for name in drawn[:MAX_PLOTS]
    ] or [Plot("No results are numbers", [], Axis("item"), Axis(""))]


def generic_plots(
    dims: Mapping[str, Var], results: Mapping[str, Any], columns: Columns
) -> list[Plot]:
    """Plots for a kernel that has none: each real result with one axis, one line per item."""
    made: list[Plot] = []
    items = columns["item"][:]
    for name in results:
        rows, var = results[name], dims.get(name, Var())
        # Weights tell nothing as lines; search_plots draws the search.
        drawn = name.startswith(("weights.", "search_"))
        if len(var.axes) != 1 or drawn or len(made) == MAX_GENERIC:
            continue
        some = spread(len(rows), 100)
        values = rows[some]
        if values.dtype.kind not in "iufb" or values.ndim != 2 or values.shape[1] < 2:
            continue
        note = (
            "" if len(some) == len(rows) else f"{len(some)} of {len(rows):,} items, evenly spaced."
        )
        units = "" if var.units == "1" else f" ({var.units})"
        made.append(
            Plot(
                name,
                [
                    Lines(
                        np.arange(values.shape[1]),
                        values,
                        text=[f"item {items[k]}" for k in some],
                        item=items[some],
                    )
                ],
                Axis(var.axes[0]),
                Axis(f"{var.long_name or name}{units}"),
                note=note,
                at_first=AT_FIRST,
            )
        )
    return made
