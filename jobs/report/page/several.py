"""Several stores on one page: join their contents, with `store` and what differs between them as further swept parameters.

An item's number on the page is its id + OFFSET * (number of its store), so that all numbers differ.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jobs.errors import count
from jobs.query.collection import StoreCollection
from jobs.query.query import summed_up, table, tables
from jobs.redact import redact
from jobs.report.effects import by_importance, effects_of_stores, has_value
from jobs.report.factors import alike, zipped
from jobs.report.page.encode import (
    has_items,
    join_plots,
    some_rows,
    table_json,
    titles_of,
)
from jobs.report.page.facts import COUNTS, by_worker
from jobs.report.sweep import FEWEST_PARALLEL, is_log
from jobs.spec.job import leaves

OFFSET = 2**32
"""Larger than every item id."""
MOST_NAMED = 3
"""Most stores that the title names."""
MOST_TOLD = 5
"""Most stores whose trouble the header names."""
MOODS = ("running", "bad", "warning", "good")
"""The page shows the first of these that one of the stores has."""


def several(contents: Sequence[dict[str, Any]], collection: StoreCollection) -> dict[str, Any]:
    """Join the contents of the stores of a collection, from `Content.all`, into one."""
    names, frames = collection.labels, _frames(collection)
    each = list(zip(names, contents, strict=True))
    all_of = lambda field: [entry for content in contents for entry in content[field]]
    prefixed = lambda field: [f"{n}: {text}" for n, content in each for text in content[field]]
    numbered = lambda field: [
        {**row, "store": k} for k, c in enumerate(contents) for row in c[field]
    ]
    total = lambda field: sum(content[field] for content in contents)
    hosts = by_worker(all_of("hosts"))
    return redact({
        **contents[0],
        "title": ", ".join(names[:MOST_NAMED]) + f" and {len(names) - MOST_NAMED} more" * (len(names) > MOST_NAMED),
        "kernel": ", ".join(dict.fromkeys(content["kernel"] for content in contents)),
        "store": ", ".join(content["store"] for content in contents),
        "stores": [content["store"] for content in contents],
        "note": "",
        "tags": "",
        "differing": [{"name": name, "values": values} for name, values in _overview(contents, collection).items()],
        "between": [*collection.differing],
        "swept": list(dict.fromkeys(["store", *collection.differing, *all_of("swept")])),
        "status": _status([content["status"] for content in contents], names),
        "trouble": " ".join(content["trouble"] for content in contents if content["trouble"]),
        "progress": {name: sum(content["progress"][name] for content in contents) for name in COUNTS}
        | {"counted": "; ".join(f"{n}: {c['progress']['counted']}" for n, c in each)},
        "facts": [[f"{n}: {k}", v] for n, c in each for k, v in c["facts"]],
        "outcomes": _outcomes(all_of("outcomes")),
        "failures": numbered("failures"),
        "failures_left_out": total("failures_left_out"),
        "hosts": hosts,
        "n_workers": total("n_workers") - len(all_of("hosts")) + len(hosts),
        "logs": numbered("logs"),
        "learned": prefixed("learned"),
        "warnings": prefixed("warnings"),
        "live": None,
        "spec": "---\n".join(f"# {n}\n{c['spec']}" for n, c in each),
        "command": "\n".join(content["command"] for content in contents),
        "plots": _titled(contents, names),
        "answers": [
            {**answer, "lead": f"{name}: {answer['lead']}", "plots": [], "picture": False}
            for name, content in _best_first(each, collection, frames["items"])
            for answer in content["answers"]
        ],
        "groups": _groups(contents, names),
        "groups_left_out": total("groups_left_out"),
        "tables": [_table(name, frame, collection) for name, frame in frames.items() if frame.size],
        "sweep": _sweep(contents, collection, frames["items"]),
    })  # fmt: skip


def _best_first(
    each: Sequence[tuple[str, dict[str, Any]]], collection: StoreCollection, items: pd.DataFrame
) -> Sequence[tuple[str, dict[str, Any]]]:
    """The (name, content) of stores by their best items, if one result, measured on the same data, judges all stores; else as they
    are.

    items: the table of the items of all stores.
    """
    metrics = {store.roles.metric for store in collection.stores}
    metric, differ = metrics.pop(), [*collection.differing, *collection.swept]
    several_data = any(
        store.description.is_basis(name) for store in collection.stores for name in differ
    )
    if metrics or several_data or metric is None or metric.name not in items:
        return each
    of_stores = items[items["status"] == "done"].groupby("store")[metric.name]
    best = of_stores.max() if metric.more_is_better else of_stores.min()
    order = metric.rank(best.reindex([name for name, _ in each]).to_numpy(float))
    return [each[k] for k in order]


def _overview(
    contents: Sequence[dict[str, Any]], collection: StoreCollection
) -> dict[str, list[Any]]:
    """The table of the stores: what `ctd ls` says of each, then what differs between them."""
    overview = collection.overview()
    # What the job files name comes before defaults that differ, such as those of other kernels.
    each = [(s.job.spec.kernel, [*leaves(s.job.spec.params), *s.swept]) for s in collection.stores]
    differing = dict[str, list[Any]]()
    for name in dict.fromkeys([*(n for _, fields in each for n in fields), *overview]):
        if name in overview:
            # A default of a kernel has nothing to do with a field of the same name that a job of another one gives.
            kernels = {kernel for kernel, fields in each if name in fields}
            applies = [not kernels or kernel in kernels for kernel, _ in each]
            differing[name] = [v if k else "" for k, v in zip(applies, overview[name], strict=True)]
    first: dict[str, list[Any]] = {"store": differing.pop("store")}
    if "kernel" in differing:
        first["kernel"] = differing.pop("kernel")
    first["swept"] = [", ".join(store.roles.all_swept) for store in collection.stores]
    for name in ("done", "dropped", "failed"):
        counts = [content["progress"][f"items_{name}"] for content in contents]
        if any(counts) or name == "done":
            first[name] = counts
    for name in ("note", "tags"):
        if any(content[name] for content in contents):
            first[name] = [content[name] for content in contents]
    best = [_best(content) for content in contents]
    metrics = {metric for metric, value in best if value}
    if len(metrics) == 1:
        first[metrics.pop()] = [value for _, value in best]
    elif metrics:
        first["best"] = [f"{metric} {value}" if value else "" for metric, value in best]
    return first | differing


def _best(content: dict[str, Any]) -> tuple[str, str]:
    """A store's metric, and the best item's value as text; "" without one, or if the metric is measured on several data."""
    metric = content["sweep"]["metric"] if content["sweep"] else ""
    [*facts] = content["answers"][0]["facts"] if len(content["answers"]) == 1 else []
    return metric, dict(facts).get(metric, "")


def _status(each: Sequence[dict[str, str]], names: Sequence[str]) -> dict[str, str]:
    """The worst state by MOODS, with the names and texts of all stores that are not good."""
    # Of those with nothing to say the longest: items of one store may have been dropped by its search.
    worst = min(each, key=lambda entry: (MOODS.index(entry["mood"]), -len(entry["text"])))
    texts = [
        f"{n}: {entry['word']}; {entry['text']}"
        for n, entry in zip(names, each, strict=True)
        if entry["mood"] != "good"
    ]
    n_more = len(texts) - MOST_TOLD
    more = f" and {count(n_more, 'more store')}" * (n_more > 0)
    return {**worst, "text": f"{'; '.join(texts[:MOST_TOLD])}{more}"} if texts else worst


def _outcomes(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    outcomes: dict[str, dict[str, Any]] = {}
    for entry in entries:
        outcome = outcomes.setdefault(entry["name"], {**entry, "n": 0})
        outcome["n"] += entry["n"]
    return list(outcomes.values())


def _groups(contents: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The groups of all stores, and before them the joined plots of items that all first groups have."""
    by_store = [
        [
            {
                **entry,
                "label": f"{name}, {entry['label']}",
                "plots": [_moved(p, k) for p in entry["plots"]],
            }
            for entry in content["groups"]
        ]
        for k, (name, content) in enumerate(zip(names, contents, strict=True))
    ]
    flat = [group for groups in by_store for group in groups]
    pictures = {
        name: groups[0]["plots"] for name, groups in zip(names, by_store, strict=True) if groups
    }
    shared = join_plots(pictures, has_items) if all(by_store) else []
    if not shared:
        firsts = {content["kernel"]: k for k, content in reversed(list(enumerate(contents)))}
        ofs = [k for k in sorted(firsts.values()) if by_store[k] and by_store[k][0]["plots"]]
        title = lambda k, plot: {**plot, "title": f"{names[k]}: {plot['title']}"}
        plots = [title(k, by_store[k][0]["plots"][0]) for k in ofs]
        entry = {"label": "one of each kernel", "items": "", "plots": plots, "shared": True}
        return [entry, *flat] if len(plots) > 1 else flat
    is_complete = all(groups[0].get("shared") or len(groups) == 1 for groups in by_store)
    note = "the items of all stores" if is_complete else "the items of every store's first group"
    return [{"label": "together", "items": note, "plots": shared, "shared": True}, *flat]


def _titled(owners: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The `plots` of each store's content or sweep, with the store's name in their titles."""
    return [
        {**_moved(plot, k), "title": f"{name}: {plot['title']}"}
        for k, (name, owner) in enumerate(zip(names, owners, strict=True))
        for plot in owner["plots"]
    ]


def _moved(plot: dict[str, Any], k: int) -> dict[str, Any]:
    """A plot with its items numbered as those of store k."""

    def moved(layer: dict[str, Any]) -> dict[str, Any]:
        names = [name for name in ("item", "key") if layer.get("item") and layer.get(name)]
        return layer | {name: [v + k * OFFSET for v in layer[name]] for name in names}

    return {**plot, "layers": [moved(layer) for layer in plot["layers"]]}


def _frames(collection: StoreCollection) -> dict[str, pd.DataFrame]:
    """The tables of all stores; that of the items also has the factors of each store's own `zip`."""
    frames = {name: table(collection, name) for name in tables(collection)}
    items = frames["items"]
    for rows, store in zip(_rows_of(items, collection), collection.stores, strict=True):
        if not store.job.spec.sweeps()[0].zip:
            continue
        store_columns = {str(name): column.to_numpy()[rows] for name, column in items.items()}
        store_columns = {
            name: values for name, values in store_columns.items() if has_value(values).any()
        }
        for name, texts in zipped(store, store_columns).items():
            items[name] = items.get(name, "")
            items.loc[items.index[rows], name] = texts
    return frames


def _rows_of(frame: pd.DataFrame, collection: StoreCollection) -> list[np.ndarray]:
    """The row numbers of each store's rows in a table of a collection."""
    rows = frame.groupby("store").indices
    return [rows.get(label, np.zeros(0, int)) for label in collection.labels]


def _table(name: str, frame: pd.DataFrame, collection: StoreCollection) -> dict[str, Any]:
    """A table of all stores as JSON, with the numbers of its items on the page."""
    rows = _rows_of(frame, collection)
    row_numbers = [store_rows[some_rows(frame.iloc[store_rows])] for store_rows in rows]
    titles, stay = titles_of(collection.stores), summed_up(collection.stores)
    content = table_json(name, frame, titles, np.concatenate(row_numbers), stay)
    if "item" in frame and frame["item"].dtype.kind in "iu":
        items = frame["item"].to_numpy(np.int64)
        ids = [items[store_rows] + k * OFFSET for k, store_rows in enumerate(row_numbers)]
        content["ids"] = np.concatenate(ids).tolist()
    return content


def _compared(contents: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """The kernel whose items are compared, the one with the most done items, of those with a metric if there are such; and whether
    it is the only one."""
    n_of, judged = Counter[str](), set[str]()
    for content in contents:
        n_of[content["kernel"]] += content["progress"]["items_done"]
        if content["sweep"] and content["sweep"]["metric"]:
            judged.add(content["kernel"])
    return max(n_of, key=lambda name: (name in judged, n_of[name])), len(n_of) == 1


def _sweep(
    contents: Sequence[dict[str, Any]], collection: StoreCollection, items: pd.DataFrame
) -> dict[str, Any] | None:
    """The sweep over the done items of all stores; of several kernels, over those of one."""
    kernel, is_one = _compared(contents)
    mine = [c["sweep"] for c in contents if c["kernel"] == kernel and c["sweep"]]
    if not mine:
        return None
    union = lambda field: list(dict.fromkeys(name for sweep in mine for name in sweep[field]))
    # What was swept comes before what differs between stores alone, and what only repeats items last.
    repeating = union("replicates")
    swept = [name for name in union("parameters") if name not in repeating]
    parameters = list(dict.fromkeys([*swept, "store", *collection.differing, *repeating]))
    results = [name for name in union("results") if name not in parameters]
    # Only items of one kernel compare, and of these only the done ones: a dropped item was younger.
    is_compared = True if is_one else items["kernel"] == kernel
    rows = is_compared & (items["status"] == "done")
    columns = {name: items.loc[rows, name].to_numpy() for name in (*parameters, *results)}
    numbers = [name for name in results if columns[name].dtype.kind in "iuf"]
    if not is_one:
        values_of = lambda name: set(columns[name][has_value(columns[name])])
        parameters = [name for name in parameters if len(values_of(name)) > 1]
    # What a search left of its items, it has chosen by the metric.
    pruned = sorted(set(items.loc[is_compared & (items["status"] == "dropped"), "store"]))
    unpruned = ~np.isin(columns["store"].astype(str), pruned)
    judging = [name for name in parameters if name not in repeating]
    compared = {name: values[unpruned] for name, values in columns.items()}
    # Parameters in which only whole stores differ are one, under all their names.
    called = {names[0]: ", ".join(names) for names in alike(compared, judging)}
    measured = effects_of_stores(compared, list(called), numbers)
    parameters = by_importance(measured, parameters, (numbers or [""])[0])
    verb = "measured without" if measured else "not measured for"
    without = f"Which parameters matter is {verb} {', '.join(pruned)}, whose search dropped items: see their own pages."
    metrics, in_one = {sweep["metric"] for sweep in mine}, union("log")
    plots = [content["sweep"] or {"plots": []} for content in contents]
    return {
        "kernel": "" if is_one else kernel,
        "parameters": parameters,
        "results": results,
        "metric": metrics.pop() if len(metrics) == 1 else "",
        "falling": any(sweep["falling"] for sweep in mine),
        "searched": any(sweep["searched"] for sweep in mine),
        "parallel": int(rows.sum()) >= FEWEST_PARALLEL,
        "replicates": repeating,
        # What one store swept geometrically may have a 0 in another.
        "log": [name for name in columns if is_log(columns[name], name in in_one)],
        "effects": [e._replace(parameter=called[e.parameter]).to_json() for e in measured],
        "unmeasured": without if pruned else "",
        "plots": _titled(plots, collection.labels),
    }
