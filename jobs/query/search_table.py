"""The table `search` of a store: one row for each item and each generation or rung that it took part in.

item  generation  METRIC  parent  PARAM ...      (population) METRIC at the generation's end; parent and
                                                 PARAM as it began
item  rung        METRIC                         (halving)
"""

from typing import Any

import numpy as np

from jobs.query.readers import Columns, Read
from jobs.spec.search import SEARCH_TABLE, Halving, Population
from jobs.store.store import Store


def search_columns(
    store: Store,
    search: Halving | Population,
    ids: np.ndarray,
    groups: np.ndarray,
    rows: np.ndarray,
) -> Columns:
    """The columns of the table `search`, group after group.

    ids, groups, rows: (n,) the id, group and row in its group of every computed item.
    """
    numbers = np.unique(groups)
    take = lambda g: _of_group(store, search, int(g), ids[groups == g], rows[groups == g])
    parts = [take(g) for g in numbers] or [_of_group(store, search, 0, ids, rows)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    reads: dict[str, Read] = {name: values.__getitem__ for name, values in found.items()}
    return Columns(SEARCH_TABLE, len(found["item"]), reads, list(found))


def _of_group(
    store: Store, search: Halving | Population, group: int, ids: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    read = lambda name: np.asarray(store.array(group, name).oindex[rows])
    # An item that failed keeps the fill values.
    computed = (read("search_advances") > 0)[:, None]
    metric = read("search_metric")
    found: dict[str, Any] = {search.metric: metric}
    if isinstance(search, Halving):
        kept = computed & (np.arange(metric.shape[1]) <= read("search_rung")[:, None])
    else:
        parent = read("search_parent")
        kept = computed & (parent >= 0)
        found["parent"] = parent
        found |= {name: read(f"search_{name}") for name in search.params}
    row, at = np.nonzero(kept)
    return {"item": ids[row], search.lap_name: at} | {
        name: values[kept] for name, values in found.items()
    }
