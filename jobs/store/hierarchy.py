"""Creating results/G in an empty store: the arrays that the shards will fill, and the sweep's columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from ctd.kernel import Kernel, Var
from jobs.plan.items import Group, Items
from jobs.plan.layout import GroupLayout, chunk_shape
from jobs.plan.packing import as_attribute, by_pack, place
from jobs.spec.job import JobSpec
from jobs.store.arrays import compressor, describe, fill_value, flags, plain, put_array


def create_group(
    root: zarr.Group,
    spec: JobSpec,
    kernel: Kernel,
    items: Items,
    group: Group,
    layout: GroupLayout,
    shapes: Mapping[str, Any],
    coords: Mapping[str, np.ndarray],
) -> None:
    """Create results/G with empty result arrays, and write its columns and coordinates.

    Args:
        shapes: result -> shape and dtype of one item.
        coords: axis -> coordinate values.
    """
    columns = [name for name in items.columns if name not in group.labels]
    packed = place(shapes)
    about = lambda name, var: describe(var) | flags(kernel, name) | _rounded(spec, name)
    entry = lambda name: {
        "axes": list(kernel.dims[name].axes),
        **about(name, kernel.dims[name]),
    }
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
    put_array(out, "item", group.items.astype(np.uint32), Var(("item",), "1", "item id"))
    for name in columns:
        values = items.values(name, group.items)
        axes = ("item", f"{name}_index")[: values.ndim]
        described = kernel.Params.model_fields.get(name)
        text = (described.description if described else None) or name
        put_array(out, name, values, Var(axes, "1", text))
    for axis, values in coords.items():
        put_array(out, axis, np.asarray(values), Var((axis,), "1", axis))
    specs = {n: (kernel.dims[n], shape) for n, shape in shapes.items() if n not in packed}
    for pack, names in by_pack(packed).items():
        like = np.empty(sum(packed[n].size for n in names), shapes[names[0]].dtype)
        specs[pack] = Var((f"{pack}.entry",), "1", "results side by side, see `packed`"), like
    about_status = Var((), "1", "0 not computed, 1 done, 2 failed, 3 dropped")
    specs["status"] = about_status, np.zeros((), np.int8)
    for name, (var, shape) in specs.items():
        # One object per shard. A large one has inner chunks, so that one item can be read alone.
        whole = (layout.shard_items, *(max(1, k) for k in shape.shape))
        chunk = chunk_shape(whole, shape.dtype.itemsize)
        array = out.create_array(
            name,
            shape=(len(group.items), *shape.shape),
            chunks=chunk,
            shards=None if chunk == whole else whole,
            dtype=shape.dtype,
            fill_value=fill_value(name, shape.dtype),
            compressors=compressor(),
            dimension_names=("item", *var.axes),
            config={"write_empty_chunks": True},
        )
        array.attrs.put(about(name, var))


def _rounded(spec: JobSpec, name: str) -> dict[str, int]:
    bits = spec.keep_bits.get(name)
    return {} if bits is None else {"keep_bits": bits}
