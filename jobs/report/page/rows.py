"""The results of a group's computed items, read lazily: indexing reads just the rows it needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs.late import zarr
from jobs.plan.packing import Part


class Rows:
    """Some rows of an array in a store. `rows[3]`, `rows[:200]`, `rows[[1, 5]]` read just those."""

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
        if high - low <= 2 * len(wanted):  # dense: one contiguous read, then select in memory
            return np.asarray(self._array[low:high])[wanted - low]
        return np.asarray(self._array.oindex[wanted])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # what is read is always a new array
        return np.asarray(self[:], dtype)
