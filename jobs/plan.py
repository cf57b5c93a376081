"""The plan: job -> items, groups, shards. Pure arithmetic: no file is opened, nothing is computed.

    expand(spec, kernel)  -> Sweepings: columns over all items, and the groups of equal static fields
    lay_out(groups, sizes) -> Plan: how many slots a device holds, which rows make a shard

Between the two, the driver measures the `Sizes` of each group (`jobs.measure.measure`), which takes the
group's data.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from ctd.kernel import Kernel, Kind, Params, field_kinds
from jobs.errors import JobError, explain, nearest
from jobs.spec import JobSpec, RunSettings
from jobs.sweep import MAX_ITEMS, Column, join

CHECKED = 10_000
"""Listed values of one field are all validated up to this many; formulas by their extremes."""

SHARD_BYTES = 4 << 20
"""Results of one shard aim here: objects of a megabyte or more, in a bounded time."""

CHUNK_BYTES = 1 << 20, 16 << 20
"""What is read and decompressed at a time is not smaller and not larger than this, before compression,
where the data allow it."""


class Group(NamedTuple):
    """Items with equal static and data fields."""

    number: int
    params: Params
    """The fields that the group's items share; its traced fields are those of its first item."""
    items: np.ndarray
    """(n,) ids in rising order: row r of the group's results belongs to item items[r]."""
    labels: dict[str, Any]
    """The swept static and data fields, by name."""


@dataclass(frozen=True)
class Items:
    """All items of a job: columns over them, and their groups."""

    n: int
    columns: dict[str, Column]
    groups: list[Group]

    def values(self, name: str, items: np.ndarray) -> np.ndarray:
        """One column at these items, as an array (objects become their text)."""
        column = self.columns[name]
        values = column.values
        if isinstance(values, list):
            plain = all(isinstance(v, bool | int | float | str) for v in values)
            rows = all(isinstance(v, tuple | list) for v in values)
            values = np.asarray(values if plain or rows else [str(v) for v in values])
        return np.asarray(values)[column.codes[items]]


def expand(spec: JobSpec, kernel: Kernel, where: str = "job") -> Items:
    """Every item of the job and its group; JobError, by field, where a value is not valid."""
    parts = spec.sweeps()
    total = sum(part.count() for part in parts)
    if total > MAX_ITEMS:
        shapes = " + ".join(" x ".join(str(k) for k in part.shape()) for part in parts)
        raise JobError(f"{where}: sweep: {total:,} items ({shapes}), more than {MAX_ITEMS:,}")
    if total == 0:
        raise JobError(f"{where}: sweep: 0 items; give every axis at least one value")
    kinds = field_kinds(kernel.Params)
    base = _check_names(spec, kernel, kinds, where)
    drawn = [(part.count(), part.columns(spec.seed)) for part in parts]
    columns = (
        join(drawn, {**_defaults(kernel), **base, "seed": 0}) if len(drawn) > 1 else drawn[0][1]
    )
    columns = _validate(columns, base, kernel, where)
    return Items(total, columns, _groups(total, columns, base, kernel, kinds, where))


def _defaults(kernel: Kernel) -> dict[str, Any]:
    fields = kernel.Params.model_fields
    return {name: info.get_default(call_default_factory=True) for name, info in fields.items()}


def _check_names(
    spec: JobSpec, kernel: Kernel, kinds: Mapping[str, Kind], where: str
) -> dict[str, Any]:
    """The shared fields; every swept name must be a field, and a dotted one not a traced field's."""
    swept = {name for part in spec.sweeps() for name in part.names()}
    for name in sorted(swept):
        top, _, rest = name.partition(".")
        if top not in kinds and name != "seed":
            raise JobError(f"{where}: sweep: unknown field {name!r}{nearest(name, kinds)}")
        if rest and kinds[top] is Kind.TRACED:
            raise JobError(f"{where}: sweep: {top!r} is a number, it has no field {rest!r}")
        if name in spec.params:
            raise JobError(f"{where}: {name!r} is given in params and in sweep; keep one of them")
    return dict(spec.params)


def _validate(
    columns: dict[str, Column], base: dict[str, Any], kernel: Kernel, where: str
) -> dict[str, Column]:
    """Each swept value passes `Params` beside the first value of every other field."""
    first = copy.deepcopy(base)
    for name, column in columns.items():
        _place(first, name, column.values[0], kernel)
    swept = {name.partition(".")[0] for name in columns}
    check = lambda name, value: _model(_with(first, name, value, kernel), kernel, where, swept)
    valid = {}
    for name, column in columns.items():
        if name == "seed" and name not in kernel.Params.model_fields:
            valid[name] = column  # the number of a replicate
        elif column.generated:
            check(name, np.min(column.values).item())
            check(name, np.max(column.values).item())
            valid[name] = column
        else:
            checked = [_field(check(name, value), name) for value in column.values[:CHECKED]]
            values = _plain([*checked, *column.values[CHECKED:]])
            if isinstance(values, list) and any(isinstance(v, tuple) for v in values):
                _check_lengths(name, values, kernel, where)
            valid[name] = column._replace(values=values)
    return valid


def _check_lengths(name: str, values: list[Any], kernel: Kernel, where: str) -> None:
    lengths = sorted({len(v) for v in values})
    if field_kinds(kernel.Params).get(name) is Kind.TRACED and len(lengths) > 1:
        raise JobError(
            f"{where}: sweep: {name}: tuples of one length expected, got lengths {lengths}; "
            "run a job for each length"
        )


def _plain(values: list[Any]) -> Any:
    """Numbers, or equal-length tuples of numbers, as an array; anything else as a list."""
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    if all(number(v) for v in values):
        return np.asarray(values)
    tuples = all(isinstance(v, tuple) and all(number(x) for x in v) for v in values)
    if tuples and len({len(v) for v in values}) == 1:
        return np.asarray(values, float)
    return values


def _field(params: Params, name: str) -> Any:
    value: Any = params
    for part in name.split("."):
        value = getattr(value, part) if not isinstance(value, dict) else value[part]
    return value


def _with(content: dict[str, Any], name: str, value: Any, kernel: Kernel) -> dict[str, Any]:
    changed = copy.deepcopy(content) if "." in name else dict(content)
    _place(changed, name, value, kernel)
    return changed


def _place(content: dict[str, Any], name: str, value: Any, kernel: Kernel) -> None:
    """Set a field, or the inner field `a.b` of a mapping-valued one."""
    if name == "seed" and name not in kernel.Params.model_fields:
        return
    *parents, last = name.split(".")
    for parent in parents:
        inner = content.get(parent, {})
        content[parent] = {"name": inner} if isinstance(inner, str) else dict(inner)
        content = content[parent]
    content[last] = value.item() if isinstance(value, np.generic) else value


def _model(content: dict[str, Any], kernel: Kernel, where: str, swept: set[str]) -> Params:
    try:
        return kernel.Params.model_validate(content)
    except ValidationError as error:
        source = lambda field: f"{where}: {'sweep' if field in swept else 'params'}"
        raise JobError(explain(error, source, {(): kernel.Params.model_fields})) from None


def _groups(
    n: int,
    columns: dict[str, Column],
    base: dict[str, Any],
    kernel: Kernel,
    kinds: Mapping[str, Kind],
    where: str,
) -> list[Group]:
    """Items by their combination of static, data and tuple-length codes, in order of first item."""
    splitting = [
        name
        for name in columns
        if kinds.get(name.partition(".")[0], Kind.TRACED) is not Kind.TRACED
    ]
    label = np.zeros(n, np.int64)
    for name in splitting:
        column = columns[name]
        label = label * len(column.values) + column.codes
        label = np.unique(label, return_inverse=True)[1]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.append(0, np.cumsum(np.bincount(inverse)))
    groups = []
    for index, which in enumerate(np.argsort(first)):
        items = order[bounds[which] : bounds[which + 1]]
        content = copy.deepcopy(base)
        for name, column in columns.items():
            _place(content, name, column.values[column.codes[items[0]]], kernel)
        params = _model(content, kernel, where, set())
        labels = {name: columns[name].values[columns[name].codes[items[0]]] for name in splitting}
        groups.append(Group(index, params, items, labels))
    return groups


class Sizes(NamedTuple):
    """What a group takes, in bytes."""

    state: int
    """Device memory of one item between advances."""
    work: int
    """Device memory of one item during an advance, beyond its state (compiler's temporaries)."""
    result: int
    """Stored values of one item, before compression."""
    shared: int
    """The group's data on each device."""


class GroupLayout(NamedTuple):
    """How the items of one group are cut."""

    slots: int
    """Items that a device holds at a time."""
    microbatch: int
    """Vmapped width; 0: the fastest, measured by the first worker and kept in the store."""
    shard_items: int
    """Rows of one dispatch; the last shard of a group may have fewer."""


class Shard(NamedTuple):
    """The rows start <= r < stop of a group: the unit of dispatch, of writing and of retry."""

    number: int
    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Which shards there are. `offsets[g]` is the index of the first shard of group g."""

    group_sizes: tuple[int, ...]
    layouts: tuple[GroupLayout, ...]

    @property
    def counts(self) -> list[int]:
        """How many shards each group has."""
        return [
            -(-n // layout.shard_items)
            for n, layout in zip(self.group_sizes, self.layouts, strict=True)
        ]

    @property
    def n_shards(self) -> int:
        """How many shards there are in all."""
        return sum(self.counts)

    def shards(self) -> Iterator[Shard]:
        """All shards, in order of dispatch."""
        index = 0
        for group, (n, layout) in enumerate(zip(self.group_sizes, self.layouts, strict=True)):
            for start in range(0, n, layout.shard_items):
                yield Shard(index, group, start, min(start + layout.shard_items, n))
                index += 1


def lay_out(
    sizes: Sequence[tuple[int, Sizes]],
    kernel: Kernel,
    settings: RunSettings,
    workers: int,
    memory: int,
    where: str = "job",
    together: Sequence[int] | None = None,
    devices: int = 1,
    spread: bool = False,
) -> Plan:
    """Cut groups into shards.

    sizes: (number of items, sizes of an item) of each group. workers: how many shards can run at a
    time. memory: bytes that one device may use. together: how many neighbours a search compares in
    each group, which are then in one shard, or with `spread` in several. devices: how many of a worker
    share its host's memory. JobError where not even one item fits.
    """
    layouts = []
    for index, (n, size) in enumerate(sizes):
        unit = together[index] if together else 1
        even = min(settings.slots or kernel.width, -(-n // workers))
        part = spread and _is_cut(settings.shard_items or even, unit)
        # Between the laps of a search its items wait beside the slots, in the host's memory.
        waiting = size.state * max(unit, settings.shard_items or 0) if unit > 1 else 0
        if part:  # those beyond the slots, which are counted with the slots
            waiting = size.state * (settings.shard_items or 0)
        waiting = -(-waiting // devices)
        per_item = size.state * (1 + (unit > 1) + part) + size.work
        room = memory - size.shared - waiting
        if per_item > room:
            beside = f"{_bytes(size.shared)} of shared data"
            beside += f" and {_bytes(waiting)} of items that the search compares" if waiting else ""
            whose = f"each of a worker's {devices} devices" if devices > 1 else "a worker"
            raise JobError(
                f"{where}: group {index}: one item takes {_bytes(per_item)} beside "
                f"{beside}, {_bytes(per_item - room)} more "
                f"than the {_bytes(memory)} of {whose}; make the item smaller or give the worker "
                "more (run.memory_gb, or a larger device)"
            )
        fitting = int(room // max(1, per_item))
        if settings.slots and settings.slots > fitting:
            raise JobError(
                f"{where}: run.slots: {settings.slots} items take "
                f"{_bytes(settings.slots * per_item + size.shared)}, "
                f"{_bytes(settings.slots * per_item - room)} more than the {_bytes(memory)} of a "
                f"worker; at most {fitting} fit"
            )
        slots = settings.slots or min(kernel.width, fitting)
        by_default = _divisible(_shard_items(n, slots, size.result, workers), size.result)
        if unit > 1:
            few = min(slots, -(-n // workers))
            by_default = _divisor(few, unit) if part else -(-few // unit) * unit
        shard_items = settings.shard_items or by_default
        slots = max(1, min(slots, shard_items))
        microbatch = min(settings.microbatch or 0, slots)
        layouts.append(GroupLayout(slots, microbatch, shard_items))
    return Plan(tuple(n for n, _ in sizes), tuple(layouts))


def _shard_items(n: int, slots: int, result: int, workers: int) -> int:
    """Every worker gets a shard; beyond a device's slots, four each, so that none waits long."""
    even = -(-n // workers)
    if even <= slots:
        return even
    by_bytes = max(1, SHARD_BYTES // max(1, result))
    return max(1, min(max(slots, -(-n // (4 * workers))), max(by_bytes, slots), n))


def _is_cut(items: int, unit: int) -> bool:
    """Whether brackets or populations of `unit` items are cut into shards of so many, or nearly: where
    their size has no fitting divisor, they stay whole."""
    return items < unit and 2 * _divisor(items, unit) >= items


def _divisor(items: int, unit: int) -> int:
    return max(k for k in _divisors(unit) if k <= items)


def _divisible(items: int, result: int) -> int:
    """So many items or a few percent more, a number with small divisors where a shard must be cut."""
    if items * result <= CHUNK_BYTES[1]:
        return items
    step = 1 << max(0, (items // 16).bit_length() - 1)
    return -(-items // step) * step


def chunk_shape(shard: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The chunks that a shard's values of one result are cut into; all of it where it is small enough.

    shard: the shape of the values, items first. Every chunk divides it. The first axes are cut first,
    so that a chunk holds whole items unless one of them is too large.
    """
    chunk = [max(1, k) for k in shard]
    least, most = CHUNK_BYTES
    for axis, length in enumerate(chunk):
        inner = math.prod(chunk[axis + 1 :]) * itemsize
        if length * inner <= most:
            break
        # How far a size is outside the bounds, as a ratio; inside them, the larger the better.
        excess = lambda k, inner=inner: (max(1.0, least / (k * inner), k * inner / most), -k)
        chunk[axis] = min(_divisors(length), key=excess)
    return tuple(chunk)


def _divisors(n: int) -> list[int]:
    low = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return [*low, *(n // k for k in low)]


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
