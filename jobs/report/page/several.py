"""Several stores on one page: join their contents, with `store` and what differs between them as further swept parameters.

An item's number on the page is its id + OFFSET * (number of its store), so that all numbers differ.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs.query.columns import as_text
from jobs.query.shelf import Shelf
from jobs.report.factors import alike
from jobs.report.page.encode import has_items, text_column, together
from jobs.report.page.facts import COUNTS
from jobs.report.sweep import effects, has_value
from jobs.spec.job import leaves

OFFSET = 2**32
"""Larger than every item id."""
SHOWN = 3
"""Most stores that the title names."""
MOST_TOLD = 5
"""Most stores of which the header says what is amiss."""
MOODS = ("running", "bad", "warning", "good")
"""The page shows the first of these that one of the stores has."""


def several(contents: Sequence[dict[str, Any]], shelf: Shelf) -> dict[str, Any]:
    """Join the contents of the stores of a shelf, from `Content.all`, into one."""
    names = shelf.labels
    contents = [_named(content, new) for content, new in zip(contents, shelf.joined, strict=True)]
    joined = lambda field: [entry for content in contents for entry in content[field]]
    named = lambda field: [
        f"{n}: {text}" for n, c in zip(names, contents, strict=True) for text in c[field]
    ]
    progress = [content["progress"] for content in contents]
    tables = _tables([_with_fixed(c["tables"], shelf, k) for k, c in enumerate(contents)], names)
    return {
        **contents[0],
        "title": ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""),
        "kernel": ", ".join(dict.fromkeys(content["kernel"] for content in contents)),
        "store": ", ".join(content["store"] for content in contents),
        "stores": [content["store"] for content in contents],
        "differing": [{"name": name, "values": values} for name, values in _overview(contents, shelf).items()],
        "swept": list(dict.fromkeys(["store", *shelf.differing, *joined("swept")])),
        "status": _status([content["status"] for content in contents], names),
        "trouble": " ".join(content["trouble"] for content in contents if content["trouble"]),
        "progress": {name: sum(one[name] for one in progress) for name in COUNTS}
        | {"counted": "; ".join(f"{n}: {one['counted']}" for n, one in zip(names, progress, strict=True))},
        "facts": [[f"{n}: {k}", v] for n, c in zip(names, contents, strict=True) for k, v in c["facts"]],
        "outcomes": _outcomes(joined("outcomes")),
        "failures": [
            {**failure, "store": k} for k, content in enumerate(contents) for failure in content["failures"]
        ],
        "failures_left_out": sum(content["failures_left_out"] for content in contents),
        "hosts": (hosts := _hosts(joined("hosts"))),
        "n_workers": sum(c["n_workers"] for c in contents) - len(joined("hosts")) + len(hosts),
        "logs": [{**log, "store": k} for k, content in enumerate(contents) for log in content["logs"]],
        "learned": named("learned"),
        "warnings": named("warnings"),
        "live": None,
        "spec": "---\n".join(f"# {n}\n{c['spec']}" for n, c in zip(names, contents, strict=True)),
        "command": "\n".join(content["command"] for content in contents),
        "plots": _titled(contents, names),
        "answers": [
            {**answer, "lead": f"{name}: {answer['lead']}", "plots": []}
            for name, content in zip(names, contents, strict=True)
            for answer in content["answers"]
        ],
        "groups": _groups([_whole(content) for content in contents], names),
        "groups_left_out": sum(content["groups_left_out"] for content in contents),
        "tables": tables,
        "sweep": _sweep(contents, shelf, tables),
    }  # fmt: skip


def _overview(contents: Sequence[dict[str, Any]], shelf: Shelf) -> dict[str, list[Any]]:
    """The table of the stores: what `ctd ls` says of each, then what differs between them."""
    found = shelf.overview()
    # What the job files name comes before defaults that differ, such as those of other kernels.
    named = [
        name for store in shelf.stores for name in (*leaves(store.job.spec.params), *store.swept)
    ]
    found = {
        name: found[name]
        for name in dict.fromkeys(["store", "kernel", *named, *found])
        if name in found
    }
    first: dict[str, list[Any]] = {n: found[n] for n in ("store", "kernel") if n in found}
    counts = {
        name: [content["progress"][f"items_{name}"] for content in contents]
        for name in ("done", "dropped", "failed")
    }
    metrics = [content["sweep"]["metric"] if content["sweep"] else "" for content in contents]
    best = [
        dict(fact for answer in content["answers"] for fact in answer["facts"]).get(metric, "")
        for metric, content in zip(metrics, contents, strict=True)
    ]
    judged = {metric for metric, value in zip(metrics, best, strict=True) if value}
    if len(judged) > 1:
        best = [f"{m} {value}" if value else "" for m, value in zip(metrics, best, strict=True)]
    return {
        **first,
        "swept": [", ".join(content["swept"]) for content in contents],
        **{name: n for name, n in counts.items() if any(n) or name == "done"},
        **({judged.pop() if len(judged) == 1 else "best": best} if judged else {}),
        **{name: values for name, values in found.items() if name not in first},
    }


def _status(each: Sequence[dict[str, str]], names: Sequence[str]) -> dict[str, str]:
    """The state that comes first in MOODS, and the texts of all stores that are not good, with their names."""
    worst = min(each, key=lambda status: MOODS.index(status["mood"]))
    told = [
        f"{n}: {one['text']}" for n, one in zip(names, each, strict=True) if one["mood"] != "good"
    ]
    more = f" and {len(told) - MOST_TOLD} more stores" * (len(told) > MOST_TOLD)
    return {**worst, "text": f"{'; '.join(told[:MOST_TOLD])}{more}"} if told else worst


def _named(content: dict[str, Any], new: Mapping[str, str]) -> dict[str, Any]:
    """A content whose columns and parameters have new names. new: old name -> new one, see `Shelf.joined`."""
    called = lambda name: new.get(name, name)
    tables = [
        {**table, "columns": [{**c, "name": called(c["name"])} for c in table["columns"]]}
        for table in content["tables"]
    ]
    sweep = content["sweep"]
    if sweep:
        sweep = {
            **sweep,
            **{field: [*map(called, sweep[field])] for field in ("parameters", "log")},
        }
    return {**content, "tables": tables, "sweep": sweep}


def _whole(content: dict[str, Any]) -> dict[str, Any]:
    """A content whose one group has the picture again that its answer took."""
    groups = content["groups"]
    if len(groups) != 1:
        return content
    taken = [p for answer in content["answers"] if answer["picture"] for p in answer["plots"]]
    return {**content, "groups": [{**groups[0], "plots": [*taken, *groups[0]["plots"]]}]}


def _outcomes(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        known = found.setdefault(entry["name"], {**entry, "n": 0})
        known["n"] += entry["n"]
    return list(found.values())


def _hosts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The workers of all stores; one that computed for several is one row."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = row["host"], row["pid"], row["device"]
        before = found.get(key, {})
        sums = {name: row[name] + before.get(name, 0) for name in ("shards", "items", "seconds")}
        found[key] = row | sums
    return list(found.values())


def _groups(contents: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The groups of all stores, and before them the joined plots of items that all first groups have."""
    own = [
        {
            **group,
            "label": f"{name}, {group['label']}",
            "plots": [_moved(plot, k) for plot in group["plots"]],
        }
        for k, (name, content) in enumerate(zip(names, contents, strict=True))
        for group in content["groups"]
    ]
    firsts = [
        [_moved(plot, k) for plot in content["groups"][0]["plots"]]
        for k, content in enumerate(contents)
        if content["groups"]
    ]
    shared = together(firsts, has_items) if len(firsts) == len(contents) else []
    if not shared:
        return own
    whole = all(c["groups"][0].get("shared") or len(c["groups"]) == 1 for c in contents)
    note = "the items of all stores" if whole else "the items of every store's first group"
    return [{"label": "together", "items": note, "plots": shared, "shared": True}, *own]


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
        if not layer.get("item"):
            return layer
        shifted = {
            name: [v + k * OFFSET for v in layer[name]]
            for name in ("item", "key")
            if layer.get(name)
        }
        return layer | shifted  # fmt: skip

    return {**plot, "layers": [moved(layer) for layer in plot["layers"]]}


def _with_fixed(tables: Sequence[dict[str, Any]], shelf: Shelf, k: int) -> list[dict[str, Any]]:
    """The tables of store k; that of its items also has the parameters that it sets and in which the stores differ."""

    def extended(table: dict[str, Any]) -> dict[str, Any]:
        n = len(table["columns"][0]["values"])
        own = {column["name"] for column in table["columns"]}
        new = [
            {"name": name, "title": "", **_constant(values[k], n)}
            for name, values in shelf.differing.items()
            if values[k] is not None and name not in own
        ]
        first, *rest = table["columns"]
        return {**table, "columns": [first, *new, *rest]}

    return [extended(table) if table["name"] == "items" else table for table in tables]


def _constant(value: object, n: int) -> dict[str, Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "number", "values": [value] * n}
    # As `encode` writes a column of them, with which this one is joined.
    text = ("no", "yes")[value] if isinstance(value, bool) else as_text(value)
    return text_column([text] * n)


def _tables(
    contents: Sequence[Sequence[dict[str, Any]]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The tables of all stores; tables of one name are joined, with a column `store`."""
    by_name: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for k, content in enumerate(contents):
        for table in content:
            by_name.setdefault(table["name"], []).append((k, table))
    return [_table(name, found, names) for name, found in by_name.items()]


def _table(
    name: str, found: Sequence[tuple[int, dict[str, Any]]], names: Sequence[str]
) -> dict[str, Any]:
    rows = [len(table["columns"][0]["values"]) if table["columns"] else 0 for _, table in found]
    titles = {c["name"]: c["title"] for _, table in found for c in table["columns"]}
    stores = [names[k] for (k, _), n in zip(found, rows, strict=True) for _ in range(n)]
    columns = [{"name": "store", "title": "", **text_column(stores)}]
    for column, title in titles.items():
        parts: list[dict[str, Any]] = [
            next((c for c in table["columns"] if c["name"] == column), {"kind": "none", "values": [None] * n})
            for (_, table), n in zip(found, rows, strict=True)
        ]  # fmt: skip
        text = any(part["kind"] == "text" for part in parts)
        values = [v for part in parts for v in (_texts(part) if text else part["values"])]
        kind = text_column(values) if text else {"kind": "number", "values": values}
        columns.append({"name": column, "title": title, **kind})
    made: dict[str, Any] = {
        "name": name,
        "n": sum(table["n"] for _, table in found),
        "columns": columns,
    }
    if "item" in titles:
        made["ids"] = [
            v + k * OFFSET
            for k, table in found
            for column in table["columns"]
            if column["name"] == "item"
            for v in column["values"]
        ]
    made["note"] = " ".join(dict.fromkeys(table["note"] for _, table in found if table["note"]))
    return made  # fmt: skip


def _texts(part: dict[str, Any]) -> list[str]:
    if part["kind"] == "text":
        return [part["labels"][code] for code in part["values"]]
    return ["" if v is None else str(v) for v in part["values"]]


def _sweep(
    contents: Sequence[dict[str, Any]], shelf: Shelf, tables: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """The sweep over the items of all stores; of several kernels, over those of the one with the most."""
    items = next((table for table in tables if table["name"] == "items"), None)
    kernels = [store.job.spec.kernel for store in shelf.stores]
    n_of = Counter[str]()
    for one, content in zip(kernels, contents, strict=True):
        n_of[one] += content["progress"]["items_done"]
    kernel = max(n_of, key=n_of.__getitem__)
    mine = [content for content, one in zip(contents, kernels, strict=True) if one == kernel]
    sweeps = [content["sweep"] for content in mine if content["sweep"]]
    if not sweeps or items is None:
        return None
    union = lambda field: list(dict.fromkeys(name for sweep in sweeps for name in sweep[field]))
    parameters = list(dict.fromkeys(["store", *shelf.differing, *union("parameters")]))
    results = [name for name in union("results") if name not in parameters]
    columns = _done_columns(items, (*parameters, *results), kernel)
    numbers = [name for name in results if columns[name].dtype.kind == "f"]
    if len(n_of) > 1:
        parameters = [
            name for name in parameters if len(set(columns[name][has_value(columns[name])])) > 1
        ]
    judging = [name for name in parameters if name not in union("replicates")]
    called = {names[0]: ", ".join(names) for names in alike(columns, judging)}
    found = [
        effect._replace(parameter=called[effect.parameter])
        for effect in effects(columns, list(called), numbers)
    ]
    metrics = {sweep["metric"] for sweep in sweeps}
    return {
        "kernel": kernel if len(n_of) > 1 else "",
        "parameters": parameters,
        "results": results,
        "metric": metrics.pop() if len(metrics) == 1 else "",
        "falling": any(sweep["falling"] for sweep in sweeps),
        "searched": any(sweep["searched"] for sweep in sweeps),
        "replicates": union("replicates"),
        "log": union("log"),
        "effects": [effect.to_json() for effect in found],
        "plots": _titled([content["sweep"] or {"plots": []} for content in contents], shelf.labels),
    }


def _done_columns(
    items: Mapping[str, Any], names: Sequence[str], kernel: str
) -> dict[str, np.ndarray]:
    """The columns `names` of the table of items, of those items of this kernel that are done.

    As of one store, results of items that a search dropped, or that failed, compare with no others; and those of another kernel
    share a name at most.
    """
    columns = {
        c["name"]: np.array(_texts(c) if c["kind"] == "text" else c["values"], str if c["kind"] == "text" else float)
        for c in items["columns"] if c["name"] in names
    }  # fmt: skip
    told = {c["name"]: np.array(_texts(c)) for c in items["columns"] if c["name"] in ("status", "kernel")}  # fmt: skip
    kept = told.get("status", np.array("done")) == "done"
    kept = kept & (told.get("kernel", np.array(kernel)) == kernel)
    return {name: values[kept & np.ones(len(values), bool)] for name, values in columns.items()}
