"""Advance the items of a group in laps; between two laps a search compares, drops or exchanges them.

    lap      `begin(rows, length)`: these items make `length` advances each, or fewer if they finish
    between  every item's state is a host array: `values` reads results, `copy` moves states

The items of a lap need not all fit onto the devices: they take turns, as many at a time as there are slots.
As in a `Run`, only the microbatch enters the arithmetic of an item, so its state after a lap depends neither
on the number of slots nor on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctd.batch.program import Program, Slots, precision
from ctd.batch.run import Placed, Snapshot
from ctd.batch.states import HostStates
from ctd.late import jax

TO_THE_END = 2**62
"""The length of a lap that lasts until its items have finished."""


class Laps(Placed):
    """The items `ids` of one group, advanced lap by lap. The arguments are those of `ctd.batch.Run`.

    done: (n,) bool, whether each item has finished. ages: (n,) how many advances each has made.
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
        for rows in turns(self.n, self.total):
            self._init(rows)

    def begin(self, rows: np.ndarray, length: int) -> None:
        """Start a lap: each item in `rows` makes `length` advances, or fewer if it finishes."""
        self._left[:] = 0
        self._left[rows] = length

    @property
    def over(self) -> bool:
        """Whether the lap has ended."""
        return not (self._ready.any() or len(self._wave))

    def advance(self) -> None:
        """Advance every item on the devices once; if there is none, load the next ones first."""
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
        self.ages[wave] += ~self.done[wave]
        self.done[wave] = np.asarray(self._slots.done)[self._physical[: len(wave)]]
        self._lay_down_if_due()

    def _lay_down_if_due(self) -> None:
        """Take all items off the devices once any has made its advances, or enough have finished."""
        done, left = self.done[self._wave], self._left[self._wave]
        enough = max(self.layout.microbatch, len(done) // 8)
        if done.all() or done.sum() >= enough or (left == 0).any():
            self._states.keep(self._wave, self._slots.state, self._physical)
            self._wave, self._slots = np.zeros(0, int), None

    def peek(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(rows of `ids`, those results of theirs) of the items on the devices; none between two laps."""
        if not len(self._wave):
            return self._wave, {}
        return self._wave, self._values_of(self._slots, len(self._wave), names)

    @property
    def _ready(self) -> np.ndarray:
        ready: np.ndarray = (self._left > 0) & ~self.done
        return ready

    # --- between laps -----------------------------------------------------------------------------

    def values(self, rows: np.ndarray, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Results of the items `rows` in their present states, name -> (len(rows), ...); no names: all."""
        names = tuple(names)
        shapes = {name: self._values[name] for name in names or self._values}
        found = {name: np.zeros((len(rows), *s.shape), s.dtype) for name, s in shapes.items()}
        for turn in turns(len(rows), self.total):
            for name, value in self._values_of(self._load(rows[turn]), len(turn), names).items():
                found[name][turn] = value
        return found

    def copy(self, parents: np.ndarray) -> None:
        """Item r goes on from the state of item parents[r], with its own key and traced values."""
        self._states.copy(parents)
        self.done = self.done[parents]

    def put(self, row: int, leaves: Sequence[np.ndarray]) -> None:
        """Item `row` goes on from a state that another worker made, given as leaves in `Snapshot`'s order."""
        self._states.put(row, leaves)
        self.done[row] = False

    def set_traced(self, name: str, values: np.ndarray) -> None:
        """Give a traced field new values, (n, ...), one for each item."""
        dtype = getattr(self._traced, name).dtype
        self._traced = self._traced._replace(**{name: values.astype(dtype)})

    # --- devices ----------------------------------------------------------------------------------

    def _init(self, rows: np.ndarray) -> None:
        """Bring the items `rows` to their start."""
        places = self._physical[: len(rows)]
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
        """Put the items `rows` onto the devices, with their states or, if `blank`, with zeros in place of them."""
        held = self._held(rows)
        done = np.ones(self.total, bool)
        done[self._physical[: len(rows)]] = self.done[rows]
        with precision(self.program.static):
            traced = jax.tree.map(lambda leaf: leaf[held], self._traced)
            state = None if blank else self._states.take(held)
            slots = self._put(Slots(self._ids[held], traced, state, done))  # type: ignore[arg-type]
            return slots._replace(state=jax.tree.map(self._blank, self._state)) if blank else slots

    # --- checkpoints ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that `restore` needs to go on after the last advance, with the same bits."""
        if len(self._wave):
            self._states.keep(self._wave, self._slots.state, self._physical)
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
    """The numbers 0 ... n-1, cut into turns of at most `at_a_time`."""
    return [np.arange(k, min(k + at_a_time, n)) for k in range(0, n, at_a_time)]
