"""Results that share a storage object: a shard of many small ones stays a handful of objects.

    weights.wO, weights.bO ...    a family (what comes before the first dot) of one dtype lies side by side in
                                  `packed.weights` (item, entry), each result flattened
    eval_loss, rate_r2 ...        results of a few numbers an item lie in `numbers.float32` in the same way, where
                                  the shard would be more than MOST_OBJECTS otherwise

The group's attribute `packed` says what lies where. In `items` single numbers have columns of their own.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import zarr

MOST_OBJECTS = 10
"""Of a shard, its marker included: every object costs a file system or an object store some milliseconds,
and a lab's quota of files some of it."""

SMALL = 32
"""Numbers of an item's result that is packed for want of objects."""


RESERVED = ("packed.", "numbers.")
"""How the names of packs begin, and no others."""


class Place(NamedTuple):
    """Where a result lies in its pack."""

    pack: str
    at: int
    """Its first entry."""
    shape: tuple[int, ...]
    """Of one item."""

    @property
    def size(self) -> int:
        """Its entries."""
        return math.prod(self.shape)


def place(shapes: Mapping[str, Any]) -> dict[str, Place]:
    """The results that are packed -> where. shapes: result -> shape and dtype of one item."""
    family = lambda name: f"packed.{name.partition('.')[0]}" if "." in name else ""
    found = _side_by_side(shapes, family)
    own = {name: shape for name, shape in shapes.items() if name not in found}
    if len(own) + len(by_pack(found)) + len(("status", "marker")) > MOST_OBJECTS:
        small = {name: s for name, s in own.items() if math.prod(s.shape) <= SMALL}
        found |= _side_by_side(small, lambda name: f"numbers.{small[name].dtype}")
    return found


def _side_by_side(shapes: Mapping[str, Any], pack: Callable[[str], str]) -> dict[str, Place]:
    """Where those results lie that have a pack and share it with others. What is of another dtype than the
    first has a pack of its own, called by it."""
    packs: dict[str, dict[Any, list[str]]] = {}
    for name in sorted(shapes):
        if pack(name):
            packs.setdefault(pack(name), {}).setdefault(shapes[name].dtype, []).append(name)
    found = {}
    for stem, by_dtype in packs.items():
        several = [(dtype, names) for dtype, names in by_dtype.items() if len(names) > 1]
        for k, (dtype, names) in enumerate(several):
            at = 0
            for name in names:
                here = f"{stem}.{dtype}" if k else stem
                found[name] = Place(here, at, tuple(shapes[name].shape))
                at += found[name].size
    return found


def by_pack(places: Mapping[str, Place]) -> dict[str, list[str]]:
    """Pack -> its results, in their order in it."""
    found: dict[str, list[str]] = {}
    for name in sorted(places, key=lambda name: (places[name].at, name)):
        found.setdefault(places[name].pack, []).append(name)
    return found


def as_attribute(
    places: Mapping[str, Place], describe: Callable[[str], Mapping[str, Any]]
) -> dict[str, Any]:
    """The places as JSON, with what there is to say of every result."""
    entry = lambda name: {
        "at": places[name].at,
        "shape": list(places[name].shape),
        **describe(name),
    }
    return {p: {name: entry(name) for name in names} for p, names in by_pack(places).items()}


def places_of(attributes: Mapping[str, Any]) -> dict[str, Place]:
    """What `as_attribute` said in the attributes of a group."""
    return {
        name: Place(pack, about["at"], tuple(about["shape"]))
        for pack, members in attributes.get("packed", {}).items()
        for name, about in members.items()
    }


class Part:
    """A packed result as an array of its own. The rows that are asked for are read whole."""

    def __init__(self, array: "zarr.Array[Any]", where: Place) -> None:
        self._array, self._where = array, where
        self.shape = (array.shape[0], *where.shape)
        self.dtype = array.dtype
        self.chunks = (array.chunks[0], *where.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Of each axis an index, a slice, or the numbers that are chosen along it."""
        rows, *inner = key if isinstance(key, tuple) else (key,)
        where = self._where
        entries = slice(where.at, where.at + where.size)
        read = self._array.oindex if isinstance(rows, np.ndarray | list) else self._array
        values = np.asarray(read[rows, entries])
        values = values.reshape((*values.shape[:-1], *where.shape))
        axis = values.ndim - len(where.shape)
        for index in inner:
            values = values[(*[slice(None)] * axis, index)]
            axis += not isinstance(index, int | np.integer)
        return values

    @property
    def oindex(self) -> "Part":
        """As of a Zarr array: choices along the axes are independent here in any case."""
        return self


def beside(parts: list[np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
    """(item, entry): the values of a pack from those of its results, (item, ...) each."""
    flat = [np.asarray(part, dtype).reshape(len(part), -1) for part in parts]
    return np.concatenate(flat, axis=1)
