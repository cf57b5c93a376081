"""The results of a group's computed items, read lazily: indexing reads only the rows that it needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs.late import zarr
from jobs.plan.packing import Part


class Rows:
    """Selected rows of an array in a store. `rows[3]`, `rows[:200]` and `rows[[1, 5]]` read only those.

    >>> Rows(np.arange(10) ** 2, np.array([2, 3, 4, 7]))[:3]
    array([ 4,  9, 16])
    """

    def __init__(self, array: zarr.Array[Any] | Part, rows: np.ndarray) -> None:
        self._array, self._rows = array, rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(number of rows, shape of one row...)."""
        return (len(self._rows), *self._array.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return self[key[0]][(slice(None), *key[1:]) if np.ndim(self._rows[key[0]]) else key[1:]]
        wanted = self._rows[key]
        if np.ndim(wanted) == 0:
            return np.asarray(self._array[int(wanted)])
        if len(wanted) == 0:
            return np.zeros((0, *self._array.shape[1:]), self._array.dtype)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        # Dense rows: one contiguous read and a selection in memory are faster than single rows.
        if high - low <= 2 * len(wanted):
            return np.asarray(self._array[low:high])[wanted - low]
        return np.asarray(self._array.oindex[wanted])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # Reading always makes a new array.
        del copy
        return np.asarray(self[:], dtype)
