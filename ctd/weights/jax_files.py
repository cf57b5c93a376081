"""Read the files of JAX's libraries: Flax's msgpack, Orbax's folders, Equinox's leaves."""

from __future__ import annotations

import io
from pathlib import Path

import msgpack
import numpy as np

from ctd.containers import explained, read_array
from ctd.late import jax
from ctd.weights.tensors import Array, Tensors, as_real, collect_tensors

ARRAY, SCALAR = 1, 3
"""Flax's codes of msgpack's extension types. Source: flax/serialization.py."""


def read_msgpack(path: Path) -> Tensors:
    """Read a file of `flax.serialization.to_bytes(params)`. Raises ValueError, naming the file."""
    with explained(path, "a file of flax.serialization.to_bytes"):
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_unpack, strict_map_key=False)
    return collect_tensors(str(path), tree)


def _unpack(code: int, data: bytes) -> Array | None:
    if code not in (ARRAY, SCALAR):
        return None
    # Flax packs (shape, name of the dtype, bytes in C order) once more; with raw, the name comes as bytes.
    shape, dtype, numbers = msgpack.unpackb(data, raw=True)
    return np.frombuffer(numbers, np.dtype(dtype.decode())).reshape(shape)


def read_orbax(path: Path) -> Tensors:
    """Read the tree of an Orbax checkpoint, with Orbax itself. Raises ValueError, naming the folder."""
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise ValueError(
            f"{path}: reading Orbax's folders needs orbax-checkpoint, which is not installed; install it beside "
            "ctd, or write flax.serialization.to_bytes(params) to a .msgpack file"
        ) from None
    folder = next((path / name for name in ("default", "params") if (path / name).is_dir()), path)
    try:
        with ocp.PyTreeCheckpointer() as reader:
            saved = reader.metadata(folder.absolute()).item_metadata.tree
            # As jax.Arrays, they would go to the devices that the checkpoint was written on, which this machine may lack.
            as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
            arguments = jax.tree.map(lambda _: as_numpy, saved)
            tree = reader.restore(folder.absolute(), restore_args=arguments)
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: Orbax cannot read this folder: {text}") from None
    return collect_tensors(str(path), tree)


# --- Equinox --------------------------------------------------------------------------------------

NEEDED = (
    "Equinox writes leaves without names, so that the model must be one eqx.nn.GRUCell or LSTMCell, with at most one "
    "eqx.nn.Linear before or after it; or write names, with safetensors.numpy.save_file"
)


def read_equinox(path: Path) -> Tensors:
    """Read a file of `eqx.tree_serialise_leaves`, with or without a line of settings first; shapes tell the names.

    A cell is weight_ih (g n, n_in), weight_hh (g n, n) with g = 3 or 4, bias (g n,) and, for a GRU,
    bias_n (n,), one after the other, without the biases if it has none; a linear layer is weight (n_out, n)
    and bias (n_out,). Raises ValueError, naming the file, if there is not exactly one cell.
    """
    leaves = _leaves(path)
    # Two neighbouring matrices with equal rows, 3 n or 4 n of them, are a cell's; a linear layer has no such pair.
    starts = [k for k in range(len(leaves) - 1) if _is_cell(leaves[k], leaves[k + 1])]
    if len(starts) != 1:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(f"{path}: {len(starts)} cells found among the leaves {shapes}. {NEEDED}")
    (k,) = starts
    rows, n = leaves[k + 1].shape
    names = ["cell.weight_ih", "cell.weight_hh"]
    shapes_of_biases = [(rows,), (n,)] if rows == 3 * n else [(rows,)]
    if [leaf.shape for leaf in leaves[k + 2 : k + 2 + len(shapes_of_biases)]] == shapes_of_biases:
        names += ["cell.bias", "cell.bias_n"][: len(shapes_of_biases)]
    arrays = dict(zip(names, leaves[k:], strict=False))
    others = {i: leaf for i, leaf in enumerate(leaves) if not k <= i < k + len(names)}
    return collect_tensors(str(path), arrays | _name_others(others, n))


def _leaves(path: Path) -> list[Array]:
    data = path.read_bytes()
    # Equinox's guide to serialisation writes the model's settings first, as one line of JSON.
    if data[:1] == b"{":
        data = data[data.find(b"\n") + 1 :]
    file = io.BytesIO(data)
    leaves: list[Array] = []
    while (at := file.tell()) < len(data):
        error_prefix = (
            f"{path}: not a file of eqx.tree_serialise_leaves, or a damaged one: leaf {len(leaves)}"
        )
        # Each leaf is a .npy file of its own, one after the other, without names.
        leaves.append(as_real(read_array(error_prefix, file, len(data) - at)))
    return leaves


def _is_cell(first: Array, second: Array) -> bool:
    if first.ndim != 2 or second.ndim != 2 or first.shape[0] != second.shape[0]:
        return False
    return second.shape[0] in (3 * second.shape[1], 4 * second.shape[1])


def _name_others(leaves: dict[int, Array], n: int) -> dict[str, Array]:
    """Name the leaves beside the cell: a linear layer of n units if there is one, others by their place."""
    linear = [i for i, leaf in leaves.items() if leaf.ndim == 2 and leaf.shape[1] == n]
    names: dict[int, str] = {}
    if len(linear) == 1:
        (i,) = linear
        names[i] = "linear.weight"
        if i + 1 in leaves and leaves[i + 1].shape == leaves[i].shape[:1]:
            names[i + 1] = "linear.bias"
    return {names.get(i, f"leaf_{i}"): leaf for i, leaf in leaves.items()}
