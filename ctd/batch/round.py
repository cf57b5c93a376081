"""Advance the items of a group for one round of a search.

    begin    each item goes on from the state of its first advance, or from a state that is given
    round    each makes `length` advances, or fewer if it finishes
    end      the states are host arrays, which another round, here or elsewhere, goes on from

A round may have more items than there are slots: they take turns, as many at a time as there are slots. As in a `Run`,
only the microbatch enters the arithmetic of an item, so its state after a round depends neither on the number of slots
nor on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctd.batch.program import Program, Slots, precision
from ctd.batch.run import Kept, Placed, Snapshot, from_host, to_host
from ctd.kernel import Params, Values
from ctd.late import PyTree, jax


class HostStates:
    """The states of n items while they are off the devices: host arrays, random keys as their words.

    like: the state of one item as shapes and dtypes.
    """

    def __init__(self, n: int, like: PyTree) -> None:
        self._n = n
        is_key = lambda leaf: jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        leaves, self._tree = jax.tree.flatten(like)
        # A stand-in of one key says which kind of key its words belong to.
        self._likes = [jax.random.key(0) if is_key(leaf) else leaf for leaf in leaves]
        self._leaves: list[np.ndarray] = []
        """(n, ...) each; empty until the first states come, which tell the shapes."""

    def keep(self, rows: np.ndarray, state: PyTree, places: np.ndarray) -> None:
        """Copy states from the devices: that at places[k] becomes the state of item rows[k]."""
        self.put(rows, [to_host(leaf)[places[: len(rows)]] for leaf in jax.tree.leaves(state)])

    def take(self, rows: np.ndarray) -> PyTree:
        """The states of the items `rows`, ready for the devices."""
        leaves = [
            from_host(leaf[rows], like)
            for leaf, like in zip(self._leaves, self._likes, strict=True)
        ]
        return jax.tree.unflatten(self._tree, leaves)

    def put(self, rows: np.ndarray, leaves: Sequence[np.ndarray]) -> None:
        """Give the items `rows` states, leaf by leaf, (len(rows), ...) each."""
        if not self._leaves:
            self._leaves = [np.zeros((self._n, *v.shape[1:]), v.dtype) for v in leaves]
        for leaf, value in zip(self._leaves, leaves, strict=True):
            leaf[rows] = value

    def leaves(self) -> list[np.ndarray]:
        """Copies of all states, leaf by leaf, (n, ...) each."""
        return [leaf.copy() for leaf in self._leaves]


class RoundRun(Placed):
    """The items `ids` of one group in one round.

    Args:
        program, shared, seed, ids, traced: as those of `ctd.batch.Run`.
        length: advances that each item makes, or fewer if it finishes.
        kept: the states from which items go on, as `states` returns them; the others start from their first state.

    done: (n,) bool, whether each item has finished. advances: (n,) int64, those that each has made in this round.
    """

    def __init__(
        self,
        program: Program,
        shared: PyTree,
        seed: int,
        ids: np.ndarray,
        traced: Values[Params],
        length: int,
        kept: Kept | None = None,
    ) -> None:
        super().__init__(program, shared, seed, ids, traced)
        self.done = np.zeros(self.n, bool)
        self.advances = np.zeros(self.n, np.int64)
        self._left = np.full(self.n, length, np.int64)
        self._states = HostStates(self.n, self._state)
        self._wave = np.zeros(0, int)
        """The items on the devices, in the order of their slots."""
        fresh = np.setdiff1d(np.arange(self.n), () if kept is None else kept.rows)
        for turn in turns(len(fresh), self.total):
            self._init(fresh[turn])
        if kept is not None:
            self._states.put(kept.rows, kept.leaves)
            self.done[kept.rows] = kept.done

    @property
    def finished(self) -> bool:
        """Whether all items have made their advances."""
        return not (self._ready.any() or len(self._wave))

    @property
    def n_finished(self) -> int:
        """The number of items that make no further advance in this round."""
        return int((self.done | (self._left <= 0)).sum())

    @property
    def results(self) -> dict[str, np.ndarray]:
        """The present results of all items: name -> (n, ...)."""
        return self.values(np.arange(self.n))

    def states(self) -> list[np.ndarray]:
        """Copies of the states of all items, leaf by leaf, (n, ...) each; call it once the round is over."""
        return self._states.leaves()

    def advance(self) -> None:
        """Advance every item on the devices once; if the devices are empty, load the next items first."""
        if not len(self._wave):
            ready = np.flatnonzero(self._ready)
            # Items that a checkpoint caught in the middle of the round come first.
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
        self.advances[wave] += ~self.done[wave]
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
        """(rows of `ids`, their results by name) of the items on the devices; no rows while they change."""
        if not len(self._wave):
            return self._wave, {}
        return self._wave, self._values_of(self._slots, len(self._wave), names)

    @property
    def _ready(self) -> np.ndarray:
        ready: np.ndarray = (self._left > 0) & ~self.done
        return ready

    # --- results -----------------------------------------------------------------------------

    def values(self, rows: np.ndarray, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The present results of the items `rows`, name -> (len(rows), ...). No names means all names."""
        names = tuple(names)
        shapes = {name: self._values[name] for name in names or self._values}
        found = {name: np.zeros((len(rows), *s.shape), s.dtype) for name, s in shapes.items()}
        for turn in turns(len(rows), self.total):
            for name, value in self._values_of(self._load(rows[turn]), len(turn), names).items():
                found[name][turn] = value
        return found

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
            state = self._blank() if blank else self._states.take(held)
            return self._put(Slots(self._ids[held], traced, state, done))  # type: ignore[arg-type]

    # --- checkpoints ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Copy the round to host arrays, from which `restore` goes on with the same bits."""
        if len(self._wave):
            self._states.keep(self._wave, self._slots.state, self._physical)
        arrays = {f"state.{k}": leaf for k, leaf in enumerate(self._states.leaves())}
        counts = {"done": self.done, "advances": self.advances, "left": self._left}
        return Snapshot(self.rounds, arrays | {name: v.copy() for name, v in counts.items()})

    def restore(self, saved: Snapshot) -> None:
        """Go on from `saved`, a snapshot of a round with the same items and microbatch."""
        self._states.put(np.arange(self.n), saved.states())
        take = lambda name: saved.arrays[name].copy()
        self.done, self.advances, self._left = take("done"), take("advances"), take("left")
        self._wave, self._slots = np.zeros(0, int), None
        self.rounds = saved.rounds


def turns(n: int, at_a_time: int) -> list[np.ndarray]:
    """Cut 0 ... n-1 into turns of at most `at_a_time`.

    >>> [turn.tolist() for turn in turns(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    return [np.arange(k, min(k + at_a_time, n)) for k in range(0, n, at_a_time)]
