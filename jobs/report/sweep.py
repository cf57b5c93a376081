"""A sweep: which parameters matter (jobs.report.effects), and plots of the metric against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ctd.kernel import Var
from ctd.plots import Axis, Layer, Lines, Plot, Points, Scale, is_geometric, is_wide
from ctd.words import number
from jobs.errors import count, left_out
from jobs.forms import Distribution, Loguniform
from jobs.query.columns import rows_of_items
from jobs.query.query import answer
from jobs.query.tables import ask
from jobs.report.effects import LEAST_ITEMS, by_importance, effects
from jobs.report.factors import MAX_KINDS, is_replicate, with_factors, with_places, zipped
from jobs.report.search_plots import best_so_far, ends
from jobs.search import SEARCH_TABLE
from jobs.store.roles import columns_of
from jobs.store.store import Store

FEWEST_PARALLEL = 20
"""Fewest items that parallel coordinates show: of fewer, the table says more."""
MAX_RESULTS = 12
"""Most results whose dependence on the parameters is measured."""
MAX_ITEMS = 100_000
"""Most items drawn: reading a longer table would delay the end of a run."""
MAX_SHADES = 30
"""Most numbers of the second parameter that get a series each, in shades of a scale; of texts, MAX_KINDS."""
MAX_DESCRIPTION = 40
"""Most characters of a field's description beside its name at an axis."""
MAX_MEDIANS = 40
"""Most values of the first parameter for which medians are drawn; random draws have more values."""


# --- the metric against the sweep -----------------------------------------------------------------


def overview(store: Store, metric: str) -> Plot | None:
    """Plot the done items by the two swept or searched parameters that explain most of the metric.

    A kernel's plots show one group, so that a sweep over a static field needs this one to compare its values.
    None without such a parameter, or with more than MAX_ITEMS items.
    """
    if store.job.plan.n_items > MAX_ITEMS:
        return None
    columns = ask(store, lambda tables: tables["items"].columns())
    values = columns.get(metric, np.zeros(0, object))
    if values.dtype.kind not in "iuf":
        return None
    done, failed = (columns["status"] == status for status in ("done", "failed"))
    is_plotted = done & np.isfinite(values.astype(float))
    fine = {name: column[is_plotted] for name, column in columns.items()}
    combined = zipped(store, fine)
    fine |= combined
    names = with_places(store, fine, combined)
    compared, (judged,) = _comparable(store, columns | zipped(store, columns), [metric])
    names = by_importance(effects(compared, names, [judged]), names, judged)
    if not names:
        return None
    first, *others = _numbers_before_words(fine, names)
    description = store.description.fields.get(first, "")  # it has the unit
    label = f"{first}, {description}" if 0 < len(description) <= MAX_DESCRIPTION else first
    x, axis = _places(label, fine[first], is_log(fine[first], _is_loguniform(store, first)))
    y, ids, series = fine[metric].astype(float), fine["item"], list(_series(fine, others))
    shaded = len(series) > MAX_KINDS
    medians = "strokes" if axis.ticks else "lines"
    alone = all(len(np.unique(x[members])) == members.sum() for *_, members in series)
    if alone and _laws(store, first):
        medians = ""  # a line would join draws that have nothing to do with each other
    layers: list[Layer] = []
    for hue, (name, shade, members) in enumerate(series):
        hued = None if shaded else hue
        layers += _layers(x[members], y[members], ids[members], name, hued, shade, medians)
    # Of many values there are no medians.
    has_medians = any(isinstance(layer, Lines) for layer in layers)
    explained = f"; {medians} are medians over items with equal values" * has_medians
    notes = [f"Each mark is an item{explained}."]
    notes += [f"Over all values of {', '.join(others[1:])}."] * (len(others) > 1)
    notes.append(left_out(int(failed.sum()), int((done & ~is_plotted).sum())))
    return Plot(
        f"{metric} against {first}",
        layers,
        axis,
        axis_of(metric, store.description.dims[metric], log=is_wide(y)),
        Scale(_shade_of(others[0], fine[others[0]])[0]) if shaded else Scale(),
        note=" ".join(filter(None, notes)),
    )


def _layers(
    x: np.ndarray,
    y: np.ndarray,
    ids: np.ndarray,
    name: str,
    hue: int | None,
    shade: float,
    medians: str,
) -> Iterator[Layer]:
    """Marks of the items of one of the `_series`, and a line of their medians.

    hue: its colour; None if it has a `shade` of a scale, and no name in a legend. medians: "lines", "strokes", one each for
    categories of x, or "": none.
    """
    at = np.unique(x)
    has_line = bool(medians) and 1 < len(at) <= MAX_MEDIANS
    # A legend names each series once: by its line, if it has one.
    label = "" if has_line or hue is None else name
    shades = np.full(len(x), shade) if hue is None else None
    text = [f"item {item}" for item in ids]
    yield Points(x, y, label, shades, text=text, key=ids, hue=hue, item=ids)
    if has_line:
        middle = np.array([np.median(y[x == place]) for place in at])
        if medians == "strokes":
            at = (at[:, None] + [-0.2, 0.2, 0.2]).ravel()
            middle = (middle[:, None] + [0, 0, np.nan]).ravel()
        label = "" if hue is None else name or "median"
        yield Lines(at, middle, label, None if shades is None else [shade], hue=hue)


def axis_of(name: str, var: Var, log: bool = False) -> Axis:
    """The axis of a result: its description, or else its name, with its unit."""
    unit = f" ({var.units})" if var.units not in ("", "1") else ""
    return Axis(f"{var.long_name or name}{unit}", log=log)


def _numbers_before_words(fine: Mapping[str, np.ndarray], names: list[str]) -> list[str]:
    """The names, with a number before words if these are the first two: words, if they are few, have a colour each."""
    kinds = [fine[name].dtype.kind in "iuf" for name in names[:2]]
    if kinds != [False, True]:
        return names
    words, numbers = (fine[name].astype(str) for name in names[:2])
    n = len({*words})
    # A number that the word implies, such as a task's length, tells nothing beside it.
    if n > MAX_KINDS or len({*zip(words, numbers, strict=True)}) == n:
        return names
    return [names[1], names[0], *names[2:]]


def _places(label: str, column: np.ndarray, log: bool) -> tuple[np.ndarray, Axis]:
    """Place the values of a column on an axis: (positions, the axis, on which few numbers have a tick each)."""
    if column.dtype.kind in "iuf":
        at = np.unique(x := column.astype(float)).tolist()
        return x, Axis(label, log=log, at=at if len(at) <= MAX_KINDS else None)
    kinds, first, codes = np.unique(column.astype(str), return_index=True, return_inverse=True)
    # In the order of the job file: that of texts would put "100, 10" before "50, 5".
    order = np.argsort(first)
    return np.argsort(order)[codes].astype(float), Axis(label, ticks=kinds[order].tolist())


def _series(
    fine: Mapping[str, np.ndarray], others: list[str]
) -> Iterator[tuple[str, float, np.ndarray]]:
    """One series (legend, shade, rows) for each value of the second parameter, or one of all rows if the values are too many."""
    if others:
        column = fine[others[0]]
        values = column if column.dtype.kind in "iufb" else column.astype(str)
        kinds = np.unique(values)
        numeric = kinds.dtype.kind in "iuf"
        shades = _shade_of(others[0], kinds)[1] if numeric else np.arange(len(kinds))
        if len(kinds) <= (MAX_SHADES if numeric else MAX_KINDS):
            for kind, shade in zip(kinds, shades, strict=True):
                text = number(float(kind), 3) if numeric else str(kind)
                yield f"{others[0]} = {text}", float(shade), values == kind
            return
    yield "", 0.0, np.ones(len(fine["item"]), bool)


def _shade_of(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """(label of a colour scale, the numbers on it): logarithms of values that were spread geometrically."""
    if is_log(np.unique(values.astype(float))):
        return f"log10 {name}", np.log10(values)
    return name, values


# --- the sweep as the page shows it ---------------------------------------------------------------


def axes(store: Store, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The swept parameters, the results, and a plot of the best item so far; `sweep` adds what the parameters explain.

    columns: (n,) each, of the table `items`, and the factors that `zipped` makes of them.
    """
    roles, dims = store.roles, store.description.dims
    judged = roles.metric
    numeric = lambda name: name in columns and columns[name].dtype.kind in "iuf"
    # Searched parameters count by their final values.
    parameters = [
        column
        for name in roles.varied
        for column in columns_of(name, columns)
        if name not in store.swept or not is_replicate(columns[column])
    ]
    parameters = with_factors(parameters, zipped(store, columns))
    judging = roles.settings(parameters)
    single = [name for name, var in dims.items() if var.axes == () and numeric(name)]
    has_results = columns["status"] != "failed"  # a whole number of an item that failed is 0
    results = [name for name in single if name not in ("outcome", *parameters)]
    metric = judged.name if judged and judged.name in results else ""
    best = None
    # On a grid, the order in which items end says nothing.
    has_draws = store.job.spec.search or any(part.random for part in store.job.spec.sweeps())
    if metric and judged and has_draws and not roles.bases(columns):
        ended = ends(store, columns["group"], columns["row"])
        best = best_so_far(metric, judged.more_is_better, columns, ended)
    return {
        "parameters": parameters,
        "replicates": [name for name in parameters if name not in judging],
        "log": [
            name
            for name in dict.fromkeys([*parameters, *single])
            if is_log(columns[name][has_results], _is_loguniform(store, name))
        ],
        "results": sorted(results, key=lambda name: name != metric)[:MAX_RESULTS],
        "metric": metric,
        "falling": bool(judged and judged.more_is_better),
        "searched": store.job.spec.search is not None,
        "plots": [best] if best else [],
    }


def sweep(store: Store, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The `axes` of a store, and how strongly each result depends on each parameter."""
    content = axes(store, columns)
    failed = columns["status"] == "failed"
    compared, measured = _comparable(store, columns, content["results"])
    # A seed numbers draws: what it explains is chance.
    judging = [name for name in content["parameters"] if name not in content["replicates"]]
    measured_effects = effects(compared, judging, measured)
    if failed.any() and not failed.all():
        failures = {**columns, "failed": failed.astype(float)}
        measured_effects += effects(failures, judging, ["failed"])
    names = by_importance(measured_effects, content["parameters"], (measured or [""])[0])
    return content | {
        "parameters": names,
        "parallel": len(columns["item"]) >= FEWEST_PARALLEL,
        "effects": [effect.to_json() for effect in measured_effects],
        "unmeasured": "" if measured_effects or not judging else _unmeasured(len(compared["item"])),
    }


def _comparable(
    store: Store, columns: Mapping[str, np.ndarray], results: list[str]
) -> tuple[Mapping[str, np.ndarray], list[str]]:
    """The items whose results compare, and these results: of a search that dropped items the metric at the first rung, which all
    have reached, since those that went to the end were chosen by it.

    columns: (n,) each. Returns the columns of these items, and the names of the results among them.
    """
    if not is_pruned(store, columns["status"]):
        done = columns["status"] == "done"
        return {name: values[done] for name, values in columns.items()}, results
    search = store.job.spec.search
    assert search is not None
    names = f"item, {search.metric}"
    at_first = f"{search.lap_name} == 0"
    first = answer(store, at_first, table=SEARCH_TABLE, columns=names).columns
    place = rows_of_items(columns["item"], first["item"])
    reached, name = place >= 0, f"{search.metric} at the first rung"
    compared = {column: values[reached] for column, values in columns.items()}
    return {**compared, name: first[search.metric][place[reached]]}, [name]


def is_pruned(store: Store, status: np.ndarray) -> bool:
    """Return whether the search of a store has dropped items, so that those at the end are a choice. status: (n,) of its items."""
    search = store.job.spec.search
    return bool(search and search.rungs) and "dropped" in status


def _unmeasured(n: int) -> str:
    """Why no effect was measured. n: number of items that could be compared."""
    return (
        f"Which parameters matter is not measured: {count(n, 'item')} can be compared, and "
        f"{LEAST_ITEMS} are needed whose results differ."
    )


def _laws(store: Store, name: str) -> list[Distribution]:
    """The laws by which the values of a column were drawn, or proposed by a search; none of a grid's."""
    spec, field = store.job.spec, name.removeprefix("final_")
    laws = [*(part.random for part in spec.sweeps()), spec.ranges]
    return [laws_of[field] for laws_of in laws if field in laws_of]


def _is_loguniform(store: Store, name: str) -> bool:
    return any(isinstance(law, Loguniform) for law in _laws(store, name))


def is_log(values: np.ndarray, is_loguniform: bool = False) -> bool:
    """Return whether a column needs a logarithmic axis: it was drawn or swept geometrically, or it spans very much; of the page, too.

    >>> is_log(np.array([1, 2, 4])), is_log(np.array([1.0, 1.5]), True), is_log(np.array([0, 1.5]), True)
    (True, True, False)
    """
    if values.dtype.kind not in "iuf":
        return False
    in_log = is_loguniform and not (values <= 0).any()
    return in_log or is_geometric(values) or is_wide(values)
