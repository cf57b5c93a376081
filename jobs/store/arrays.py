"""How values become Zarr arrays: compression, fill values, units and flags that xarray reads."""

from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from ctd.kernel import Kernel, Var

DONE, FAILED, DROPPED = 1, 2, 3
"""The status of an item; 0 is one that nothing has been computed for, and one that a search took out at a
rung is dropped."""

STATUS = {DONE: "done", FAILED: "failed", DROPPED: "dropped"}


def attributes(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any]:
    """The attributes of a group or array."""
    return dict(node.attrs)


def compressor() -> Any:
    """zstd over shuffled bytes; docs/store-format.md has the measurements.
    The checksum lets every reader refuse a damaged object, in place of wrong numbers."""
    return BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()


def describe(var: Var) -> dict[str, Any]:
    """CF attributes of a variable."""
    return {"units": var.units, "long_name": var.long_name}


def flags(kernel: Kernel, name: str) -> dict[str, Any]:
    """CF flag attributes of the coded results `status` and `outcome`."""
    if name == "status":
        codes = {0: "pending", **STATUS}
    elif name == "outcome":
        codes = {k: outcome.name for k, outcome in enumerate(kernel.outcomes)}
    else:
        return {}
    return {"flag_values": list(codes), "flag_meanings": " ".join(codes.values())}


def fill_value(name: str, dtype: np.dtype[Any]) -> Any:
    if name == "outcome":
        return -1
    return np.nan if dtype.kind in "fc" else 0


def put_array(group: zarr.Group, name: str, values: np.ndarray, var: Var) -> None:
    """Write a whole array with its dimension names; text becomes codes with their meanings."""
    values = np.asarray(values)
    attrs: dict[str, Any] = describe(var)
    if values.dtype.kind in "US":
        # Zarr v3 has no settled string type: codes, and the texts in the attributes.
        texts, codes = np.unique(values, return_inverse=True)
        values = codes.astype(np.int32).reshape(values.shape)
        attrs["flag_values"], attrs["labels"] = list(range(len(texts))), [str(t) for t in texts]
    rows = max(1, (4 << 20) // max(1, values[:1].nbytes)) if values.ndim else 1
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=tuple(max(1, k) for k in (min(rows, values.shape[0]), *values.shape[1:]))
        if values.ndim
        else (),
        dtype=values.dtype,
        fill_value=fill_value(name, values.dtype),
        compressors=compressor(),
        dimension_names=var.axes,
        overwrite=True,
        config={"write_empty_chunks": True},
    )
    array[...] = values
    array.attrs.put(attrs)


def plain(value: Any) -> Any:
    """A swept value as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value
