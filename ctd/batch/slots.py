"""Put items into the slots of a program on the devices, advance them and take them out; the other slots stay as they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ctd.batch.program import Program, Slots, evaluated, precision
from ctd.kernel import Params, Values
from ctd.late import Array, PyTree, jax, jnp

SEND_LIMIT = 1 << 18
"""Arrays of zeros up to this many entries are sent to a device; larger ones are made there."""


class SavedStates(NamedTuple):
    """The states from which items go on: host arrays, as `to_host` copies them."""

    rows: np.ndarray
    """(k,) the items, by their place among the n, that have a state."""
    leaves: Sequence[np.ndarray]
    """Leaf by leaf, (k, ...) each."""
    done: np.ndarray
    """(k,) bool: whether the item has finished."""


NO_STATES = SavedStates(np.zeros(0, int), (), np.zeros(0, bool))


class DeviceSlots:
    """The slots of a program on the devices, for items of a group; arguments as those of `Run`."""

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
        self._none_fresh = self._send(np.zeros(self.total, bool))
        with precision(program.static):
            self._root = jax.device_put(jax.random.key(seed), program.replicated)
            self._shared = jax.device_put(shared, program.replicated)
        # The shapes of one item's state and results; the slots are made from them.
        first = jax.tree.map(lambda leaf: leaf[0], traced)
        evaluation = evaluated(program.kernel, program.static, shared, first)
        self._state, self._values = evaluation.state, evaluation.results

    @cached_property
    def _physical(self) -> np.ndarray:
        """Logical slot -> physical row: consecutive logical slots go round the devices."""
        # Round the devices, so that when few items are left each device still has some.
        p = np.arange(self.total)
        return (p % self.layout.devices) * self.layout.slots + p // self.layout.devices

    def _item_rows(self, rows: np.ndarray) -> np.ndarray:
        """Physical row -> the one of `rows` that lies there, in logical order; 0 for an empty slot."""
        item_rows = np.zeros(self.total, int)
        item_rows[self._physical[: len(rows)]] = rows
        return item_rows

    def _bounds(self, start: int, stop: int) -> np.ndarray:
        """The first and the last microbatch (exclusive) of every device that hold the logical slots start <= p < stop."""
        per_microbatch = self.layout.microbatch * self.layout.devices
        return np.array([start // per_microbatch, -(-stop // per_microbatch)], np.int32)

    def _send(self, host: PyTree) -> PyTree:
        """Send arrays with a slot axis to the devices; one call for a tree takes half the time of one for each leaf."""
        return jax.device_put(host, self.program.by_item)

    def _blank(self) -> PyTree:
        """A state of zeros and any keys for each slot, to be overwritten."""

        def blank(shape: jax.ShapeDtypeStruct) -> Array | np.ndarray:
            if _is_key(shape):
                return jax.random.split(jax.random.key(0), (self.total, *shape.shape))
            # To compile a program that makes zeros takes longer than to send a few.
            zeros = np.zeros if self.total * shape.size <= SEND_LIMIT else jnp.zeros
            return zeros((self.total, *shape.shape), shape.dtype)

        return jax.tree.map(blank, self._state)

    def _state_of(self, leaves: Sequence[np.ndarray]) -> PyTree:
        """The state whose leaves are host arrays with a slot axis, as `to_host` copies them."""
        shapes, tree = jax.tree.flatten(self._state)
        # Keys of JAX's default kind, as those of `_blank` are.
        as_key = lambda leaf: jax.random.wrap_key_data(jnp.asarray(leaf))
        pairs = zip(leaves, shapes, strict=True)
        return jax.tree.unflatten(tree, [as_key(x) if _is_key(shape) else x for x, shape in pairs])

    def _values_of(
        self, slots: Slots, n: int, names: tuple[str, ...] = ()
    ) -> dict[str, np.ndarray]:
        """The present results of the items in the first n logical slots: name -> (n, ...). No names means all names."""
        names = names or tuple(self._values)
        shapes = {name: self._values[name] for name in names}
        with precision(self.program.static):
            # The memory that the results are written into; it is given away to the program.
            blank = {name: np.zeros((self.total, *v.shape), v.dtype) for name, v in shapes.items()}
            args = (self._shared, self._root, self._bounds(0, n), self._none_fresh)
            results = self.program.results(names)(*args, slots, self._send(blank))
        places = self._physical[:n]
        return {name: np.asarray(value)[places] for name, value in results.items()}

    def temporaries(self) -> int:
        """Bytes of device memory that an advance needs beyond the slots, as XLA counts them."""
        with precision(self.program.static):
            args = (self._shared, self._root, self._bounds(0, 1), self._none_fresh)
            compiled = self.program.step.lower(*args, None, self.abstract_slots()).compile()
            analysis = compiled.memory_analysis()
        return int(getattr(analysis, "temp_size_in_bytes", 0))

    def abstract_slots(self) -> Slots:
        """The slots as shapes, dtypes and shardings, so that an advance can be compiled before there are slots."""
        abstract = lambda shape, dtype: jax.ShapeDtypeStruct(
            (self.total, *shape), dtype, sharding=self.program.by_item
        )
        ids, done = abstract((), self._ids.dtype), abstract((), bool)
        traced = jax.tree.map(lambda leaf: abstract(leaf.shape[1:], leaf.dtype), self._traced)
        state = jax.tree.map(lambda leaf: abstract(leaf.shape, leaf.dtype), self._state)
        return Slots(ids, traced, state, done)  # type: ignore[arg-type]


class AnyRun(DeviceSlots, ABC):
    """Items of a group in slots: what `Run` and `RoundRun` share."""

    def _start(self, queue: np.ndarray, waiting: SavedStates, begun: int = 0) -> None:
        """Empty the slots, and fill them.

        queue: rows of items, of which the first `begun` have begun. waiting: the states of items that go on.
        """
        # _rows[p]: the row of `ids` in logical slot p; -1 where the slot is empty.
        self._rows, self._slots = np.full(self.total, -1), None
        self._queue, self._next, self._waiting = queue, begun, waiting
        self._fill(live=0)

    def _fill(self, live: int) -> None:
        """Fill the empty logical slots, those from `live` on: with the items that a snapshot left begun, then with the
        next items of the queue."""
        going = min(self.total - live, len(self._waiting.rows))
        count = min(self.total - live - going, len(self._queue) - self._next)
        if going + count == 0:
            return
        start, stop = live + going, live + going + count
        self._rows[live:start] = self._waiting.rows[:going]
        self._rows[start:stop] = self._queue[self._next : self._next + count]
        self._next += count
        with precision(self.program.static):
            item_rows = self._item_rows(np.maximum(self._rows, 0))
            traced = jax.tree.map(lambda leaf: leaf[item_rows], self._traced)
            ids, traced = self._send((self._ids[item_rows], traced))
            if self._slots is None:
                self._slots = Slots(
                    ids, traced, *self._send((self._blank(), np.ones(self.total, bool)))
                )
            self._slots = self._slots._replace(ids=ids, traced=traced)
            if going:
                self._go_on(live, going)
            if count:
                fresh = np.zeros(self.total, bool)
                fresh[self._physical[start:stop]] = True
                args = (self._shared, self._root, self._bounds(start, stop), self._send(fresh))
                self._slots = self.program.init(*args, None, self._slots)

    def _go_on(self, live: int, count: int) -> None:
        """Put the first `count` waiting states into the logical slots from `live` on."""
        places, waiting = self._physical[live : live + count], self._waiting
        leaves = [to_host(leaf).copy() for leaf in jax.tree.leaves(self._slots.state)]
        for leaf, states in zip(leaves, waiting.leaves, strict=True):
            leaf[places] = states[:count]
        done = np.asarray(self._slots.done).copy()
        done[places] = waiting.done[:count]
        state, done = self._send((self._state_of(leaves), done))
        self._slots = self._slots._replace(state=state, done=done)
        remaining = [states[count:] for states in waiting.leaves]
        self._waiting = SavedStates(waiting.rows[count:], remaining, waiting.done[count:])

    def _done(self) -> np.ndarray:
        return np.asarray(self._slots.done)[self._physical] & (self._rows >= 0)

    @property
    def going(self) -> np.ndarray:
        """Rows of the items in slots that have not finished."""
        return self._rows[(self._rows >= 0) & ~self._done()]

    @property
    def finished(self) -> bool:
        return self._next == len(self._queue) and not self._live

    @property
    def _live(self) -> int:
        """The number of items in slots, which are the first slots."""
        return int((self._rows >= 0).sum())

    def step(self) -> None:
        """Advance every live item once, without reading which have finished."""
        bounds = self._bounds(0, self._live)
        with precision(self.program.static):
            self._slots = self.program.step(
                self._shared, self._root, bounds, self._none_fresh, None, self._slots
            )
        self.rounds += 1

    def block(self) -> None:
        """Wait until the devices have finished the work given to them."""
        jax.block_until_ready(self._slots)

    def _harvest(self, leaving: np.ndarray, at_once: bool = False) -> None:
        """Take the items out of the slots where `leaving` is True, pack the others to the front, and refill the slots.

        To move items costs more than to carry a few along: unless `at_once`, the leaving items stay until they fill a microbatch and
        are an eighth of the live ones, or all of them.
        """
        live, count = self._live, int(leaving.sum())
        if not (at_once or count == live or count >= max(self.layout.microbatch, live // 8)):
            return
        self._arrange(np.argsort(~leaving, kind="stable"))
        # They lie in front now, where they are read in one piece.
        self._collect(self._rows[:count])
        self._rows[:count] = -1
        self._arrange(np.argsort(self._rows < 0, kind="stable"))
        self._fill(live - count)

    @abstractmethod
    def _collect(self, rows: np.ndarray) -> None:
        """Copy the states or results of leaving items to the host; the items lie in the first slots."""

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


def to_host(leaf: Array) -> np.ndarray:
    """Copy a device array to the host; random keys become their uint32 words."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _is_key(leaf: Array | jax.ShapeDtypeStruct) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
