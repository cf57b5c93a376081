"""Collect the content of a store's page as JSON."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ctd.batch import precision
from ctd.kernel import Kernel, Params, Var, inputs_of, static_of
from ctd.plots import Figure, is_geometric, is_wide
from jobs.errors import JobError
from jobs.gather.gather import left_out
from jobs.inputs.measure import load_group
from jobs.query.best import REPLICATES, varied
from jobs.query.query import table, tables
from jobs.redact import redact
from jobs.reduce import Columns, column_names, group_params, rows_of
from jobs.report.figures import reduced_values
from jobs.report.generic import generic_plots
from jobs.report.importance import effects
from jobs.report.overview import is_replicate
from jobs.report.page.answer import answer
from jobs.report.page.encode import is_curves, plot_json, table_json, together
from jobs.report.page.facts import facts
from jobs.report.page.live import live
from jobs.report.page.pictures import MAX_GROUPS, read_pictures, write_pictures
from jobs.report.search_plots import best_so_far, ends, search_plots
from jobs.store.arrays import Lazy, Rows, attributes
from jobs.store.events import read_events
from jobs.store.marker import Marker
from jobs.store.metric import metric_of
from jobs.store.store import Store, known_kernel

MAX_BYTES = 3_500_000
"""Total size of the plots above which further groups are left out; the page says so."""
MAX_RESULTS = 12
"""Most results whose dependence on the parameters is measured."""


EMPTY: dict[str, Any] = {
    "answers": [], "groups": [], "groups_left_out": 0, "tables": [], "sweep": None
}  # fmt: skip
"""`Content.results()` of a store without a committed shard."""


class Content:
    """The content of a store's page, which can be collected again while a run goes on.

    Each call reads the store anew; the groups' input data are kept between calls.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shared: dict[int, tuple[Params, Any]] = {}

    def facts(self) -> dict[str, Any]:
        """The facts about the run, without results; fast."""
        made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        found = facts(self._store)
        found["live"] = (
            None
            if found["progress"]["shards"] == found["progress"]["shards_done"]
            else live(self._store)
        )
        return redact(found | {"made": made, "trouble": left_out(self._store)})

    def results(self) -> dict[str, Any]:
        """Plots, tables, and the importance of parameters; gathers newly committed shards first."""
        store = self._store
        if not store.committed.numbers():
            return dict(EMPTY)
        frames = {name: table(store, name) for name in tables(store)}
        metric = metric_of(store)
        name = metric.name if metric else ""
        frames["items"] = _ordered(frames["items"], store.swept, name)
        first = answer(store, frames, metric)
        groups, left_out = self._groups()
        # Of one group, the first picture is a part of the answer.
        if not first["plots"] and len(store.job.plan.group_sizes) == 1 and groups:
            first |= {"plots": groups[0]["plots"][:1], "picture": True}
            groups[0]["plots"] = groups[0]["plots"][1:]
        listed = [table_json(name, f, self._titles(name)) for name, f in frames.items() if f.size]
        return redact(
            {
                "answers": [first],
                "groups": _with_all(groups),
                "groups_left_out": left_out,
                "tables": listed,
                "sweep": sweep(store, frames["items"]),
            }
        )

    def all(self) -> dict[str, Any]:
        """`facts` and `results` together."""
        return self.facts() | self.results()

    def _titles(self, name: str) -> dict[str, str]:
        """Column -> its description with its unit, for the table `name`."""
        described = self._store.description
        variables = described.dims if name in ("items", "shards") else described.reduced
        titles = {
            key: f"{var.long_name} ({var.units})" if var.units not in ("", "1") else var.long_name
            for key, var in variables.items()
        }
        return {**described.fields, **titles}

    # --- groups -----------------------------------------------------------------------------------

    def _groups(self) -> tuple[list[dict[str, Any]], int]:
        """(label and plots of each group, up to MAX_BYTES; number of groups left out)."""
        store = self._store
        by_group: list[list[Marker]] = [[] for _ in store.job.plan.group_sizes]
        # Markers are read after the tables, so that they cover every gathered item.
        for marker in store.committed.markers():
            by_group[marker.shard.group].append(marker)
        made: list[dict[str, Any]] = []
        size = 0
        for group, markers in enumerate(by_group):
            if not markers:
                continue
            if size > MAX_BYTES:
                return made, sum(bool(some) for some in by_group[group:])
            n, done = store.job.plan.group_sizes[group], sum(m.n_items for m in markers)
            found = {
                "label": self._label(group),
                "items": f"{done:,} of {n:,} items",
                **self._pictures(group, self._rows(group, markers)),
            }
            size += len(json.dumps(found))
            made.append(found)
        return made, 0

    def keep_pictures(self) -> None:
        """Store the kernel's plots of the first groups, for readers who do not run its code."""
        store, kernel = self._store, known_kernel(self._store)
        if kernel is None or not (kernel.plots or kernel.figure):
            return
        for group in range(min(MAX_GROUPS, len(store.job.plan.group_sizes))):
            rows = self._rows(group, store.committed.markers(group))
            if len(rows):
                found = self._of_kernel(group, *self._read(group, rows))
                write_pictures(store, group, found["plots"])

    def _rows(self, group: int, markers: list[Marker]) -> np.ndarray:
        """The numbers of the rows that have results; items that failed with an error have none."""
        rows = rows_of(self._store.job.plan.group_sizes[group], markers)
        rows[[row for marker in markers for row in marker.without]] = False
        return np.flatnonzero(rows)

    def _label(self, group: int) -> str:
        swept = attributes(self._store.results(group))["swept"]
        described = ", ".join(f"{name} = {value}" for name, value in swept.items())
        return f"group {group}: {described}" if described else f"group {group}"

    def _pictures(self, group: int, rows: np.ndarray) -> dict[str, Any]:
        """The plots of `_of_kernel`, and those of the search if the job has one."""
        store = self._store
        if not len(rows):
            return {"plots": [], "error": "every item of this group failed with an error"}
        columns, results = self._read(group, rows)
        found = self._of_kernel(group, columns, results)
        if search := store.job.spec.search:
            made = search_plots(search, columns["item"][:], results)
            found["plots"] = [*found["plots"], *map(plot_json, made)]
        return found

    def _read(self, group: int, rows: np.ndarray) -> tuple[Columns, Lazy[Rows]]:
        """The (columns, results) of these rows, which are read when they are used."""
        store = self._store
        lazy = lambda names: Lazy(names, lambda name: Rows(store.array(group, name), rows))
        shared_params = attributes(store.results(group))["params"]
        columns = Columns(lazy(column_names(store, group)), shared_params, len(rows))
        return columns, lazy(store.names(group))

    def _of_kernel(
        self, group: int, columns: Columns, results: Mapping[str, Rows]
    ) -> dict[str, Any]:
        """The kernel's `plots`, else those of its `figure`, else its results as lines; `error` if that fails.

        If the kernel's code is not trusted: the plots that the store keeps, else its results as lines.
        """
        store, kernel = self._store, known_kernel(self._store)
        if kernel is None and (kept := read_pictures(store, group)):
            return {"plots": kept}
        draw: Any = kernel and (kernel.plots or kernel.figure)
        if kernel is None or draw is None:
            generic = generic_plots(store.description.dims, results, columns)
            return {"plots": [plot_json(plot) for plot in generic]}
        try:
            params, shared = self._data(group, kernel)
            reduced = reduced_values(store, group)
            with precision(static_of(params)):
                given = (inputs_of(params), shared, columns, results, reduced)
                made = draw(*given)
                plots = made.plots if isinstance(made, Figure) else made
                return {"plots": [plot_json(plot) for plot in plots]}
        except Exception as error:
            # A kernel's plots may fail on unforeseen results, or its data may be gone; show the rest of the page.
            return {"plots": [], "error": f"no picture: {type(error).__name__}: {error}"}

    def _data(self, group: int, kernel: Kernel) -> tuple[Params, Any]:
        if group not in self._shared:
            params = group_params(self._store, group)
            with precision(static_of(params)):
                shared = load_group(kernel, params, self._store.job.base)
            self._shared[group] = params, shared
        return self._shared[group]


def _with_all(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the curves of all groups before several groups, so that the page can colour them by what differs between groups."""
    shared = together([group["plots"] for group in groups], is_curves) if len(groups) > 1 else []
    if not shared:
        return groups
    said = f"the curves of {len(groups)} groups"
    return [{"label": "all groups", "items": said, "plots": shared, "shared": True}, *groups]


def _ordered(items: pd.DataFrame, swept: Iterable[str], metric: str) -> pd.DataFrame:
    """Order the columns: item, swept parameters, metric, outcome, other results, then status, group and row."""
    last = [name for name in ("status", "group", "row") if name in items]
    first = [name for name in ("item", *swept, metric, "outcome") if name in items]
    rest = [name for name in items if name not in (*first, *last)]
    return items[[*dict.fromkeys(first), *rest, *last]]


# --- the sweep ------------------------------------------------------------------------------------


def sweep(store: Store, frame: pd.DataFrame) -> dict[str, Any] | None:
    """The swept parameters, the results, how strongly each result depends on each parameter, and the best item so far.

    frame: the table `items`.
    """
    dims, judged = store.description.dims, metric_of(store)
    metric = judged.name if judged else ""
    swept = store.swept
    differs = lambda name: name in frame and not is_replicate(frame[name].to_numpy())
    # Searched parameters count by their final values.
    parameters = [name for name in varied(store) if name not in swept or differs(name)]
    results = [
        name
        for name, var in _first(dims, metric).items()
        if var.axes == ()
        and name in frame
        and name not in ("outcome", *parameters)
        and frame[name].dtype.kind in "iuf"
    ][:MAX_RESULTS]
    fine = frame[frame["status"] == "done"]
    found = effects(_columns(fine), parameters, results)
    failed = frame["status"] == "failed"
    if failed.any() and not failed.all():
        found += effects(
            _columns(frame.assign(failed=failed.astype(float))), parameters, ["failed"]
        )
    shares = {
        e.parameter: np.nan_to_num(e.share) for e in found if e.result == (results or [""])[0]
    }
    parameters.sort(key=lambda name: -shares.get(name, 0.0))
    metric = metric if metric in results else ""
    columns = _columns(frame)
    ended = ends(store, columns["group"], columns["row"])
    # On a grid, the order in which items end says nothing.
    drawn = store.job.spec.search or any(part.random for part in store.job.spec.sweeps())
    best = None
    if metric and judged and drawn:
        best = best_so_far(metric, judged.more_is_better, columns, ended)
    return {
        "parameters": parameters,
        "replicates": [name for name in parameters if name in REPLICATES],
        "log": [name for name in parameters if is_log(frame[name])],
        "results": results,
        "metric": metric,
        "falling": bool(judged and judged.more_is_better),
        "searched": store.job.spec.search is not None,
        "effects": [effect.to_json() for effect in found],
        "plots": [plot_json(best)] if best else [],
    }


def is_log(column: pd.Series) -> bool:
    """Whether a parameter was swept geometrically, or over so much that it needs a logarithmic axis."""
    return column.dtype.kind in "iuf" and (is_geometric(column) or is_wide(column))


def _columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {str(name): frame[name].to_numpy() for name in frame}


def _first(dims: Mapping[str, Var], name: str) -> dict[str, Var]:
    """The same mapping, with `name` moved to the front."""
    return {k: dims[k] for k in sorted(dims, key=lambda k: k != name)}


def require_content(store: Store) -> None:
    """Raise JobError if there is nothing to report yet: no committed shard and no error."""
    if not store.committed.numbers() and not any(
        event.kind == "error" for event in read_events(store)
    ):
        raise JobError(
            f"{store.address}: no item has been computed yet, so that there is nothing to report; "
            f"`ctd resume {store.address}` continues the job, `ctd watch` shows its progress"
        )
