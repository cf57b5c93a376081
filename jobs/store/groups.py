"""The rows of one group that have results, and the columns that belong to them, read as they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ctd.kernel import Params
from jobs.errors import validated
from jobs.store.arrays import Lazy, attributes
from jobs.store.marker import Marker
from jobs.store.store import Store, names_of_columns, rows_of, shared_fields

BLOCK_BYTES = 4 << 20
"""Bytes of rows read at a time, before selection."""


class GroupResults(Lazy[np.ndarray]):
    """Selected rows of a group's results; an array is read at each access, or in `blocks`.

    rows: (rows of the group,) bool.
    """

    def __init__(self, store: Store, group: int, rows: np.ndarray, names: list[str]) -> None:
        self._store, self._group, self._rows = store, group, rows
        super().__init__(names, self._read_all)

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Iterate over these arrays in blocks of rows; the next block is read while one is used."""
        due: deque[Future[dict[str, np.ndarray]]] = deque()
        with ThreadPoolExecutor(1, "read-ahead") as thread:
            for span in self._spans(names):
                due.append(thread.submit(self._read_rows, names, *span))
                if len(due) > 1:
                    yield due.popleft().result()
            if due:
                yield due.popleft().result()

    def _spans(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """(first row, row after the last) of each block: whole shards, or stored objects if shards are too large."""
        arrays = [self._store.array(self._group, name) for name in names]
        widths = [int(np.prod(a.shape[1:], dtype=int)) * a.dtype.itemsize for a in arrays]
        row = max(1, sum(widths))
        unit = self._store.job.plan.layouts[self._group].shard_items
        if unit * row > BLOCK_BYTES:
            unit = arrays[int(np.argmax(widths))].chunks[0]
        step = max(1, BLOCK_BYTES // (unit * row)) * unit
        starts = range(0, len(self._rows), step)
        # Rows that are not committed are not read.
        return [
            (a, min(a + step, len(self._rows))) for a in starts if self._rows[a : a + step].any()
        ]

    def _read_all(self, name: str) -> np.ndarray:
        try:
            return self._read_rows([name], 0, len(self._rows))[name]
        except KeyError:
            if name in self:
                raise
            raise KeyError(f"{name} is not among what `result` returns") from None

    def _read_rows(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        mask = self._rows[start:stop]
        read = rows_of(self._store, self._group, names, start, stop)
        return read if mask.all() else {name: values[mask] for name, values in read.items()}


def committed_rows(n: int, markers: Sequence[Marker]) -> np.ndarray:
    """Mark the rows of a group that have items in the shards of these markers: (n,) bool."""
    rows = np.zeros(n, bool)
    for marker in markers:
        rows[marker.shard.start : marker.shard.stop] = True
        rows[[*marker.unused]] = False
    return rows


def rows_with_results(n: int, markers: Sequence[Marker]) -> np.ndarray:
    """`committed_rows` without the items that failed with an error: their rows hold fill values."""
    rows = committed_rows(n, markers)
    rows[[row for marker in markers for row in marker.without]] = False
    return rows


class Columns(Lazy[Any]):
    """The ids, swept and searched columns of n items.

    A traced field that neither a sweep nor a search varies can be read too, from `params`, but is not listed among the names.
    """

    def __init__(self, listed: Mapping[str, object], params: Mapping[str, object], n: int) -> None:
        def read(name: str) -> Any:
            if name in listed or name not in params:
                return listed[name]
            return np.repeat(np.asarray(params[name])[None], n, axis=0)

        super().__init__(listed, read)


def column_arrays(store: Store, group: int) -> dict[str, str]:
    """Column of ids, of a swept or of a searched field -> the array that holds it.

    A searched field that is not swept has the value that the item ended with, such as Optuna's proposal.
    """
    swept = ["item", *names_of_columns(store, group)]
    stored = store.names(group)
    searched = {name: f"final_{name}" for name in store.job.spec.ranges}
    final_arrays = {name: array for name, array in searched.items() if array in stored}
    return {name: name for name in swept} | {
        k: v for k, v in final_arrays.items() if k not in swept
    }


def columns_of(store: Store, group: int, rows: np.ndarray) -> Columns:
    """The ids, swept and searched columns of selected rows. rows: (rows of the group,) bool."""
    arrays = column_arrays(store, group)
    read = GroupResults(store, group, rows, [*arrays.values()])
    listed = Lazy(arrays, lambda name: read[arrays[name]])
    return Columns(listed, attributes(store.results(group))["params"], int(rows.sum()))


def given_params(store: Store, group: int) -> Params:
    """The parameters that the items of a group share, with files as the job names them.

    Raises JobError if they are not valid, since the kernel has changed or another program wrote the store.
    """
    location = f"{store.address}: group {group}: params"
    return validated(store.kernel.Params, shared_fields(store, group), location)
