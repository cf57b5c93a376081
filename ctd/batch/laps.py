"""Advance the items of a group in laps; between two laps a search compares, drops or exchanges them.

    lap      `begin(rows, length)`: these items make `length` advances each, or fewer if they finish
    between  every item's state is a host array: `values` reads results, `copy` moves states

A lap may have more items than there are slots: they take turns, as many at a time as there are slots. As in a `Run`,
only the microbatch enters the arithmetic of an item, so its state after a lap depends neither on the number of slots
nor on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctd.batch.program import Program, Slots, precision
from ctd.batch.run import Placed, Snapshot, from_host, to_host
from ctd.late import jax

TO_THE_END = 2**62
"""The length of a lap that ends when all of its items have finished."""


class HostStates:
    """The states of n items while they are off the devices: host arrays, random keys as their words.

    like: the state of one item as shapes and dtypes.
    """

    def __init__(self, n: int, like: Any) -> None:
        self._n = n
        is_key = lambda leaf: jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        leaves, self._tree = jax.tree.flatten(like)
        # A stand-in of one key says which kind of key its words belong to.
        self._likes = [jax.random.key(0) if is_key(leaf) else leaf for leaf in leaves]
        self._leaves: list[np.ndarray] = []
        """(n, ...) each; empty until `keep` is first called."""

    def keep(self, rows: np.ndarray, state: Any, places: np.ndarray) -> None:
        """Copy states from the devices: that at places[k] becomes the state of item rows[k]."""
        values = [to_host(leaf)[places[: len(rows)]] for leaf in jax.tree.leaves(state)]
        # Shapes are known from the first states that come; before that no memory is taken.
        if not self._leaves:
            self._leaves = [np.zeros((self._n, *v.shape[1:]), v.dtype) for v in values]
        for leaf, value in zip(self._leaves, values, strict=True):
            leaf[rows] = value

    def take(self, rows: np.ndarray) -> Any:
        """The states of the items `rows`, ready for the devices."""
        leaves = [
            from_host(leaf[rows], like)
            for leaf, like in zip(self._leaves, self._likes, strict=True)
        ]
        return jax.tree.unflatten(self._tree, leaves)

    def copy(self, parents: np.ndarray) -> None:
        """Give item r the state of item parents[r]."""
        # Indexing copies, so a parent may be overwritten by another parent's state.
        self._leaves = [leaf[parents] for leaf in self._leaves]

    def put(self, row: int, leaves: Sequence[np.ndarray]) -> None:
        """Give item `row` a state, as leaves in the order of `arrays`."""
        for leaf, value in zip(self._leaves, leaves, strict=True):
            leaf[row] = value

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the leaves, by the names that checkpoints give them."""
        return {f"state.{k}": leaf.copy() for k, leaf in enumerate(self._leaves)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take the states that `arrays` returned, in this process or another."""
        self._leaves = [arrays[f"state.{k}"].copy() for k in range(len(self._leaves))]


class Laps(Placed):
    """The items `ids` of one group, advanced lap by lap. The arguments are those of `ctd.batch.Run`.

    done: (n,) bool, whether each item has finished. ages: (n,) int64, the number of advances that each has made.
    """

    def __init__(
        self, program: Program, shared: Any, seed: int, ids: np.ndarray, traced: Any
    ) -> None:
        super().__init__(program, shared, seed, ids, traced)
        self.done = np.zeros(self.n, bool)
        self.ages = np.zeros(self.n, np.int64)
        self._left = np.zeros(self.n, np.int64)
        self._states = HostStates(self.n, self._state)
        self._wave = np.zeros(0, int)
        """The items on the devices, in the order of their slots."""
        # All items get their first states now, so that a search can compare them before the first lap.
        for rows in turns(self.n, self.total):
            self._init(rows)

    def begin(self, rows: np.ndarray, length: int) -> None:
        """Start a lap: each item in `rows` makes `length` advances, or fewer if it finishes."""
        self._left[:] = 0
        self._left[rows] = length

    @property
    def over(self) -> bool:
        """Whether all items of the lap have made their advances."""
        return not (self._ready.any() or len(self._wave))

    def advance(self) -> None:
        """Advance every item on the devices once; if the devices are empty, load the next items first."""
        if not len(self._wave):
            ready = np.flatnonzero(self._ready)
            # Items that a checkpoint caught in the middle of their lap come first.
            first = ready[np.argsort(self._left[ready], kind="stable")][: self.total]
            self._wave, self._slots = first, self._load(first)
        wave = self._wave
        with precision(self.program.static):
            self._slots = self.program.step(
                self._shared,
                self._root,
                self._bounds(0, len(wave)),
                self._no_one,
                None,
                self._slots,
            )
        self.rounds += 1
        self._left[wave] -= 1
        # Before `done` is read anew: an item that finishes in this advance made it.
        self.ages[wave] += ~self.done[wave]
        self.done[wave] = np.asarray(self._slots.done)[self._physical[: len(wave)]]
        self._lay_down_if_due()

    def _lay_down_if_due(self) -> None:
        """Copy all items off the devices once one has made its advances, or enough have finished."""
        done, left = self.done[self._wave], self._left[self._wave]
        # As in Run.advance: copying costs more than carrying a few finished items along.
        enough = max(self.layout.microbatch, len(done) // 8)
        if done.all() or done.sum() >= enough or (left == 0).any():
            self._states.keep(self._wave, self._slots.state, self._physical)
            self._wave, self._slots = np.zeros(0, int), None

    def peek(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(rows of `ids`, their results by name) of the items on the devices; no rows between two laps."""
        if not len(self._wave):
            return self._wave, {}
        return self._wave, self._values_of(self._slots, len(self._wave), names)

    @property
    def _ready(self) -> np.ndarray:
        ready: np.ndarray = (self._left > 0) & ~self.done
        return ready

    # --- between laps -----------------------------------------------------------------------------

    def values(self, rows: np.ndarray, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The present results of the items `rows`, name -> (len(rows), ...). No names means all names."""
        names = tuple(names)
        shapes = {name: self._values[name] for name in names or self._values}
        found = {name: np.zeros((len(rows), *s.shape), s.dtype) for name, s in shapes.items()}
        for turn in turns(len(rows), self.total):
            for name, value in self._values_of(self._load(rows[turn]), len(turn), names).items():
                found[name][turn] = value
        return found

    def copy(self, parents: np.ndarray) -> None:
        """Let item r go on from the state of item parents[r], with its own key and traced values."""
        self._states.copy(parents)
        self.done = self.done[parents]

    def put(self, row: int, leaves: Sequence[np.ndarray]) -> None:
        """Let item `row` go on from a state of another worker, given as leaves in the order of `Snapshot`."""
        self._states.put(row, leaves)
        self.done[row] = False

    def set_traced(self, name: str, values: np.ndarray) -> None:
        """Give a traced field new values (n, ...), one for each item."""
        dtype = getattr(self._traced, name).dtype
        self._traced = self._traced._replace(**{name: values.astype(dtype)})

    # --- devices ----------------------------------------------------------------------------------

    def _init(self, rows: np.ndarray) -> None:
        """Compute the first states of the items `rows`."""
        places = self._physical[: len(rows)]
        # Empty slots are computed too, but keep their blank states.
        fresh = np.zeros(self.total, bool)
        fresh[places] = True
        with precision(self.program.static):
            slots = self._load(rows, blank=True)
            slots = self.program.init(
                self._shared, self._root, self._bounds(0, len(rows)), self._put(fresh), None, slots
            )
        self.done[rows] = np.asarray(slots.done)[places]
        self._states.keep(rows, slots.state, places)

    def _load(self, rows: np.ndarray, blank: bool = False) -> Slots:
        """Load the items `rows` onto the devices, with their states or, if `blank`, with zeros."""
        held = self._held(rows)
        # Empty slots count as done, so that they cost nothing where items run one by one.
        done = np.ones(self.total, bool)
        done[self._physical[: len(rows)]] = self.done[rows]
        with precision(self.program.static):
            traced = jax.tree.map(lambda leaf: leaf[held], self._traced)
            state = None if blank else self._states.take(held)
            slots = self._put(Slots(self._ids[held], traced, state, done))  # type: ignore[arg-type]
            return slots._replace(state=jax.tree.map(self._blank, self._state)) if blank else slots

    # --- checkpoints ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Copy the laps to host arrays, from which `restore` goes on with the same bits."""
        if len(self._wave):
            self._states.keep(self._wave, self._slots.state, self._physical)
        # Traced values are saved, too: a search has changed them since the plan.
        arrays = self._states.arrays()
        arrays |= {f"traced.{name}": v.copy() for name, v in self._traced._asdict().items()}
        arrays |= {"done": self.done.copy(), "ages": self.ages.copy(), "left": self._left.copy()}
        return Snapshot(self.rounds, arrays)

    def restore(self, saved: Snapshot) -> None:
        """Go on from `saved`, a snapshot of laps over the same items with the same layout."""
        take = lambda name: saved.arrays[name].copy()
        self._states.restore(saved.arrays)
        self._traced = type(self._traced)(*(take(f"traced.{k}") for k in self._traced._fields))
        self.done, self.ages, self._left = take("done"), take("ages"), take("left")
        self._wave, self._slots = np.zeros(0, int), None
        self.rounds = saved.rounds


def turns(n: int, at_a_time: int) -> list[np.ndarray]:
    """Cut 0 ... n-1 into turns of at most `at_a_time`.

    >>> [turn.tolist() for turn in turns(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    return [np.arange(k, min(k + at_a_time, n)) for k in range(0, n, at_a_time)]
