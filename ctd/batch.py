"""Run many items of one group side by side on the local devices.

A device holds `slots` items at a time, in microbatches of m: vmap inside a microbatch, a loop over the
microbatches. m = 1 is `lax.map`, m = slots is `vmap`; which is faster depends on kernel and device
(`ctd.tune`). Finished items leave: their slots are refilled from the queue, and once that is empty the
live items are packed to the front, so that the loop runs over fewer microbatches.

        logical slot   0 1 2 3 | 4 5 6 7 | 8 9 . .      m = 4, 10 live items: bound = 3
                       `------'  microbatch = one vmapped program, never of another width

Only m enters the arithmetic of an item: for one m the bits of an item depend neither on how many slots
there are nor on which items share them. With D devices, logical slot p lies on device p mod D.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ctd.contract import evaluate
from ctd.kernel import Kernel, Kind, Params, field_kinds, inputs_of, static_of, traced_type

ITEM = PartitionSpec("item")
WHOLE = PartitionSpec()


class Layout(NamedTuple):
    """How the items of a shard lie on the devices."""

    slots: int
    """Items held at a time on one device; a multiple of `microbatch`."""
    microbatch: int
    """Vmapped width: the only number here that changes rounding."""
    devices: int = 1


def layout_for(kernel: Kernel, n_items: int, devices: int = 1, microbatch: int = 0) -> Layout:
    """The layout that a job gets when it does not ask for one."""
    per_device = max(1, min(kernel.width, -(-n_items // devices)))
    m = min(microbatch or kernel.candidates()[0] or per_device, per_device)
    return Layout(-(-per_device // m) * m, m, devices)


class Slots(NamedTuple):
    """What the devices hold: arrays with a leading slot axis."""

    ids: jax.Array
    traced: Any
    state: Any
    done: jax.Array


def precision(static: Any) -> AbstractContextManager[None]:
    """JAX's 64-bit mode, on for float64 items and off for others."""
    return jax.enable_x64(static.dtype == "float64")


class Program:
    """The compiled functions of one (kernel, static, layout), shared by all groups that have them."""

    def __init__(self, kernel: Kernel, static: Any, layout: Layout) -> None:
        self.kernel, self.static, self.layout = kernel, static, layout
        self._abstract: dict[Any, Any] = {}
        self.mesh = jax.make_mesh(
            (layout.devices,),
            ("item",),
            devices=jax.local_devices()[: layout.devices],
            axis_types=(AxisType.Auto,),
        )
        self.init = self._over_slots(self._init)
        self.step = self._over_slots(self._step)
        self.result = self._over_slots(self._result)
        self._some_results: dict[tuple[str, ...], Any] = {}
        self.permute = jax.jit(
            lambda slots, order: jax.tree.map(lambda leaf: leaf[order], slots),
            out_shardings=NamedSharding(self.mesh, ITEM),
        )

    # --- one item ---------------------------------------------------------------------------------

    def _init(self, shared: Any, root: jax.Array, fresh: jax.Array, slot: Slots) -> Slots:
        key = jax.random.fold_in(root, slot.ids)
        state = self.kernel.init(self.static, shared, slot.traced, key)
        new = slot._replace(state=state, done=self.kernel.finished(state))
        return jax.tree.map(lambda a, b: jnp.where(fresh, a, b), new, slot)

    def _step(self, shared: Any, root: jax.Array, fresh: jax.Array, slot: Slots) -> Slots:
        del fresh

        def advance(slot: Slots) -> Slots:
            key = jax.random.fold_in(root, slot.ids)
            state = self.kernel.advance(self.static, shared, slot.traced, key, slot.state)
            return slot._replace(state=state, done=self.kernel.finished(state))

        # A finished item stands still, whatever its neighbours still do. In a loop over single items
        # the work is skipped. Side by side it is a select, written out: the vmap of a cond would
        # give every item its own copy of the shared data, and cost shared weights their one product.
        if self.layout.microbatch == 1:
            return lax.cond(slot.done, lambda slot: slot, advance, slot)
        return jax.tree.map(lambda a, b: jnp.where(slot.done, a, b), slot, advance(slot))

    def _result(self, shared: Any, root: jax.Array, fresh: jax.Array, slot: Slots) -> Any:
        del fresh
        key = jax.random.fold_in(root, slot.ids)
        return self.kernel.result(self.static, shared, slot.traced, key, slot.state)

    def some_results(self, names: tuple[str, ...]) -> Any:
        """`result` of which all but `names` is left out: dead code, which the compiler removes."""

        def some(*args: Any) -> Any:
            values = self._result(*args)
            return {name: values[name] for name in names}

        if names not in self._some_results:
            self._some_results[names] = self._over_slots(some)
        return self._some_results[names]

    # --- all slots --------------------------------------------------------------------------------

    def _over_slots(self, one: Callable[..., Any]) -> Any:
        """one(shared, root, fresh, slot) -> f(shared, root, bounds, fresh, slots, out) over slots.

        Only the microbatches bounds[0] <= i < bounds[1] of each device are computed; the other rows
        of `out` stay as they are.
        """
        m = self.layout.microbatch

        def on_device(
            shared: Any,
            root: jax.Array,
            bounds: jax.Array,
            fresh: jax.Array,
            slots: Slots,
            out: Any,
        ) -> Any:
            def rows(leaf: jax.Array, i: jax.Array) -> jax.Array:
                if m == 1:
                    return lax.dynamic_index_in_dim(leaf, i, keepdims=False)
                return lax.dynamic_slice_in_dim(leaf, i * m, m)

            def put(leaf: jax.Array, new: jax.Array, i: jax.Array) -> jax.Array:
                if m == 1:
                    return lax.dynamic_update_index_in_dim(leaf, new, i, 0)
                return lax.dynamic_update_slice_in_dim(leaf, new, i * m, 0)

            some = one if m == 1 else jax.vmap(one, (None, None, 0, 0))

            def body(i: jax.Array, out: Any) -> Any:
                # The barriers keep the compiler from merging the item's arithmetic with the loop's
                # slicing, and, by i, from moving it out of a loop over one microbatch: its code, and
                # so its rounding, is then the same for any number of slots.
                part = jax.tree.map(lambda leaf: rows(leaf, i), (fresh, slots))
                part, _ = lax.optimization_barrier((part, i))
                new = lax.optimization_barrier(some(shared, root, *part))
                return jax.tree.map(lambda leaf, value: put(leaf, value, i), out, new)

            return lax.fori_loop(bounds[0], bounds[1], body, out)

        return jax.jit(
            jax.shard_map(
                on_device,
                mesh=self.mesh,
                in_specs=(WHOLE, WHOLE, WHOLE, ITEM, ITEM, ITEM),
                out_specs=ITEM,
                check_vma=False,
            )
        )

    # --- shapes -----------------------------------------------------------------------------------

    def abstract(self, shared: Any, traced: Any) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
        """(state, results) of one item as shapes and dtypes; see `ctd.contract.evaluate`."""
        leaves, tree = jax.tree.flatten((shared, traced))
        key = (
            tree,
            tuple((np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves),
        )
        if key not in self._abstract:
            self._abstract[key] = self._evaluate(shared, traced)
        return self._abstract[key]

    def _evaluate(self, shared: Any, traced: Any) -> Any:
        with precision(self.static):
            return evaluate(self.kernel, self.static, shared, traced)


@lru_cache(maxsize=64)
def program(kernel: Kernel, static: Any, layout: Layout) -> Program:
    """The program of a kernel for these static fields and this layout, made once a process."""
    return Program(kernel, static, layout)


def traced_columns(params: type[Params], columns: Mapping[str, np.ndarray], dtype: str) -> Any:
    """Columns by name -> the traced named tuple of arrays, reals in `dtype`, integers in int32."""
    kind = traced_type(params)

    def cast(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        if values.dtype.kind == "f":
            return values.astype(dtype)
        return values if values.dtype.kind == "b" else values.astype(np.int32)

    return kind(*(cast(columns[name]) for name in kind._fields))


@dataclass
class Snapshot:
    """Everything that a run needs to go on after an advance: `rounds` advances made, arrays by name."""

    rounds: int
    arrays: dict[str, np.ndarray]


class Placed:
    """The slots of a program on the devices, and which physical row each logical slot is."""

    def __init__(
        self, program: Program, shared: Any, seed: int, ids: np.ndarray, traced: Any
    ) -> None:
        self.program, self.n = program, len(ids)
        self.layout = program.layout
        self.total = self.layout.slots * self.layout.devices
        self.rounds = 0
        self._ids, self._traced = np.asarray(ids, np.uint32), traced
        with precision(program.static):
            whole = NamedSharding(program.mesh, WHOLE)
            self._root = jax.device_put(jax.random.key(seed), whole)
            self._shared = jax.device_put(shared, whole)
        first = jax.tree.map(lambda leaf: leaf[0], traced)
        self._state, self._values = program.abstract(shared, first)

    @cached_property
    def _physical(self) -> np.ndarray:
        """Logical slot -> physical row: consecutive logical slots go round the devices."""
        p = np.arange(self.total)
        return (p % self.layout.devices) * self.layout.slots + p // self.layout.devices

    def _bounds(self, start: int, stop: int) -> jax.Array:
        """The microbatches of every device that hold the logical slots start <= p < stop."""
        per_microbatch = self.layout.microbatch * self.layout.devices
        return jnp.asarray([start // per_microbatch, -(-stop // per_microbatch)], jnp.int32)

    def _put(self, host: Any) -> Any:
        sharding = NamedSharding(self.program.mesh, ITEM)
        return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), host)

    def _blank(self, shape: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
            return self._put(jax.random.split(jax.random.key(0), (self.total, *shape.shape)))
        return self._put(jnp.zeros((self.total, *shape.shape), shape.dtype))


class Run(Placed):
    """The items `ids` of one group, on their way from `init` to `result`.

    Args:
        program: what to run.
        shared: the group's data, as `load` returned it.
        seed: the job's seed; item i has the key fold_in(key(seed), i).
        ids: (n,) item ids, below 2**32.
        traced: named tuple of arrays with leading axis n.

    `advance()` until `finished`, then `results` holds name -> (n, ...) arrays in the order of `ids`.
    """

    def __init__(
        self, program: Program, shared: Any, seed: int, ids: np.ndarray, traced: Any
    ) -> None:
        super().__init__(program, shared, seed, ids, traced)
        self.results = {k: np.zeros((self.n, *v.shape), v.dtype) for k, v in self._values.items()}
        # rows[p]: which row of the shard lies in logical slot p; -1 is an empty slot.
        self._rows = np.full(self.total, -1)
        self._next = 0
        self._slots: Any = None
        self._fill(live=0)

    def _fill(self, live: int) -> None:
        """Start the next items of the queue in the logical slots from `live` on."""
        count = min(self.total - live, self.n - self._next)
        if count == 0:
            return
        rows = np.arange(self._next, self._next + count)
        self._rows[live : live + count] = rows
        self._next += count
        with precision(self.program.static):
            fresh = np.zeros(self.total, bool)
            fresh[self._physical[live : live + count]] = True
            held = np.zeros(self.total, int)
            held[self._physical] = np.maximum(self._rows, 0)
            ids = self._put(self._ids[held])
            traced = self._put(jax.tree.map(lambda leaf: leaf[held], self._traced))
            if self._slots is None:
                state = jax.tree.map(self._blank, self._state)
                self._slots = Slots(ids, traced, state, self._put(np.ones(self.total, bool)))
            slots = self._slots._replace(ids=ids, traced=traced)
            bounds = self._bounds(live, live + count)
            self._slots = self.program.init(
                self._shared, self._root, bounds, self._put(fresh), slots, slots
            )

    def _done(self) -> np.ndarray:
        return np.asarray(self._slots.done)[self._physical] & (self._rows >= 0)

    @property
    def finished(self) -> bool:
        return self._next == self.n and not (self._rows >= 0).any()

    @property
    def n_finished(self) -> int:
        """How many items have their results."""
        return self._next - int((self._rows >= 0).sum())

    def advance(self) -> None:
        """One advance of every live item; items that finished leave and others take their slots."""
        live = int((self._rows >= 0).sum())
        with precision(self.program.static):
            no_one = self._slots.done
            self._slots = self.program.step(
                self._shared, self._root, self._bounds(0, live), no_one, self._slots, self._slots
            )
        self.rounds += 1
        done = self._done()
        # Moving a few items costs more than carrying them, unless they hold a microbatch.
        if done.sum() == live or done.sum() >= max(self.layout.microbatch, live // 8):
            self._harvest(done, live)

    def temporaries(self) -> int:
        """Bytes of device memory that one advance takes beyond the slots, as the compiler counts."""
        with precision(self.program.static):
            args = (self._shared, self._root, self._bounds(0, 1), self._slots.done)
            compiled = self.program.step.lower(*args, self._slots, self._slots).compile()
            analysis = compiled.memory_analysis()
        return int(getattr(analysis, "temp_size_in_bytes", 0))

    def block(self) -> None:
        """Wait until the devices have done what was asked of them."""
        jax.block_until_ready(self._slots)

    def _harvest(self, done: np.ndarray, live: int) -> None:
        """Take the results of the finished items, pack the others to the front, refill."""
        count = int(done.sum())
        self._arrange(np.argsort(~done, kind="stable"))
        with precision(self.program.static):
            values = {
                name: self._put(np.zeros((self.total, *a.shape[1:]), a.dtype))
                for name, a in self.results.items()
            }
            values = self.program.result(
                self._shared,
                self._root,
                self._bounds(0, count),
                self._slots.done,
                self._slots,
                values,
            )
        rows = self._rows[:count]
        for name, value in values.items():
            self.results[name][rows] = np.asarray(value)[self._physical[:count]]
        self._rows[:count] = -1
        self._arrange(np.argsort(self._rows < 0, kind="stable"))
        self._fill(live - count)

    def _arrange(self, order: np.ndarray) -> None:
        """Logical slot p gets what was in logical slot order[p]."""
        if (order == np.arange(self.total)).all():
            return
        source = np.empty(self.total, int)
        source[self._physical] = self._physical[order]
        with precision(self.program.static):
            self._slots = self.program.permute(self._slots, source)
        self._rows = self._rows[order]

    def snapshot(self) -> Snapshot:
        """The run between two advances, as host arrays: `restore` goes on with the same bits."""
        leaves = jax.tree.leaves(self._slots)
        arrays = {f"slots.{k}": to_host(leaf) for k, leaf in enumerate(leaves)}
        arrays |= {f"results.{name}": value.copy() for name, value in self.results.items()}
        arrays |= {"rows": self._rows.copy(), "next": np.asarray(self._next)}
        return Snapshot(self.rounds, arrays)

    def restore(self, saved: Snapshot) -> None:
        """Go on from `saved`, which a run over the same items and layout made."""
        with precision(self.program.static):
            leaves, tree = jax.tree.flatten(self._slots)
            put = [
                self._put(from_host(saved.arrays[f"slots.{k}"], like))
                for k, like in enumerate(leaves)
            ]
            self._slots = jax.tree.unflatten(tree, put)
        self._rows, self._next = saved.arrays["rows"].copy(), int(saved.arrays["next"])
        self.results = {name: saved.arrays[f"results.{name}"].copy() for name in self.results}
        self.rounds = saved.rounds


def to_host(leaf: jax.Array) -> np.ndarray:
    """A device array as a host array; random keys as their data."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)


def from_host(saved: np.ndarray, like: jax.Array) -> Any:
    """The inverse of `to_host`, up to where it lies; `like` has the dtype."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(saved), impl=jax.random.key_impl(like))
    return saved


def run_items(
    kernel: Kernel,
    params: Params,
    columns: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    shared: Any = None,
    layout: Layout | None = None,
) -> dict[str, np.ndarray]:
    """Run one group in this process: `params` for all items, `columns` for what differs.

    Args:
        kernel: what to compute.
        params: the parameters that all items have.
        columns: traced field -> (n,) values (or (n, k) for a tuple of k); without it, one item.
        seed: the job's seed; item i of the columns has the key fold_in(key(seed), i).
        shared: the group's data; `kernel.load` reads it where this is None.
        layout: slots and microbatch; chosen by `layout_for` where this is None.

    Returns:
        name -> (n, ...) array for every name that `kernel.result` returns.
    """
    kinds = field_kinds(type(params))
    given = {name: np.asarray(values) for name, values in (columns or {}).items()}
    for name in given:
        if kinds.get(name) is not Kind.TRACED:
            raise ValueError(f"columns: {name!r} is not a traced field of {type(params).__name__}")
    sizes = {len(values) for values in given.values()} or {1}
    if len(sizes) > 1:
        raise ValueError(f"columns: lengths differ: { {k: len(v) for k, v in given.items()} }")
    n = sizes.pop()
    for name in traced_type(type(params))._fields:
        if name not in given:
            given[name] = np.repeat(np.asarray(getattr(params, name))[None], n, axis=0)
    static = static_of(params)
    if shared is None:
        with precision(static):
            shared = kernel.load(inputs_of(params))
    traced = traced_columns(type(params), given, static.dtype)
    run = Run(
        program(kernel, static, layout or layout_for(kernel, n)), shared, seed, np.arange(n), traced
    )
    while not run.finished:
        run.advance()
    return run.results
