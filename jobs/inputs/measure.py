"""Load a group's data and measure one of its items; the plan needs both before anything is computed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from ctd.batch import DeviceSlots, Layout, evaluated, precision, program, shapes_of, traced_columns
from ctd.batch.tune import microbatch_candidates
from ctd.contract import ContractError, is_worded, located
from ctd.kernel import (
    Coordinate,
    Kernel,
    Kind,
    Params,
    Var,
    field_kinds,
    inputs_of,
    static_of,
    traced_of,
)
from ctd.late import jax
from ctd.words import nearest
from jobs.errors import JobError, near_file, within
from jobs.inputs.fetch import local_file
from jobs.inputs.items import materialise
from jobs.inputs.versions import changed_files
from jobs.plan.layout import GroupLayout, Machines, Sizes
from jobs.plan.packing import RESERVED
from jobs.storage import objects
from jobs.storage.addresses import join, parse_item
from jobs.store.creation import Outputs
from jobs.store.groups import given_params
from jobs.store.store import Store


def with_files(params: Params, base: str) -> Params:
    """The parameters with the path of a local file in every `File` field.

    Relative names start from the folder or address `base`. Items of other stores, Zarr arrays or groups
    and remote files become local files.

    Raises:
        JobError: a file, item or array cannot be read; the text names the field.
        StorageFailed: it cannot be read now, and another attempt may succeed.
    """
    local_paths: dict[str, Any] = {}
    for name, paths in _files(params).items():
        with within(f"params: {name}"):
            field_paths = tuple(_local_path(path, base) for path in paths)
        local_paths[name] = (
            field_paths[0] if isinstance(getattr(params, name), str) else field_paths
        )
    return params.model_copy(update=local_paths)


def group_params(store: Store, group: int) -> Params:
    """The `given_params` of a group, with file names resolved."""
    return with_files(given_params(store, group), store.job.base)


def replaced_files(store: Store, group: int) -> str:
    """Name the input files of a group that have changed since it was computed; "" if none has. This reads them."""
    paths = [path for _, path in paths_of(given_params(store, group))]
    return ", ".join(changed_files(store.job.inputs, store.job.base, paths))


def _local_path(value: str, base: str) -> str:
    """The path of a local file with the data that `value` names."""
    item = parse_item(value, base)
    return local_file(join(base, value)) if item is None else materialise(item)


def _files(params: Params) -> dict[str, tuple[str, ...]]:
    """The `File` fields that name files, each with its paths; an empty text names none."""
    kinds = field_kinds(type(params))
    values = {name: getattr(params, name) for name, kind in kinds.items() if kind is Kind.FILE}
    return {
        name: (value,) if isinstance(value, str) else value
        for name, value in values.items()
        if value not in (None, "")
    }


KEPT_BYTES = 256 << 20
"""Largest size of loaded data that are kept in memory (bytes): planning, computing, reducing and drawing load the same data."""

_last: dict[Any, Any] = {}
"""Key of `_identity` -> the data that were loaded last, if they are kept."""


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect a kernel's own warnings, `warnings.warn(text)`, for the store; show all others."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield texts
    for warning in caught:
        if warning.category is UserWarning:
            texts.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def load_group(kernel: Kernel, params: Params, base: str) -> Any:
    """The data of `load_with_warnings`, whose warnings were shown when the job was planned."""
    return load_with_warnings(kernel, params, base)[0]


def load_with_warnings(kernel: Kernel, params: Params, base: str) -> tuple[Any, list[str]]:
    """Load the group's data with the kernel's `load`, and collect its warnings. Callers share both and must not change them.

    Raises:
        JobError: a file does not exist, or `load` raises ValueError or OSError.
        StorageFailed: as `with_files`; and `load` passes on the errors of the storage.
    """
    job_paths = paths_of(params)
    params = with_files(params, base)
    files = paths_of(params)
    for name, path in files:
        if not Path(path).exists():
            raise JobError(f"params: {name}: {path}: there is no such file{near_file(path)}")
    key = _identity(kernel, params, [path for _, path in files])
    if (last := _last.get(key)) is not None:
        return last

    def of_job(text: str) -> str:
        # The user does not know the path of a copy: name what the job names.
        for (_, path), (_, name) in zip(files, job_paths, strict=True):
            if not path.endswith(name):
                text = text.replace(path, name)
        return text

    # Before the next data are read: the memory may not hold both.
    _last.clear()
    try:
        with precision(static_of(params)), collected() as texts:
            shared = kernel.load(inputs_of(params))
        loaded = shared, [of_job(text) for text in texts]
        if key is not None and _nbytes(shared) <= KEPT_BYTES:
            _last[key] = loaded
        return loaded
    except JobError:
        raise
    except (ValueError, OSError) as error:
        if objects.is_storage_error(error):
            raise
        # Words of a library, such as NumPy's on shapes, name neither a file nor a line.
        worded = isinstance(error, OSError) or is_worded(error, kernel.load)
        text = f"params: {error}" if worded else f"kernel {kernel.name}: load: {located(error)}"
        raise JobError(of_job(text)) from None


def paths_of(params: Params) -> list[tuple[str, str]]:
    """The files of a job's parameters as (field, path)."""
    return [(name, path) for name, paths in _files(params).items() for path in paths]


def _identity(kernel: Kernel, params: Params, files: Sequence[str]) -> Any:
    """A key that tells the data of a group from all others; None if there is none."""
    inputs = inputs_of(params)
    try:
        hash(inputs)
        file_stats = [(path, os.stat(path)) for path in files if Path(path).is_file()]
    except (TypeError, OSError):
        return None
    # A folder's own status does not tell whether its files have changed.
    if len(file_stats) < len(files):
        return None
    # repr tells 1, 1.0 and True apart, which are equal but may load different data.
    stats = tuple((path, s.st_ino, s.st_mtime_ns, s.st_size) for path, s in file_stats)
    return kernel, repr(inputs), inputs, stats


@dataclass(frozen=True)
class Evaluated:
    """A group with its data, and the sizes and shapes of its items from abstract evaluation."""

    kernel: Kernel
    static: Any
    shared: Any
    traced: Any
    sizes: Sizes
    """The sizes of its items; `work` is 0, since only the compiler knows it."""
    outputs: Outputs
    unread: frozenset[str]
    """The traced fields that none of its results depends on."""
    started: frozenset[str]
    """The traced fields that act at an item's start alone."""
    advanced: int
    """Bytes of all values that an advance of an item computes on its way."""
    warnings: list[str]
    """The warnings of the kernel's `load`."""

    def measured(self, layout: GroupLayout, devices: int) -> Sizes:
        """The sizes with the work of an item, from the compiler's memory analysis.

        A run with this layout uses the program that is compiled here. The work depends on the microbatch alone, so that
        groups with equal microbatches and shapes are measured once in a process.

        devices: number of devices of a worker; this process may have fewer.
        """
        slots, devices = layout.of_devices(min(devices, jax.local_device_count()))
        # If the plan leaves it open, the likeliest one: the first worker will time it first, and others only if that pays.
        m = layout.microbatch or microbatch_candidates(self.kernel, slots)[0]
        works, key = _works(self.kernel, self.static), (m, shapes_of(self.shared, self.traced))
        if key not in works:
            compiled = program(self.kernel, self.static, Layout.rounded_up(slots, m, devices))
            device_slots = DeviceSlots(compiled, self.shared, 0, np.zeros(1, int), self.traced)
            works[key] = device_slots.temporaries() // m
        return self.sizes._replace(work=works[key])


MEASURED = 8
"""Most programs that a plan compiles to measure them, if the memory holds four times as much."""


def measured(
    groups: Sequence[Evaluated], layouts: Sequence[GroupLayout], machines: Machines
) -> list[Sizes]:
    """The sizes of groups with the work of an item. Of many programs only some are compiled, from the smallest to the largest: the
    work of the others is interpolated, by the values that an advance computes. Where these may not fit, the program is compiled.
    """
    exactly = lambda k: groups[k].measured(layouts[k], machines.devices)
    order = sorted(range(len(groups)), key=lambda k: groups[k].advanced)
    programs = {(g.static, *shapes_of(g.shared, g.traced)) for g in groups}
    if len(programs) <= MEASURED:
        return [exactly(k) for k in range(len(groups))]
    some = [order[k] for k in np.linspace(0, len(order) - 1, MEASURED).astype(int)]
    advanced, works = [groups[k].advanced for k in some], [exactly(k).work for k in some]
    sizes = []
    for k, group in enumerate(groups):
        size = group.sizes._replace(work=int(np.interp(group.advanced, advanced, works)))
        # A search holds three states of an item.
        most = layouts[k].slots * (3 * size.state + 4 * size.work) + size.shared
        sizes.append(exactly(k) if k in some or most > machines.memory else size)
    return sizes


MOST_DATA = 4
"""Most arrays of the groups' data that a plan names."""
MOST_UNUSED = 10
"""Most datasets of their files that it names as not used."""


def data_told(groups: Sequence[Any]) -> list[str]:
    """Lines on the data of a plan's groups: the sizes of arrays with three annotated axes or more, which show whether a file has
    its axes exchanged; and the datasets that are not used, from a field `unused`.

    >>> from ctd.curbd.params import Shared
    >>> data_told([Shared(np.zeros((1, 600, 60)), np.zeros((3, 60)), np.zeros(()))])
    ['x: recording 1, time 600, unit 60']
    """
    sizes = dict.fromkeys(
        f"{name}: {', '.join(f'{axis} {n:,}' for axis, n in zip(axes, shape, strict=True))}"
        for shared in groups
        for name, axes, shape in _annotated(shared, "")
        if len(axes) == len(shape) > 2 and 0 not in shape
    )
    unused = dict.fromkeys(name for shared in groups for name in getattr(shared, "unused", ()))
    names = [*unused][:MOST_UNUSED] + ["..."] * (len(unused) > MOST_UNUSED)
    return [*sizes][:MOST_DATA] + ([f"not used: {', '.join(names)}"] if names else [])


# The groups of a job mostly have data of one type.
_hints = lru_cache(get_type_hints)


def _annotated(data: Any, place: str) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """(name, axes, shape) of the arrays in nested named tuples that jaxtyping annotates."""
    for name in getattr(data, "_fields", ()):
        value, kind = getattr(data, name), _hints(data.__class__).get(name)
        yield from _annotated(value, f"{place}{name}.")
        # An optional array is a union.
        axes = [
            annotation.dim_str.split()
            for annotation in (kind, *get_args(kind))
            if hasattr(annotation, "dim_str")
        ]
        if axes and value is not None:
            yield place + name, axes[0], np.shape(value)


@lru_cache(maxsize=64)
def _works(kernel: Kernel, static: object) -> dict[Any, int]:
    """The measurements so far: (microbatch, shapes of data and traced values) -> work of an item."""
    return {}


def outputs_of(kernel: Kernel, params: Params, base: str) -> Outputs:
    """The results and coordinates of one group's items. Raises as `evaluate_group`."""
    return evaluate_group(kernel, params, base).outputs


def evaluate_group(kernel: Kernel, params: Params, base: str) -> Evaluated:
    """Load one group's data and evaluate its items abstractly.

    Raises JobError if the data cannot be loaded, or the kernel breaks its contract; errors of the storage as `load_group`.
    """
    try:
        shared, texts = load_with_warnings(kernel, params, base)
    except JobError:
        raise
    except Exception as error:
        if objects.is_storage_error(error):
            raise
        raise JobError(f"kernel {kernel.name}: load: {located(error)}") from error
    static = static_of(params)
    columns = {name: np.asarray(value)[None] for name, value in traced_of(params)._asdict().items()}
    traced = traced_columns(type(params), columns, static.dtype)
    first = jax.tree.map(lambda leaf: leaf[0], traced)
    try:
        state, shapes, unread, started, advanced = evaluated(kernel, static, shared, first)
    except ContractError as error:
        raise JobError(str(error)) from error
    inputs = inputs_of(with_files(params, base))
    function = "coords"
    try:
        with precision(static):
            coords = kernel.coordinates(inputs, shared)
            function = "advances"
            if kernel.advances and (most := kernel.advances(inputs)) < 0:
                raise ValueError(f"{most} given; expected 0 or more")
    except Exception as error:
        raise JobError(f"kernel {kernel.name}: {function}: {located(error)}") from error
    with within(f"kernel {kernel.name}"):
        _check_names(kernel, params, shapes, coords)
    nbytes = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    sizes = Sizes(state=nbytes(state), work=0, result=nbytes(shapes), shared=_nbytes(shared))
    outputs = Outputs(shapes, coords)
    return Evaluated(
        kernel, static, shared, traced, sizes, outputs, unread, started, advanced, texts
    )


MOST_NAME = 200
"""Most bytes of a result's name: file systems take 255, and some are written with further letters."""


def _check_names(
    kernel: Kernel, params: Params, shapes: Mapping[str, object], coords: Mapping[str, Coordinate]
) -> None:
    """Raise JobError if two arrays of the store would share a name, a name is not allowed, or an axis has two lengths.

    Every result and every axis with coordinates becomes an array of its name.
    """
    kinds = field_kinds(type(params))
    reserved = {"item", "status", "group", "row"}
    # In a group only traced parameters are columns; in `items` all of them are.
    columns = reserved | {name for name, kind in kinds.items() if kind is Kind.TRACED}
    own_axes = {axis for name in shapes for axis in kernel.dims[name].axes}
    for role, clashes in (
        ("parameter", reserved & kinds.keys()),
        ("result", (reserved | kinds.keys()) & shapes.keys()),
        ("axis", (columns & coords.keys()) | ({"item"} & own_axes)),
    ):
        if clashes:
            raise JobError(
                f"{role} {min(clashes)!r} has the name of a parameter, or of a column that every store has; give it another name"
            )
    if clash := sorted(shapes.keys() & coords.keys()):
        raise JobError(f"{clash[0]!r} is a result and has coordinates; rename one of them")
    for axis, coordinate in coords.items():
        if coordinate.values.ndim != 1 or coordinate.values.dtype.kind not in "biufSUmM":
            description = f"{coordinate.values.dtype} of the shape {coordinate.values.shape}"
            raise JobError(
                f"coords: {axis} is {description}; expected numbers or texts along one axis"
            )
    further = {
        *kernel.tables.dims,
        *(axis for var in kernel.tables.dims.values() for axis in var.axes),
    }
    for name in sorted({*shapes, *coords, *own_axes, *further}):
        odd = name.startswith(RESERVED) or not name.partition(".")[0] or name == "zarr.json"
        if odd or {"/", "\\"} & {*name} or not name.isprintable() or len(name.encode()) > MOST_NAME:
            raise JobError(
                f"{name!r} is not allowed as a name; expected one of at most {MOST_NAME} bytes without / and \\ that begins neither "
                f"with a dot nor with {' or '.join(RESERVED)}, which are the store's own, as zarr.json is"
            )
    axes = {
        axis for var in (*kernel.dims.values(), *kernel.tables.dims.values()) for axis in var.axes
    }
    if unknown := sorted(coords.keys() - axes):
        raise JobError(f"coords: no result has the axis {unknown[0]!r}{nearest(unknown[0], axes)}")
    if fault := two_lengths(kernel.dims, shapes, coords):
        raise JobError(fault)


def two_lengths(
    dims: Mapping[str, Var], values: Mapping[str, Any], coords: Mapping[str, Coordinate]
) -> str:
    """Say which axis of a kernel's arrays and coordinates has two lengths; "" if none has. values: anything with a shape."""
    lengths = {
        name: (f"the coordinates of {name}", len(coordinate.values))
        for name, coordinate in coords.items()
    }
    for name, value in values.items():
        for axis, length in zip(dims[name].axes, value.shape, strict=True):
            owner, before = lengths.setdefault(axis, (name, length))
            if length != before:
                return (
                    f"axis {axis!r} has length {length} in {name!r} and {before} in {owner!r}; give axes of "
                    "different lengths different names"
                )
    return ""


def _nbytes(shared: object) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(shared))
