"""Draw the figures of a store, of a group by its kernel or of the whole sweep, and save them as PNG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctd.batch import precision
from ctd.kernel import inputs_of, static_of
from ctd.plots import Figure
from ctd.plots.png import draw
from ctd.plots.swept import by_swept
from ctd.replacing import replacing
from jobs.errors import JobError
from jobs.inputs.measure import load_group
from jobs.late import zarr
from jobs.query.columns import as_array, decode
from jobs.reduce import Columns, GroupResults, columns_of, committed_rows, group_params
from jobs.report.generic import default_plots
from jobs.report.importance import Effect, effects
from jobs.report.overview import overview
from jobs.storage.addresses import local_path
from jobs.store.arrays import attributes
from jobs.store.metric import metric_of
from jobs.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def figure_of(store: Store, group: int) -> Canvas | None:
    """Draw the kernel's figure of a group; None if the kernel has none, nothing to show, or a reduction that was not made.

    Raises JobError if the kernel's `figure` returns something else than a `ctd.plots.Figure`.
    """
    kernel = store.kernel
    rows = committed_rows(store)[group]
    reduced = kernel.reduce is None or f"gathered/{group}" in store.root
    if kernel.figure is None or not reduced or not rows.any():
        return None
    params = group_params(store, group)
    results = GroupResults(store, group, rows, store.names(group))
    columns = columns_of(store, group, rows)
    with precision(static_of(params)):
        shared = load_group(kernel, params, store.job.base)
        figure = kernel.figure(
            inputs_of(params),
            shared,
            columns,
            results,
            reduced_values(store, group),
        )
        if not isinstance(figure, Figure):
            raise JobError(
                f"kernel {kernel.name}: figure returned a {type(figure).__module__}.{type(figure).__name__}, "
                "expected a ctd.plots.Figure; the results are stored"
            )
        if not figure.plots:
            return None
        return draw(_by_swept(store, figure, columns, results))


def save_figure(store: Store, group: int, path: Path) -> bool:
    """Save the figure of a group as `path`; return False if there is nothing to draw, see `figure_of`."""
    figure = figure_of(store, group)
    if figure is not None:
        _save(figure, path)
    return figure is not None


def _save(figure: Canvas, path: Path) -> None:
    with replacing(path) as new:
        figure.savefig(new, dpi=150)


def _by_swept(
    store: Store, figure: Figure, columns: Columns, results: Mapping[str, np.ndarray]
) -> Figure:
    """Group the lines of items in a figure by the swept parameter that explains most of the metric."""
    swept = {
        name: column
        for name in columns
        if name != "item" and (column := np.asarray(columns[name])).ndim == 1
    }
    metric = metric_of(store)
    found: list[Effect] = []
    if metric and metric.name in results:
        judged = np.asarray(results[metric.name], float)
        found = effects(swept | {metric.name: judged}, list(swept), [metric.name])
    first = sorted(found, key=lambda effect: -np.nan_to_num(effect.share))
    field = first[0].parameter if first else next(iter(swept), None)
    if field is None:
        return figure
    values = dict(zip(np.asarray(columns["item"]).tolist(), swept[field].tolist(), strict=True))
    return replace(figure, plots=[by_swept(plot, field, values) for plot in figure.plots])


def reduced_values(store: Store, group: int) -> dict[str, np.ndarray]:
    """The reduced values of a group, with texts in place of codes; {} if it was not gathered."""
    name = f"gathered/{group}"
    if name not in store.root:
        return {}
    node = store.root[name]
    assert isinstance(node, zarr.Group)
    return {key: as_array(decode(np.asarray(a[...]), attributes(a))) for key, a in node.arrays()}


def figure(store: Store, group: int | None = None) -> Canvas:
    """Draw a group, or all items: of a single group the kernel's figure, otherwise the metric over the sweep; without either,
    the results as they are (`default_plots`)."""
    only = 0 if len(store.job.plan.group_sizes) == 1 else group
    if only is not None and (made := figure_of(store, only)) is not None:
        return made
    metric = metric_of(store) if group is None else None
    plot = overview(store, metric.name) if metric else None
    if plot:
        return draw(Figure([plot]))
    some = group or 0
    rows = committed_rows(store)[some]
    columns = columns_of(store, some, rows)
    results = GroupResults(store, some, rows, store.names(some))
    return draw(_by_swept(store, Figure(default_plots(store, group)), columns, results))


def save_figures(store: Store, stem: Path, limit: int = 16) -> list[Path]:
    """Save stem.png of all items and, if there are several groups, stem-0.png ... of the first `limit`; return the paths."""
    paths, n = [stem.with_name(f"{stem.name}.png")], len(store.job.plan.group_sizes)
    _save(figure(store), paths[0])
    for group in range(min(n, limit) if n > 1 else 0):
        path = stem.with_name(f"{stem.name}-{group}.png")
        if save_figure(store, group, path):
            paths.append(path)
    return paths


def saved_figures(address: str) -> list[Path]:
    """The PNGs that `save_figures` left beside a store: of the whole, then in the order of groups."""
    local = local_path(address)
    if local is None:
        return []
    stem = local.with_suffix("")
    numbered = [
        p for p in stem.parent.glob("*.png") if re.fullmatch(rf"{re.escape(stem.name)}-\d+", p.stem)
    ]
    one = stem.with_name(f"{stem.name}.png")
    return [one] * one.exists() + sorted(numbered, key=lambda p: int(p.stem.rpartition("-")[2]))
