"""Draw the figures of a store, of a group by its kernel or of the whole sweep, and save them as PNG.

If the kernel draws none, the results are plotted by their names, axes and units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from ctd.batch import precision
from ctd.contract import ContractError
from ctd.kernel import Var, inputs_of, static_of
from ctd.plots import Axis, Layer, Lines, Plot, Points, is_wide, spread
from ctd.plots.png import draw
from ctd.plots.swept import by_swept
from ctd.replacing import replacing
from jobs.errors import JobError, left_out, within, writing
from jobs.gather.reduce import explained
from jobs.inputs.measure import group_params, load_group, replaced_files
from jobs.query.columns import as_array, decode
from jobs.query.readers import child
from jobs.query.tables import ask
from jobs.report.effects import Effect, by_importance, effects
from jobs.report.sweep import axis_of, overview
from jobs.storage.addresses import local_path, path_beside
from jobs.store.arrays import Lazy, Rows, attributes
from jobs.store.groups import Columns, column_arrays, rows_with_results
from jobs.store.marker import Marker
from jobs.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MAX_GENERIC = 6
"""Most results drawn as lines if the kernel has no plots."""
AT_FIRST = 20
"""Lines shown initially."""
TITLE_WIDTH = 100
"""Most characters of a group's swept values over its picture."""
MAX_GROUPS = 16
"""Most groups whose pictures are kept, as a PNG and in the store."""
MAX_PLOTS = 4
"""Most plots of a default figure."""


def figure_of(store: Store, group: int) -> Canvas | None:
    """Draw the kernel's first plots of a group; None if it draws none, or a reduction was not made.

    Raises JobError if the kernel's `plots` fails, see `of_kernel`.
    """
    if not _can_draw(store, group):
        return None
    columns, results = data_of(store, group)
    plots = of_kernel(store, group, columns, results)[: store.kernel.display.png_plots]
    if not plots:
        return None
    several = len(store.job.plan.group_sizes) > 1
    swept = attributes(store.results(group))["swept"] if several else {}
    values = shorten(", ".join(f"{name} {value}" for name, value in swept.items()), TITLE_WIDTH)
    title = "\n".join(filter(None, [values, replaced(store, group)]))
    with explained(store.kernel, "plots", store):
        return draw(_by_swept(store, plots, columns, results), title)


def of_kernel(
    store: Store, group: int, columns: Columns, results: Mapping[str, Any]
) -> Sequence[Plot]:
    """The kernel's `plots` of a group.

    Raises JobError if an input file is gone, or if the function raises or returns something else than it should.
    """
    kernel, params, reduced = store.kernel, group_params(store, group), dict[str, np.ndarray]()
    assert kernel.display.plots is not None
    if (gathered := f"gathered/{group}") in store.root:
        arrays = child(store.root, gathered).arrays()
        reduced = {n: as_array(decode(np.asarray(a[...]), attributes(a))) for n, a in arrays}
    with precision(static_of(params)):
        with within("a figure reads the input files again"):
            shared = load_group(kernel, params, store.job.base)
        with explained(kernel, "plots", store):
            plots: Any = kernel.display.plots(inputs_of(params), shared, columns, results, reduced)
            if not isinstance(plots, list | tuple):
                raise ContractError(
                    f"a {type(plots).__module__}.{type(plots).__name__} is returned, expected a list of ctd.plots.Plot"
                )
            return plots


def replaced(store: Store, group: int) -> str:
    """Say which input files changed since a group was computed, so that its pictures show other data; "" if none did."""
    others = replaced_files(store, group)
    return f"not the data that this store was made from: {others} changed since" if others else ""


def data_of(
    store: Store, group: int, markers: Sequence[Marker] | None = None
) -> tuple[Columns, Lazy[Rows]]:
    """The (columns, results) of the rows of a group that have results, which are read when they are indexed.

    markers: of the group, if they were read before.
    """
    markers = store.committed.markers(group) if markers is None else markers
    # The rows of items with errors hold fill values.
    rows = np.flatnonzero(rows_with_results(store.job.plan.group_sizes[group], markers))
    read = lambda name: Rows(store.array(group, name), rows)
    arrays = column_arrays(store, group)
    shared_params = attributes(store.results(group))["params"]
    columns = Columns(Lazy(arrays, lambda name: read(arrays[name])), shared_params, len(rows))
    return columns, Lazy(store.names(group), read)


def _can_draw(store: Store, group: int) -> bool:
    """Return whether the kernel has plots, and the store has the results that they show."""
    kernel = store.kernel
    # A kernel may reduce today, and not when the store was made.
    reduces = kernel.tables.reduce is not None and store.description.reduces
    is_reduced = not reduces or f"gathered/{group}" in store.root
    return (
        kernel.display.plots is not None
        and is_reduced
        and len(data_of(store, group)[0]["item"]) > 0
    )


def _by_swept(
    store: Store, plots: Sequence[Plot], columns: Mapping[str, Any], results: Mapping[str, Any]
) -> Sequence[Plot]:
    """Group the lines of items in plots by the swept parameter that explains most of the metric; seeds are alike. A field that
    a search changes has its final values."""
    roles = store.roles
    final = {name: f"final_{name}" for name in roles.searched if f"final_{name}" in results}
    labels = {name: roles.column_of_array.get(array, array) for name, array in final.items()}
    read = lambda name: np.asarray(results[final[name]] if name in final else columns[name])
    swept = {
        labels.get(name, name): column
        for name in columns
        if name not in ("item", *roles.replicates) and (column := read(name)).ndim == 1
    }
    if not swept:
        return plots
    metric, metric_effects = roles.metric, list[Effect]()
    name = metric.name if metric else ""
    if name in results:
        judged = {name: np.asarray(results[name], float)}
        metric_effects = effects(swept | judged, list(swept), [name])
    measured = [effect.parameter for effect in metric_effects]
    field = by_importance(metric_effects, measured or list(swept), name)[0]
    values = dict(zip(np.asarray(columns["item"]).tolist(), swept[field].tolist(), strict=True))
    return [by_swept(plot, field, values) for plot in plots]


def figure(store: Store, group: int | None = None) -> Canvas:
    """Draw a group, or all items: the kernel's first plots of a single group, else the metric over the sweep, else the kernel's
    of the first group, else the results (`default_plots`). Raises JobError if there is no such group."""
    groups = range(len(store.job.plan.group_sizes))
    if group is not None and group not in groups:
        raise JobError(f"group: {group} given; the store has the groups 0 to {groups[-1]}")
    if (canvas := _informative_figure(store, group)) is not None:
        return canvas
    return draw(_by_swept(store, default_plots(store, group), *data_of(store, group or 0)))


def _informative_figure(store: Store, group: int | None) -> Canvas | None:
    """`figure`, or None where only the results as they are could be drawn."""
    metric = store.roles.metric if group is None else None
    compared = metric is not None and len(store.job.plan.group_sizes) > 1
    if not compared and (canvas := figure_of(store, group or 0)) is not None:
        return canvas
    plot = overview(store, metric.name) if metric else None
    return draw([plot]) if plot else None


def save_figures(store: Store, stem: Path) -> list[Path]:
    """Save stem.png of all items and, if there are several groups, stem-0.png ... of the first MAX_GROUPS; return the paths.

    The picture of another store, stem-0.zarr, stays as it is. Without a metric nothing compares groups that the kernel
    draws: stem.png then shows the first one, which has no stem-0.png. If the kernel's own plots show nothing, such
    as no cycle, there is no stem.png.
    """
    paths: list[Path] = []

    def save(end: str, figure: Canvas | None) -> None:
        if figure is not None:
            paths.append(stem.with_name(f"{stem.name}{end}.png"))
            with writing(paths[-1]), replacing(paths[-1]) as new:
                figure.savefig(new, dpi=150)

    n, has_plots = len(store.job.plan.group_sizes), _can_draw(store, 0)
    save("", _informative_figure(store, None) if has_plots else figure(store))
    first = int(has_plots and store.roles.metric is None)
    for group in range(first, min(n, MAX_GROUPS) if n > 1 else 0):
        if not _of_another(stem.with_name(f"{stem.name}-{group}.png")):
            save(f"-{group}", figure_of(store, group))
    return paths


def _of_another(path: Path) -> bool:
    """Return whether a picture is that of the store beside it with the same name, not of a group of this one."""
    return path.with_suffix(".zarr").exists()


def saved_figures(address: str, n_groups: int) -> list[Path]:
    """The PNGs that `save_figures` left beside a store of so many groups: of all items first, then of each group in order.

    A link there is none of them: somebody else may have laid it to a picture of the user's.
    """
    if local_path(address) is None:
        return []
    stem = path_beside(address)
    # Not by a pattern: pictures of further numbers are left over from another job, or of another store.
    numbered = [stem.with_name(f"{stem.name}-{group}.png") for group in range(n_groups)]
    overall = stem.with_name(f"{stem.name}.png")
    pictures = [p for p in (overall, *numbered) if p.is_file() and not p.is_symlink()]
    return [p for p in pictures if p == overall or not _of_another(p)]


# --- results as they are --------------------------------------------------------------------------


def default_plots(store: Store, group: int | None = None) -> list[Plot]:
    """Plot any kernel's results, at least once: single numbers against swept fields, results with one axis as lines.

    group: draw this group alone; by default compare all groups, and draw the lines of the first one.
    """
    dims, some = store.description.dims, group or 0
    names = [n for n, var in dims.items() if var.axes == () and not n.startswith("search_")]
    names = [name for name in names if name != "outcome"]
    swept = [overview(store, name) for name in names] if group is None else []
    plots = [plot for plot in swept if plot is not None]
    columns, results = data_of(store, some)
    if len(columns["item"]):
        plots += generic_plots(store, some, columns, results)
    return plots[:MAX_PLOTS] or _by_item(store, names)


def _by_item(store: Store, names: list[str]) -> list[Plot]:
    columns = ask(store, lambda tables: tables["items"].columns())
    # A failed item's whole numbers are 0.
    done = np.flatnonzero(columns["status"] == "done")
    some, dims = done[spread(len(done), 5000)], store.description.dims
    plots: list[Plot] = []
    for name in names:
        if name in columns and columns[name].dtype.kind in "iuf" and len(plots) < MAX_PLOTS:
            label = axis_of(name, dims[name], log=is_wide(columns[name][done]))
            points = Points(columns["item"][some], columns[name][some].astype(float))
            plots.append(Plot(name, [points], Axis("item"), label))
    return plots or [Plot("No results are numbers", [], Axis("item"), Axis(""))]


def along(store: Store, group: int, axis: str, places: np.ndarray) -> tuple[np.ndarray, Axis]:
    """The coordinate of an axis at these places, with its label; of texts, and without one, the places."""
    if axis not in store.results(group):
        return places, Axis(axis)
    array = store.node(f"results/{group}/{axis}")
    attrs = attributes(array)
    values = as_array(decode(np.asarray(array[:]), attrs))  # texts are stored as codes
    if values.dtype.kind in "OU":
        return places, Axis(axis, ticks=[str(text) for text in values])
    if values.dtype.kind not in "iuf" or values.ndim != 1 or len(values) <= places.max():
        return places, Axis(axis)
    var = Var((), str(attrs.get("units", "1")), str(attrs.get("long_name", "")))
    return values[places], axis_of(axis, var)


def generic_plots(
    store: Store, group: int, columns: Columns, results: Mapping[str, Any]
) -> list[Plot]:
    """Plots for a kernel that has none: each real result with one axis, one line per item, or marks where the axis has names; of items
    with a failing outcome only if there are no others."""
    plots: list[Plot] = []
    items, dims = columns["item"][:], store.description.dims
    failing = [k for k, end in enumerate(store.description.outcomes) if end.failed]
    ended = results["outcome"][:] if "outcome" in results else np.full(len(items), -1)
    fine = ~np.isin(ended, failing)
    fine |= not fine.any()
    row_numbers = np.flatnonzero(fine)
    # Items with errors have no rows here.
    n_failed = sum(len(m.without) for m in store.committed.markers(group)) + int((~fine).sum())
    some = row_numbers[spread(len(row_numbers), 100)]
    few = f"{len(some)} of {len(row_numbers):,} items, evenly spaced." * (
        len(some) < len(row_numbers)
    )
    for name in results:
        rows, var = results[name], dims.get(name, Var())
        # Lines of weights say nothing; search_plots draws the search.
        if len(var.axes) != 1 or name.startswith(("weights.", "search_")):
            continue
        values = rows[some]
        if values.dtype.kind not in "iufb" or values.ndim != 2 or values.shape[1] < 2:
            continue
        x, label = along(store, group, var.axes[0], np.arange(values.shape[1]))
        blank = ~np.isfinite(values).any(axis=1)
        note = " ".join(filter(None, [few, left_out(n_failed, int(blank.sum()))]))
        ids, text = items[some], [f"item {item}" for item in items[some]]
        layer: Layer = Lines(x, values, text=text, item=ids)
        axes = label, axis_of(name, var)
        if label.ticks:  # between two names there is nothing to draw a line through
            (n, k), axes = values.shape, axes[::-1]  # names are read in rows
            flat, texts = values.ravel().astype(float), np.repeat(text, k).tolist()
            layer = Points(flat, np.tile(x, n), text=texts, item=np.repeat(ids, k))
        plots.append(Plot(name, [layer], *axes, note=note, at_first=AT_FIRST))
        if len(plots) == MAX_GENERIC:
            break
    return plots
