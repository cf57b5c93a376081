"""Rows of results, as reductions read them: in blocks, and by which of them have the same values."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np


def blocks(
    values: Mapping[str, np.ndarray], names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    """The values called `names`, some rows of all of them at a time, in the order of the rows.

    The results of a store read themselves so, by a method `blocks`; arrays come as they are, at once.
    """
    read = getattr(values, "blocks", None)
    if read is not None:
        yield from read(names)
    else:
        yield {name: np.asarray(values[name]) for name in names}


def combinations(columns: Sequence[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each distinct combination, combination of each row), in order of appearance.

    Rows of a column with an axis of its own are compared whole; n: how many rows there are.
    """
    codes = np.zeros(n, np.int64)
    for values in columns:
        inverse = np.unique(values, axis=0, return_inverse=True)[1].ravel()
        codes = codes * (inverse.max(initial=0) + 1) + inverse
        codes = np.unique(codes, return_inverse=True)[1].ravel()  # small again: never overflows
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return first[order], place[inverse.ravel()]
