"""The layout: the slots of a device, and the rows of a group that make a shard. Pure arithmetic.

Between `jobs.plan.items.expand` and `lay_out` the driver measures the `Sizes` of each group (jobs.inputs.measure). For
that it reads the group's data and compiles the program of a first layout, which assumes unlimited memory.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Self

from pydantic import BaseModel, NonNegativeInt, PositiveInt

from ctd.kernel import Kernel
from jobs.errors import JobError, count
from jobs.search.method import Method
from jobs.spec.run import RunSettings

SHARD_BYTES = 4 << 20
"""Target size of one shard's results (bytes): objects of a megabyte or more, in a bounded time."""

CHUNK_BYTES = 1 << 20, 16 << 20
"""Smallest and largest size of a chunk before compression (bytes); readers decompress a chunk as a whole. Targets: the
data may not allow them."""


class Sizes(NamedTuple):
    """Memory and storage that a group needs, in bytes."""

    state: int
    """Device memory of one item between advances."""
    work: int
    """Device memory of one item during an advance, beyond its state (the compiler's temporaries)."""
    result: int
    """Stored values of one item, before compression."""
    shared: int
    """Device memory of the group's data, on each device."""


class GroupLayout(BaseModel, frozen=True):
    """The division of a group's items into shards, slots and microbatches."""

    slots: PositiveInt
    """Items that a device holds at a time."""
    microbatch: NonNegativeInt
    """Vmapped width; 0: the first worker measures the fastest one, and the store keeps it."""
    shard_items: PositiveInt
    """Rows of one shard; the last shard of a group may have fewer."""

    def of_devices(self, local: int, narrowed: int | None = None) -> tuple[int, int]:
        """(items that a device holds, at most its share of a shard; devices, at most one for each row of a shard).

        local: the devices of a worker. narrowed: a number of slots in place of the planned one.
        """
        # A device without an item would compute an empty slot, on a CPU with the other devices' cores.
        devices = min(local, self.shard_items)
        return min(narrowed or self.slots, -(-self.shard_items // devices)), devices


class Shard(NamedTuple):
    """The rows start <= r < stop of a group: the unit of dispatch, of writing and of retry."""

    number: int
    group: int
    start: int
    stop: int

    @property
    def n_items(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """The shards of a job: for each group, its number of rows and its layout.

    With a search that chooses compiled-in fields, `n_variants` neighbouring groups are searched together: each has a row for every
    item, of which the item takes one.
    """

    group_sizes: tuple[int, ...]
    layouts: tuple[GroupLayout, ...]
    n_variants: int = 1

    @property
    def n_items(self) -> int:
        return sum(self.group_sizes) // self.n_variants

    def together(self, group: int) -> range:
        """The groups that are searched together with a group."""
        first = group - group % self.n_variants
        return range(first, first + self.n_variants)

    @cached_property
    def counts(self) -> list[int]:
        # -(-n // k) is n / k, rounded up; so throughout.
        return [
            -(-n // layout.shard_items)
            for n, layout in zip(self.group_sizes, self.layouts, strict=True)
        ]

    @property
    def n_shards(self) -> int:
        return sum(self.counts)

    @cached_property
    def _firsts(self) -> list[int]:
        """Number of the first shard of each group, and of the one after the last."""
        return [*accumulate(self.counts, initial=0)]

    def numbers(self, group: int) -> range:
        return range(self._firsts[group], self._firsts[group + 1])

    def shard(self, number: int) -> Shard | None:
        """The shard with this number; None if there is none."""
        if not 0 <= number < self.n_shards:
            return None
        group = bisect_right(self._firsts, number) - 1
        items = self.layouts[group].shard_items
        start = (number - self._firsts[group]) * items
        return Shard(number, group, start, min(start + items, self.group_sizes[group]))

    def round_number(self, number: int, group: int) -> int:
        """The shard number of a round of a search; numbers of rounds follow those of the planned shards."""
        return self.n_shards + number * len(self.group_sizes) + group

    def group_of_round(self, as_shard: int) -> int:
        """The group of a round, from its number as a shard."""
        return (as_shard - self.n_shards) % len(self.group_sizes)

    def overlapping(self, shard: Shard) -> range:
        """The numbers of the planned shards that hold the rows from a shard's start to its stop."""
        first, items = self._firsts[shard.group], self.layouts[shard.group].shard_items
        return range(first + shard.start // items, first + (shard.stop - 1) // items + 1)

    def shard_of(self, group: int, row: int) -> int:
        """The number of the shard that has a row of a group."""
        return self.overlapping(Shard(-1, group, row, row + 1))[0]

    def shards(self) -> Iterator[Shard]:
        """All shards, in order of dispatch."""
        return (shard for k in range(self.n_shards) if (shard := self.shard(k)))


@dataclass(frozen=True)
class Machines:
    """The machines that shards run on."""

    workers: int
    """Shards that can run at the same time."""
    memory: int
    """Bytes that one device may use."""
    devices: int = 1
    """Devices of a worker that share its host's memory."""

    def sharing(self, rows: int) -> Self:
        """The devices that a shard of `rows` rows takes; they share the memory of all devices."""
        devices = min(self.devices, rows)
        return replace(self, memory=self.memory * self.devices // devices, devices=devices)


def lay_out(
    sizes: Sequence[tuple[int, Sizes]],
    kernel: Kernel,
    settings: RunSettings,
    machines: Machines,
    search: Method | None = None,
    n_variants: int = 1,
) -> Plan:
    """Divide groups into shards.

    Args:
        sizes: (number of items, sizes) of each group.
        search: the job's search, whose rounds hold states in memory.
        n_variants: how many neighbouring groups are searched together.

    Raises:
        JobError: the memory holds not even one item, or fewer than `settings.slots`; the text names the field or the group.

    >>> from ctd.esn import kernel
    >>> small = Sizes(state=1000, work=1000, result=100, shared=0)
    >>> plan = lay_out([(130, small)], kernel, RunSettings(slots=8, shard_items=64), Machines(2, 10**9))
    >>> plan.n_shards, plan.shard(2)
    (3, Shard(number=2, group=0, start=128, stop=130))
    """
    # A worker holds the data of all groups that are searched together.
    worker_sizes = [(n, size._replace(shared=size.shared * n_variants)) for n, size in sizes]
    layouts = [
        _layout(group, n, size, search, kernel.batching.width, settings, machines)
        for group, (n, size) in enumerate(worker_sizes)
    ]
    return Plan(tuple(n for n, _ in sizes), tuple(layouts), n_variants)


def _layout(
    group: int,
    n: int,
    size: Sizes,
    search: Method | None,
    width: int,
    settings: RunSettings,
    machines: Machines,
) -> GroupLayout:
    """The layout of one group of n items. Raises JobError if the memory does not hold it."""
    # A search also holds an item's state before and after the round.
    per_item = size.state * (3 if search else 1) + size.work
    machines = machines.sharing(settings.shard_items or -(-n // machines.workers))
    # Bytes, per device, for items of a round that wait for a slot in the host's memory, with both states. By default a round has
    # no more items than slots, and nobody waits.
    waiting = -(-2 * size.state * (settings.shard_items or 0) // machines.devices) if search else 0
    room = machines.memory - size.shared - waiting
    if per_item > room:
        raise _too_large(group, per_item, size.shared, waiting, machines)
    fitting = int(room // max(1, per_item))
    if settings.slots and settings.slots > fitting:
        raise JobError(
            f"run.slots: {count(settings.slots, 'item')} would take "
            f"{_bytes(settings.slots * per_item + size.shared)}, "
            f"{_bytes(settings.slots * per_item - room)} more than the "
            f"{_bytes(machines.memory)} of a worker; at most {fitting} fit"
        )
    slots = settings.slots or min(width, fitting)
    if settings.shard_items:
        shard_items = settings.shard_items
    elif search:  # the most items of a round, so that all of them have a slot
        shard_items = min(slots * machines.devices, search.in_round(-(-n // machines.workers)))
    else:
        shard_items = _shard_items(n, slots, size.result, machines.workers)
    # Slots beyond the rows of a shard would never be filled.
    slots = max(1, min(slots, shard_items))
    microbatch = min(settings.microbatch or 0, slots)
    return GroupLayout(slots=slots, microbatch=microbatch, shard_items=shard_items)


def _too_large(
    group: int, per_item: int, shared: int, waiting: int, machines: Machines
) -> JobError:
    other_memory, whose, fewer = f"{_bytes(shared)} of shared data", "a worker", ""
    if waiting:
        other_memory += f" and {_bytes(waiting)} of items that wait for a slot"
    if machines.devices > 1:
        whose = f"each of a worker's {machines.devices} devices"
        fewer = ", take fewer devices (JAX_NUM_CPU_DEVICES)"
    return JobError(
        f"group {group}: one item takes {_bytes(per_item)} beside {other_memory}, "
        f"{_bytes(per_item + shared + waiting - machines.memory)} more than the {_bytes(machines.memory)} of {whose}; make the "
        f"item smaller{fewer} or give the worker more (run.memory_gb, or a larger device)"
    )


def _shard_items(n: int, slots: int, result: int, workers: int) -> int:
    """The default rows of a shard: one shard per worker if it fits the slots; else at most SHARD_BYTES and a quarter of
    a worker's share, so that no worker waits long at the end, but no fewer rows than slots.

    A shard that needs inner chunks has up to 1/16 more: a number with small divisors.
    """
    items = -(-n // workers)
    if items > slots:
        by_bytes = max(1, SHARD_BYTES // max(1, result))
        items = max(1, min(max(slots, -(-n // (4 * workers))), max(by_bytes, slots), n))
    if items * result <= CHUNK_BYTES[1]:
        return items
    # The largest power of two within a sixteenth: its multiples have the divisors that `chunk_shape` looks for.
    step = 1 << max(0, (items // 16).bit_length() - 1)
    return -(-items // step) * step


def chunk_shape(shard: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The shape of the chunks of one result in a shard; the whole shape if that is small enough.

    The chunk's lengths divide the shard's. The first axes are cut first, so that a chunk holds whole items
    unless a single item is too large.

    Args:
        shard: the shape of the values, items first.
        itemsize: bytes of one value.

    >>> chunk_shape((1024, 1000), 8), chunk_shape((8, 1000), 8)
    ((1024, 1000), (8, 1000))
    >>> chunk_shape((1024, 10_000), 8)
    (128, 10000)
    """
    chunk = [max(1, k) for k in shard]
    least, most = CHUNK_BYTES
    for axis, length in enumerate(chunk):
        inner = math.prod(chunk[axis + 1 :]) * itemsize
        if length * inner <= most:
            break
        # The least violation of the bounds, as a ratio; among lengths inside the bounds, the largest.
        excess = lambda k, inner=inner: (max(1.0, least / (k * inner), k * inner / most), -k)
        low = [k for k in range(1, math.isqrt(length) + 1) if length % k == 0]
        chunk[axis] = min([*low, *(length // k for k in low)], key=excess)
    return tuple(chunk)


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
