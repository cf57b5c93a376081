"""Rows of results in blocks: how a reduction reads a group that memory does not hold."""

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
