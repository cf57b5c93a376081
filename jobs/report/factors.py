"""The factors that vary in a sweep. Fields that vary together are one factor, because their effects cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ctd.words import number
from jobs.store.roles import columns_of
from jobs.store.store import Store

MAX_KINDS = 8
"""Most values of a parameter that get a colour each."""


def zipped(store: Store, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The one factor that a sweep's `zip` is: "dale, mask" -> (n,) texts, the combination of each item.

    Empty without a `zip` of several fields, or if its combinations are too many to have a colour each.
    """
    first, *others = store.job.spec.sweeps()
    fields = [c for name in first.zip for c in columns_of(name, columns)]
    same = all(part.zip.keys() == first.zip.keys() for part in others)
    if not same or len(fields) < 2 or max(map(len, first.zip.values())) > MAX_KINDS:
        return {}
    rows = zip(*(_texts(columns[name]) for name in fields), strict=True)
    return {", ".join(fields): np.array([", ".join(row) for row in rows], object)}


def _texts(values: np.ndarray) -> np.ndarray:
    """The values as texts, numbers with four digits if these tell them apart."""
    if values.dtype.kind != "f":
        return values.astype(str)
    short = np.array([number(value) for value in values])
    return short if len(np.unique(short)) == len(np.unique(values)) else values.astype(str)


def with_factors(names: Iterable[str], factors: Iterable[str]) -> list[str]:
    """The parameters `names`, with each factor in place of its fields.

    >>> with_factors(["seed", "dale", "mask"], ["dale, mask"])
    ['seed', 'dale, mask']
    """
    joined = {name: factor for factor in factors for name in factor.split(", ")}
    return list(dict.fromkeys(joined.get(name, name) for name in names))


def alike(columns: Mapping[str, np.ndarray], names: Iterable[str]) -> list[list[str]]:
    """Group the parameters that split the items in the same way: those in which whole stores differ.

    A parameter with more values than there are stores stays alone: any two that each item draws anew split the items alike.

    columns: (n,) each; one of them is "store".

    >>> alike({"n": np.array([5, 5, 9]), "g": np.array([1, 2, 2]), "store": np.array(["a", "a", "b"])}, ["n", "g", "store"])
    [['n', 'store'], ['g']]
    >>> alike({"l1": np.arange(4), "l2": np.arange(4), "store": np.array(["a", "a", "b", "b"])}, ["l1", "l2"])
    [['l1'], ['l2']]
    """
    n_stores, groups = len(np.unique(columns["store"].astype(str))), dict[Any, list[str]]()
    for name in names:
        _, first, codes = np.unique(
            columns[name].astype(str), return_index=True, return_inverse=True
        )
        # (n,) the first item with the same value.
        key = name if len(first) > n_stores else first[codes].tobytes()
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def with_places(store: Store, fine: Mapping[str, np.ndarray], combined: Iterable[str]) -> list[str]:
    """The swept and searched parameters that can be an axis: each item has a value there. combined: factors of `zipped`."""
    roles = store.roles
    names = [c for name in roles.settings(roles.varied) for c in columns_of(name, fine)]
    names = with_factors(names, combined)
    # Items of a mapping without such a field have none.
    missing = lambda values: values.dtype.kind == "f" and np.isnan(values).any()
    return [name for name in names if not (is_replicate(fine[name]) or missing(fine[name]))]


def is_replicate(values: np.ndarray) -> bool:
    """Return whether a swept field has a single value or only numbers the items, so that no result can depend on it."""
    if values.dtype.kind not in "iufb":
        values = values.astype(str)
    kinds = np.unique(values)
    return len(kinds) < 2 or (values.dtype.kind in "iu" and len(kinds) == len(values) > 12)
