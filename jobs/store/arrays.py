"""Writing values as Zarr arrays: compression, fill values, and the units and flags that xarray reads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ctd.kernel import Kernel, Var
from jobs.late import zarr, zarr_codecs
from jobs.plan.packing import Part
from jobs.spec.description import Description
from jobs.spec.sweep import Lookup

DONE, FAILED, DROPPED = 1, 2, 3
"""The status of an item. 0 means not computed; DROPPED means that a search took the item out at a rung."""

STATUS = {0: "pending", DONE: "done", FAILED: "failed", DROPPED: "dropped"}

CF_WORD = re.compile(r"[\w.+@-]+", re.ASCII)
"""Characters that the CF conventions allow in one word of `flag_meanings`."""

CHUNK, AT_ONCE = 4 << 20, 2
"""Bytes of a table's chunk; chunks of a column written at a time, which bounds the memory."""


def attributes(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any]:
    """Return a group's or array's attributes as a dict."""
    return dict(node.attrs)


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    axes: Sequence[str],
    chunks: tuple[int, ...],
    attrs: Mapping[str, Any],
    shards: tuple[int, ...] | None = None,
    overwrite: bool = False,
) -> zarr.Array[Any]:
    """Create an empty array in `group` with its attributes; to add them later would write its metadata again.

    Its codecs are zstd over shuffled bytes, which docs/store-format.md measures, then a CRC-32C, by which a reader rejects a damaged
    object instead of returning wrong numbers.
    """
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=fill_value(name, dtype),
        compressors=(
            zarr_codecs.BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"),
            zarr_codecs.Crc32cCodec(),
        ),
        dimension_names=axes,
        attributes=dict(attrs),
        overwrite=overwrite,
        # An object full of fill values is written too: one that is missing is then a damage that `ctd check` sees.
        config={"write_empty_chunks": True},
    )


def describe(var: Var) -> dict[str, Any]:
    """Return the CF attributes `units` and `long_name` of a variable."""
    return {"units": var.units, "long_name": var.long_name}


def flags(kernel: Kernel | Description, name: str) -> dict[str, Any]:
    """Return the CF flag attributes of `status` or `outcome`; an empty dict for any other result."""
    if name == "status":
        codes = STATUS
    elif name == "outcome":
        codes = {k: outcome.name for k, outcome in enumerate(kernel.outcomes)}
    else:
        return {}
    return {"flag_values": list(codes), "flag_meanings": " ".join(codes.values())}


def fill_value(name: str, dtype: np.dtype[Any]) -> Any:
    """Return the fill value of a result: -1 for `outcome`, NaN for real or complex numbers, else 0."""
    if name == "outcome":
        return -1
    return np.nan if dtype.kind in "fc" else 0


def put_array(
    group: zarr.Group,
    name: str,
    values: np.ndarray | Lookup,
    var: Var,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Create the array `name` in `group`, replacing any array of that name, and write all of `values`.

    Text is stored as int32 codes, with the texts in the attribute `labels`. If each text is one word, CF flags name them too.

    more: attributes beside units and long name.
    """
    attrs = describe(var) | dict(more or {})
    if not isinstance(values, Lookup) or values.dtype.kind in "US":
        values = np.asarray(values[:] if isinstance(values, Lookup) else values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "US":
        # Zarr v3 has no stable string type yet.
        texts, codes = np.unique(values, return_inverse=True)
        values = codes.astype(np.int32).reshape(values.shape)
        attrs["flag_values"], attrs["labels"] = list(range(len(texts))), [str(t) for t in texts]
        if all(CF_WORD.fullmatch(str(t)) for t in texts):
            attrs["flag_meanings"] = " ".join(str(t) for t in texts)
    shape = values.shape
    # Whole rows, at least one however large it is, so that a row is read with one request.
    rows = max(1, CHUNK // max(1, math.prod(shape[1:]) * values.dtype.itemsize))
    chunks = tuple(max(1, k) for k in (min(rows, shape[0]), *shape[1:])) if shape else ()
    array = create_array(group, name, shape, values.dtype, var.axes, chunks, attrs, overwrite=True)
    # In steps, because `values` may be a `Lookup` that makes its rows on demand: ten million would fill the memory.
    step = AT_ONCE * rows
    for at in range(0, shape[0], step) if shape else ():
        array[at : at + step] = values[at : at + step]
    if isinstance(values, np.ndarray) and not shape:
        array[...] = values


def plain(value: object) -> Any:
    """Return a swept value in a form that JSON can hold."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value


class Lazy[T](Mapping[str, T]):
    """A mapping of these names to `read(name)`, called at each access. Other names reach `read` too, which may raise KeyError."""

    def __init__(self, names: Iterable[str], read: Callable[[str], T]) -> None:
        self._names, self._read = tuple(names), read

    def __getitem__(self, name: str) -> T:
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Rows(NDArrayOperatorsMixin):
    """Selected rows of an array in a store. `rows[3]`, `rows[:200]` and `rows[[1, 5]]` read only those; arithmetic reads all.

    >>> rows = Rows(zarr.array(np.arange(10) ** 2), np.array([2, 3, 4, 7]))
    >>> rows[:3], rows - 1
    (array([ 4,  9, 16]), array([ 3,  8, 15, 48]))
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
        first, *inner = key if isinstance(key, tuple) else (key,)
        rows = self._rows[first]
        if np.ndim(rows) == 0:
            return np.asarray(self._array[int(rows)])[tuple(inner)]
        return np.asarray(self._array.oindex[rows])[(slice(None), *inner)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # Reading always makes a new array.
        del copy
        return np.asarray(self[:], dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [value[:] if isinstance(value, Rows) else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **options)
