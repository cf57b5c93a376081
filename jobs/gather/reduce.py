"""Reduce one group: run the kernel's `reduce` over its committed rows and write gathered/G.

This is a task of its own: any worker can do it, and repeat it, and it reads no other group. The checksums in
run/sums/gathered/G.json also name what the tables were made from. They are written last; without them, nothing
in gathered/G counts.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from ctd.batch import precision
from ctd.contract import ContractError, check_axes, located
from ctd.kernel import Coordinate, Kernel, Var, inputs_of, static_of
from ctd.late import jax
from jobs import keys
from jobs.errors import JobError
from jobs.inputs.measure import (
    collected,
    group_params,
    load_with_warnings,
    replaced_files,
    two_lengths,
)
from jobs.run.task import Key
from jobs.spec.reductions import options_of
from jobs.storage import objects
from jobs.storage.checksums import Sums, digest, digest_of, write_sums
from jobs.store.advice import gather_command, resume_command
from jobs.store.arrays import DONE, attributes, put_array
from jobs.store.groups import GroupResults, columns_of, rows_with_results
from jobs.store.marker import Marker
from jobs.store.store import Store, table_group


class Reduction(NamedTuple):
    """One attempt to reduce the committed shards of a group; nothing is computed."""

    group: int
    attempt: int = 1

    @property
    def key(self) -> Key:  # no shard runs while groups are reduced
        return self.group, self.attempt

    def do(self, store: Store) -> None:
        """Reduce the group, as `reduce_group`."""
        reduce_group(store, self.group)


def _leaves_out(store: Store, markers: Sequence[Marker]) -> bool:
    """Return whether the kernel's `reduce` gets fewer items of these shards than have results."""
    has_failed_results = lambda m: m.n_failed > len(m.without) or m.outcomes.get("dropped")
    return not store.kernel.tables.of_failed and any(map(has_failed_results, markers))


def _rows_to_reduce(store: Store, group: int, markers: Sequence[Marker]) -> np.ndarray:
    """Mark the rows of a group that the kernel's `reduce` gets: (rows of the group,) bool."""
    rows = rows_with_results(store.job.plan.group_sizes[group], markers)
    if _leaves_out(store, markers):
        rows[rows] = GroupResults(store, group, rows, ["status"])["status"] == DONE
    return rows


def made_from(store: Store, markers: Sequence[Marker]) -> str:
    """A digest of everything that a reduction of these shards depends on: their bytes, settings, program."""
    options = options_of(store.job.spec, store.kernel).model_dump(mode="json")
    shards = [[m.shard.number, m.without, m.sha256] for m in markers]
    content = {"shards": shards, "options": options, "program": program_of(store.kernel)}
    # Earlier versions reduced all items with results.
    return digest_of(content | ({"status": "done"} if _leaves_out(store, markers) else {}))


def program_of(kernel: Kernel) -> str:
    """A digest of the source of the package or module of `reduce`, which changes when the source is edited."""
    module = sys.modules.get(getattr(kernel.tables.reduce, "__module__", ""))
    path = Path(getattr(module, "__file__", None) or "")
    files = sorted(path.parent.glob("*.py")) if getattr(module, "__package__", "") else [path]
    return digest(b"".join(file.read_bytes() for file in files if file.is_file()))


def is_reduced(store: Store, group: int, origin: str) -> bool:
    """Return whether gathered/G is complete. origin: what `made_from` returns for the group's present markers."""
    sums = Sums.read(store.objects, keys.sums(f"gathered/{group}"))
    if sums is None or sums.about.get("made_from") != origin:
        return False
    # Of a group without results the checksums are of no object.
    return not sums.sha256 or objects.read(store.objects, f"gathered/{group}/zarr.json") is not None


def reduce_group(
    store: Store,
    group: int,
    check: Callable[[], None] = lambda: None,
    markers: Sequence[Marker] | None = None,
) -> None:
    """Write gathered/G from the committed shards of the group; leave only its checksums, of nothing, if there is no row to reduce.

    check: called before anything is written, and again when the values are there; raises if nothing may be written.
    markers: of the group's shards, if other tables are made from the same.

    Raises JobError if an input file has changed since the items were computed; with the line of its source, where the kernel's
    `reduce` raises, or returns what `reduced` does not describe.
    """
    kernel = store.kernel
    assert kernel.tables.reduce is not None
    _refuse_replaced(store, group)
    markers = store.committed.markers(group) if markers is None else markers
    rows = _rows_to_reduce(store, group, markers)
    sums, folder = keys.sums(f"gathered/{group}"), f"gathered/{group}"
    check()
    objects.delete(store.objects, sums)
    if not rows.any():
        objects.delete_all(store.objects, folder)
        write_sums(store.objects, folder, (), made_from=made_from(store, markers))
        return
    options = options_of(store.job.spec, kernel)
    arrays, texts = _reduced(store, group, rows, options)
    check()
    objects.delete_all(store.objects, folder)
    about = {"options": options.model_dump(mode="json"), "items": int(rows.sum()), "warnings": texts}  # fmt: skip
    swept = attributes(store.results(group))["swept"]
    out = table_group(store, folder, {**about, "swept": swept})
    for name, (values, var) in arrays.items():
        put_array(out, name, values, var)
    object_keys = objects.list_keys(store.objects, folder)
    write_sums(store.objects, folder, object_keys, made_from=made_from(store, markers))


def _reduced(
    store: Store, group: int, rows: np.ndarray, options: BaseModel
) -> tuple[dict[str, tuple[np.ndarray, Var]], list[str]]:
    """The arrays that the kernel's `reduce` makes of these rows, with its coordinates; the warnings of its `load` and `reduce`."""
    kernel, params = store.kernel, group_params(store, group)
    assert kernel.tables.reduce is not None
    results = GroupResults(store, group, rows, store.names(group))
    with precision(static_of(params)), _on_cpu():
        shared, of_load = load_with_warnings(kernel, params, store.job.base)
        inputs = inputs_of(params)
        columns = columns_of(store, group, rows)
        coords = kernel.coordinates(inputs, shared)
        with explained(kernel, "reduce", store), collected() as texts:
            reduced = _as_arrays(kernel.tables.reduce(inputs, shared, columns, results, options))
            check_axes("", "tables.dims", kernel.tables.dims, reduced)
            if fault := two_lengths(kernel.tables.dims, reduced, coords):
                raise ContractError(fault)
    return _with_coordinates(kernel, reduced, coords), of_load + texts


def _refuse_replaced(store: Store, group: int) -> None:
    if others := replaced_files(store, group):
        again = resume_command(store, "--accept-changes")
        raise JobError(
            f"{others} changed since the items were computed; bring it back, or {again} takes it as it is"
        )


def _as_arrays(returned: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Turn what `reduce` returned into arrays. Raises ContractError if Zarr cannot store one: of objects, or of reals of more than 64 bits."""
    reduced = {name: np.asarray(value) for name, value in returned.items()}
    for name, value in reduced.items():
        wide = value.dtype.kind in "fc" and value.dtype.itemsize > 8 * (
            1 + (value.dtype.kind == "c")
        )
        if value.dtype.kind in "OV" or wide:
            raise ContractError(
                f"{name} has the type {value.dtype}, which no store holds; return numbers or texts, as by values.astype(float) or "
                "values.astype(str)"
            )
    return reduced


def _with_coordinates(
    kernel: Kernel, reduced: Mapping[str, np.ndarray], coords: Mapping[str, Coordinate]
) -> dict[str, tuple[Any, Var]]:
    """The reduced values and the coordinates of their axes, each with its description."""
    arrays: dict[str, tuple[Any, Var]] = {
        name: (values, kernel.tables.dims[name]) for name, values in reduced.items()
    }
    axes = {axis for name in reduced for axis in kernel.tables.dims[name].axes}
    for axis in axes & coords.keys() - reduced.keys():
        coordinate = coords[axis]
        arrays[axis] = coordinate.values, Var((axis,), coordinate.units, coordinate.long_name)
    return arrays


class FunctionFailed(JobError):
    """Raised where a kernel's function raised, or returned what it may not."""


@contextlib.contextmanager
def explained(kernel: Kernel, name: str, store: Store) -> Iterator[None]:
    """Raise FunctionFailed, with the line of the author's source, where the kernel's function `name` raises.

    A ContractError is about what the function returns: the text names the line where the function begins. Errors of memory and
    of the storage pass unchanged, since another attempt may succeed.
    """
    try:
        yield
    except (JobError, MemoryError):
        raise
    except Exception as error:
        if objects.is_storage_error(error):
            raise
        function = kernel.display.plots if name == "plots" else kernel.tables.reduce
        begins = _begins(function) if function and isinstance(error, ContractError) else None
        reason = located(error) if begins is None else f"{error}{begins}"
        raise FunctionFailed(
            f"kernel {kernel.name}: {name}: {reason}\n"
            f"the results are stored; once {name} is mended, {gather_command(store)} does the rest; the "
            "items then count as made by the source as it was, and `ctd run` refuses to go on with them"
        ) from error


def _begins(function: Callable[..., object]) -> str:
    """The file and line where a function begins, as a line; "" if it has none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"\n  {Path(code.co_filename).name}, line {code.co_firstlineno}" if code else ""


def _on_cpu() -> Any:
    """A context in which JAX computes on the CPU, which gives the same bits everywhere; without a CPU backend, on its default device."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()
