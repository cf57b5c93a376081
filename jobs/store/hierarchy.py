"""Creating results/G in an empty store: the arrays that the shards will fill, and the sweep's columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctd.kernel import Coordinate, Kernel, Var
from jobs.late import zarr
from jobs.plan.items import Group, Items
from jobs.plan.layout import chunk_shape
from jobs.plan.packing import as_attribute, by_pack, place
from jobs.spec.job import JobSpec
from jobs.store.arrays import compressor, describe, fill_value, flags, plain, put_array
from jobs.store.manifest import Job

STATUS = Var((), "1", "0 not computed, 1 done, 2 failed, 3 dropped")


@dataclass(frozen=True)
class Outputs:
    """What the items of one group give."""

    shapes: Mapping[str, Any]
    """Result -> shape and dtype of one item."""
    coords: Mapping[str, Coordinate]
    """Axis -> its coordinate."""


def create_group(
    root: zarr.Group, job: Job, kernel: Kernel, items: Items, group: Group, outputs: Outputs
) -> None:
    """Create results/G with empty result arrays, and write its columns and coordinates."""
    spec, layout, shapes = job.spec, job.plan.layouts[group.number], outputs.shapes
    packed = place(shapes)
    about = lambda name, var: describe(var) | flags(kernel, name) | _rounded(spec, name)
    entry = lambda name: {
        "axes": list(kernel.dims[name].axes),
        **about(name, kernel.dims[name]),
    }
    columns = [name for name in items.columns if name not in group.labels]
    out = root.create_group(f"results/{group.number}")
    out.attrs.put(
        {
            "params": group.params.model_dump(mode="json"),
            "swept": {name: plain(value) for name, value in group.labels.items()},
            "layout": layout._asdict(),
            "results": sorted(shapes),
            "packed": as_attribute(packed, entry),
            # By CF convention: xarray turns these variables into coordinates.
            "coordinates": " ".join(columns),
        }
    )
    _put_columns(out, kernel, items, group, columns)
    for axis, one in outputs.coords.items():
        put_array(out, axis, one.values, Var((axis,), one.units, one.long_name))
    arrays = {n: (kernel.dims[n], shape) for n, shape in shapes.items() if n not in packed}
    for pack, names in by_pack(packed).items():
        like = np.empty(sum(packed[n].size for n in names), shapes[names[0]].dtype)
        arrays[pack] = Var((f"{pack}.entry",), "1", "results side by side, see `packed`"), like
    arrays["status"] = STATUS, np.zeros((), np.int8)
    for name, (var, one) in arrays.items():
        array = _create_results(out, name, var, one, (len(group.items), layout.shard_items))
        array.attrs.put(about(name, var))


def _put_columns(
    out: zarr.Group, kernel: Kernel, items: Items, group: Group, columns: list[str]
) -> None:
    """Write the ids of the group's items and the sweep's columns."""
    put_array(out, "item", group.items, Var(("item",), "1", "item id"))
    for name in columns:
        values = items.lookup(name, group.items)
        axes = ("item", f"{name}_index")[: len(values.shape)]
        described = kernel.Params.model_fields.get(name)
        text = (described.description if described else None) or name
        put_array(out, name, values, Var(axes, "1", text))


def _create_results(
    out: zarr.Group, name: str, var: Var, one: Any, rows: tuple[int, int]
) -> zarr.Array[Any]:
    """Create an empty array for a result, one object per shard.

    one: shape and dtype of one item. rows: of the group, and of a shard.
    """
    n_items, shard_items = rows
    # A large object has inner chunks, so that one item can be read alone.
    whole = (shard_items, *(max(1, k) for k in one.shape))
    chunk = chunk_shape(whole, one.dtype.itemsize)
    return out.create_array(
        name,
        shape=(n_items, *one.shape),
        chunks=chunk,
        shards=None if chunk == whole else whole,
        dtype=one.dtype,
        fill_value=fill_value(name, one.dtype),
        compressors=compressor(),
        dimension_names=("item", *var.axes),
        config={"write_empty_chunks": True},
    )


def _rounded(spec: JobSpec, name: str) -> dict[str, int]:
    bits = spec.keep_bits.get(name)
    return {} if bits is None else {"keep_bits": bits}
