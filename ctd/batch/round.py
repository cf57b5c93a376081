"""Advance the items of a group for one round of a search.

    begin    each item goes on from a saved state, or starts from its first one
    round    each makes `length` advances, or fewer if it finishes
    end      the states are host arrays, from which another round goes on, here or elsewhere

As in a `Run`, only the microbatch enters the arithmetic of an item, so that its state after a round depends neither on the
number of slots nor on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctd.batch.program import Program, Slots, precision
from ctd.batch.run import Snapshot
from ctd.batch.slots import NO_STATES, AnyRun, SavedStates, to_host
from ctd.kernel import Params, Values
from ctd.late import PyTree, jax


class RoundRun(AnyRun):
    """The items `ids` of one group in one round.

    Args:
        program, shared, seed, ids, traced: as those of `ctd.batch.Run`.
        length: advances that each item makes, or fewer if it finishes.
        saved_states: the states from which items go on, as `states` returns them; the others start from their first state.

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
        saved_states: SavedStates | None = None,
    ) -> None:
        super().__init__(program, shared, seed, ids, traced)
        saved_states = saved_states or NO_STATES
        self.done, self.advances = np.zeros(self.n, bool), np.zeros(self.n, np.int64)
        self.done[saved_states.rows] = saved_states.done
        self._length, self._saved_rows = length, saved_states.rows
        self._leaves: list[np.ndarray] = []
        """The states of items that are in no slot, leaf by leaf, (n, ...) each; empty until the first items leave: their leaves give the shapes."""
        self._begin(saved_states)
        while length == 0 and self._live:  # items that start have a first state all the same
            self._harvest(self._rows >= 0)

    def _begin(self, saved_states: SavedStates) -> None:
        """Fill the slots: with items that go on, those that are furthest first, then with those that start."""
        self._keep(saved_states.rows, saved_states.leaves)
        going = saved_states.rows[~self._over[saved_states.rows]]
        going = going[np.argsort(-self.advances[going], kind="stable")]
        leaves = [leaf[going] for leaf in self._leaves]
        fresh = np.setdiff1d(np.arange(self.n), saved_states.rows)
        self._start(fresh, SavedStates(going, leaves, np.zeros(len(going), bool)))

    @property
    def _over(self) -> np.ndarray:
        """(n,) whether an item makes no further advance in this round."""
        over: np.ndarray = self.done | (self.advances >= self._length)
        return over

    @property
    def n_finished(self) -> int:
        """The number of items that make no further advance in this round."""
        return int(self._over.sum())

    def advance(self) -> None:
        """Advance every item in a slot once; those that have made their advances leave."""
        live_rows = self._rows[: self._live]
        # An item may have finished with its first state.
        before = self._done()[: len(live_rows)]
        self.step()
        self.advances[live_rows] += ~before
        self.done[live_rows] = self._done()[: len(live_rows)]
        over = np.zeros(self.total, bool)
        over[: len(live_rows)] = self._over[live_rows]
        self._harvest(over, at_once=bool((self.advances[live_rows] >= self._length).any()))

    def _collect(self, rows: np.ndarray) -> None:
        """Copy the states of items, which lie in the first slots."""
        places = self._physical[: len(rows)]
        self._keep(rows, [to_host(leaf)[places] for leaf in jax.tree.leaves(self._slots.state)])
        self.done[rows] = np.asarray(self._slots.done)[places]

    def _keep(self, rows: np.ndarray, leaves: Sequence[np.ndarray]) -> None:
        """Keep the states of items on the host, leaf by leaf, (len(rows), ...) each."""
        if not self._leaves:
            self._leaves = [np.zeros((self.n, *v.shape[1:]), v.dtype) for v in leaves]
        for leaf, value in zip(self._leaves, leaves, strict=bool(len(rows))):
            leaf[rows] = value

    def states(self) -> list[np.ndarray]:
        """Copies of the states of all items, leaf by leaf, (n, ...) each; call it once the round is over."""
        return [leaf.copy() for leaf in self._leaves]

    # --- results ----------------------------------------------------------------------------------

    @property
    def results(self) -> dict[str, np.ndarray]:
        """The present results of all items: name -> (n, ...)."""
        return self.values(np.arange(self.n))

    def values(self, rows: np.ndarray, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The present results of items that are in no slot, name -> (len(rows), ...). No names means all names."""
        names = tuple(names)
        shapes = {name: self._values[name] for name in names or self._values}
        results = {name: np.zeros((len(rows), *s.shape), s.dtype) for name, s in shapes.items()}
        for start in range(0, len(rows), self.total):
            turn = slice(start, start + self.total)
            for name, value in self._values_of(
                self._load(rows[turn]), len(rows[turn]), names
            ).items():
                results[name][turn] = value
        return results

    def _load(self, rows: np.ndarray) -> Slots:
        """Slots with items and their states."""
        item_rows = self._item_rows(rows)
        # Empty slots count as done, so that they cost nothing where items run one by one.
        done = np.ones(self.total, bool)
        done[self._physical[: len(rows)]] = self.done[rows]
        with precision(self.program.static):
            state = self._state_of([leaf[item_rows] for leaf in self._leaves])
            traced = jax.tree.map(lambda leaf: leaf[item_rows], self._traced)
            return self._send(Slots(self._ids[item_rows], traced, state, done))  # type: ignore[arg-type]

    def peek(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(rows of `ids`, their results by name) of the items in slots."""
        live = self._live
        # No names: `_values_of` would return all results.
        values = self._values_of(self._slots, live, names) if live and names else {}
        return self._rows[:live], values

    # --- checkpoints ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Copy the round to host arrays, from which `restore` goes on with the same bits."""
        self._collect(self._rows[: self._live])
        self._keep(self._waiting.rows, self._waiting.leaves)
        arrays = {f"state.{k}": leaf for k, leaf in enumerate(self.states())}
        arrays |= {"done": self.done.copy(), "advances": self.advances.copy()}
        return Snapshot(self.rounds, arrays)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from the snapshot of a round with the same items and microbatch."""
        self.done, self.advances = (
            snapshot.arrays["done"].copy(),
            snapshot.arrays["advances"].copy(),
        )
        self.rounds = snapshot.rounds
        # Items that have not begun start again from their first state.
        rows = np.union1d(np.flatnonzero(self.advances), self._saved_rows)
        self._begin(SavedStates(rows, [leaf[rows] for leaf in snapshot.states()], self.done[rows]))
