"""Run the items of a group through a program, from their first states to their results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctd.batch.program import Program
from ctd.batch.slots import NO_STATES, AnyRun, SavedStates, to_host
from ctd.kernel import Params, Values
from ctd.late import PyTree, jax


@dataclass
class Snapshot:
    """The state of a run between two advances: the number of advances made, and host arrays by name."""

    rounds: int
    arrays: dict[str, np.ndarray]
    seconds: float = 0.0
    """The time that the advances took (s); 0 where it is unknown."""

    def states(self) -> list[np.ndarray]:
        """The arrays called state.0, state.1, ...: the states of items, leaf by leaf."""
        n_leaves = sum(name.startswith("state.") for name in self.arrays)
        return [self.arrays[f"state.{k}"] for k in range(n_leaves)]


class Run(AnyRun):
    """The items `ids` of one group, taken from `init` to `result`.

    Args:
        program: the compiled kernel.
        shared: the group's data, as `load` returned it.
        seed: the job's seed; item i has the key fold_in(key(seed), i).
        ids: (n,) item ids, below 2**32.
        traced: named tuple of arrays with leading axis n.

    Call `advance()` until `finished`; then `results` holds name -> (n, ...) arrays in the order of `ids`.
    """

    def __init__(
        self, program: Program, shared: PyTree, seed: int, ids: np.ndarray, traced: Values[Params]
    ) -> None:
        super().__init__(program, shared, seed, ids, traced)
        self.results = {k: np.zeros((self.n, *v.shape), v.dtype) for k, v in self._values.items()}
        self._start(np.arange(self.n), NO_STATES)

    @property
    def n_finished(self) -> int:
        """The number of items that have their results."""
        return self._next - self._live - len(self._waiting.rows)

    def advance(self) -> None:
        """Advance every live item once; finished items leave and the next ones take their slots."""
        self.step()
        self._harvest(self._done())

    def peek(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Between two advances: (rows of `ids`, their results by name) of the items that have finished or are in a slot."""
        live = self._live
        going = self._rows[:live]
        ended = np.setdiff1d(np.arange(self._next), np.concatenate([going, self._waiting.rows]))
        now = self._values_of(self._slots, live, names) if live and names else {}
        rows = np.concatenate([ended, going]).astype(int)
        values = {
            name: np.concatenate([self.results[name][ended], *([now[name]] if live else [])])
            for name in names
        }
        return rows, values

    def _collect(self, rows: np.ndarray) -> None:
        """Read the results of items, which lie in the first slots."""
        for name, value in self._values_of(self._slots, len(rows)).items():
            self.results[name][rows] = value

    def snapshot(self) -> Snapshot:
        """Copy the run to host arrays, from which `restore` goes on with the same bits."""
        live, waiting = self._live, self._waiting
        places = self._physical[:live]
        parts = [
            to_host(x)[places] for x in (*jax.tree.leaves(self._slots.state), self._slots.done)
        ]
        if len(waiting.rows):
            pairs = zip(parts, (*waiting.leaves, waiting.done), strict=True)
            parts = [np.concatenate(pair) for pair in pairs]
        *leaves, done = parts
        arrays = {f"state.{k}": leaf for k, leaf in enumerate(leaves)}
        arrays |= {f"results.{name}": value.copy() for name, value in self.results.items()}
        rows = np.concatenate([self._rows[:live], waiting.rows])
        arrays |= {"rows": rows, "done": done, "next": np.asarray(self._next)}
        return Snapshot(self.rounds, arrays)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from the snapshot of a run over the same items with the same microbatch; its slots and devices may be others."""
        take = lambda name: snapshot.arrays[name]
        self.results = {name: take(f"results.{name}").copy() for name in self.results}
        self.rounds = snapshot.rounds
        self._start(
            self._queue,
            SavedStates(take("rows"), snapshot.states(), take("done")),
            int(take("next")),
        )
