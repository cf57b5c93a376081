"""Smaller stores: results that share an array, and results rounded so that they compress.

Packs make a shard with many small results few objects:

    weights.wO, weights.bO ...    the results of a family (the name before the first dot) and dtype share
                                  `packed.weights` (item, entry), each flattened
    eval_loss, rate_r2 ...        results of at most SMALL numbers per item share `numbers.float32` likewise, if
                                  the shard would otherwise have more than MOST_OBJECTS objects

The group's attribute `packed` records the places. In `items`, single numbers have columns of their own.

`keep_bits` rounds results to fewer bits of mantissa (Klöwer et al. 2021, Nat Comput Sci 1:713):

    float32     sign | exponent (8) | b b b b b b b b b b 0 0 0 0 0 0 0 0 0 0 0 0 0         keep_bits = 10

The relative error is at most 2^-(bits + 1). Readers of the store need no special treatment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jobs.errors import JobError, nearest
from jobs.late import numcodecs, zarr

MOST_OBJECTS = 10
"""Most objects of a shard, with its marker, before small results are packed: each object costs some milliseconds
and counts against a lab's quota of files."""

SMALL = 32
"""Most numbers per item of a result that is packed to save objects."""


RESERVED = ("packed.", "numbers.")
"""Prefixes of the names of packs; no result may begin with them."""


class Place(NamedTuple):
    """The place of a result in its pack."""

    pack: str
    at: int
    """Index of the result's first entry."""
    shape: tuple[int, ...]
    """Shape of the result for one item."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def place(shapes: Mapping[str, Any]) -> dict[str, Place]:
    """Choose which results are packed: packed result -> its place; other results are absent.

    shapes: result -> shape and dtype of one item.

    >>> one = np.zeros((2, 3)), np.zeros(4)
    >>> places = place({"weights.wR": one[0], "weights.bR": one[1], "loss": np.zeros(())})
    >>> places["weights.bR"], places["weights.wR"].at
    (Place(pack='packed.weights', at=0, shape=(4,)), 4)
    """
    family = lambda name: f"packed.{name.partition('.')[0]}" if "." in name else ""
    places = _side_by_side(shapes, family)
    unpacked = {name: shape for name, shape in shapes.items() if name not in places}
    # A shard has two further objects, its status and its marker.
    if len(unpacked) + len(by_pack(places)) + len(("status", "marker")) > MOST_OBJECTS:
        small = {name: s for name, s in unpacked.items() if math.prod(s.shape) <= SMALL}
        places |= _side_by_side(small, lambda name: f"numbers.{small[name].dtype}")
    return places


def _side_by_side(shapes: Mapping[str, Any], pack: Callable[[str], str]) -> dict[str, Place]:
    """The places of all results whose pack has several results of one dtype.

    pack: result -> its pack, "" for none. Further dtypes of a pack get packs of their own, PACK.DTYPE.
    """
    packs: dict[str, dict[Any, list[str]]] = {}
    # By name, so that the places follow from the job alone: `ctd check` makes damaged metadata again, byte for byte.
    for name in sorted(shapes):
        if pack(name):
            packs.setdefault(pack(name), {}).setdefault(shapes[name].dtype, []).append(name)
    places = {}
    for stem, by_dtype in packs.items():
        # A pack of one result would save no object.
        several = [(dtype, names) for dtype, names in by_dtype.items() if len(names) > 1]
        for k, (dtype, names) in enumerate(several):
            at = 0
            for name in names:
                pack_name = f"{stem}.{dtype}" if k else stem
                places[name] = Place(pack_name, at, tuple(shapes[name].shape))
                at += places[name].size
    return places


def by_pack(places: Mapping[str, Place]) -> dict[str, list[str]]:
    """The names of each pack's results, in the order of their entries."""
    names_by_pack: dict[str, list[str]] = {}
    for name in sorted(places, key=lambda name: (places[name].at, name)):
        names_by_pack.setdefault(places[name].pack, []).append(name)
    return names_by_pack


def as_attribute(
    places: Mapping[str, Place], describe: Callable[[str], Mapping[str, object]]
) -> dict[str, Any]:
    """The places in the form of the group's attribute `packed`. describe: result -> further fields of its entry."""
    entry = lambda name: {
        "at": places[name].at,
        "shape": list(places[name].shape),
        **describe(name),
    }
    return {p: {name: entry(name) for name in names} for p, names in by_pack(places).items()}


def places_of(attributes: Mapping[str, Any]) -> dict[str, Place]:
    """The places that a group's attributes record, the inverse of `as_attribute`."""
    return {
        name: Place(pack, about["at"], tuple(about["shape"]))
        for pack, members in attributes.get("packed", {}).items()
        for name, about in members.items()
    }


def entries(pack: np.ndarray, place: Place) -> np.ndarray:
    """(row, ...) the values of one result in rows of its pack."""
    return pack[:, place.at : place.at + place.size].reshape(len(pack), *place.shape)


class Part:
    """A packed result that is indexed like an array of its own.

    Reading fetches the result's entries in the chosen rows, then applies the other indices.
    """

    def __init__(self, array: zarr.Array[Any], place: Place) -> None:
        self._array, self._place = array, place
        self.shape = (array.shape[0], *place.shape)
        self.dtype = array.dtype
        self.chunks = (array.chunks[0], *place.shape)

    def __getitem__(self, key: object) -> np.ndarray:
        """The values at `key`: for each axis an index, a slice, or an array of indices along it."""
        rows, *inner = key if isinstance(key, tuple) else (key,)
        place = self._place
        entries = slice(place.at, place.at + place.size)
        read = self._array.oindex if isinstance(rows, np.ndarray | list) else self._array
        values = np.asarray(read[rows, entries])
        values = values.reshape((*values.shape[:-1], *place.shape))
        # A single index removes its axis: the next index is then for the axis that has taken its position.
        axis = values.ndim - len(place.shape)
        for index in inner:
            values = values[(*[slice(None)] * axis, index)]
            axis += not isinstance(index, int | np.integer)
        return values

    @property
    def oindex(self) -> Part:
        """Orthogonal indexing like that of a Zarr array; here indices along different axes are always independent."""
        return self


def pack_values(parts: list[np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
    """Join the values of a pack's results, each (item, ...), to those of the pack, (item, entry)."""
    flat = [np.asarray(part, dtype).reshape(len(part), -1) for part in parts]
    return np.concatenate(flat, axis=1)


# --- rounding -------------------------------------------------------------------------------------


def keep_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Round real `values`, of any shape, to `bits` bits of mantissa, ties to even.

    Values that are not finite, or would round to infinity, stay as they are.

    >>> keep_bits(np.array([1.0, 1.1, np.inf], np.float32), 2).tolist()
    [1.0, 1.0, inf]
    """
    if bits >= np.finfo(values.dtype).nmant:
        return values
    rounded = numcodecs.BitRound(bits).encode(np.ascontiguousarray(values)).view(values.dtype)
    return np.where(np.isfinite(values) & np.isfinite(rounded), rounded, values)


def check_keep_bits(
    bits: Mapping[str, int], shapes: Sequence[Mapping[str, Any]], location: str
) -> None:
    """Raise JobError if `keep_bits` names a result that no group has, or one that is not real.

    Args:
        bits: result -> bits of its mantissa.
        shapes: for each group, result -> shape and dtype of one item.
    """
    dtypes = {name: shape.dtype for group_shapes in shapes for name, shape in group_shapes.items()}
    for name in bits:
        if name not in dtypes:
            raise JobError(f"{location}: keep_bits: no result {name!r} here{nearest(name, dtypes)}")
        if dtypes[name].kind != "f":
            raise JobError(
                f"{location}: keep_bits: {name} holds {dtypes[name]}, but only reals can be rounded; leave it out"
            )
