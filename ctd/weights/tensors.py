"""What a file of weights holds: arrays by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ctd.cells import CELLS

type Array = np.ndarray[Any, Any]

TRAINING = ("opt_state", "optimizer", "lr_scheduler", "step")
"""Beginnings of names under which checkpoints keep what training needs beside the network."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of one file, their names joined by dots."""

    where: str
    """The file's path, with which every error begins."""
    arrays: Mapping[str, Array]
    cell: str | None = None
    """The cell that the file says it holds."""
    layers: Sequence[Mapping[str, Any]] = field(default=())
    """Keras: the settings of each recurrent and dense layer, with its `class_name`."""

    def under(self, prefixes: Sequence[str]) -> "Tensors":
        """Those whose names begin with one of the prefixes. Raises ValueError, naming a prefix that none has."""
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in self.arrays):
                raise ValueError(
                    f"{self.where}: no tensor's name begins with {prefix!r}; found {self.names()}"
                )
        kept = {k: v for k, v in self.arrays.items() if k.startswith(tuple(prefixes))}
        return replace(self, arrays=kept)

    def names(self) -> str:
        """All names with their shapes, for an error."""
        return ", ".join(f"{name} {value.shape}" for name, value in self.arrays.items())


def of_tree(where: str, tree: Any, cell: str | None = None) -> Tensors:
    """The arrays of nested dicts and sequences, without what training keeps; other values are left out.

    `params` at the top and `value` at the end of a path, which Flax writes, say nothing and are dropped.
    Raises ValueError where there is no array.
    """
    arrays: dict[str, Array] = {}
    for path, value in _leaves(tree, ()):
        path = path[1:] if path[0] == "params" and len(path) > 1 else path
        path = path[:-1] if path[-1] == "value" and len(path) > 1 else path
        if not path[0].startswith(TRAINING):
            arrays[".".join(path)] = value
    if not arrays:
        raise ValueError(f"{where}: holds no tensor")
    return Tensors(where, arrays, cell)


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Array]]:
    if isinstance(tree, Mapping):
        children = [(str(name), child) for name, child in tree.items()]
    elif isinstance(tree, list | tuple):
        children = [(str(k), child) for k, child in enumerate(tree)]
    else:
        if hasattr(tree, "dtype") and hasattr(tree, "shape"):
            yield path or ("it",), as_real(np.asarray(tree))
        return
    for name, child in children:
        # A name may hold the separators of other libraries: cell/kernel.
        yield from _leaves(child, (*path, *name.replace("/", ".").split(".")))


def as_real(value: Array) -> Array:
    """The array, its reals in at least 32 bits: NumPy has no arithmetic for bfloat16 and 8-bit floats."""
    if value.dtype.name.startswith(("bfloat", "float8")):
        return value.astype(np.float32)
    return value


def of_cell(names: Mapping[str, Any]) -> list[str]:
    """The cells of ctd whose weights have these names and blocks of gates; readout and h0 are left out."""
    own = set(names) - {"wO", "bO", "h0"}
    found = [cell for cell in CELLS.values() if own == set(cell.shapes(1, 1))]
    return [cell.name for cell in found if _gates_fit(cell.shapes(1, 1), names)]


def _gates_fit(one: Mapping[str, tuple[int, ...]], names: Mapping[str, Any]) -> bool:
    """Whether weight_hh has as many blocks as that of one unit; other names tell the cell by themselves."""
    shape = np.shape(names.get("weight_hh", ()))
    return len(shape) != 2 or "weight_hh" not in one or shape[0] == one["weight_hh"][0] * shape[1]
