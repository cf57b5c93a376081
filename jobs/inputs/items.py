"""Items of a store as files, to export a trained network or to use it as the input of another job."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ctd.weights.formats import check_ending
from ctd.weights.network import write_named
from jobs import keys
from jobs.errors import JobError, count
from jobs.redact import redact
from jobs.storage import connect, objects
from jobs.storage.addresses import ItemPart, local_path, parse_item
from jobs.store.arrays import FAILED, attributes
from jobs.store.store import Store, known_kernel, rows_of

WEIGHTS = "weights."
"""Prefix of the results that make up an item's trained model."""


def failed_inputs(files: Iterable[str], base: str) -> list[str]:
    """Return a line for each store of which failed items are among the input files of a job."""
    used: dict[str, dict[int, str]] = {}
    for file in files:
        if (item_part := parse_item(file, base)) is not None:
            used.setdefault(item_part.store, {})[item_part.item] = file.partition("::")[0]
    lines = []
    for address, items in used.items():
        store = _open_cached(address, _job_of(address))
        outcomes = Counter(how_failed(store, items).values())
        if outcomes:
            lines.append(
                f"{outcomes.total():,} of {count(len(items), 'item')} of {next(iter(items.values()))} that are inputs failed "
                f"({', '.join(outcomes)}); add status == 'done' to where"
            )
    return lines


def how_failed(store: Store, items: Iterable[int]) -> dict[int, str]:
    """Return failed item -> its outcome, or "error" if it raised."""
    sizes, outcomes = store.job.plan.group_sizes, store.description.outcomes
    column = cache(lambda group, name: store.rows(group, name, 0, sizes[group]))
    outcome_of_item = {}
    for item in items:
        group, row = place_of(store, item)
        if column(group, "status")[row] == FAILED:
            code = column(group, "outcome")[row] if "outcome" in store.names(group) else -1
            outcome_of_item[item] = outcomes[code].name if 0 <= code < len(outcomes) else "error"
    return outcome_of_item


def item_params(store: Store, item: int) -> dict[str, Any]:
    """The parameters that an item's results were made with: field -> value.

    For an item of a population, a searched parameter has its last value.

    Raises JobError if the item does not exist or is not computed.

    >>> item_params(Store.open("points.zarr"), 0)["n_trials"]
    4
    """
    group, row = _find(store, item)
    return row_params(store, group, row, row + 1)[0]


def row_params(store: Store, group: int, start: int, stop: int) -> list[dict[str, Any]]:
    """The `item_params` of the rows start <= r < stop of a group, computed or not."""
    about = attributes(store.results(group))
    columns = {name: name for name in str(about.get("coordinates", "")).split()}
    # A population changes parameters as it runs: final_NAME has the last values (jobs.plan.search).
    columns |= {n.removeprefix("final_"): n for n in store.names(group) if n.startswith("final_")}
    used = {name: stored for name, stored in columns.items() if name in about["params"]}
    read = rows_of(store, group, used.values(), start, stop)
    values = {name: read[stored].tolist() for name, stored in used.items()}
    row_values = lambda k: {name: column[k] for name, column in values.items()}
    return [about["params"] | row_values(k) for k in range(stop - start)]


def place_of(store: Store, item: int) -> tuple[int, int]:
    """The (group, row) of an item. Raises JobError if there is no such item."""
    items, places = places_of_items(store)
    first, end = np.searchsorted(items, [item, item + 1])
    candidates = [(int(group), int(row)) for group, row in places[first:end]]
    if not candidates:
        n = store.job.plan.n_items
        raise JobError(f"{store.address}: has no item {item}; it has the items 0 to {n - 1}")
    # Groups that are searched together all have a row for it, and one of them has the item.
    rows = (place for place in candidates if len(candidates) == 1 or _is_computed(store, *place))
    return next(rows, candidates[-1])


_indices: WeakKeyDictionary[Store, tuple[np.ndarray, np.ndarray]] = WeakKeyDictionary()
"""Opened store -> its `places_of_items`."""


def places_of_items(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """(the items of all rows, in rising order; the (group, row) of each). They never change, and are read once."""
    if store not in _indices:
        sizes = store.job.plan.group_sizes
        items = np.concatenate([store.rows(k, "item", 0, n) for k, n in enumerate(sizes)])
        places = np.concatenate(
            [np.stack([np.full(n, k), np.arange(n)], axis=1) for k, n in enumerate(sizes)]
        )
        # As Python's numbers are: else a search would convert all of them at each call.
        items, order = items.astype(np.int64), np.argsort(items, kind="stable")
        _indices[store] = items[order], places[order]
    return _indices[store]


def _is_computed(store: Store, group: int, row: int) -> bool:
    return bool(store.rows(group, "status", row, row + 1)[0] != 0)


def _find(store: Store, item: int) -> tuple[int, int]:
    """The (group, row) of a computed item. Raises JobError if there is no such item, or it is not computed."""
    group, row = place_of(store, item)
    if not _is_computed(store, group, row):
        raise JobError(
            f"{store.address}: item {item} has not been computed; `ctd status` says what continues the job"
        )
    return group, row


def item_arrays(store: Store, item: int, part: str = "weights") -> dict[str, np.ndarray]:
    """A part of an item's results: name -> array.

    part: "results" for everything except the trained model; the name of one result; or a family of results `PART.NAME`,
    such as "weights" for the trained model, whose arrays get the names NAME.

    Raises JobError if the item does not exist or is not computed, or the job stores no such results.

    >>> "q" in item_arrays(Store.open("points.zarr"), 0, "results")
    True
    """
    group, row = _find(store, item)
    is_in = lambda name: (
        name == part
        or name.startswith(f"{part}.")
        or (part == "results" and not name.startswith(WEIGHTS))
    )
    names = [name for name in store.names(group) if is_in(name)]
    if not names:
        kernel = store.job.spec.kernel
        could = part == "weights" and any(n.startswith(WEIGHTS) for n in store.description.dims)
        hint = f"; it does where its params ask for them{_asking(store, part)}" if could else ""
        if part == "weights" and not could:
            hint = f"; all that it stores: {store.address}::{item}::results"
        raise JobError(f"{store.address}: kernel {kernel} stores no {part} in this job{hint}")
    read = rows_of(store, group, names, row, row + 1)
    return {name.removeprefix(f"{part}."): values[0] for name, values in read.items()}


def _asking(store: Store, part: str) -> str:
    """Return, for a message, the field that makes a kernel store a part of its results, such as `record: [weights]`."""
    kernel = known_kernel(store)
    fields = kernel.Params.model_json_schema()["properties"] if kernel else {}
    lists = [
        name for name, schema in fields.items() if part in schema.get("items", {}).get("enum", ())
    ]
    return f", {lists[0]}: [{part}]" if lists else f", see `ctd new {store.job.spec.kernel}`"


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder, which is deleted when this process ends."""
    return tempfile.TemporaryDirectory(prefix="ctd-")


def materialise(reference: ItemPart) -> str:
    """Write the referenced arrays to an HDF5 file, once per process, and return its path.

    In a notebook another store may lie there by now, whose item is another one: the file is that of the present store.
    """
    return _item_file(reference, _job_of(reference.store))


def _job_of(address: str) -> bytes | None:
    """The bytes of run/job.json, which tell one store from another at the same address, at one request."""
    return objects.read(connect.open_objects(address), keys.JOB)


@cache
def _item_file(reference: ItemPart, job: bytes | None) -> str:
    store = _open_cached(reference.store, job)
    arrays = item_arrays(store, reference.item, reference.part)
    digest = hashlib.sha256(repr((reference, job)).encode()).hexdigest()[:16]
    path = Path(_scratch().name) / f"{digest}-{reference.item}-{reference.part}.h5"
    try:
        # A copy, whose own name tells nothing, says what it is a copy of.
        name = f"{redact(store.address)}::{reference.item}"
        write_named(path, arrays, {**_about(store, reference.item), "address": name})
    except ValueError as error:
        # The disk of the temporary files may have room again: it is no fault of the job.
        if isinstance(error.__cause__, OSError):
            raise objects.failed(str(error), error.__cause__) from None
        raise JobError(str(error)) from None
    return str(path)


@lru_cache(4)
def _open_cached(address: str, job: bytes | None) -> Store:
    """Open a store once for many of its items."""
    del job  # another store at the same address has another one
    return Store.open(address)


def _about(store: Store, item: int) -> dict[str, Any]:
    """The attributes of an item's file: its parameters that are numbers or texts, and its origin."""
    plain = {k: v for k, v in item_params(store, item).items() if isinstance(v, str | int | float)}
    return {**plain, "store": store.address, "item": item, "kernel": store.job.spec.kernel}


def export(store: Store, item: int, path: str | Path, part: str = "weights") -> str:
    """Write one item's trained model, or its other results, to a file, locally or on an object store; a file there is replaced.

    The file of a network can be the `weights` of other jobs.

    >>> export(Store.open("points.zarr"), 0, "item.npz", "results")
    ''

    Args:
        store: the store.
        item: number of the item.
        path: file to write; its ending chooses the format.
        part: "weights" for the model, "results" for all else, the name of one result, or of a family of results `PART.NAME`.

    Returns:
        "", or a sentence if the ending is PyTorch's and the names are ctd's.

    Raises:
        JobError: there is no such item, it is not computed yet, stores no such part, or the file cannot be written.
    """
    try:
        check_ending(path)
        arrays, about = item_arrays(store, item, part), _about(store, item)
        local = local_path(str(path))
        if local is not None:
            return write_named(local, arrays, about)
        with tempfile.TemporaryDirectory() as scratch:
            scratch_file = Path(scratch) / f"item{Path(path).suffix}"
            warning = write_named(scratch_file, arrays, about)
            data = scratch_file.read_bytes()
    except ValueError as error:
        raise JobError(str(error)) from None
    with objects.writing(str(path)):
        objects.write(connect.open_objects(str(path)), "", data)
    return warning
