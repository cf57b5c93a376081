"""Items of a store as HDF5 files: to export a trained network, or to use it as the input of another job."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from obstore.exceptions import BaseError

from ctd.data import write_hdf5
from jobs.errors import JobError
from jobs.storage import objects
from jobs.storage.addresses import join, local_path
from jobs.store.store import Store

WEIGHTS = "weights."
"""Prefix of the results that together are an item's trained model."""


class ItemPart(NamedTuple):
    """A reference to one part of an item: its model (`weights`) or its other results (`results`)."""

    store: str
    item: int
    part: str


def parse_item(text: str, base: str) -> ItemPart | None:
    """Parse `STORE::ITEM[::PART]`; a relative STORE starts from `base`. Returns None if `text` names a file."""
    pieces = text.split("::")
    if len(pieces) not in (2, 3) or not pieces[1].isdigit():
        return None
    return ItemPart(
        join(base, pieces[0]), int(pieces[1]), pieces[2] if len(pieces) == 3 else "weights"
    )


def item_arrays(store: Store, item: int, part: str = "weights") -> dict[str, np.ndarray]:
    """Return name -> array of an item's trained model (names without `weights.`), or of its other results.

    part: "weights" for the model; anything else for the other results.

    Raises:
        JobError: the item does not exist or is not computed, or the job stores no such results.
    """
    for group, n in enumerate(store.job.plan.group_sizes):
        rows = np.flatnonzero(store.rows(group, "item", 0, n) == item)
        if len(rows):
            break
    else:
        raise JobError(
            f"{store.address}: has no item {item}; it has {sum(store.job.plan.group_sizes)}"
        )
    row = int(rows[0])
    if store.rows(group, "status", row, row + 1)[0] == 0:
        raise JobError(f"{store.address}: item {item} has not been computed")
    names = [n for n in store.names(group) if n.startswith(WEIGHTS) == (part == "weights")]
    if not names:
        kernel = store.job.spec.kernel
        could = (
            any(name.startswith(WEIGHTS) for name in store.description.dims) and part == "weights"
        )
        hint = f"; it does where its params ask for them, see `ctd new {kernel}`" if could else ""
        raise JobError(f"{store.address}: kernel {kernel} stores no {part} in this job{hint}")
    return {n.removeprefix(WEIGHTS): store.rows(group, n, row, row + 1)[0] for n in names}


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder that is deleted when this process ends."""
    return tempfile.TemporaryDirectory(prefix="ctd-")


@cache
def materialise(reference: ItemPart) -> str:
    """Write the referenced arrays to an HDF5 file, once per process, and return its path."""
    arrays = item_arrays(Store.open(reference.store), reference.item, reference.part)
    name = f"{abs(hash(reference)):x}-{reference.item}-{reference.part}.h5"
    path = Path(_scratch().name) / name
    write_hdf5(path, arrays)
    return str(path)


def export(store: Store, item: int, path: str | Path, part: str = "weights") -> None:
    """Write one item's trained model, or its other results, to an HDF5 file, locally or on an object store.

    A network's file has the layout that the kernels read.

    Raises:
        JobError: `item_arrays` raises it, `path` does not end in .h5 or .hdf5, or it cannot be written.
    """
    if Path(path).suffix not in (".h5", ".hdf5"):
        raise JobError(f"{path}: is written as HDF5; give it the ending .h5")
    arrays = item_arrays(store, item, part)
    about: dict[str, Any] = {"store": store.address, "item": item, "kernel": store.job.spec.kernel}
    local = local_path(str(path))
    try:
        if local is not None:
            write_hdf5(local, arrays, about)
            return
        with tempfile.TemporaryDirectory() as scratch:
            write_hdf5(Path(scratch) / "item.h5", arrays, about)
            data = (Path(scratch) / "item.h5").read_bytes()
        objects.write(objects.open_objects(str(path)), "", data)
    except ValueError as error:
        raise JobError(str(error)) from None
    except BaseError as error:
        raise JobError(f"{path}: cannot be written: {objects.reason(error)}") from None
