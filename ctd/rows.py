"""How reductions read rows of results: in blocks, and grouped by equal values."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np


def blocks(
    values: Mapping[str, np.ndarray], names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    """The values called `names`, in blocks of rows, in order.

    Results of a store have a method `blocks` that reads some rows at a time; arrays come whole, in one block.
    """
    read = getattr(values, "blocks", None)
    if read is not None:
        yield from read(names)
    else:
        yield {name: np.asarray(values[name]) for name in names}


def combinations(columns: Sequence[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each distinct combination, number of the combination of each row), in order of appearance.

    columns: (n, ...) each; a row with further axes is compared whole. n: the number of rows.
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
