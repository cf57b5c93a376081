"""The states of a group's items while they are off the devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctd.batch.run import from_host, to_host
from ctd.late import jax


class HostStates:
    """The state of each of n items, as host arrays; random keys are held as their data.

    like: the state of one item as shapes and dtypes.
    """

    def __init__(self, n: int, like: Any) -> None:
        self._n = n
        is_key = lambda leaf: jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        leaves, self._tree = jax.tree.flatten(like)
        self._likes = [jax.random.key(0) if is_key(leaf) else leaf for leaf in leaves]
        self._leaves: list[np.ndarray] = []
        """(n, ...) each; empty until the first states are kept."""

    def keep(self, rows: np.ndarray, state: Any, places: np.ndarray) -> None:
        """Copy to the items `rows` the states that lie on the devices, one after another, at the first of `places`."""
        values = [to_host(leaf)[places[: len(rows)]] for leaf in jax.tree.leaves(state)]
        if not self._leaves:
            self._leaves = [np.zeros((self._n, *v.shape[1:]), v.dtype) for v in values]
        for leaf, value in zip(self._leaves, values, strict=True):
            leaf[rows] = value

    def take(self, rows: np.ndarray) -> Any:
        """Return the states of the items `rows`, to be put onto the devices."""
        leaves = [
            from_host(leaf[rows], like)
            for leaf, like in zip(self._leaves, self._likes, strict=True)
        ]
        return jax.tree.unflatten(self._tree, leaves)

    def copy(self, parents: np.ndarray) -> None:
        """Give item r the state of item parents[r]."""
        self._leaves = [leaf[parents] for leaf in self._leaves]

    def put(self, row: int, leaves: Sequence[np.ndarray]) -> None:
        """Give item `row` a state that comes as leaves, in the order of `arrays`."""
        for leaf, value in zip(self._leaves, leaves, strict=True):
            leaf[row] = value

    def arrays(self) -> dict[str, np.ndarray]:
        """Return copies of the leaves under the names that checkpoints give them."""
        return {f"state.{k}": leaf.copy() for k, leaf in enumerate(self._leaves)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what `arrays` returned, here or elsewhere."""
        self._leaves = [arrays[f"state.{k}"].copy() for k in range(len(self._leaves))]
