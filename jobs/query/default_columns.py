"""The columns of an answer that a terminal shows by default, and their order."""

import numpy as np

from jobs.query.shelf import Shelf
from jobs.query.tables import varied
from jobs.store.store import Store


def default_columns(
    table: str, found: dict[str, np.ndarray], store: Store | Shelf, sorted_by: list[str]
) -> dict[str, np.ndarray]:
    """The columns that a terminal shows by default, in this order: the store and the row's number; what was swept, searched or
    differs between stores; what the rows are sorted by; results in the kernel's order; others.

    Left out are an item's place, its group if there is one, its status if all are done, and columns of kernels without rows.
    """
    n_first, differing = 1, set[str]()
    known = list(found)
    if isinstance(store, Shelf):
        n_first, differing = 2, set(store.differing)
        store, there = _of_their_kernels(table, found["store"], store)
        known = [name for name in known if name in there or name in sorted_by]
    stores = store.stores if isinstance(store, Shelf) else [store]
    swept = differing.union(["job_seed"], *([*one.swept, *varied(one)] for one in stores))
    kind = lambda name: name.partition(".")[0].partition("[")[0]
    is_swept = lambda name: not swept.isdisjoint((name, kind(name)))
    first = [name for name in known if name in known[:n_first] or name == table]
    results = [name for one in stores for name in one.description.reduced]
    if table == "items":
        results = [*(name for one in stores for name in one.description.dims), *results]
    inputs = [name for name in known if is_swept(name) and name not in sorted_by]
    hidden = {"row"}
    if all(len(one.job.plan.group_sizes) == 1 for one in stores):
        hidden.add("group")
    if "status" in known and set(found["status"]) <= {"done"}:
        hidden.add("status")
    hidden -= set(sorted_by)
    order = dict.fromkeys([*first, *inputs, *sorted_by, *results, *known])
    return {name: found[name] for name in order if name in known and name not in hidden}


def _of_their_kernels(table: str, labels: np.ndarray, shelf: Shelf) -> tuple[Shelf, set[str]]:
    """The stores of those kernels that have rows in an answer, and the columns of their table. labels: the store of each row."""
    joined = {name for new in shelf.joined for name in new.values()}
    named = zip(shelf.labels, shelf.stores, strict=True)
    kernels = {one.job.spec.kernel for label, one in named if label in {*labels}}
    own = [one for one in shelf.stores if one.job.spec.kernel in kernels]
    if own and len(own) < len(shelf.stores):
        shelf = Shelf(own)
    return shelf, joined | {*shelf[table].names}
