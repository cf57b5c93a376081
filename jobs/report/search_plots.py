"""Plots of a search for the page: of halving, metrics by rung; of a population, lineages and parameters by generation."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.plots import Axis, Layer, Lines, Plot, Points, Scale, is_wide, spread
from jobs.spec.search import Halving, Population
from jobs.spec.sweep import Loguniform

N_ITEMS = 100
"""Most items drawn."""
N_PARAMS = 8
"""Most searched parameters drawn."""


def search_plots(
    search: Halving | Population, items: np.ndarray, results: Mapping[str, Any]
) -> list[Plot]:
    """Plot the search in one group. items: (n,) ids; results: name -> n rows, as stored."""
    metric = np.asarray(results["search_metric"][:], float)
    if isinstance(search, Halving):
        return [_rungs(search, items, metric, results)]
    return _lineages(search, items, metric, results)


def _rungs(
    search: Halving, items: np.ndarray, metric: np.ndarray, results: Mapping[str, Any]
) -> Plot:
    """Plot the metric of items at each rung that they reached, and at their end."""
    take = lambda name: np.asarray(results[name][:], float)
    survived = take("search_rung")
    some = _evenly(np.argsort(-survived, kind="stable"))
    ages = search.min_advances * search.eta ** np.arange(metric.shape[1])
    x = np.column_stack([np.tile(ages, (len(some), 1)), take("search_advances")[some]])
    y = np.column_stack([metric[some], take(search.metric)[some]])
    text = [f"item {items[k]}: survived {survived[k]:.0f} of {len(ages)} rungs" for k in some]
    row, column = np.nonzero(np.isfinite(y))
    said, dots = [text[k] for k in row], (x[row, column], y[row, column])
    layers: list[Layer] = [
        Lines(x, y, "items", survived[some], text, item=items[some]),
        Points(
            *dots,
            colour=survived[some][row],
            text=said,
            key=items[some][row],
            item=items[some][row],
        ),
    ]
    return Plot(
        f"Successive halving by {search.best} {search.metric}",
        layers,
        Axis("advances", log=True),
        Axis(search.metric, log=is_wide(metric)),
        Scale("rungs survived"),
        note=_left_out(some, items, "last rung"),
    )


def _lineages(
    search: Population, items: np.ndarray, metric: np.ndarray, results: Mapping[str, Any]
) -> list[Plot]:
    """Plot the metric and the searched parameters by generation; a line joins each member to its parent."""
    parents = rows_of_items(np.asarray(results["search_parent"][:]), items)
    final = np.asarray(results[search.metric][:], float) * (1 if search.mode == "min" else -1)
    rank = np.argsort(np.where(np.isfinite(final), final, np.inf), kind="stable")
    some, best = _evenly(rank), descent(parents, int(rank[0]))
    made = []
    for name in [search.metric, *list(search.params)[:N_PARAMS]]:
        is_metric = name == search.metric
        values = metric if is_metric else np.asarray(results[f"search_{name}"][:], float)
        law = search.params.get(name)
        generation = np.arange(values.shape[1])
        line = np.array([values[row, g] if row >= 0 else np.nan for g, row in enumerate(best)])
        x, y, text = _segments(parents, values, items, some)
        layers: list[Layer] = [
            Lines(x, y, "members", text=text, faint=True),
            Lines(generation, line, f"item {items[rank[0]]}, the best, and its ancestors", strong=True),
        ]  # fmt: skip
        made.append(
            Plot(
                f"{name} by generation",
                layers,
                Axis("generation"),
                Axis(name, log=is_wide(values) if is_metric else isinstance(law, Loguniform)),
                note=_left_out(some, items, "metric at the end"),
            )
        )
    return made


def rows_of_items(ids: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The row of each item id, or -1 if it is not among `items`."""
    order = np.argsort(items, kind="stable")
    place = order[np.searchsorted(items[order], ids).clip(0, len(items) - 1)]
    return np.where(items[place] == ids, place, -1)


def descent(parents: np.ndarray, row: int) -> np.ndarray:
    """The row of a member's ancestor in each generation, (generation,); -1 if there is none.

    parents: (row, generation), the row of each member's parent; -1 if it is unknown or the generation was not made.

    >>> descent(np.array([[0, 0, 1], [1, 1, 1]]), row=0).tolist()  # member 0 became a copy of 1
    [1, 1, 0]
    """
    found = np.full(parents.shape[1], -1)
    for generation in reversed(range(len(found))):
        if row >= 0 and (parents[row, generation] >= 0 or (found >= 0).any()):
            found[generation] = row
            row = int(parents[row, generation])
    return found


def _segments(
    parents: np.ndarray, values: np.ndarray, items: np.ndarray, some: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Lines from each parent to its member, for every generation but the first: (x, y, texts)."""
    row, generation = np.nonzero(parents[some, 1:] >= 0)
    row, generation = some[row], generation + 1
    parent = parents[row, generation]
    x = np.stack([generation - 1, generation], axis=1)
    y = np.stack([values[parent, generation - 1], values[row, generation]], axis=1)
    said = lambda r, p: f"item {items[r]}" + ("" if r == p else f", from item {items[p]}")
    return x, y, [said(r, p) for r, p in zip(row, parent, strict=True)]


def _evenly(rank: np.ndarray) -> np.ndarray:
    return np.sort(rank[spread(len(rank), N_ITEMS)])


def _left_out(some: np.ndarray, items: np.ndarray, by: str) -> str:
    if len(some) == len(items):
        return ""
    return f"{len(some)} of {len(items):,} items, evenly spaced in their {by}."
