"""The plots of groups on a page: of what is committed, and of shards that run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ctd.contract import located
from ctd.kernel import Var
from ctd.plots import Lines, Plot, is_wide
from jobs.errors import JobError, count
from jobs.plan.items import text_of
from jobs.query.columns import as_array, rows_as_text
from jobs.report.figures import MAX_GROUPS, along, data_of, generic_plots, of_kernel, replaced
from jobs.report.page.encode import is_curves, join_plots, plot_json, table_json
from jobs.report.page.pictures import read_pictures, write_pictures
from jobs.report.search_plots import search_plots
from jobs.report.sweep import axis_of
from jobs.storage.lease import drivers
from jobs.store.arrays import Rows, attributes
from jobs.store.groups import Columns, column_arrays
from jobs.store.live import Growing, read_live
from jobs.store.look import Look
from jobs.store.store import Store, known_kernel

MAX_BYTES = 3_500_000
"""Total size of the plots above which further groups are left out; the page says so."""
MAX_LIVE = 6
"""Most plots of running shards; there is one for each curve of a group."""


def groups(store: Store) -> tuple[list[dict[str, Any]], int]:
    """(label and plots of each group, up to MAX_BYTES, those of all together first; number of groups left out)."""
    # A new look, after the tables were read, so that it covers every gathered item.
    look = Look(store)
    entries: list[dict[str, Any]] = []
    size = 0
    failing = [k for k, outcome in enumerate(store.description.outcomes) if outcome.failed]
    for group, markers in enumerate(look.by_group):
        if not markers:
            continue
        if size > MAX_BYTES:
            return _with_all(entries), sum(map(bool, look.by_group[group:]))
        n, tally = store.job.plan.group_sizes[group], look.count(markers)
        failed = f", {tally.failed:,} failed" * bool(tally.failed)
        items = f"{tally.ended:,} of {count(n, 'item')}{failed}"
        entry: dict[str, Any] = {"label": _label(store, group), "items": items}
        columns, results = data_of(store, group, markers)
        if len(columns["item"]):
            entry |= _of_kernel(store, group, columns, results)
            search = store.job.spec.search
            ids = columns["item"][:]
            plots = search_plots(search, ids, results, failing) if search else []
            entry["plots"] = [*entry["plots"], *map(plot_json, plots)]
        else:
            entry |= {"plots": [], "error": "every item of this group failed with an error"}
        if not entry["plots"]:  # nothing else says why
            outcomes = ", ".join(f"{n:,} {name}" for name, n in tally.outcomes.most_common() if n)
            entry["items"] += f": {outcomes}" * bool(outcomes)
        size += len(json.dumps(entry))
        entries.append(entry)
    return _with_all(entries), 0


def keep(store: Store) -> str:
    """Store the kernel's plots of the first groups, for readers who do not run its code; return why one has none, or ""."""
    kernel, fault = known_kernel(store), ""
    if kernel is None or not kernel.display.plots:
        return fault
    for group in range(min(MAX_GROUPS, len(store.job.plan.group_sizes))):
        columns, results = data_of(store, group)
        if len(columns["item"]):
            content = _of_kernel(store, group, columns, results)
            write_pictures(store, group, content["plots"])
            if not content["plots"]:
                fault = fault or content.get("error", "")
    return fault


def _label(store: Store, group: int) -> str:
    swept = attributes(store.results(group))["swept"]
    described = ", ".join(f"{name} = {value}" for name, value in swept.items())
    return f"group {group}: {described}" if described else f"group {group}"


def _of_kernel(
    store: Store, group: int, columns: Columns, results: Mapping[str, Rows]
) -> dict[str, Any]:
    """The kernel's `plots`, else its results as lines; `error` if that fails, or if the data that they show are others now.

    If the kernel's code is not trusted: the plots that the store keeps, else its results as lines.
    """
    kernel = known_kernel(store)
    if kernel is None and (stored_plots := read_pictures(store, group)):
        return {"plots": [plot_json(plot) for plot in stored_plots]}
    if kernel is None or not kernel.display.plots:
        generic = generic_plots(store, group, columns, results)
        return {"plots": [plot_json(plot) for plot in generic]}
    try:
        plots = of_kernel(store, group, columns, results)
        content: dict[str, Any] = {"plots": [plot_json(plot) for plot in plots]}
        return content | ({"error": other} if (other := replaced(store, group)) else {})
    except Exception as error:
        # A kernel's plots may fail on unforeseen results, or its data may be gone; show the rest of the page.
        reason = str(error) if isinstance(error, JobError) else located(error)
        return {"plots": [], "error": f"no picture: {reason}"}


def _with_all(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the curves of all groups before several groups, so that the page can colour them by what differs between groups."""
    pictures = {group["label"].partition(":")[0]: group["plots"] for group in groups}
    shared = join_plots(pictures, is_curves) if len(groups) > 1 else []
    if not shared:
        return groups
    items = f"the curves of {len(groups)} groups"
    return [{"label": "all groups", "items": items, "plots": shared, "shared": True}, *groups]


# --- shards that run ------------------------------------------------------------------------------


def live(store: Store) -> dict[str, Any] | None:
    """The plots of growing curves and their items' swept parameters; None if no shard runs."""
    by_group: dict[int, list[Growing]] = {}
    for group, _, growing in read_live(store):
        by_group.setdefault(group, []).append(growing)
    if not by_group:
        return None
    runs = bool(drivers(store.objects, store.address))
    # Between two points a line can be drawn.
    has_a_line = lambda curves: any(sum(v is not None for v in curve) > 1 for curve in curves)
    now, then = "Running items, updated every few seconds.", "As they were when the run stopped."
    plots: list[Plot] = []
    frames = []
    for group, shards in sorted(by_group.items()):
        frame = _swept(store, group, [row for growing in shards for row in growing.rows])
        frames.append(frame)
        curve_names = dict.fromkeys(
            n for shard in shards for n in shard.curves if has_a_line(shard.curves[n])
        )
        plots += [
            _plot(store, group, name, shards, frame, now if runs else then) for name in curve_names
        ]
    return {
        "plots": [plot_json(plot) for plot in plots[:MAX_LIVE]],
        "table": table_json("live", pd.concat(frames, ignore_index=True), {}),
    }


def _swept(store: Store, group: int, rows: Sequence[int]) -> pd.DataFrame:
    """The swept parameters of some rows of a group: `item`, traced columns, and the group's own values."""
    at = np.asarray(rows)
    columns: dict[str, Any] = {}
    for name, array in column_arrays(store, group).items():
        if name != array:
            continue  # what a search proposed is written when the item ends
        values = store.rows(group, name, int(at.min()), int(at.max()) + 1)[at - at.min()]
        columns[name] = values if values.ndim == 1 else as_array(rows_as_text(values))
    swept = attributes(store.results(group))["swept"]
    # As the table of the items shows it: the page gives equal values one colour.
    as_shown = lambda value: value if isinstance(value, int | float) else text_of(value)
    return pd.DataFrame(columns | {name: as_shown(value) for name, value in swept.items()})


def _plot(
    store: Store, group: int, name: str, shards: list[Growing], frame: pd.DataFrame, note: str
) -> Plot:
    """Plot one curve of the items of a group, one line per item."""
    var = store.description.dims.get(name, Var(("point",)))
    places = np.unique(np.concatenate([growing.places[name] for growing in shards]))
    parts = []
    for growing in shards:
        part = np.full((len(growing.rows), len(places)), np.nan)
        at = np.searchsorted(places, growing.places[name])
        part[:, at] = np.array(growing.curves[name], float)  # None is NaN
        parts.append(part)
    y = np.concatenate(parts)
    x, label = along(store, group, var.axes[0], places)
    items = frame["item"].to_numpy()
    group_text = f", group {group}" if len(store.job.plan.group_sizes) > 1 else ""
    lines = Lines(x, y, text=[f"item {item}" for item in items], item=items)
    y_axis = axis_of(name, var, log=is_wide(y))
    return Plot(f"{name} so far{group_text}", [lines], label, y_axis, note=note)
