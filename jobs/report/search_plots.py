"""Plots of a search for the page: the best item so far, metrics by rung, lineages and parameters by generation.

Which plots a search has depends on the results that it stores (see jobs.plan.search), not on its method.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ctd.plots import Axis, Layer, Lines, Plot, Points, Scale, is_wide, spread
from jobs.forms import Loguniform
from jobs.query.columns import rows_of_items
from jobs.search.method import Method
from jobs.store.rounds import read_decisions
from jobs.store.store import Store

N_ITEMS = 100
"""Most items drawn at rungs and in lineages."""
N_POINTS = 5000
"""Most points of the plot of the best so far."""
N_PARAMS = 8
"""Most searched parameters drawn."""


def ends(store: Store, group: np.ndarray, row: np.ndarray) -> np.ndarray:
    """When each item ended (seconds since 1970), (n,): when its last report reached the search, else when its shard was committed.

    group, row: (n,) the item's group and row there.
    """
    plan = store.job.plan
    first = np.cumsum([0, *plan.group_sizes])
    end_times = np.zeros(first[-1])
    for marker in store.committed.markers():
        shard = marker.shard
        end_times[first[shard.group] + shard.start : first[shard.group] + shard.stop] = marker.ended
    # A shard is committed once the last of its items has ended.
    for searched in range(
        0, len(plan.group_sizes) if store.job.spec.search else 0, plan.n_variants
    ):
        at, latest = first[plan.together(searched)][:, None], 0.0
        for decision in read_decisions(store, searched):
            for _, report, cost in decision.told:
                # In the order of the reports, whatever the clocks of their workers say.
                latest = max(float(np.nextafter(latest, np.inf)), cost.started + cost.seconds)
                end_times[at + np.array([*report.rows, *report.failed], int)] = latest
    return end_times[first[group] + row]


def best_so_far(
    name: str, more_is_better: bool, columns: Mapping[str, Any], ended: np.ndarray
) -> Plot | None:
    """Plot the metric `name` of items in the order of their end, and the best until then.

    Items that failed or whose metric is not finite count but are not drawn. None if no item has a finite metric.

    columns: (n,) item, status and the metric. ended: (n,) when each item ended; equal ones are in the order of their ids.
    """
    order = np.lexsort((columns["item"], ended))
    items, status, values = (np.asarray(columns[key])[order] for key in ("item", "status", name))
    values = np.where((status != "failed") & np.isfinite(values), values, np.nan)
    best = (np.fmax if more_is_better else np.fmin).accumulate(values)  # both pass over NaN
    fine = np.flatnonzero(~np.isnan(values))
    if not len(fine):
        return None
    better = fine[np.diff(best[fine], prepend=np.nan) != 0]
    rows = fine[spread(len(fine), N_POINTS)]
    text = [f"item {items[k]}" + " (dropped)" * (status[k] == "dropped") for k in rows]
    steps = np.repeat([*better, len(values) - 1], 2)
    in_order = bool((items[1:] > items[:-1]).all())  # ids are unsigned: their differences wrap
    x = np.asarray(items) if in_order else 1 + np.arange(len(items))
    layers: list[Layer] = [
        Points(x[rows], values[rows], "items", text=text, item=items[rows]),
        Lines(x[steps[1:]], best[steps[:-1]], "best so far", strong=True),
    ]
    # Their metric is of an earlier age, and may be better than that of all items that went to the end.
    with_dropped = ", dropped items included," * bool((status[fine] == "dropped").any())
    return Plot(
        f"Best {name} so far",
        layers,
        Axis("item" if in_order else "items that have ended"),
        Axis(name, log=is_wide(values)),
        note=f"The best{with_dropped} is item {items[better[-1]]}: {best[-1]:.5g}. {_left_out(rows, fine, 'order')}".strip(),
    )


def search_plots(
    search: Method, items: np.ndarray, results: Mapping[str, Any], failing: Collection[int] = ()
) -> list[Plot]:
    """Plot the search in one group. items: (n,) ids; results: name -> n rows, as stored; failing: the outcomes that are failures."""
    if "search_metric" not in results:
        return []
    metric = np.asarray(results["search_metric"][:], float)
    if "search_parent" in results:
        return _lineages(search, items, metric, results, failing)
    return [_rungs(search, items, metric, results)]


def _rungs(
    search: Method, items: np.ndarray, metric: np.ndarray, results: Mapping[str, Any]
) -> Plot:
    """Plot the metric of items at each rung that they reached, and at their end."""
    take = lambda name: np.asarray(results[name][:], float)
    assert search.rungs is not None
    ages = search.rungs.min_advances * search.rungs.eta ** np.arange(metric.shape[1])
    rungs = f"The rungs are at {', '.join(f'{age:,}' for age in ages)} advances."
    advances = take("search_advances")
    survived = (advances[:, None] > ages).sum(axis=1)
    some = _evenly(np.argsort(-survived, kind="stable"))
    # An item may end by itself before the rung at which it is looked at.
    x = np.column_stack([np.minimum(ages, advances[some, None]), advances[some]])
    y = np.column_stack([metric[some], take(search.metric)[some]])
    text = [f"item {items[k]}: survived {survived[k]} of {len(ages)} rungs" for k in some]
    row, column = np.nonzero(np.isfinite(y))
    of_point = {"colour": survived[some][row], "key": items[some][row], "item": items[some][row]}
    layers: list[Layer] = [
        Lines(x, y, "items", survived[some], text, item=items[some]),
        Points(x[row, column], y[row, column], text=[text[k] for k in row], **of_point),
    ]
    return Plot(
        f"Items at their rungs, by {search.best} {search.metric}",
        layers,
        Axis("advances", log=True),
        Axis(search.metric, log=is_wide(metric)),
        Scale("rungs survived"),
        note=f"{rungs} {_left_out(some, items, 'last rung')}".strip(),
    )


def _lineages(
    search: Method,
    items: np.ndarray,
    metric: np.ndarray,
    results: Mapping[str, Any],
    failing: Collection[int],
) -> list[Plot]:
    """Plot the metric and the searched parameters by generation; a line joins each member to its parent."""
    parents = rows_of_items(np.asarray(results["search_parent"][:]), items)
    final = np.asarray(results[search.metric][:], float) * (1 if search.mode == "min" else -1)
    fine = np.isfinite(final)
    if "outcome" in results:  # a member may have failed after the last comparison
        fine &= ~np.isin(results["outcome"][:], [*failing])
    rank = np.argsort(np.where(fine, final, np.inf), kind="stable")
    some, best = _evenly(rank), descent(parents, int(rank[0]))
    searched = [name.removeprefix("final_") for name in results if name.startswith("final_")]
    columns = {search.metric: metric} | {
        name: np.asarray(results[f"search_{name}"][:], float) for name in searched[:N_PARAMS]
    }
    laws = search.ranges
    note = _left_out(some, items, "metric at the end")
    plots = []
    for name, values in columns.items():
        generation = np.arange(values.shape[1])
        line = np.array([values[row, g] if row >= 0 else np.nan for g, row in enumerate(best)])
        x, y, text = _segments(parents, values, items, some)
        layers: list[Layer] = [Lines(x, y, "members", text=text, faint=True)]
        if fine.any():
            label = f"item {items[rank[0]]}, the best, and its ancestors"
            layers.append(Lines(generation, line, label, strong=True))
        log = is_wide(values) if values is metric else isinstance(laws.get(name), Loguniform)
        axes = Axis("generation"), Axis(name, log=log)
        plots.append(Plot(f"{name} by generation", layers, *axes, note=note))
    return plots


def descent(parents: np.ndarray, row: int) -> np.ndarray:
    """The row of a member's ancestor in each generation, (generation,); -1 if there is none.

    parents: (row, generation), the row of each member's parent; -1 if it is unknown or the generation was not made.

    >>> descent(np.array([[0, 0, 1], [1, 1, 1]]), row=0).tolist()  # member 0 became a copy of 1
    [1, 1, 0]
    """
    ancestors = np.full(parents.shape[1], -1)
    for generation in reversed(range(len(ancestors))):
        if row >= 0 and (parents[row, generation] >= 0 or (ancestors >= 0).any()):
            ancestors[generation] = row
            row = int(parents[row, generation])
    return ancestors


def _segments(
    parents: np.ndarray, values: np.ndarray, items: np.ndarray, some: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Lines from each parent to its member, for every generation but the first: (x, y, texts)."""
    row, generation = np.nonzero(parents[some, 1:] >= 0)
    row, generation = some[row], generation + 1
    parent = parents[row, generation]
    x = np.stack([generation - 1, generation], axis=1)
    y = np.stack([values[parent, generation - 1], values[row, generation]], axis=1)
    text = lambda r, p: f"item {items[r]}" + ("" if r == p else f", from item {items[p]}")
    return x, y, [text(r, p) for r, p in zip(row, parent, strict=True)]


def _evenly(rank: np.ndarray) -> np.ndarray:
    return np.sort(rank[spread(len(rank), N_ITEMS)])


def _left_out(some: np.ndarray, items: np.ndarray, by: str) -> str:
    if len(some) == len(items):
        return ""
    return f"{len(some)} of {len(items):,} items, evenly spaced in their {by}."
