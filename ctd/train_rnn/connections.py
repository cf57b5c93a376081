"""The connections between units and their signs, neither of which training changes.

With Dale's law the first units of an area are excitatory.
A unit's sign is that of its column in wR, its outgoing weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd.cells import get_cell
from ctd.data import read_hdf5
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, jax, jnp, on_host
from ctd.train_rnn.checks import area_of
from ctd.train_rnn.params import Network

MASK = 101
"""Folded into the key of an item's weights. Small numbers would collide with the keys that `split` makes of it."""


class Connections(NamedTuple):
    """The masks of weights, and the signs of units."""

    masks: Mapping[str, Bool[Array, "row column"]]
    """Weight -> its mask, False where it stays 0; weights without a mask are free."""
    signs: Float[Array, "n"] | None
    """+1 for excitatory, -1 for inhibitory units; None without Dale's law."""


def connections(
    static: View[Network], file_masks: Mapping[str, Array], traced: Values[Network], key: Array
) -> Connections:
    """The connections of one network. file_masks: those of `read_masks`; key: of the network's weights."""
    masks = dict(file_masks)
    # Each item draws its own mask, so that replicates differ in their connections too.
    if static.mask == "random":
        area = area_of(static.n, static.areas)
        within = jnp.asarray(area[:, None] == area[None, :])
        p = jnp.where(within, traced.density, traced.density_between)
        uniforms = jax.random.uniform(jax.random.fold_in(key, MASK), p.shape, p.dtype)
        masks["wR"] = uniforms < p
    # The diagonal may be left out with any mask, or without one.
    if not static.self_connections:
        others = ~np.eye(static.n, dtype=bool)
        masks["wR"] = masks["wR"] & others if "wR" in masks else jnp.asarray(others)
    return Connections(masks, _signs(static, traced) if static.dale else None)


def _signs(static: View[Network], traced: Values[Network]) -> Array:
    area = area_of(static.n, static.areas)
    # Areas are sorted: this is the first unit of each unit's area.
    first = np.searchsorted(area, area)
    size = np.bincount(area)[area]
    # The share is traced, so that items of one program may differ in it; the counts are then arrays too.
    bound = jnp.round(traced.excitatory * size)
    return jnp.where(np.arange(static.n) - first < bound, 1, -1).astype(traced.excitatory.dtype)


def read_masks(inputs: View[Network], n_in: int, n_out: int) -> dict[str, Array]:
    """Read the masks of the HDF5 file `mask_file`: weight -> bool of its shape, from 1 (a connection) and 0.

    Raises ValueError, naming file and dataset, if a dataset is no matrix of the cell, has another shape or other values
    than 0 and 1, or leaves no connection.
    """
    if inputs.mask != "file":
        return {}
    path = inputs.mask_file
    assert path is not None, "mask: file has a mask_file"
    shapes = get_cell(inputs.cell).shapes(inputs.n, n_in)
    # A readout of fixed ones has no weights to mask.
    if inputs.readout != "identity":
        shapes |= {"wO": (n_out, inputs.n)}
    shapes = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    masks: dict[str, Array] = {}
    for name, values in read_hdf5(path).items():
        if fault := _fault(inputs, shapes, name, values):
            raise ValueError(f"mask_file: {path}: {name} {fault}")
        masks[name] = on_host(values.astype(bool))
    return masks


def _fault(
    inputs: View[Network], shapes: Mapping[str, tuple[int, ...]], name: str, values: np.ndarray
) -> str:
    """The fault of a mask, for an error; "" if it has none. shapes: those of the weights."""
    if name not in shapes:
        return f"is no matrix of cell {inputs.cell}; its matrices are {', '.join(shapes)}"
    if values.shape != shapes[name]:
        return f"has the shape {values.shape}, expected {shapes[name]}, that of the weights"
    if not np.isin(values, (0, 1)).all():
        return "has other values than 0 and 1; give 1 for a connection, 0 for none"
    without_diagonal = name == "wR" and not inputs.self_connections
    usable = values * (1 - np.eye(inputs.n)) if without_diagonal else values
    return "" if usable.any() else "leaves no connection; give 1 for a connection"
