"""Which rows of several columns have the same values."""

from collections.abc import Sequence

import numpy as np


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
