"""Compile a kernel's functions of one item to functions over the slots of the local devices."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ctd.contract import Evaluation, evaluate
from ctd.kernel import Kernel, Params, Values, View, traced_type
from ctd.late import Array, PyTree, jax, jnp, lax


class Layout(NamedTuple):
    """The slots of the devices, and the microbatches that they form."""

    slots: int
    """Items that one device holds at a time; a multiple of `microbatch`."""
    microbatch: int
    """Items that are vmapped together: the only number here that changes rounding."""
    devices: int = 1

    @classmethod
    def rounded_up(cls, slots: int, microbatch: int, devices: int) -> Layout:
        """The layout of at least `slots` items on each device, in whole microbatches.

        >>> Layout.rounded_up(slots=10, microbatch=4, devices=1)
        Layout(slots=12, microbatch=4, devices=1)
        """
        return cls(-(-max(slots, 1) // microbatch) * microbatch, microbatch, devices)


def layout_for(kernel: Kernel, n_items: int, devices: int = 1) -> Layout:
    """The default layout: up to `kernel.batching.width` slots a device, and the likeliest of the kernel's microbatches."""
    # No more slots than items: an empty slot is computed all the same where items are vmapped.
    per_device = max(1, min(kernel.batching.width, -(-n_items // devices)))
    m = min(kernel.batching.candidates()[0] or per_device, per_device)
    return Layout.rounded_up(per_device, m, devices)


class Slots(NamedTuple):
    """The items on the devices: arrays with a leading slot axis."""

    ids: Array
    traced: Values[Params]
    state: PyTree
    done: Array


@contextmanager
def precision(static: View[Params]) -> Iterator[None]:
    """A context in which JAX's 64-bit mode is on for items of dtype float64, and off for others.

    Keys and draws are those of JAX's defaults, whatever the environment sets: an item is the same in each process.
    """
    wide = static.dtype == "float64"
    with (
        jax.enable_x64(wide),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
    ):
        yield


class Program:
    """The compiled functions of one (kernel, static, layout), which all groups with these share."""

    def __init__(self, kernel: Kernel, static: View[Params], layout: Layout) -> None:
        self.kernel, self.static, self.layout = kernel, static, layout
        mesh = jax.make_mesh(
            (layout.devices,),
            ("item",),
            devices=jax.local_devices()[: layout.devices],
            axis_types=(jax.sharding.AxisType.Auto,),
        )
        sharding = lambda *axes: jax.NamedSharding(mesh, jax.P(*axes))
        self.by_item, self.replicated = sharding("item"), sharding()
        self.init = self._over_slots(self._init)
        self.step = self._over_slots(self._step)
        self._results: dict[tuple[str, ...], jax.stages.Wrapped] = {}
        self.permute = jax.jit(
            lambda slots, order: jax.tree.map(lambda leaf: leaf[order], slots),
            out_shardings=self.by_item,
        )

    # --- one item ---------------------------------------------------------------------------------

    def _init(self, shared: PyTree, root: Array, fresh: Array, slot: Slots) -> Slots:
        key = jax.random.fold_in(root, slot.ids)
        state = self.kernel.init(self.static, shared, slot.traced, key)
        # An item may be finished at its start, before any advance.
        new = slot._replace(state=state, done=self.kernel.finished(state))
        return jax.tree.map(lambda a, b: jnp.where(fresh, a, b), new, slot)

    def _step(self, shared: PyTree, root: Array, fresh: Array, slot: Slots) -> Slots:
        del fresh

        def advance(slot: Slots) -> Slots:
            key = jax.random.fold_in(root, slot.ids)
            state = self.kernel.advance(self.static, shared, slot.traced, key, slot.state)
            return slot._replace(state=state, done=self.kernel.finished(state))

        # A finished item keeps its state while its neighbours go on. One by one, a cond skips its work.
        # Side by side it is a select, written out by hand: the vmap of a cond would copy the shared data for
        # every item, and products with shared weights would no longer be one product.
        if self.layout.microbatch == 1:
            return lax.cond(slot.done, lambda slot: slot, advance, slot)
        return jax.tree.map(lambda a, b: jnp.where(slot.done, a, b), slot, advance(slot))

    def results(self, names: tuple[str, ...]) -> jax.stages.Wrapped:
        """The compiled `result` of the kernel, for `names` alone: XLA removes the code of other results."""

        def some(shared: PyTree, root: Array, fresh: Array, slot: Slots) -> dict[str, Array]:
            del fresh
            key = jax.random.fold_in(root, slot.ids)
            values = self.kernel.result(self.static, shared, slot.traced, key, slot.state)
            return {name: values[name] for name in names}

        # Compiled once for each set of names: a progress display asks for the same names again and again.
        if names not in self._results:
            self._results[names] = self._over_slots(some)
        return self._results[names]

    # --- all slots --------------------------------------------------------------------------------

    def _over_slots(self, item_function: Callable[..., PyTree]) -> jax.stages.Wrapped:
        """Compile item_function(shared, root, fresh, slot) to f(shared, root, bounds, fresh, slots, out) over slots.

        f computes the microbatches bounds[0] <= i < bounds[1] of each device and leaves the other rows of `out` as
        they are. The caller gives `out` away: f returns its result in the same memory. With slots None, `out` itself
        holds the slots, so that the devices hold them once.
        """
        m = self.layout.microbatch
        of_args = lambda replicated, by_item: (*[replicated] * 3, *[by_item] * 3)

        def on_device(
            shared: PyTree,
            root: Array,
            bounds: Array,
            fresh: Array,
            slots: Slots | None,
            out: PyTree,
        ) -> PyTree:
            # m = 1 without vmap: matrix products then have no batch axis.
            some = item_function if m == 1 else jax.vmap(item_function, (None, None, 0, 0))

            def body(i: Array, out: PyTree) -> PyTree:
                # The barriers keep XLA from merging the item's arithmetic with the loop's slicing, and, since they
                # hold i, from moving it out of a loop over one microbatch. So the item's code, and its rounding, are
                # the same for any number of slots.
                current = out if slots is None else slots
                part = jax.tree.map(lambda leaf: _rows(leaf, i, m), (fresh, current))
                part, _ = lax.optimization_barrier((part, i))
                new = lax.optimization_barrier(some(shared, root, *part))
                return jax.tree.map(lambda leaf, value: _set_rows(leaf, value, i, m), out, new)

            return lax.fori_loop(bounds[0], bounds[1], body, out)

        # jit gets the shardings, too. Without them the program of one device would depend on the placement of its arguments,
        # and a worker would compile again what `ctd plan` has compiled.
        return jax.jit(
            jax.shard_map(
                on_device,
                mesh=self.by_item.mesh,
                in_specs=of_args(self.replicated.spec, self.by_item.spec),
                out_specs=self.by_item.spec,
                check_vma=False,
            ),
            in_shardings=of_args(self.replicated, self.by_item),
            out_shardings=self.by_item,
            donate_argnums=5,
        )


def evaluated(
    kernel: Kernel, static: View[Params], shared: PyTree, traced: Values[Params]
) -> Evaluation:
    """`ctd.contract.evaluate` under the item's precision, once in a process."""
    cache, key = _evaluations(kernel, static), shapes_of(shared, traced)
    if key not in cache:
        with precision(static):
            cache[key] = evaluate(kernel, static, shared, traced)
    return cache[key]


def shapes_of(
    shared: PyTree, traced: Values[Params]
) -> tuple[Hashable, tuple[tuple[tuple[int, ...], str], ...]]:
    """The shapes and dtypes of a group's data and traced values, as a key: a compiled program depends on nothing else of them."""
    leaves, tree = jax.tree.flatten((shared, traced))
    return tree, tuple((np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)


def _rows(leaf: Array, i: Array, m: int) -> Array:
    """Microbatch i of m rows; for m = 1 the row itself, without an axis."""
    if m == 1:
        return lax.dynamic_index_in_dim(leaf, i, keepdims=False)
    return lax.dynamic_slice_in_dim(leaf, i * m, m)


def _set_rows(leaf: Array, new: Array, i: Array, m: int) -> Array:
    """Put `new` into `leaf` as its microbatch i."""
    if m == 1:
        return lax.dynamic_update_index_in_dim(leaf, new, i, 0)
    return lax.dynamic_update_slice_in_dim(leaf, new, i * m, 0)


@lru_cache(maxsize=4096)
def _evaluations(kernel: Kernel, static: View[Params]) -> dict[Hashable, Evaluation]:
    """The cache of `evaluated`, by the shapes of data and traced values. Layouts share it: they do not change one item."""
    return {}


@lru_cache(maxsize=64)
def program(kernel: Kernel, static: View[Params], layout: Layout) -> Program:
    """The program of a kernel for these static fields and this layout, built once in a process."""
    make_room()
    return Program(kernel, static, layout)


MAX_MAPS = 30_000
"""Memory maps of a process above which JAX forgets what it has compiled; Linux allows 65,530 (vm.max_map_count)."""

FEW_MAPS = 1_500
"""The same where no later group needs what is compiled: some thirty small programs, or a large one."""

_maps_kept = 0
"""Memory maps that were left when JAX last forgot."""


def make_room(most: int = MAX_MAPS) -> None:
    """Let JAX forget what it has compiled where a process has this many memory maps, by default near the most that Linux allows.

    On a CPU each program takes some five maps, and JAX keeps most of them for as long as the process lives. After some
    ten thousand programs, as of a sweep over a thousand static values, XLA fails ("Failed to materialize symbols") or crashes. What
    is needed again is compiled again, to the same bits.
    """
    global _maps_kept
    # If the rest is in use, forgetting at each new program would only cost time.
    if _n_maps() < max(most, 2 * _maps_kept):
        return
    program.cache_clear()
    jax.clear_caches()
    gc.collect()
    _maps_kept = _n_maps()


def _n_maps() -> int:
    try:
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)
    except OSError:  # another system, with other limits
        return 0


def traced_columns(
    params: type[Params], columns: Mapping[str, np.ndarray], dtype: str
) -> Values[Params]:
    """The named tuple of traced columns: reals in `dtype`, integers in int32, booleans unchanged.

    Raises ValueError for integers that int32 does not hold.
    """
    kind = traced_type(params)

    def cast(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        if values.dtype.kind == "f":
            return values.astype(dtype)
        if values.dtype.kind == "b":
            return values
        if not np.array_equal(integers := values.astype(np.int32), values):
            raise ValueError(
                "whole numbers of more than 32 bits given; expected numbers up to 2147483647"
            )
        return integers

    return kind(*(cast(columns[name]) for name in kind._fields))
