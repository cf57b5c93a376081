"""Which units connect, and with which sign: what training never changes.

Areas are runs of neighbouring units, n / areas each. With Dale's law the first units of an area are excitatory.
A unit's sign is that of its column in wR, its outgoing weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ctd.cells import get_cell
from ctd.data import read_hdf5
from ctd.late import jax, jnp

MASK = 101
"""Folded into the key of an item's weights; `split` of the same key gives what small numbers would."""


class Connections(NamedTuple):
    """Where weights may be, and their signs."""

    masks: Mapping[str, Any]
    """Weight -> bool of its shape; weights without a mask are free."""
    signs: Any
    """(n,) +1 for excitatory, -1 for inhibitory units; None without Dale's law."""


def connections(static: Any, given: Mapping[str, Any], traced: Any, key: jax.Array) -> Connections:
    """Those of one network. given: `read_masks`; key: of its weights."""
    masks = dict(given)
    if static.mask == "random":
        area = area_of(static.n, static.areas)
        within = jnp.asarray(area[:, None] == area[None, :])
        p = jnp.where(within, traced.density, traced.density_between)
        drawn = jax.random.uniform(jax.random.fold_in(key, MASK), p.shape, p.dtype)
        masks["wR"] = drawn < p
    if not static.self_connections:
        others = ~np.eye(static.n, dtype=bool)
        masks["wR"] = masks["wR"] & others if "wR" in masks else jnp.asarray(others)
    return Connections(masks, _signs(static, traced) if static.dale else None)


def area_of(n: int, areas: int) -> np.ndarray:
    """(n,) the area of each unit."""
    return np.arange(n) * areas // n


def _signs(static: Any, traced: Any) -> jax.Array:
    area = area_of(static.n, static.areas)
    first = np.searchsorted(area, area)
    size = np.bincount(area)[area]
    bound = jnp.round(traced.excitatory * size)
    return jnp.where(np.arange(static.n) - first < bound, 1, -1).astype(traced.excitatory.dtype)


def excitatory_counts(n: int, areas: int, excitatory: float) -> tuple[np.ndarray, np.ndarray]:
    """((areas,) excitatory units, (areas,) all units) of each area."""
    size = np.bincount(area_of(n, areas))
    return np.round(np.float32(excitatory) * size.astype(np.float32)).astype(int), size


def read_masks(inputs: Any, n_in: int, n_out: int) -> dict[str, np.ndarray]:
    """Weight -> bool of its shape, of the HDF5 file `mask_file`: 0 no connection, 1 a connection.

    Raises ValueError, naming file and dataset, where a dataset is no weight of the cell, has another shape or other
    values, or leaves nothing.
    """
    if inputs.mask != "file":
        return {}
    where = inputs.mask_file
    shapes = get_cell(inputs.cell).shapes(inputs.n, n_in)
    if inputs.readout != "identity":
        shapes |= {"wO": (n_out, inputs.n)}
    shapes = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    masks: dict[str, np.ndarray] = {}
    for name, values in read_hdf5(where).items():
        if name not in shapes:
            raise ValueError(
                f"mask_file: {where}: {name} is no matrix of cell {inputs.cell}; masks are for {', '.join(shapes)}"
            )
        if values.shape != shapes[name]:
            raise ValueError(
                f"mask_file: {where}: {name} has the shape {values.shape}, the network's is {shapes[name]}"
            )
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"mask_file: {where}: {name} has other values than 0 and 1")
        masks[name] = values.astype(bool)
        left = masks[name]
        if name == "wR" and not inputs.self_connections:
            left = left & ~np.eye(inputs.n, dtype=bool)
        if not left.any():
            raise ValueError(
                f"mask_file: {where}: {name} leaves no connection; 1 stands for a connection"
            )
    return masks
