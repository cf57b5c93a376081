"""Tensors: the arrays of a file of weights, by name."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import ml_dtypes  # noqa: F401  NumPy then knows bfloat16 and floats of 8 bits, also where others read a file
import numpy as np

from ctd.containers import read_dataset
from ctd.late import PyTree

type Array = np.ndarray[Any, Any]
type Settings = Mapping[str, Any]
"""The settings of a layer of Keras, as its file has them."""

TRAINING = re.compile(
    r"step|(opt_state|(optimizer|lr_scheduler)(s|_states?|_state_dicts?)?)(\..*)?"
)
"""Names of the state of training in checkpoints, which is skipped. `step` is one number: a module may have that name."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of one file, their names joined by dots.

    >>> Tensors("net.pt", {"rnn.b": np.zeros(3), "head.w": np.zeros((2, 3))}).under(["rnn."]).names()
    'rnn.b (3,)'
    """

    source: str
    """The file's path, with which every error begins."""
    arrays: Mapping[str, Array]
    cell: str | None = None
    """The cell that the file says it holds."""
    layers: Sequence[Settings] = field(default=())
    """Keras: the settings of each recurrent and dense layer, with its `class_name`."""

    def under(self, prefixes: Sequence[str]) -> "Tensors":
        """Select the tensors whose names begin with one of some prefixes.

        Args:
            prefixes: beginnings of names.

        Returns:
            The tensors, with their full names.

        Raises:
            ValueError: a prefix fits no name.
        """
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in self.arrays):
                raise ValueError(
                    f"{self.source}: no tensor's name begins with {prefix!r}; it holds {self.names()}"
                )
        selected = {k: v for k, v in self.arrays.items() if k.startswith(tuple(prefixes))}
        return replace(self, arrays=selected)

    def need(self, names: Iterable[str]) -> None:
        """Check that there are tensors of all these names.

        Args:
            names: names of tensors.

        Raises:
            ValueError: some are missing; the text names them.
        """
        if missing := [name for name in names if name not in self.arrays]:
            raise ValueError(f"{self.source}: lacks {', '.join(missing)}; it holds {self.names()}")

    def names(self) -> str:
        """All names with their shapes, for errors."""
        return ", ".join(f"{name} {value.shape}" for name, value in self.arrays.items())


def datasets(
    source: str, file: h5py.File, aside: re.Pattern[str] | None = None
) -> dict[str, Array]:
    """Read the datasets of an HDF5 file in all groups, by their paths, but for those that `aside` finds."""
    arrays: dict[str, Array] = {}

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and not (aside and aside.search(name)):
            arrays[name] = read_dataset(source, file, name)

    file.visititems(visit)
    return arrays


def collect_tensors(
    source: str,
    tree: PyTree,
    cell: str | None = None,
    array_of: Callable[[Any], Array] = np.asarray,
) -> Tensors:
    """Collect the arrays of nested dicts and sequences; the state of training and values that are no arrays are left out.

    `params` at the top and `value` at the end of a path, which Flax adds, are dropped from names.
    array_of: gives the array of a value that has a shape and a dtype.
    Raises ValueError if there is no array, or if the tree is too large, as one that contains itself is.

    >>> collect_tensors("net.msgpack", {"params": {"cell": {"bias": np.zeros(3)}}, "step": np.zeros(())}).names()
    'cell.bias (3,)'
    """
    arrays: dict[str, Array] = {}
    for path, value in _leaves(source, tree):
        # linen keeps weights in the collection `params`; nnx keeps each array as the `value` of a variable.
        path = path[1:] if path[0] == "params" and len(path) > 1 else path
        path = path[:-1] if path[-1] == "value" and len(path) > 1 else path
        name = ".".join(path)
        if not TRAINING.fullmatch(name):
            arrays[name] = as_real(array_of(value))
    if not arrays:
        raise ValueError(f"{source}: holds no tensor")
    return Tensors(source, arrays, cell)


MOST_DEEP, MOST_VALUES = 100, 1_000_000
"""Largest tree: levels, values. A pickle may put a list into itself, so that a few bytes make an endless tree."""


def _leaves(source: str, tree: PyTree) -> Iterator[tuple[tuple[str, ...], Array]]:
    """Yield (path of names, value with a shape) for the whole tree, in its order."""
    waiting: list[tuple[tuple[str, ...], PyTree, int]] = [((), tree, 0)]
    n_values = 0
    while waiting:
        path, node, depth = waiting.pop()
        n_values += 1
        if n_values > MOST_VALUES or depth > MOST_DEEP:
            raise ValueError(
                f"{source}: contains itself, or more than ctd reads: {MOST_DEEP} levels, {MOST_VALUES:,} values"
            )
        if hasattr(node, "dtype") and hasattr(node, "shape"):
            yield path or ("it",), node
        elif isinstance(node, Mapping | list | tuple):
            entries = node.items() if isinstance(node, Mapping) else enumerate(node)
            below = [((*path, *_words(name)), child, depth + 1) for name, child in entries]
            # The last one is taken first: reversed, the tree is read in its own order.
            waiting.extend(reversed(below))


def _words(name: object) -> list[str]:
    """Split a name at its separators, those of other libraries (cell/kernel) too."""
    text = (
        name if isinstance(name, str) else f"{name!r:.40}" if isinstance(name, int | bytes) else "?"
    )
    return "".join(c if c.isprintable() else "?" for c in text).replace("/", ".").split(".")


def as_real(value: Array) -> Array:
    """The array with reals of at least 32 bits: NumPy cannot compute with bfloat16 and 8-bit floats."""
    if value.dtype.name.startswith(("bfloat", "float8", "float16")):
        return value.astype(np.float32)
    return value
