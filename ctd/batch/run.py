"""Run the items of a group through a program: fill the slots, advance their items, read results, refill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ctd.batch.program import Program, Slots, precision
from ctd.kernel import Params, Values
from ctd.late import Array, PyTree, jax, jnp

SENT = 1 << 18
"""Arrays of zeros up to this many entries are sent to a device; larger ones are made there."""


@dataclass
class Snapshot:
    """The state of a run between two advances: the number of advances made, and host arrays by name."""

    rounds: int
    arrays: dict[str, np.ndarray]
    seconds: float = 0.0
    """What the advances took, where it is known (s)."""

    def states(self) -> list[np.ndarray]:
        """The arrays called state.0, state.1, ...: the states of items, leaf by leaf."""
        n_leaves = sum(name.startswith("state.") for name in self.arrays)
        return [self.arrays[f"state.{k}"] for k in range(n_leaves)]


class Kept(NamedTuple):
    """States from which items go on: host arrays, as `to_host` copies them."""

    rows: np.ndarray
    """(k,) which of the n items have one."""
    leaves: Sequence[np.ndarray]
    """Leaf by leaf, (k, ...) each."""
    done: np.ndarray
    """(k,) bool: whether the item has finished."""


class Placed:
    """The slots of a program on the devices, and the physical row of each logical slot."""

    def __init__(
        self, program: Program, shared: PyTree, seed: int, ids: np.ndarray, traced: Values[Params]
    ) -> None:
        self.program, self.n = program, len(ids)
        self.layout = program.layout
        self.total = self.layout.slots * self.layout.devices
        self.rounds = 0
        self._slots: PyTree = None
        # fold_in takes 32 bits.
        self._ids, self._traced = np.asarray(ids, np.uint32), traced
        self._root, self._no_one = program.root(seed), program.no_one
        with precision(program.static):
            self._shared = jax.device_put(shared, program.whole)
        # The state of one item, as shapes: slots are made from it.
        first = jax.tree.map(lambda leaf: leaf[0], traced)
        self._state, self._values = program.abstract(shared, first)

    @cached_property
    def _physical(self) -> np.ndarray:
        """Logical slot -> physical row: consecutive logical slots go round the devices."""
        # Round the devices, so that when few items are left each device still has some.
        p = np.arange(self.total)
        return (p % self.layout.devices) * self.layout.slots + p // self.layout.devices

    def _held(self, rows: np.ndarray) -> np.ndarray:
        """Physical row -> the one of `rows` that lies there, in logical order; 0 for an empty slot."""
        held = np.zeros(self.total, int)
        held[self._physical[: len(rows)]] = rows
        return held

    def _bounds(self, start: int, stop: int) -> np.ndarray:
        """The first and the last microbatch (exclusive) of every device that hold the logical slots start <= p < stop."""
        per_microbatch = self.layout.microbatch * self.layout.devices
        return np.array([start // per_microbatch, -(-stop // per_microbatch)], np.int32)

    def _put(self, host: PyTree) -> PyTree:
        """Send arrays with a slot axis to the devices; one call for a tree takes half the time of one for each leaf."""
        return jax.device_put(host, self.program.by_item)

    def _blank(self) -> PyTree:
        """States to be overwritten, for `_put`."""

        def blank(shape: jax.ShapeDtypeStruct) -> Array | np.ndarray:
            if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
                return jax.random.split(jax.random.key(0), (self.total, *shape.shape))
            # To compile a program that makes zeros takes longer than to send a few.
            zeros = np.zeros if self.total * shape.size <= SENT else jnp.zeros
            return zeros((self.total, *shape.shape), shape.dtype)

        return jax.tree.map(blank, self._state)

    def _values_of(
        self, slots: Slots, n: int, names: tuple[str, ...] = ()
    ) -> dict[str, np.ndarray]:
        """The present results of the items in the first n logical slots: name -> (n, ...). No names means all names."""
        compute = self.program.some_results(names) if names else self.program.result
        shapes = {name: self._values[name] for name in names or self._values}
        with precision(self.program.static):
            # The memory that the results are written into; it is given away to the program.
            blank = {name: np.zeros((self.total, *v.shape), v.dtype) for name, v in shapes.items()}
            found = compute(
                self._shared, self._root, self._bounds(0, n), self._no_one, slots, self._put(blank)
            )
        places = self._physical[:n]
        return {name: np.asarray(value)[places] for name, value in found.items()}

    def temporaries(self) -> int:
        """Bytes of device memory that an advance needs beyond the slots, as XLA counts them."""
        with precision(self.program.static):
            args = (self._shared, self._root, self._bounds(0, 1), self._no_one)
            compiled = self.program.step.lower(*args, None, self.abstract_slots()).compile()
            analysis = compiled.memory_analysis()
        return int(getattr(analysis, "temp_size_in_bytes", 0))

    def abstract_slots(self) -> Slots:
        """The slots as shapes, dtypes and shardings, so that an advance can be compiled before there are slots."""
        of = lambda shape, dtype: jax.ShapeDtypeStruct(
            (self.total, *shape), dtype, sharding=self.program.by_item
        )
        ids, done = of((), self._ids.dtype), of((), bool)
        traced = jax.tree.map(lambda leaf: of(leaf.shape[1:], leaf.dtype), self._traced)
        state = jax.tree.map(lambda leaf: of(leaf.shape, leaf.dtype), self._state)
        return Slots(ids, traced, state, done)  # type: ignore[arg-type]


class Run(Placed):
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
        # _rows[p]: the row of `ids` in logical slot p; -1 where the slot is empty.
        self._rows = np.full(self.total, -1)
        self._next = 0
        self._kept = Kept(np.zeros(0, int), (), np.zeros(0, bool))
        """Items that have begun and wait for a slot."""
        self._fill(live=0)

    def _fill(self, live: int) -> None:
        """Fill the empty logical slots, those from `live` on: with the items that a snapshot left begun, then with the
        next items of the queue."""
        going = min(self.total - live, len(self._kept.rows))
        count = min(self.total - live - going, self.n - self._next)
        if going + count == 0:
            return
        start, stop = live + going, live + going + count
        self._rows[live:start] = self._kept.rows[:going]
        self._rows[start:stop] = np.arange(self._next, self._next + count)
        self._next += count
        with precision(self.program.static):
            held = self._held(np.maximum(self._rows, 0))
            traced = jax.tree.map(lambda leaf: leaf[held], self._traced)
            ids, traced = self._put((self._ids[held], traced))
            if self._slots is None:
                self._slots = Slots(
                    ids, traced, *self._put((self._blank(), np.ones(self.total, bool)))
                )
            self._slots = self._slots._replace(ids=ids, traced=traced)
            if going:
                self._go_on(live, going)
            if count:
                fresh = np.zeros(self.total, bool)
                fresh[self._physical[start:stop]] = True
                args = (self._shared, self._root, self._bounds(start, stop), self._put(fresh))
                self._slots = self.program.init(*args, None, self._slots)

    def _go_on(self, live: int, count: int) -> None:
        """Put the first `count` kept states into the logical slots from `live` on."""
        places, kept = self._physical[live : live + count], self._kept
        leaves, tree = jax.tree.flatten(self._slots.state)
        held = [to_host(leaf).copy() for leaf in leaves]
        for leaf, states in zip(held, kept.leaves, strict=True):
            leaf[places] = states[:count]
        done = np.asarray(self._slots.done).copy()
        done[places] = kept.done[:count]
        leaves = [from_host(leaf, like) for leaf, like in zip(held, leaves, strict=True)]
        state, done = self._put((jax.tree.unflatten(tree, leaves), done))
        self._slots = self._slots._replace(state=state, done=done)
        left = [states[count:] for states in kept.leaves]
        self._kept = Kept(kept.rows[count:], left, kept.done[count:])

    def _done(self) -> np.ndarray:
        return np.asarray(self._slots.done)[self._physical] & (self._rows >= 0)

    @property
    def finished(self) -> bool:
        return self._next == self.n and not (self._rows >= 0).any()

    @property
    def n_finished(self) -> int:
        """How many items have their results."""
        return self._next - int((self._rows >= 0).sum()) - len(self._kept.rows)

    def advance(self) -> None:
        """Advance every live item once; finished items leave and the next ones take their slots."""
        live = self.step()
        done = self._done()
        # To move items costs more than to carry a few finished ones along: wait until the finished ones fill a
        # microbatch and are an eighth of the live ones.
        if done.sum() == live or done.sum() >= max(self.layout.microbatch, live // 8):
            self._harvest(done, live)

    def peek(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Between two advances: (rows of `ids`, their results by name) of the items that have finished or are in a slot."""
        live = int((self._rows >= 0).sum())
        # Live items lie in the first slots.
        going = self._rows[:live]
        ended = np.setdiff1d(np.arange(self._next), np.concatenate([going, self._kept.rows]))
        now = self._values_of(self._slots, live, names) if live else {}
        rows = np.concatenate([ended, going]).astype(int)
        values = {
            name: np.concatenate([self.results[name][ended], *([now[name]] if live else [])])
            for name in names
        }
        return rows, values

    def step(self) -> int:
        """Advance every live item once, without reading which have finished; return the number of live items."""
        live = int((self._rows >= 0).sum())
        with precision(self.program.static):
            self._slots = self.program.step(
                self._shared, self._root, self._bounds(0, live), self._no_one, None, self._slots
            )
        self.rounds += 1
        return live

    def block(self) -> None:
        """Wait until the devices have finished the work given to them."""
        jax.block_until_ready(self._slots)

    def _harvest(self, done: np.ndarray, live: int) -> None:
        """Read the results of the finished items, pack the live ones to the front, refill the other slots."""
        count = int(done.sum())
        self._arrange(np.argsort(~done, kind="stable"))
        # _arrange has just brought the finished items to the front, where they are read in one piece.
        rows = self._rows[:count]
        for name, value in self._values_of(self._slots, count).items():
            self.results[name][rows] = value
        self._rows[:count] = -1
        self._arrange(np.argsort(self._rows < 0, kind="stable"))
        self._fill(live - count)

    def _arrange(self, order: np.ndarray) -> None:
        """Move the item in logical slot order[p] to logical slot p."""
        # A permutation of everything on the devices: not worth it for nothing.
        if (order == np.arange(self.total)).all():
            return
        source = np.empty(self.total, int)
        source[self._physical] = self._physical[order]
        with precision(self.program.static):
            self._slots = self.program.permute(self._slots, source)
        self._rows = self._rows[order]

    def snapshot(self) -> Snapshot:
        """Copy the run to host arrays, from which `restore` goes on with the same bits."""
        live = int((self._rows >= 0).sum())
        places, kept = self._physical[:live], self._kept
        held = [to_host(x)[places] for x in (*jax.tree.leaves(self._slots.state), self._slots.done)]
        if len(kept.rows):
            waiting = (*kept.leaves, kept.done)
            held = [np.concatenate(pair) for pair in zip(held, waiting, strict=True)]
        *leaves, done = held
        arrays = {f"state.{k}": leaf for k, leaf in enumerate(leaves)}
        arrays |= {f"results.{name}": value.copy() for name, value in self.results.items()}
        rows = np.concatenate([self._rows[:live], kept.rows])
        arrays |= {"rows": rows, "done": done, "next": np.asarray(self._next)}
        return Snapshot(self.rounds, arrays)

    def restore(self, saved: Snapshot) -> None:
        """Go on from `saved`, a snapshot of a run over the same items with the same microbatch; its slots and devices may be others."""
        take = lambda name: saved.arrays[name]
        self._kept = Kept(take("rows"), saved.states(), take("done"))
        self._next = int(take("next"))
        self.results = {name: take(f"results.{name}").copy() for name in self.results}
        self.rounds = saved.rounds
        self._rows[:], self._slots = -1, None
        self._fill(live=0)


def to_host(leaf: Array) -> np.ndarray:
    """Copy a device array to the host; random keys become their uint32 words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)


def from_host(saved: np.ndarray, like: Array) -> Any:
    """Undo `to_host`: make random keys of their words if `like` holds keys; other arrays stay on the host."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(saved), impl=jax.random.key_impl(like))
    return saved
